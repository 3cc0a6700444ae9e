"""Follows host names: asks again after an answer's time to live, and keeps the last good answer when asking fails."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from lbproxy.controlplane.discovery.base import Context, Lookup, LookupFailed, Sink
from lbproxy.model.discovery import SrvSource
from lbproxy.model.target import Target

_log = Logger()

TTL_BOUNDS_SECONDS = (1.0, 3600.0)
"""An answer is asked for again after its time to live, but not more often or less often than this."""

FIRST_RETRY_SECONDS = 1.0
LONGEST_RETRY_SECONDS = 30.0
JITTER = 0.1
"""Part of a wait after a failure by which it is drawn longer, so that many names do not ask all at once."""


class Asking:
    """Asks one question again and again: after the answer's TTL, or sooner, then ever later, while asking fails."""

    def __init__(
        self,
        clock: IReactorTime,
        ask: Callable[[], Deferred[float]],
        failed: Callable[[str], None],
        random_source: random.Random | None = None,
    ) -> None:
        """``ask`` gives the seconds for which its answer is good, or fails with `LookupFailed`."""
        self._clock = clock
        self._ask = ask
        self._failed = failed
        self._random = random_source or random.Random()
        self._retry = FIRST_RETRY_SECONDS
        self._timer: IDelayedCall | None = None
        self._question: Deferred[None] | None = None

    def start(self) -> None:
        self._question = Deferred.fromCoroutine(self._go())

    def stop(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        if self._question is not None:
            self._question.cancel()

    async def _go(self) -> None:
        try:
            ttl = await self._ask()
        except CancelledError:
            return
        except Exception as error:
            if not isinstance(error, LookupFailed):
                _log.failure("asking the DNS failed")
            self._failed(str(error))
            wait = self._retry * (1 + JITTER * self._random.random())
            self._retry = min(2 * self._retry, LONGEST_RETRY_SECONDS)
        else:
            least, most = TTL_BOUNDS_SECONDS
            wait = min(max(ttl, least), most)
            self._retry = FIRST_RETRY_SECONDS
        self._timer = self._clock.callLater(wait, self.start)


class Name:
    """One name, for all who follow it."""

    def __init__(self, name: str, clock: IReactorTime, lookup: Lookup, known: Sequence[str]) -> None:
        self.name = name
        self.addresses = tuple(known)
        """The last good answer."""
        self.is_settled = False
        """Whether there was an answer, good or bad."""
        self.problem = ""
        """Why the latest question failed; empty when it did not."""
        self.followers: list[Callable[[], None]] = []
        self._lookup = lookup
        self.asking = Asking(clock, lambda: Deferred.fromCoroutine(self._ask()), self._failed)

    async def _ask(self) -> float:
        addresses, ttl = await self._lookup.addresses(self.name)
        self._tell(addresses, "")
        return ttl

    def _failed(self, problem: str) -> None:
        self._tell(self.addresses, problem)

    def _tell(self, addresses: tuple[str, ...], problem: str) -> None:
        is_news = not self.is_settled or addresses != self.addresses or problem != self.problem
        self.is_settled, self.addresses, self.problem = True, addresses, problem
        if is_news:
            for follower in tuple(self.followers):
                follower()


class Names:
    """All names that somebody follows, each asked for once."""

    def __init__(self, clock: IReactorTime, lookup: Lookup, known: Mapping[str, Sequence[str]]) -> None:
        """``known`` are addresses from an earlier run, for names that cannot be looked up at first."""
        self._clock = clock
        self._lookup = lookup
        self._known = dict(known)
        self._names: dict[str, Name] = {}

    def follow(self, name: str, follower: Callable[[], None]) -> Name:
        """Follow a name; ``follower`` is called when something about it is new, until `leave`."""
        followed = self._names.get(name)
        if followed is None:
            known = self._known.pop(name, ())
            followed = self._names[name] = Name(name, self._clock, self._lookup, known)
            self._clock.callLater(0, self._begin, followed)
        followed.followers.append(follower)
        return followed

    def leave(self, name: str, follower: Callable[[], None]) -> None:
        """Follow a name no more; what nobody follows is not asked for any more."""
        followed = self._names[name]
        followed.followers.remove(follower)
        if not followed.followers:
            followed.asking.stop()
            del self._names[name]

    def _begin(self, name: Name) -> None:
        if name.followers:
            name.asking.start()


class NamedTargets:
    """The targets that the configuration gives a name; the names are followed by who takes them."""

    def __init__(self, settings: Any, context: Context, sink: Sink, group: str) -> None:
        self._targets: tuple[Target, ...] = settings.targets
        self._sink = sink

    def start(self) -> None:
        self._sink.found(self._targets)

    def stop(self) -> None:
        """Nothing to do."""


class SrvTargets:
    """Follows the SRV records of a name."""

    def __init__(self, settings: SrvSource, context: Context, sink: Sink, group: str) -> None:
        self._name = settings.name
        self._lookup = context.lookup
        self._sink = sink
        self._asking = Asking(context.reactor, lambda: Deferred.fromCoroutine(self._ask()), sink.failed)

    async def _ask(self) -> float:
        targets, ttl = await self._lookup.services(self._name)
        self._sink.found(targets)
        return ttl

    def start(self) -> None:
        self._asking.start()

    def stop(self) -> None:
        self._asking.stop()
