"""``weighted_random``: each request draws a target, with chances by weight."""

from __future__ import annotations

from collections.abc import Iterator

from lbproxy.dataplane.balancer.base import Balancer, Circumstances
from lbproxy.dataplane.balancer.draw import Draw
from lbproxy.dataplane.router.request import RoutableRequest
from lbproxy.model.target import RegisteredTarget


class WeightedRandom(Balancer, algorithm="weighted_random"):
    """Needs no memory and nothing shared: good where requests differ much in cost."""

    __slots__ = ("_draw",)

    def __init__(self, circumstances: Circumstances) -> None:
        super().__init__(circumstances)
        self._draw = Draw(self.weights, circumstances.random)

    def pick(self, request: RoutableRequest | None, source: str) -> RegisteredTarget | None:
        return self.targets[self._draw.index()] if self.targets else None

    def others(
        self, first: RegisteredTarget, request: RoutableRequest | None, source: str
    ) -> Iterator[RegisteredTarget]:
        """Drawn in the same way from those not tried yet."""
        left = [pair for pair in zip(self.targets, self.weights, strict=True) if pair[0].cell != first.cell]
        while left:
            index = self._random.choices(range(len(left)), [weight for _, weight in left])[0]
            yield left.pop(index)[0]
