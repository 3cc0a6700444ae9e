"""Histograms of seconds with fixed bounds, cheap to fill and simple to merge.

All histograms share one set of bounds, so that those of several workers (and of
a worker's former lives) add up bucket by bucket.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from typing import Any

BOUNDS: tuple[float, ...] = (
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
)  # fmt: skip
"""Upper bounds of the buckets in seconds, inclusive; one more bucket takes what is longer."""

_BOUNDS = array("d", BOUNDS)
_LAST = len(BOUNDS)


class Histogram:
    """Counts of durations by bucket, with their sum."""

    __slots__ = ("_counts", "sum")

    def __init__(self) -> None:
        self._counts = array("q", bytes(8 * (_LAST + 1)))
        self.sum = 0.0
        """Seconds altogether."""

    @property
    def counts(self) -> list[int]:
        """How many fell into each bucket; the last is for those above every bound."""
        return list(self._counts)

    @property
    def count(self) -> int:
        """How many durations were observed."""
        return sum(self._counts)

    def observe(self, seconds: float) -> None:
        """Count one duration."""
        index = 0
        while index < _LAST and seconds > _BOUNDS[index]:
            index += 1
        self._counts[index] += 1
        self.sum += seconds

    def quantile(self, q: float) -> float:
        """Estimate the duration that a share ``q`` (0-1) of all does not exceed; 0.0 when there is none.

        Within a bucket an even spread is assumed; what is above the last bound counts as that bound.
        """
        rank = q * self.count
        below = 0
        lower = 0.0
        counts = self.counts
        for bound, count in zip(BOUNDS, counts, strict=False):
            if count and below + count >= rank:
                return lower + (bound - lower) * (rank - below) / count
            below += count
            lower = bound
        return BOUNDS[-1] if counts[-1] else 0.0

    def merge(self, other: Histogram) -> None:
        """Add another histogram's observations to this one."""
        self._add(other.counts, other.sum)

    def report(self) -> dict[str, Any]:
        """Give the values in a form that JSON knows; see `add`."""
        return {"counts": self.counts, "sum": self.sum}

    def add(self, report: Mapping[str, Any]) -> None:
        """Add the observations of a `report`."""
        self._add(report["counts"], report["sum"])

    def _add(self, counts: list[int], seconds: float) -> None:
        self._counts = array("q", [a + b for a, b in zip(self._counts, counts, strict=True)])
        self.sum += seconds
