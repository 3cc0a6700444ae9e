"""How much of a target group can be used, and what follows: the rules that both planes go by."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import attrs

from lbproxy.model.snapshot import GroupState
from lbproxy.model.target import RegisteredTarget, TargetReason, TargetState
from lbproxy.model.target_group import CrossZone, TargetGroup


@attrs.frozen
class Standing:
    """How the targets of a group stand, those that `takes_part` tells of."""

    healthy: int
    """Those that take traffic."""
    known: int
    """Those whose first health check is done, and those without one."""
    waiting: int
    """Those whose first health check is not done yet."""

    @property
    def percentage(self) -> float:
        """Share of the healthy among the known."""
        return 100.0 * self.healthy / self.known if self.known else 0.0


def reachable(group: TargetGroup, state: GroupState, zone: str) -> tuple[RegisteredTarget, ...]:
    """The targets that may count at all for an lbproxy that stands in ``zone``."""
    if group.cross_zone is not CrossZone.OFF or not zone:
        return state.targets
    return tuple(registered for registered in state.targets if registered.target.zone in ("", zone))


def takes_part(registered: RegisteredTarget) -> bool:
    """Tell whether a target may take new traffic at all: none of weight 0, none that drains or was taken out."""
    health = registered.health
    return (
        registered.target.weight > 0
        and health.state is not TargetState.DRAINING
        and health.reason is not TargetReason.INVALID_STATE
    )


def is_good(registered: RegisteredTarget) -> bool:
    """Tell whether a target is to be used: it is healthy, or not checked, and not ejected."""
    health = registered.health
    return registered.share > 0 and (
        health.state is TargetState.HEALTHY
        or (health.state is TargetState.UNAVAILABLE and health.reason is TargetReason.HEALTH_CHECK_DISABLED)
    )


def standing(targets: Iterable[RegisteredTarget]) -> Standing:
    """Count."""
    healthy = known = waiting = 0
    for registered in targets:
        if not takes_part(registered):
            continue
        if registered.health.state is TargetState.INITIAL:
            waiting += 1
        else:
            known += 1
            healthy += is_good(registered)
    return Standing(healthy, known, waiting)


def is_enough(group: TargetGroup, found: Standing) -> bool:
    """Tell whether so many healthy targets can do the group's work (``unhealthy-state-routing-minimum-*``)."""
    return (
        found.healthy > 0
        and found.healthy >= min(group.minimum_healthy_count, found.known)
        and found.percentage >= group.minimum_healthy_percentage
    )


def is_fail_open(group: TargetGroup, state: GroupState, zone: str) -> bool:
    """Tell whether unhealthy targets take traffic, for want of healthy ones.

    Not while the only others are still in their first health checks, and not for groups that are not checked.
    """
    found = standing(reachable(group, state, zone))
    if found.waiting and not found.healthy:
        return False
    return found.known > found.healthy and not is_enough(group, found)


def serving_group(name: str, groups: Mapping[str, TargetGroup], states: Mapping[str, GroupState], zone: str) -> str:
    """The name of the group that does this group's work now: itself, or its backup.

    A backup takes over while less than ``backup-percentage`` of the group's targets are healthy, provided that it has a
    healthy target itself (or its own backup has).  A group of which nothing is known yet keeps its work.
    """
    seen = set()
    serving = name
    while name not in seen:
        seen.add(name)
        group = groups.get(name)
        if group is None:
            break
        found = standing(reachable(group, states.get(name, _EMPTY), zone))
        if found.healthy:
            serving = name
        if not group.backup or found.percentage >= group.backup_percentage or (found.waiting and not found.known):
            break
        name = group.backup
    return serving


_EMPTY = GroupState()
