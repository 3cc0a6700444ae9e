"""Which targets of a group may take traffic."""

from __future__ import annotations

import attrs

from lbproxy.model.snapshot import GroupState
from lbproxy.model.target import RegisteredTarget, TargetReason, TargetState


@attrs.frozen
class Eligible:
    """The targets to balance over."""

    targets: tuple[RegisteredTarget, ...]
    """In the order registered, each with a weight above 0."""
    fail_open: bool
    """No target is known to be good, so those that are not leaving take traffic whatever their state."""


def eligible(state: GroupState) -> Eligible:
    """The group's healthy targets, or all of them when there is none (fail open, as ALB does).

    A target whose group has no health check counts as healthy.  One whose first check is not
    done yet (``initial``) waits for it, unless the group fails open.  A draining target, one that an operator
    took out and one of weight 0 never take new traffic.
    """
    weighted = [target for target in state.targets if target.target.weight > 0]
    healthy = tuple(target for target in weighted if _is_good(target))
    if healthy:
        return Eligible(healthy, fail_open=False)
    staying = tuple(target for target in weighted if _may_be_used(target))
    return Eligible(staying, fail_open=bool(staying))


def _may_be_used(target: RegisteredTarget) -> bool:
    health = target.health
    return health.state is not TargetState.DRAINING and health.reason is not TargetReason.INVALID_STATE


def _is_good(target: RegisteredTarget) -> bool:
    health = target.health
    return health.state is TargetState.HEALTHY or (
        health.state is TargetState.UNAVAILABLE and health.reason is TargetReason.HEALTH_CHECK_DISABLED
    )
