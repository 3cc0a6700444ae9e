"""Which targets of a group may take traffic, and how much each."""

from __future__ import annotations

from collections.abc import Sequence
from math import gcd

import attrs

from lbproxy.model.availability import is_enough, is_good, reachable, standing, takes_part
from lbproxy.model.snapshot import GroupState
from lbproxy.model.target import RegisteredTarget, TargetState
from lbproxy.model.target_group import CrossZone, TargetGroup

OVERPROVISIONING = 1.4
"""A zone that has lost two sevenths of its targets still takes all of its traffic: the others are taken to have room
for that much more (Envoy's default, too)."""

_ZONE_STEPS = 20
"""What a zone cannot take is reckoned in twentieths, so that weights stay small numbers."""


@attrs.frozen
class Eligible:
    """The targets to balance over."""

    targets: tuple[RegisteredTarget, ...]
    """In the order registered."""
    weights: tuple[int, ...]
    """Of each target, above 0 and without a common divisor."""
    fail_open: bool
    """Too few targets are known to be good, so those that are not leaving take traffic whatever their state."""


def eligible(group: TargetGroup, state: GroupState, zone: str) -> Eligible:
    """The group's healthy targets, or all of them when these are too few (fail open, as ALB does).

    ``zone`` is our own.  A target whose group has no health check counts as healthy.  One whose first check is not
    done yet (``initial``) waits for it, unless the group fails open for want of any healthy target.  A draining
    target, one that an operator took out and one of weight 0 never take new traffic.  Of the good ones those of the
    lowest priority number are used.
    """
    staying = [registered for registered in reachable(group, state, zone) if takes_part(registered)]
    good = [registered for registered in staying if is_good(registered)]
    if not good:
        return _shared(staying, [registered.target.weight for registered in staying], fail_open=bool(staying))
    if not is_enough(group, standing(staying)):
        known = [registered for registered in staying if registered.health.state is not TargetState.INITIAL]
        return _shared(known, [registered.target.weight for registered in known], fail_open=True)
    first = min(registered.target.priority for registered in good)
    good = [registered for registered in good if registered.target.priority == first]
    weights = [registered.target.weight * registered.share for registered in good]
    if group.cross_zone is CrossZone.SPILL and zone:
        weights = _spilled(staying, good, weights, zone)
    return _shared(good, weights, fail_open=False)


def _spilled(
    staying: Sequence[RegisteredTarget], good: Sequence[RegisteredTarget], weights: Sequence[int], zone: str
) -> list[int]:
    """Weights by which our own zone gets what it can take, by the health of its targets, and the others the rest."""
    is_near = [registered.target.zone in ("", zone) for registered in good]
    near = sum(weight for weight, own in zip(weights, is_near, strict=True) if own)
    far = sum(weights) - near
    if not near or not far:
        return list(weights)
    found = standing(registered for registered in staying if registered.target.zone in ("", zone))
    steps = min(_ZONE_STEPS, round(_ZONE_STEPS * OVERPROVISIONING * found.percentage / 100))
    return [
        weight * (steps * far if own else (_ZONE_STEPS - steps) * near)
        for weight, own in zip(weights, is_near, strict=True)
    ]


def _shared(targets: Sequence[RegisteredTarget], weights: Sequence[int], *, fail_open: bool) -> Eligible:
    divisor = gcd(*weights) or 1
    pairs = [(registered, weight // divisor) for registered, weight in zip(targets, weights, strict=True) if weight]
    return Eligible(tuple(target for target, _ in pairs), tuple(weight for _, weight in pairs), fail_open)
