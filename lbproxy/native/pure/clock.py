"""The clock of `lbproxy.native.clock` in pure Python, and the count of the reactor's turns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.logger import Logger

_log = Logger("lbproxy.native.clock")


class Clock:
    """Tells the time, in seconds, by a function such as `time.monotonic`."""

    __slots__ = ("now",)

    def __init__(self, now: Callable[[], float]) -> None:
        self.now = now


class Turns:
    """Counts how often the reactor has asked the kernel for events, and knows when it has served them.

    What an event announces was there before the turn in which it is served.  Zero where the reactor does not count.
    """

    __slots__ = ("current", "ending", "serving")

    def __init__(self) -> None:
        self.current = 0
        self.serving = False
        """Whether the reactor is at it: what is asked for now can wait for the end of the turn."""
        self.ending: list[Any] = []
        """Whose ``turn_ended()`` is called then; only while events are served, else see `at_end`."""

    def begin(self) -> None:
        """The reactor has events and is about to serve them."""
        self.current += 1
        self.serving = True

    def finish(self) -> None:
        """They are served."""
        self.serving = False
        ending, self.ending = self.ending, []
        for item in ending:
            try:
                item.turn_ended()
            except Exception:
                _log.failure("unhandled error at the end of a turn")

    def at_end(self, item: Any) -> None:
        """Have ``item.turn_ended()`` called when all events of this turn are served; at once outside of a turn."""
        if self.serving:
            self.ending.append(item)
        else:
            item.turn_ended()


turns = Turns()
"""Those of this process."""
