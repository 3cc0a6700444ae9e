"""The clock of `lbproxy.native.clock` in pure Python."""

from __future__ import annotations

from collections.abc import Callable


class Clock:
    """Tells the time, in seconds, by a function such as `time.monotonic`."""

    __slots__ = ("now",)

    def __init__(self, now: Callable[[], float]) -> None:
        self.now = now
