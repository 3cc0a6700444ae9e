"""A clock of which tests have the hands: like `twisted.internet.task.Clock`, for a hundred thousand calls a second.

Twisted's sorts all pending calls at each change, which is most of the time of a simulation.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any

from twisted.internet.error import AlreadyCalled, AlreadyCancelled
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from zope.interface import implementer


@implementer(IDelayedCall)
class VirtualCall:
    """A call that is to come."""

    __slots__ = ("_arguments", "_call", "_cancelled", "_clock", "_keywords", "_number", "time")

    def __init__(
        self,
        clock: VirtualClock,
        time: float,
        number: int,
        call: Callable[..., object],
        arguments: tuple[Any, ...],
        keywords: dict[str, Any],
    ) -> None:
        self._clock = clock
        self._call: Callable[..., object] | None = call
        self._arguments = arguments
        self._keywords = keywords
        self._cancelled = False
        self._number = number
        self.time = time

    def getTime(self) -> float:
        return self.time

    def active(self) -> bool:
        return self._call is not None

    def cancel(self) -> None:
        self._check()
        self._call = None
        self._cancelled = True
        self._arguments = ()
        self._keywords = {}

    def reset(self, secondsFromNow: float) -> None:
        self._check()
        self._clock.put(self, self._clock.seconds() + secondsFromNow)

    def delay(self, secondsLater: float) -> None:
        self._check()
        self._clock.put(self, self.time + secondsLater)

    def is_due(self, number: int) -> bool:
        """Tell whether this entry of the heap is the call's latest."""
        return number == self._number and self._call is not None

    def put(self, number: int, time: float) -> None:
        """Note where in the heap it is now."""
        self._number = number
        self.time = time

    def run(self) -> None:
        call, self._call = self._call, None
        assert call is not None
        call(*self._arguments, **self._keywords)

    def __repr__(self) -> str:
        return f"<VirtualCall at {self.time:.4f} of {self._call!r}>"

    def _check(self) -> None:
        if self._cancelled:
            raise AlreadyCancelled
        if self._call is None:
            raise AlreadyCalled


@implementer(IReactorTime)
class VirtualClock:
    """Time passes when `run_until` says so; calls come in the order of their times, then in that of their making."""

    def __init__(self, now: float = 0.0) -> None:
        self._now = now
        self._count = 0
        self._heap: list[tuple[float, int, VirtualCall]] = []

    def seconds(self) -> float:
        return self._now

    def callLater(self, delay: float, callable: Callable[..., object], *args: Any, **kw: Any) -> VirtualCall:
        time = self._now + delay
        self._count = number = self._count + 1
        call = VirtualCall(self, time, number, callable, args, kw)
        heappush(self._heap, (time, number, call))
        return call

    def getDelayedCalls(self) -> list[IDelayedCall]:
        return [call for _, number, call in self._heap if call.is_due(number)]

    def put(self, call: VirtualCall, time: float) -> None:
        """Have a call come at this time, and not at one of before."""
        self._count += 1
        call.put(self._count, time)
        heappush(self._heap, (time, self._count, call))

    def run_until(self, time: float) -> None:
        """Let all calls up to this time come, also those that are made meanwhile."""
        heap = self._heap
        while heap and heap[0][0] <= time:
            at, number, call = heappop(heap)
            if call.is_due(number):
                if at > self._now:
                    self._now = at
                call.run()
        self._now = max(self._now, time)
