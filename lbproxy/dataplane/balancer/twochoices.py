"""``random_two`` and ``least_time``: the better of two targets drawn by lot.

Two choices are nearly as good as looking at all targets, and workers that see the same counts at the same time do not
all run to the same target (M. Mitzenmacher, "The power of two choices in randomized load balancing", 2001).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator

from lbproxy.dataplane.balancer.base import Balancer, Circumstances
from lbproxy.dataplane.balancer.draw import Draw
from lbproxy.dataplane.balancer.observation import FAILURE_SECONDS, Observation
from lbproxy.dataplane.router.request import RoutableRequest
from lbproxy.model.target import RegisteredTarget


class TwoChoices(Balancer):
    """Draws two targets by weight and takes the one that costs less."""

    __slots__ = ("_draw",)

    def __init__(self, circumstances: Circumstances) -> None:
        super().__init__(circumstances)
        self._draw = Draw(self.weights, circumstances.random)

    @abstractmethod
    def cost(self, index: int) -> float:
        """What one more request would cost at the target of this index."""

    def pick(self, request: RoutableRequest | None, source: str) -> RegisteredTarget | None:
        if not self.targets:
            return None
        one, other = self._draw.two()
        return self.targets[other if self.cost(other) < self.cost(one) else one]

    def others(
        self, first: RegisteredTarget, request: RoutableRequest | None, source: str
    ) -> Iterator[RegisteredTarget]:
        """By what they cost at this moment, equals in an order drawn by lot."""
        costs = [
            (self.cost(index), self._random.random(), target)
            for index, target in enumerate(self.targets)
            if target.cell != first.cell
        ]
        costs.sort(key=lambda cost: cost[:2])
        for _, _, target in costs:
            yield target


class RandomTwo(TwoChoices, algorithm="random_two"):
    """Takes the one with less in flight for its weight, counted over all workers."""

    __slots__ = ()

    def cost(self, index: int) -> float:
        return self.in_flight(self.targets[index].cell) / self.weights[index]


class LeastTime(TwoChoices, algorithm="least_time", observing=True):
    """Takes the one that is expected to answer sooner, what is before the request in its queue included.

    The expected time is this worker's observation, what is in flight is counted over all workers.  A target that
    nothing is known of is tried at once, but with one request only until it has answered.
    """

    __slots__ = ("_now", "_observations")

    def __init__(self, circumstances: Circumstances) -> None:
        super().__init__(circumstances)
        self._now = circumstances.now
        self._observations = [circumstances.observations.get(target.cell) or Observation() for target in self.targets]

    def cost(self, index: int) -> float:
        load = self.in_flight(self.targets[index].cell) / self.weights[index]
        observation = self._observations[index]
        if not observation.known:
            return load * FAILURE_SECONDS
        return observation.response_seconds(self._now()) * (load + 1.0)
