"""Rate limits of a listener: whether a request is over one, and when it would not be.

A limit's bucket is kept as one number, the time at which it will be full again (the generic cell rate algorithm), in a
table of fixed size that all workers share.  A listener without limits has none of this.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from lbproxy.dataplane.router.limits import bucket_of
from lbproxy.dataplane.router.request import RoutableRequest
from lbproxy.model.listener import Listener
from lbproxy.model.rate_limit import RateLimit
from lbproxy.telemetry.counters import ListenerCounters

_SECOND = 1_000_000_000


class Buckets(Protocol):
    """The table of buckets (`lbproxy.ipc.tables.BucketTable`)."""

    def take(self, key: bytes, now: int, interval: int, tolerance: int) -> int:
        """Take a token; give 0, or the nanoseconds to wait until there is one."""


class Over:
    """A request over a limit."""

    __slots__ = ("dry_run", "name", "retry_after_seconds")

    def __init__(self, name: str, dry_run: bool, retry_after_seconds: int) -> None:
        self.name = name
        self.dry_run = dry_run
        self.retry_after_seconds = retry_after_seconds


class RateLimits:
    """The limits of one listener, as one snapshot has them."""

    def __init__(
        self, listener: Listener, counters: ListenerCounters, buckets: Buckets, monotonic_ns: Callable[[], int]
    ) -> None:
        """``monotonic_ns`` must tell the same time in all processes, as `time.monotonic_ns` does."""
        self._limits = tuple(_Limit(listener.name, limit) for limit in listener.rate_limits)
        self._counters = counters
        self._buckets = buckets
        self._now = monotonic_ns

    def check(self, request: RoutableRequest, rule: str, host: str) -> Over | None:
        """Take a token for each limit that applies, in the order of the configuration.

        Gives the first limit that has none left and counts it; after one that is enforced no other is asked.
        """
        over: Over | None = None
        for limit in self._limits:
            key = bucket_of(limit.limit, request, rule, host)
            if key is None:
                continue
            wait = self._buckets.take(limit.prefix + key, self._now(), limit.interval, limit.tolerance)
            if wait:
                self._counters.rate_limited[limit.counted_as] += 1
                dry_run = limit.limit.dry_run
                if over is None or not dry_run:
                    over = Over(limit.limit.name, dry_run, -(-wait // _SECOND))
                if not dry_run:
                    break
        return over


class _Limit:
    """A limit with what can be made of it ahead."""

    __slots__ = ("counted_as", "interval", "limit", "prefix", "tolerance")

    def __init__(self, listener: str, limit: RateLimit) -> None:
        self.limit = limit
        self.counted_as = f"{limit.name} {'dry-run' if limit.dry_run else 'enforced'}"
        self.interval = max(1, round(limit.seconds * _SECOND / limit.requests))
        self.tolerance = self.interval * (limit.burst - 1)
        # with its interval: at another rate a bucket starts anew
        self.prefix = f"{listener}\0{limit.name}\0{limit.key.value}\0{self.interval}\0".encode()
