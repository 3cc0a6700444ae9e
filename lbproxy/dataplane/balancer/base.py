"""What every load-balancing algorithm offers, and the table of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from random import Random
from typing import NamedTuple, Protocol, overload

import attrs

from lbproxy.dataplane.balancer.availability import eligible
from lbproxy.dataplane.balancer.observation import Observation
from lbproxy.dataplane.router.request import RoutableRequest
from lbproxy.model.errors import InvalidModel
from lbproxy.model.snapshot import GroupState
from lbproxy.model.target import RegisteredTarget
from lbproxy.model.target_group import HashKey, StickinessType, TargetGroup


class Cells(Protocol):
    """Integers in memory that all workers share (a ``memoryview`` of format ``q``, or a list)."""

    @overload
    def __getitem__(self, index: int, /) -> int: ...
    @overload
    def __getitem__(self, index: slice, /) -> Iterable[int]: ...
    def __setitem__(self, index: int, value: int, /) -> None: ...


def _no_time() -> float:
    return 0.0


@attrs.frozen(kw_only=True)
class Circumstances:
    """What a balancer is made for and works with."""

    group: TargetGroup
    state: GroupState
    cells: Cells
    slots: int = 1
    """How many workers share the traffic, and so the length of each target's run of cells in use."""
    random: Random
    zone: str = ""
    """Our own."""
    observations: Mapping[int, Observation] = attrs.Factory(dict)
    """By target's cell, for the algorithms of `OBSERVING`; a target without one counts as not seen yet."""
    now: Callable[[], float] = _no_time
    """The clock of ``observations``."""


class Rotation(NamedTuple):
    """Targets in turn: the next is that at the group's position, counted over all workers."""

    order: list[RegisteredTarget]
    cells: Cells
    position_cell: int


class Balancer(ABC):
    """Chooses among the targets of one group; one object for each worker and state of the group."""

    __slots__ = ("_cells", "_position_cell", "_random", "_slots", "fail_open", "targets", "weights")

    targets: tuple[RegisteredTarget, ...]
    """Those that may take traffic (`lbproxy.dataplane.balancer.availability`)."""
    weights: tuple[int, ...]
    """Their shares of the traffic, each above 0."""
    fail_open: bool
    """Whether they do so only because too few are healthy."""

    def __init_subclass__(cls, *, algorithm: str = "", observing: bool = False) -> None:
        """Enter the class in `ALGORITHMS` as ``algorithm``; ``observing``: it needs `Circumstances.observations`."""
        if algorithm:
            ALGORITHMS[algorithm] = cls
        if observing:
            OBSERVING.add(algorithm)

    def __init__(self, circumstances: Circumstances) -> None:
        chosen = eligible(circumstances.group, circumstances.state, circumstances.zone)
        self.targets = chosen.targets
        self.weights = chosen.weights
        self.fail_open = chosen.fail_open
        self._cells = circumstances.cells
        self._position_cell = circumstances.state.cell
        self._slots = circumstances.slots
        self._random = circumstances.random

    @abstractmethod
    def pick(self, request: RoutableRequest | None, source: str) -> RegisteredTarget | None:
        """The target for the next request, or None when there is none at all.

        ``source`` is the client's address; ``request`` is None for a TCP connection.
        """

    @abstractmethod
    def others(
        self, first: RegisteredTarget, request: RoutableRequest | None, source: str
    ) -> Iterator[RegisteredTarget]:
        """Every other target once, in the order to try after ``first`` has failed."""

    def candidates(self, request: RoutableRequest | None, source: str) -> Iterator[RegisteredTarget]:
        """Every target once, in the order to try; each is chosen when asked for."""
        first = self.pick(request, source)
        if first is not None:
            yield first
            yield from self.others(first, request, source)

    @property
    def rotation(self) -> Rotation | None:
        """Where `pick` is no more than a step in a rotation: that, so that it can be taken in C."""
        return None

    def in_flight(self, cell: int) -> int:
        """What all workers have in flight to the target of this cell."""
        slots = self._slots
        return self._cells[cell] if slots == 1 else sum(self._cells[cell : cell + slots])

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

OBSERVING: set[str] = set()
"""Those that decide by what was observed of the targets."""


def make_balancer(circumstances: Circumstances) -> Balancer:
    """The balancer of a group in its present state.

    Raises `InvalidModel` for an algorithm that is not known.
    """
    stickiness = circumstances.group.stickiness
    if stickiness is not None and stickiness.type is StickinessType.SOURCE_IP:
        # All workers agree on the target of an address without remembering any.
        circumstances = attrs.evolve(
            circumstances, group=attrs.evolve(circumstances.group, algorithm="maglev", hash_key=HashKey())
        )
    name = circumstances.group.algorithm
    algorithm = ALGORITHMS.get(name)
    if algorithm is None:
        raise InvalidModel("algorithm", f"{name!r} is not one of {', '.join(sorted(ALGORITHMS))}")
    return algorithm(circumstances)
