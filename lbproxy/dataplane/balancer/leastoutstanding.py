"""``least_outstanding_requests``: the target with the least in flight for its weight."""

from __future__ import annotations

from collections.abc import Iterator

from lbproxy.dataplane.balancer.base import Balancer, Circumstances
from lbproxy.dataplane.balancer.rotation import smooth_order
from lbproxy.dataplane.router.request import RoutableRequest
from lbproxy.model.target import RegisteredTarget


class LeastOutstandingRequests(Balancer, algorithm="least_outstanding_requests"):
    """Counts what all workers have in flight, from the shared cells.

    Equals take turns as in round robin, so that an idle group's targets all get requests.
    """

    __slots__ = ("_circle", "_starts")

    def __init__(self, circumstances: Circumstances) -> None:
        super().__init__(circumstances)
        self._starts = smooth_order(self.weights)
        # twice around, so that a turn from any start is one slice
        self._circle = [
            (target.cell, weight, target) for target, weight in zip(self.targets, self.weights, strict=True)
        ] * 2

    def pick(self, request: RoutableRequest | None, source: str) -> RegisteredTarget | None:
        if not self._starts:
            return None
        cells = self._cells
        slots = self._slots
        start = self._starts[self._next_position() % len(self._starts)]
        best = None
        best_load, best_weight = 0, 1
        for cell, weight, target in self._circle[start : start + len(self.targets)]:
            load = cells[cell] if slots == 1 else sum(cells[cell : cell + slots])
            if load <= 0:
                return target
            if best is None or load * best_weight < best_load * weight:
                best, best_load, best_weight = target, load, weight
        return best

    def others(
        self, first: RegisteredTarget, request: RoutableRequest | None, source: str
    ) -> Iterator[RegisteredTarget]:
        """By load at this moment, lightest first."""
        if not self._starts:
            return
        start = self._starts[self._next_position() % len(self._starts)]
        loads = [
            (self.in_flight(cell) / weight, target)
            for cell, weight, target in self._circle[start : start + len(self.targets)]
            if cell != first.cell
        ]
        loads.sort(key=lambda load: load[0])
        for _, target in loads:
            yield target
