"""Short ways to write groups and their states."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from lbproxy.dataplane.balancer import Balancer, Cells, make_balancer
from lbproxy.model.snapshot import GroupState
from lbproxy.model.target import RegisteredTarget, Target, TargetHealth, TargetReason, TargetState
from lbproxy.model.target_group import TargetGroup, TargetProtocol

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
    algorithm: str, state: GroupState, *, cells: Cells | None = None, slot: int = 0, slots: int = 1, seed: int = 1
) -> Balancer:
    group = TargetGroup(name="app", protocol=TargetProtocol.HTTP, algorithm=algorithm)
    return make_balancer(group, state, cells_for(state) if cells is None else cells, slot, slots, Random(seed))


def number_of(target: RegisteredTarget | None) -> int | None:
    return None if target is None else int(target.target.host.rpartition(".")[2])


def picks(balancer: Balancer, count: int) -> list[int | None]:
    return [number_of(balancer.pick()) for _ in range(count)]
