"""Draws by lot, with chances by weight."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from random import Random


class Draw:
    """Draws indexes of a sequence of weights, each above 0."""

    __slots__ = ("_bounds", "_last", "_random", "_total")

    def __init__(self, weights: Sequence[int], random: Random) -> None:
        self._bounds = list(accumulate(weights))
        self._total = self._bounds[-1] if self._bounds else 0
        self._last = len(self._bounds) - 1
        self._random = random.random

    def index(self) -> int:
        """One index; there must be one."""
        # the upper bound: a product rounded up to the total must not run off the end
        return bisect_right(self._bounds, self._random() * self._total, 0, self._last)

    def two(self) -> tuple[int, int]:
        """Two indexes, different where there is more than one."""
        first = self.index()
        if self._last < 1:
            return first, first
        # Draw the second from the line with the first's stretch cut out.
        below = self._bounds[first - 1] if first else 0
        width = self._bounds[first] - below
        point = self._random() * (self._total - width)
        if point < below:
            return first, bisect_right(self._bounds, point, 0, self._last)
        second = bisect_right(self._bounds, point + width, 0, self._last)
        return first, second if second != first else (first - 1 if first else 1)
