"""Short ways to write groups and their states."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any

from lbproxy.dataplane.balancer import Balancer, Cells, Circumstances, Observation, make_balancer
from lbproxy.dataplane.router.request import PlainRequest
from lbproxy.model.snapshot import GroupState
from lbproxy.model.target import RegisteredTarget, Target, TargetHealth, TargetReason, TargetState
from lbproxy.model.target_group import TargetGroup, TargetProtocol

REQUEST = PlainRequest(host=b"example.com", path=b"/")
SOURCE = "192.0.2.1"

SLOTS = 64
"""Length of each target's run of cells."""


def target(
    number: int,
    *,
    weight: int = 1,
    state: TargetState = TargetState.HEALTHY,
    reason: TargetReason = TargetReason.NONE,
) -> RegisteredTarget:
    """Target ``10.0.0.<number>:80``, whose cells follow the group's in cell 0."""
    address = f"10.0.0.{number}"
    return RegisteredTarget(
        target=Target(host=address, port=80, address=address, weight=weight),
        health=TargetHealth(state=state, reason=reason),
        cell=1 + number * SLOTS,
    )


def weighted(weights: Sequence[int]) -> GroupState:
    return GroupState(targets=tuple(target(number, weight=weight) for number, weight in enumerate(weights)))


def cells_for(state: GroupState) -> list[int]:
    return [0] * (1 + (len(state.targets) + 1) * SLOTS)


def balancer(
    algorithm: str,
    state: GroupState,
    *,
    cells: Cells | None = None,
    slots: int = 1,
    seed: int = 1,
    observations: Mapping[int, Observation] | None = None,
    now: Callable[[], float] = lambda: 0.0,
    **group: Any,
) -> Balancer:
    return make_balancer(
        Circumstances(
            group=TargetGroup(name="app", protocol=TargetProtocol.HTTP, algorithm=algorithm, **group),
            state=state,
            cells=cells_for(state) if cells is None else cells,
            slots=slots,
            random=Random(seed),
            observations=observations or {},
            now=now,
        )
    )


def number_of(target: RegisteredTarget | None) -> int | None:
    return None if target is None else int(target.target.host.rpartition(".")[2])


def picks(balancer: Balancer, count: int) -> list[int | None]:
    return [number_of(balancer.pick(REQUEST, SOURCE)) for _ in range(count)]
