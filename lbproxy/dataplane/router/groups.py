"""Which of a forward action's target groups takes a request."""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate
from random import Random

from lbproxy.model.rule import Forward


class GroupChoice:
    """The target groups of a forward action with their weights.

    A group of weight 0 takes nothing.  When no group has a weight above 0 there is nothing
    to compare, and the first group takes all.
    """

    __slots__ = ("_bounds", "_last", "_names", "_random", "_single", "_total", "shares", "stickiness_seconds")

    shares: tuple[tuple[str, int, float], ...]
    """Name, weight and share of the traffic (0 to 1) of every group, in the order configured."""
    stickiness_seconds: float
    """How long a client stays with its group; 0 for not at all."""

    def __init__(self, forward: Forward, random: Random) -> None:
        """``random`` is drawn from once a pick when there is a choice at all."""
        weights = [group.weight for group in forward.groups]
        if not any(weights):
            weights[0] = 1
        total = sum(weights)
        self.shares = tuple(
            (group.group, group.weight, weight / total) for group, weight in zip(forward.groups, weights, strict=True)
        )
        self._names = [name for (name, _, share) in self.shares if share]
        self._bounds = list(accumulate(weight for weight in weights if weight))
        self._total = total
        self.stickiness_seconds = forward.stickiness_seconds
        self._last = len(self._names) - 1
        self._single = self._names[0] if len(self._names) == 1 else None
        self._random = random.random

    def pick(self) -> str:
        """The name of the group for one request."""
        if self._single is not None:
            return self._single
        # the upper bound: a product rounded up to the total must not run off the end
        return self._names[bisect_right(self._bounds, self._random() * self._total, 0, self._last)]
