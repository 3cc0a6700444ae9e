"""``round_robin``: targets in turn, each as often as its weight says."""

from __future__ import annotations

from collections.abc import Iterator

from lbproxy.dataplane.balancer.base import Balancer, Circumstances, Rotation
from lbproxy.dataplane.balancer.rotation import smooth_order
from lbproxy.dataplane.router.request import RoutableRequest
from lbproxy.model.target import RegisteredTarget


class RoundRobin(Balancer, algorithm="round_robin"):
    """Smooth weighted round robin over all workers.

    The rotation is laid out when the balancer is made; a pick is one step of the shared position.
    """

    __slots__ = ("_length", "_order")

    def __init__(self, circumstances: Circumstances) -> None:
        super().__init__(circumstances)
        self._order = [self.targets[index] for index in smooth_order(self.weights)]
        self._length = len(self._order)

    def pick(self, request: RoutableRequest | None, source: str) -> RegisteredTarget | None:
        if not self._length:
            return None
        # _next_position, written out: this is once for each request
        cells = self._cells
        cell = self._position_cell
        position = cells[cell]
        cells[cell] = position + 1
        return self._order[position % self._length]

    @property
    def rotation(self) -> Rotation | None:
        return Rotation(self._order, self._cells, self._position_cell) if self._length else None

    def others(
        self, first: RegisteredTarget, request: RoutableRequest | None, source: str
    ) -> Iterator[RegisteredTarget]:
        """On from the shared position.

        The position moves by one, so that what a dead target's requests fall back to is
        not always the same neighbour with twice the load.
        """
        tried = {first.cell}
        start = self._next_position()
        for step in range(self._length):
            target = self._order[(start + step) % self._length]
            if target.cell not in tried:
                tried.add(target.cell)
                yield target
