"""Which targets take traffic."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from lbproxy.dataplane.balancer.availability import Eligible, eligible
from lbproxy.model.availability import is_fail_open, serving_group
from lbproxy.model.snapshot import GroupState
from lbproxy.model.target import RegisteredTarget, TargetReason, TargetState
from lbproxy.model.target_group import CrossZone, TargetGroup, TargetProtocol

from .states import number_of, target

HEALTHY, UNHEALTHY, INITIAL = TargetState.HEALTHY, TargetState.UNHEALTHY, TargetState.INITIAL
DRAINING, UNUSED, UNAVAILABLE = TargetState.DRAINING, TargetState.UNUSED, TargetState.UNAVAILABLE
GROUP = TargetGroup(name="app", protocol=TargetProtocol.HTTP)
CHECK_OFF = TargetReason.HEALTH_CHECK_DISABLED


@pytest.mark.parametrize(
    ("targets", "expected", "fail_open"),
    [
        ([], [], False),
        ([target(1), target(2)], [1, 2], False),
        ([target(1), target(2, state=UNHEALTHY)], [1], False),
        ([target(1), target(2, state=INITIAL)], [1], False),
        ([target(1), target(2, state=DRAINING)], [1], False),
        ([target(1), target(2, state=UNUSED)], [1], False),
        ([target(1, state=UNAVAILABLE, reason=CHECK_OFF), target(2)], [1, 2], False),
        ([target(1, state=UNAVAILABLE, reason=TargetReason.INTERNAL_ERROR), target(2)], [2], False),
        ([target(1, weight=0), target(2)], [2], False),
        # none is good: all that are not leaving
        ([target(1, state=UNHEALTHY), target(2, state=INITIAL), target(3, state=UNUSED)], [1, 2, 3], True),
        ([target(1, state=UNHEALTHY), target(2, state=DRAINING)], [1], True),
        ([target(1, state=UNHEALTHY, weight=0), target(2, state=UNHEALTHY)], [2], True),
        ([target(1, weight=0), target(2, state=UNHEALTHY)], [2], True),
        ([target(1, state=UNHEALTHY), target(2, state=UNUSED, reason=TargetReason.INVALID_STATE)], [1], True),
        # nobody left
        ([target(1, state=DRAINING)], [], False),
        ([target(1, weight=0)], [], False),
    ],
)
def test_eligible(targets: list[RegisteredTarget], expected: list[int], fail_open: bool) -> None:
    found = eligible(GROUP, GroupState(targets=tuple(targets)), "")
    assert ([number_of(target) for target in found.targets], found.fail_open) == (expected, fail_open)


def of_priority(number: int, priority: int, state: TargetState = HEALTHY) -> RegisteredTarget:
    registered = target(number, state=state)
    return attrs.evolve(registered, target=attrs.evolve(registered.target, priority=priority))


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        ([of_priority(1, 10), of_priority(2, 20), of_priority(3, 10)], [1, 3]),
        ([of_priority(1, 10, UNHEALTHY), of_priority(2, 20), of_priority(3, 30)], [2]),
        ([of_priority(1, 10, UNHEALTHY), of_priority(2, 20, UNHEALTHY)], [1, 2]),
    ],
)
def test_the_lowest_priority_number_with_a_healthy_target_serves(
    targets: list[RegisteredTarget], expected: list[int]
) -> None:
    found = eligible(GROUP, GroupState(targets=tuple(targets)), "")
    assert [number_of(each) for each in found.targets] == expected


# fail-open thresholds


def shares(found: Eligible) -> dict[int | None, int]:
    return {number_of(each): weight for each, weight in zip(found.targets, found.weights, strict=True)}


def mixed(healthy: int, unhealthy: int, initial: int = 0) -> GroupState:
    states = [HEALTHY] * healthy + [UNHEALTHY] * unhealthy + [INITIAL] * initial
    return GroupState(targets=tuple(target(number, state=state) for number, state in enumerate(states)))


@pytest.mark.parametrize(
    ("settings", "state", "used", "fail_open"),
    [
        ({"minimum_healthy_count": 2}, mixed(2, 2), 2, False),
        ({"minimum_healthy_count": 2}, mixed(1, 3), 4, True),
        ({"minimum_healthy_count": 5}, mixed(3, 0), 3, False),
        ({"minimum_healthy_count": 5}, mixed(2, 1), 3, True),
        ({"minimum_healthy_percentage": 50}, mixed(2, 2), 2, False),
        ({"minimum_healthy_percentage": 51}, mixed(2, 2), 4, True),
        # the first of new targets to be healthy is not alone among failures
        ({"minimum_healthy_percentage": 50}, mixed(1, 0, 5), 1, False),
        ({"minimum_healthy_percentage": 50}, mixed(1, 2, 5), 3, True),
    ],
)
def test_thresholds(settings: dict[str, Any], state: GroupState, used: int, fail_open: bool) -> None:
    group = attrs.evolve(GROUP, **settings)
    found = eligible(group, state, "")
    assert (len(found.targets), found.fail_open) == (used, fail_open)
    assert is_fail_open(group, state, "") is fail_open


# shares


def share(registered: RegisteredTarget, percent: int) -> RegisteredTarget:
    return attrs.evolve(registered, share=percent)


def test_a_share_lowers_the_weight() -> None:
    state = GroupState(targets=(share(target(1, weight=2), 100), share(target(2, weight=2), 25)))
    assert shares(eligible(GROUP, state, "")) == {1: 4, 2: 1}


def test_a_target_without_a_share_takes_nothing() -> None:
    state = GroupState(targets=(share(target(1), 0), target(2)))
    assert shares(eligible(GROUP, state, "")) == {2: 1}


def test_if_no_target_has_a_share_all_are_used() -> None:
    state = GroupState(targets=(share(target(1), 0), target(2, state=UNHEALTHY)))
    assert shares(eligible(GROUP, state, "")) == {1: 1, 2: 1}


# zones


def zoned(*zones: str, unhealthy: tuple[int, ...] = ()) -> GroupState:
    return GroupState(
        targets=tuple(
            attrs.evolve(each, target=attrs.evolve(each.target, zone=zone))
            for number, zone in enumerate(zones)
            for each in [target(number, state=UNHEALTHY if number in unhealthy else HEALTHY)]
        )
    )


SPILL = attrs.evolve(GROUP, cross_zone=CrossZone.SPILL)
OFF = attrs.evolve(GROUP, cross_zone=CrossZone.OFF)


@pytest.mark.parametrize(
    ("group", "state", "zone", "expected"),
    [
        (GROUP, zoned("a", "b"), "a", {0: 1, 1: 1}),
        (SPILL, zoned("a", "b"), "", {0: 1, 1: 1}),
        (SPILL, zoned("a", "a", "b"), "a", {0: 1, 1: 1}),
        (SPILL, zoned("a", "a", "b"), "b", {2: 1}),
        (SPILL, zoned("a", "", "b"), "b", {1: 1, 2: 1}),
        (SPILL, zoned("a", "b"), "c", {0: 1, 1: 1}),
        # half of the zone is left: it takes 70 %
        (SPILL, zoned("a", "a", "b", "b", unhealthy=(0,)), "a", {1: 14, 2: 3, 3: 3}),
        (SPILL, zoned("a", "a", "a", "a", "b", unhealthy=(0,)), "a", {1: 1, 2: 1, 3: 1}),
        (SPILL, zoned("a", "a", "b", unhealthy=(0, 1)), "a", {2: 1}),
        (SPILL, zoned("a", "a", "b", unhealthy=(0, 2)), "a", {1: 1}),
        (OFF, zoned("a", "b", ""), "a", {0: 1, 2: 1}),
        (OFF, zoned("a", "b"), "", {0: 1, 1: 1}),
        (OFF, zoned("a", "b", unhealthy=(0,)), "a", {0: 1}),
        (OFF, zoned("b"), "a", {}),
    ],
)
def test_zones(group: TargetGroup, state: GroupState, zone: str, expected: dict[int, int]) -> None:
    assert shares(eligible(group, state, zone)) == expected


def test_a_zone_alone_decides_on_fail_open_if_others_get_nothing() -> None:
    state = zoned("a", "b", unhealthy=(0,))
    assert is_fail_open(OFF, state, "a")
    assert not is_fail_open(OFF, state, "b")
    assert not is_fail_open(SPILL, state, "a")


# backups


def group(name: str, **settings: Any) -> TargetGroup:
    return TargetGroup(name=name, protocol=TargetProtocol.HTTP, **settings)


@pytest.mark.parametrize(
    ("app", "spare", "percentage", "expected"),
    [
        (mixed(2, 0), mixed(1, 0), 1, "app"),
        (mixed(1, 9), mixed(1, 0), 1, "app"),
        (mixed(0, 2), mixed(1, 0), 1, "spare"),
        (mixed(2, 2), mixed(1, 0), 50, "app"),
        (mixed(2, 3), mixed(1, 0), 50, "spare"),
        # the backup is no better
        (mixed(0, 2), mixed(0, 1), 1, "app"),
        (mixed(0, 2), GroupState(), 1, "app"),
        # nothing is known yet
        (mixed(0, 0, 2), mixed(1, 0), 1, "app"),
        (mixed(0, 1, 2), mixed(1, 0), 1, "spare"),
        # no target at all
        (GroupState(), mixed(1, 0), 1, "spare"),
    ],
)
def test_backup(app: GroupState, spare: GroupState, percentage: int, expected: str) -> None:
    groups = {"app": group("app", backup="spare", backup_percentage=percentage), "spare": group("spare")}
    assert serving_group("app", groups, {"app": app, "spare": spare}, "") == expected
    assert serving_group("spare", groups, {"app": app, "spare": spare}, "") == "spare"


def test_a_backup_of_a_backup() -> None:
    groups = {"a": group("a", backup="b"), "b": group("b", backup="c"), "c": group("c")}
    bad, good = mixed(0, 1), mixed(1, 0)
    assert serving_group("a", groups, {"a": bad, "b": bad, "c": good}, "") == "c"
    assert serving_group("a", groups, {"a": bad, "b": good, "c": good}, "") == "b"
    assert serving_group("a", groups, {"a": bad, "b": bad, "c": bad}, "") == "a"


def test_a_weak_group_is_better_than_a_dead_backup() -> None:
    groups = {"a": group("a", backup="b", backup_percentage=90), "b": group("b", backup="c"), "c": group("c")}
    assert serving_group("a", groups, {"a": mixed(1, 1), "b": mixed(0, 1), "c": mixed(0, 1)}, "") == "a"


def test_backups_that_lead_in_a_circle_end() -> None:
    groups = {"a": group("a", backup="b"), "b": group("b", backup="a")}
    assert serving_group("a", groups, {"a": mixed(0, 1), "b": mixed(0, 1)}, "") == "a"
