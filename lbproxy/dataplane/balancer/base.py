"""What every load-balancing algorithm offers, and the table of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from random import Random
from typing import Protocol, overload

from lbproxy.dataplane.balancer.availability import eligible
from lbproxy.model.errors import InvalidModel
from lbproxy.model.snapshot import GroupState
from lbproxy.model.target import RegisteredTarget
from lbproxy.model.target_group import TargetGroup


class Cells(Protocol):
    """Integers in memory that all workers share (a ``memoryview`` of format ``q``, or a list)."""

    @overload
    def __getitem__(self, index: int, /) -> int: ...
    @overload
    def __getitem__(self, index: slice, /) -> Iterable[int]: ...
    def __setitem__(self, index: int, value: int, /) -> None: ...


class Balancer(ABC):
    """Chooses among the targets of one group; one object for each worker and state of the group."""

    __slots__ = ("_cells", "_position_cell", "_random", "_slots", "fail_open", "targets")

    targets: tuple[RegisteredTarget, ...]
    """Those that may take traffic (`lbproxy.dataplane.balancer.availability`)."""
    fail_open: bool
    """Whether they do so only because none is healthy."""

    def __init_subclass__(cls, *, algorithm: str) -> None:
        """Enter the class in `ALGORITHMS` as ``algorithm``."""
        ALGORITHMS[algorithm] = cls

    def __init__(self, state: GroupState, cells: Cells, slots: int, random: Random) -> None:
        """``slots`` is how many workers share the traffic, and so the length of each target's run of cells in use."""
        chosen = eligible(state)
        self.targets = chosen.targets
        self.fail_open = chosen.fail_open
        self._cells = cells
        self._position_cell = state.cell
        self._slots = slots
        self._random = random

    @abstractmethod
    def pick(self) -> RegisteredTarget | None:
        """The target for the next request, or None when there is none at all."""

    @abstractmethod
    def others(self, first: RegisteredTarget, source: str) -> Iterator[RegisteredTarget]:
        """Every other target once, in the order to try after ``first`` has failed."""

    def candidates(self, source: str) -> Iterator[RegisteredTarget]:
        """Every target once, in the order to try, for a client at ``source``; each is chosen when asked for."""
        first = self.pick()
        if first is not None:
            yield first
            yield from self.others(first, source)

    def _next_position(self) -> int:
        """Take the group's next place in the rotation, counted over all workers.

        Two workers may read the same value at once; the price is one repeated pick.
        """
        cells = self._cells
        cell = self._position_cell
        position = cells[cell]
        cells[cell] = position + 1
        return position


ALGORITHMS: dict[str, type[Balancer]] = {}
"""By name in the configuration; importing `lbproxy.dataplane.balancer` fills it."""


def make_balancer(
    group: TargetGroup, state: GroupState, cells: Cells, slot: int, slots: int, random: Random
) -> Balancer:
    """The balancer of a group in its present state, for the worker in ``slot`` of ``slots``.

    Raises `InvalidModel` for an algorithm that is not known.
    """
    algorithm = ALGORITHMS.get(group.algorithm)
    if algorithm is None:
        raise InvalidModel("algorithm", f"{group.algorithm!r} is not one of {', '.join(sorted(ALGORITHMS))}")
    return algorithm(state, cells, slots, random)
