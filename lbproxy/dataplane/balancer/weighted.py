"""``weighted_random``: each request draws a target, with chances by weight."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from itertools import accumulate
from random import Random

from lbproxy.dataplane.balancer.base import Balancer, Cells
from lbproxy.model.snapshot import GroupState
from lbproxy.model.target import RegisteredTarget


class WeightedRandom(Balancer, algorithm="weighted_random"):
    """Needs no memory and nothing shared: good where requests differ much in cost."""

    __slots__ = ("_bounds", "_draw", "_last", "_total")

    def __init__(self, state: GroupState, cells: Cells, slots: int, random: Random) -> None:
        super().__init__(state, cells, slots, random)
        self._bounds = list(accumulate(target.target.weight for target in self.targets))
        self._total = self._bounds[-1] if self._bounds else 0
        self._last = len(self._bounds) - 1
        self._draw = random.random

    def pick(self) -> RegisteredTarget | None:
        if not self._total:
            return None
        # the upper bound: a product rounded up to the total must not run off the end
        return self.targets[bisect_right(self._bounds, self._draw() * self._total, 0, self._last)]

    def others(self, first: RegisteredTarget, source: str) -> Iterator[RegisteredTarget]:
        """Drawn in the same way from those not tried yet."""
        left = [target for target in self.targets if target.cell != first.cell]
        while left:
            weights = [target.target.weight for target in left]
            index = self._random.choices(range(len(left)), weights)[0]
            yield left.pop(index)
