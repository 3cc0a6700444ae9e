"""The clock of `lbproxy.native.clock` in pure Python, and the count of the reactor's turns."""

from __future__ import annotations

from collections.abc import Callable


class Clock:
    """Tells the time, in seconds, by a function such as `time.monotonic`."""

    __slots__ = ("now",)

    def __init__(self, now: Callable[[], float]) -> None:
        self.now = now


class Turns:
    """Counts how often the reactor has asked the kernel for events.

    What an event announces was there before the turn in which it is served.  Zero where the reactor does not count.
    """

    __slots__ = ("current",)

    def __init__(self) -> None:
        self.current = 0


turns = Turns()
"""Those of this process."""
