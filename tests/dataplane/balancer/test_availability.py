"""Which targets take traffic."""

from __future__ import annotations

import pytest

from lbproxy.dataplane.balancer.availability import eligible
from lbproxy.model.snapshot import GroupState
from lbproxy.model.target import RegisteredTarget, TargetReason, TargetState

from .states import number_of, target

HEALTHY, UNHEALTHY, INITIAL = TargetState.HEALTHY, TargetState.UNHEALTHY, TargetState.INITIAL
DRAINING, UNUSED, UNAVAILABLE = TargetState.DRAINING, TargetState.UNUSED, TargetState.UNAVAILABLE
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
    found = eligible(GroupState(targets=tuple(targets)))
    assert ([number_of(target) for target in found.targets], found.fail_open) == (expected, fail_open)
