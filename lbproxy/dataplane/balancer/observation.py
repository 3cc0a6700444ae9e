"""What a worker has seen of a target lately: how fast it answers, and how often it failed in a row.

Kept for as long as the worker knows the target, over all changes of its group.  Each worker sees only what
it serves itself, so two workers may rate a target differently; each is right about its own traffic.
"""

from __future__ import annotations

from collections.abc import Callable
from math import exp

DECAY_SECONDS = 10.0
"""After this an observation counts for 1/e: long enough to stay away from a slow target, short enough to find out
within half a minute that it has recovered."""

KEPT = 0.9
"""What a faster answer leaves of the present estimate at most, however soon it comes: one that was slow by chance is
made up for by some ten that were not, not by ten seconds."""

FAILURE_SECONDS = 1.0
"""A failed request counts as one that took at least this long, or a target that fails fast would look attractive."""


class Observation:
    """One target's response time as a peak-sensitive moving average.

    A slower answer than expected counts in full at once, a faster one only little by little (the "peak EWMA" of
    Twitter's Finagle).  What is not renewed fades, so that a target that was slow is asked again.
    """

    __slots__ = ("_at", "_failures", "_seconds", "alarm", "known", "limit")

    def __init__(self) -> None:
        self.limit = 0
        """So many failures in a row are told to ``alarm``; 0 for never."""
        self.alarm: Callable[[int], None] = lambda failures: None
        self._failures = 0
        self._seconds = 0.0
        self._at = 0.0
        self.known = False
        """Whether anything has been seen at all."""

    def responded(self, status: int, seconds: float, now: float) -> None:
        """An answer's first byte has come this long after the request was sent."""
        if status >= 500:
            self.failed(seconds, now)
        else:
            self._failures = 0
            self._observe(seconds, now)

    def failed(self, seconds: float, now: float) -> None:
        """The target could not be reached, broke off, did not answer in time, or answered with 500 or more."""
        self._observe(max(seconds, FAILURE_SECONDS), now)
        self._failures += 1
        if self._failures == self.limit:
            self._failures = 0
            self.alarm(self.limit)

    def response_seconds(self, now: float) -> float:
        """The expected time to the first byte of an answer; 0 when nothing is known."""
        return self._seconds * exp(min(self._at - now, 0.0) / DECAY_SECONDS)

    def _observe(self, seconds: float, now: float) -> None:
        faded = exp(min(self._at - now, 0.0) / DECAY_SECONDS)
        if not self.known or seconds > self._seconds * faded:
            self._seconds = seconds
        else:
            kept = min(faded, KEPT)
            self._seconds = seconds * (1.0 - kept) + self._seconds * kept
        self._at = now
        self.known = True
