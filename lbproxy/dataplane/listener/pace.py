"""Whether a client gives or takes bytes fast enough to be waited for.

A connection that needs one asks its `Pace` to begin when it waits for the client and to hold when the
client is not what it waits for (the target is slow, say).  The pace keeps time by the worker's deadlines and beside the
connection's own, so that those who are served in one go pay nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lbproxy.dataplane.deadlines import NEVER
from lbproxy.native.protocol import Expiring

_SLACK_SECONDS = 0.05
"""A wait as long as the grace but for this counts as such: deadlines may be a trifle early."""


class Pace(Expiring):
    """Judges one direction of one connection each time it has been waited for ``grace`` seconds altogether.

    ``progress`` gives the bytes so far, from any start.  ``too_slow`` is called when they grew by less than the rate
    asks for; nothing is judged after that until `begin` is called again.
    """

    __slots__ = (
        "_deadlines",
        "_grace",
        "_moved",
        "_position",
        "_progress",
        "_rate",
        "_since",
        "_too_slow",
        "_waited",
    )

    def __init__(self, deadlines: Any, progress: Callable[[], int], too_slow: Callable[[], None]) -> None:
        self.deadline = NEVER
        self.armed = 0
        self._deadlines = deadlines
        self._progress = progress
        self._too_slow = too_slow
        self._rate = 0.0
        self._grace = NEVER
        self._since = NEVER
        self._position = 0
        self._waited = 0.0
        self._moved = 0

    def begin(self, rate: float, grace: float) -> None:
        """Wait for the client from now on, at ``rate`` bytes a second at least."""
        if self._since != NEVER:
            return
        self._rate = rate
        self._grace = grace
        self._since = now = self._deadlines.now()
        self._position = self._progress()
        self._deadlines.set(self, now + max(grace - self._waited, 0.0))

    def hold(self) -> None:
        """The client is not what is waited for at present."""
        if self._since == NEVER:
            return
        self._waited += self._deadlines.now() - self._since
        self._moved += self._progress() - self._position
        self._since = NEVER
        self._deadlines.clear(self)

    def stop(self) -> None:
        """What was waited for is there, or will never be."""
        self._since = NEVER
        self._waited = 0.0
        self._moved = 0
        self._deadlines.clear(self)

    def expired(self, now: float) -> None:
        """The grace is over, unless it was extended by holding."""
        if self._since == NEVER:
            return
        self.hold()
        if self._waited >= self._grace - _SLACK_SECONDS:
            slow = self._moved < self._rate * self._waited
            self._waited = 0.0
            self._moved = 0
            if slow:
                self._too_slow()
                return
        self.begin(self._rate, self._grace)
