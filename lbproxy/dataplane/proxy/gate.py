"""At most so many requests at a time for a group, and for each target; those that find all targets full wait.

The counts are the shared ones of all workers, so the limits hold whoever sends; two workers that look at the same
instant may exceed them by one each.  Who waits does so at its own worker.  What another worker finishes is seen by
looking again every few milliseconds while somebody waits.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from itertools import count
from typing import TYPE_CHECKING, Any

from lbproxy.dataplane.proxy.faults import Fault

if TYPE_CHECKING:
    from lbproxy.dataplane.proxy.exchange import Exchange
    from lbproxy.dataplane.proxy.runtime import GroupRuntime
    from lbproxy.dataplane.proxy.tally import Tally
    from lbproxy.model.target import RegisteredTarget

LOOK_SECONDS = 0.005
"""How often to look for room that other workers have made."""


class _Waiting:
    """A request in the queue."""

    __slots__ = ("exchange", "number", "priority", "until")

    def __init__(self, exchange: Exchange | None, priority: int, number: int, until: float) -> None:
        self.exchange = exchange
        """None once it has left."""
        self.priority = priority
        self.number = number
        self.until = until

    def __lt__(self, other: _Waiting) -> bool:
        """Higher priority first, then who came first."""
        return (-self.priority, self.number) < (-other.priority, other.number)


class Gate:
    """One worker's way into one target group with ``max-concurrent-requests`` or a circuit breaker.

    It outlives snapshots; ``runtime`` is the group as the latest one has it.
    """

    def __init__(self, call_later: Callable[..., Any], seconds: Callable[[], float], waiting: Tally) -> None:
        self.runtime: GroupRuntime | None = None
        self.waiting = waiting
        """How many wait."""
        self._call_later = call_later
        self._seconds = seconds
        self._numbers = count()
        self._queue: list[_Waiting] = []
        self._by_arrival: deque[_Waiting] = deque()
        self._entries: dict[Exchange, _Waiting] = {}
        self._call: Any = None

    def use(self, runtime: GroupRuntime) -> None:
        """Go by this from now on: other targets, or other limits."""
        self.runtime = runtime
        self.freed()

    def has_room(self, target: RegisteredTarget) -> bool:
        """Tell whether the target may be given one more."""
        assert self.runtime is not None
        most = self.runtime.group.max_concurrent_requests
        return not most or self.runtime.balancer.in_flight(target.cell) < most

    def is_open(self) -> bool:
        """Tell whether the group's circuit is open: it has as many requests in flight as it may."""
        runtime = self.runtime
        assert runtime is not None
        most = runtime.group.circuit_breaker_max_requests
        return bool(most) and sum(map(runtime.balancer.in_flight, runtime.pools)) >= most

    def admit(self, exchange: Exchange, chosen: RegisteredTarget, priority: int) -> RegisteredTarget | None:
        """The target for a request: ``chosen``, or another one that has room.

        None when it has to wait (`Exchange.admitted` is called later), or was refused (it has failed).
        """
        if self.is_open():
            exchange.fail(Fault.CIRCUIT_OPEN)
            return None
        if not self.waiting.own:
            target = self._with_room(exchange, chosen)
            if target is not None:
                return target
        assert self.runtime is not None
        group = self.runtime.group
        if self.waiting.total() >= group.queue_length and not self._make_place(priority):
            exchange.fail(Fault.QUEUE_FULL)
            return None
        if len(self._queue) > 2 * group.queue_length + 64:
            self._sweep()
        entry = _Waiting(exchange, priority, next(self._numbers), self._seconds() + group.queue_timeout_seconds)
        heapq.heappush(self._queue, entry)
        self._by_arrival.append(entry)
        self._entries[exchange] = entry
        self.waiting.add(1)
        self._look_later(LOOK_SECONDS)
        return None

    def leave(self, exchange: Exchange) -> None:
        """This one waits no longer."""
        entry = self._entries.pop(exchange, None)
        if entry is not None:
            entry.exchange = None
            self.waiting.add(-1)

    def freed(self) -> None:
        """There may be room now."""
        if self.waiting.own:
            if self._call is not None:
                self._call.cancel()
                self._call = None
            self._look_later(0.0)

    def _with_room(self, exchange: Exchange, chosen: RegisteredTarget) -> RegisteredTarget | None:
        if self.has_room(chosen):
            return chosen
        assert self.runtime is not None
        for target in self.runtime.balancer.others(chosen, exchange.head, exchange.client.host):
            if self.has_room(target):
                return target
        return None

    def _make_place(self, priority: int) -> bool:
        """End the wait of the last of those with the lowest priority, if that is lower than this one."""
        lowest = max((entry for entry in self._queue if entry.exchange is not None), default=None)
        if lowest is None or lowest.priority >= priority:
            return False
        exchange = lowest.exchange
        assert exchange is not None
        exchange.fail(Fault.QUEUE_FULL)
        return True

    def _sweep(self) -> None:
        """Forget those that have left."""
        self._queue = [entry for entry in self._queue if entry.exchange is not None]
        heapq.heapify(self._queue)
        self._by_arrival = deque(entry for entry in self._by_arrival if entry.exchange is not None)

    def _look_later(self, seconds: float) -> None:
        if self._call is None:
            self._call = self._call_later(seconds, self._look)

    def _look(self) -> None:
        self._call = None
        now = self._seconds()
        while self._by_arrival and (self._by_arrival[0].exchange is None or self._by_arrival[0].until <= now):
            exchange = self._by_arrival.popleft().exchange
            if exchange is not None:
                exchange.fail(Fault.QUEUE_TIMEOUT)
        while self._queue:
            exchange = self._queue[0].exchange
            if exchange is not None and not self._let_in(exchange):
                break
            heapq.heappop(self._queue)
        if self.waiting.own:
            self._look_later(LOOK_SECONDS)

    def _let_in(self, exchange: Exchange) -> bool:
        """Let the first one in, if some target has room; tell whether it has left the queue."""
        runtime = self.runtime
        assert runtime is not None
        if self.is_open():
            return False
        chosen = runtime.balancer.pick(exchange.head, exchange.client.host)
        if chosen is None:
            self.leave(exchange)
            exchange.fail(Fault.NO_TARGETS)
            return True
        target = self._with_room(exchange, chosen)
        if target is None:
            return False
        self.leave(exchange)
        exchange.admitted(runtime, target)
        return True
