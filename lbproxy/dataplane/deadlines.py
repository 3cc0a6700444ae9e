"""Deadlines of connections, cheap enough to move with every request.

A timer for each connection and phase would cost several microseconds a request.  Here a
connection carries its deadline as a plain number; moving it later is one attribute store.
`Deadlines` keeps each in a bucket of a coarse wheel and looks at the number only when the
bucket's time comes: if the deadline has moved on, the connection moves to a later bucket.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from twisted.logger import Logger

from lbproxy.native.clock import Clock
from lbproxy.native.protocol import Expiring

_log = Logger()

NEVER = math.inf
"""A deadline that does not come."""

TICK_SECONDS = 0.1
"""Width of a bucket, and so how late a deadline may be noticed."""

_HORIZON = 50
"""How far ahead an item is put at most: each is looked at every five seconds."""

# The same as C numbers where this is compiled.
_NEVER = NEVER
_TICK = TICK_SECONDS

_SLACK_SECONDS = 0.001
"""A bucket's time has come when the clock is this close to it: tenths of a second have no exact numbers."""


class Deadlines:
    """Calls `Expiring.expired` when deadlines come, at most a tenth of a second late.

    ``seconds`` is the clock by which deadlines are meant: `time.monotonic`, or a test's.
    ``call_later`` is a reactor's.
    """

    def __init__(self, call_later: Callable[..., Any], seconds: Callable[[], float]) -> None:
        self.now = seconds
        self.clock = Clock(seconds)
        """The same, for those who ask often."""
        self.call_later = call_later
        """For a time that has to be exact."""
        self._buckets: dict[int, dict[Expiring, None]] = {}
        self._bucket: dict[Expiring, None] | None = None
        """The one that was used last."""
        self._bucket_tick = 0
        self._call: Any = None
        self._call_tick: float = NEVER
        """When the next look is due; minus infinity during a look, which sees to it at its end."""

    def set(self, item: Expiring, at: float) -> None:
        """Give ``item`` this deadline, sooner or later than the one it has."""
        item.deadline = at
        if at == _NEVER:
            return
        tick = int(at / _TICK) + 1
        armed = item.armed
        if armed == 0 or tick < armed:
            latest = int(self.clock.now() / _TICK) + _HORIZON
            self._arm(item, tick if tick < latest else latest)

    def clear(self, item: Expiring) -> None:
        """Take the deadline away, and let go of ``item``.

        What a busy listener has closed in five seconds would else be there for the garbage collector to look through.
        """
        item.deadline = NEVER
        if item.armed:
            self._disarm(item)

    def _disarm(self, item: Expiring) -> None:
        armed = item.armed
        bucket = self._bucket if armed == self._bucket_tick else self._buckets.get(armed)
        if bucket is not None:
            bucket.pop(item, None)
        item.armed = 0

    def _arm(self, item: Expiring, tick: int) -> None:
        if item.armed:
            self._disarm(item)
        item.armed = tick
        bucket = self._bucket if tick == self._bucket_tick else self._buckets.get(tick)
        if bucket is None:
            bucket = self._buckets[tick] = {}
            if tick < self._call_tick:
                self._schedule(tick)
        bucket[item] = None
        self._bucket = bucket  # nearly all come into the same one
        self._bucket_tick = tick

    def _schedule(self, tick: int) -> None:
        call = self._call
        if call is not None:
            call.cancel()
        self._call_tick = tick
        self._call = self.call_later(max(0.0, tick * TICK_SECONDS - self.now()), self._run)

    def _run(self) -> None:
        self._call = None
        self._call_tick = -NEVER
        now = self.now()
        present = int((now + _SLACK_SECONDS) / TICK_SECONDS)
        for tick in sorted(t for t in self._buckets if t <= present):
            bucket = self._buckets.pop(tick)
            self._bucket_tick = 0
            for item in bucket:
                if item.armed == tick:
                    item.armed = 0
                    self._look_at(item, now, present)
        self._call_tick = NEVER
        if self._buckets:
            self._schedule(min(self._buckets))

    def _look_at(self, item: Expiring, now: float, present: int) -> None:
        if item.deadline <= now:
            item.deadline = NEVER
            try:
                item.expired(now)
            except Exception:
                _log.failure("an expired deadline could not be handled")
        elif item.deadline != NEVER:
            self._arm(item, min(max(int(item.deadline / TICK_SECONDS), present) + 1, present + _HORIZON))

    def stop(self) -> None:
        """Forget everything."""
        call = self._call
        if call is not None:
            call.cancel()
            self._call = None
        self._call_tick = NEVER
        self._bucket_tick = 0
        self._buckets.clear()
