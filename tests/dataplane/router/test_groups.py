"""The choice among weighted target groups."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from lbproxy.dataplane.router.groups import GroupChoice
from lbproxy.model.rule import Forward, WeightedGroup


def choice(**weights: int) -> GroupChoice:
    return GroupChoice(Forward(tuple(WeightedGroup(name, weight) for name, weight in weights.items())), Random(1))


class HighestDraw(Random):
    def random(self) -> float:
        return 1 - 2**-53


def test_groups_are_chosen_by_weight() -> None:
    groups = choice(app=90, canary=10)
    counts = Counter(groups.pick() for _ in range(10_000))
    assert counts["canary"] == pytest.approx(1000, abs=120)
    assert groups.shares == (("app", 90, 0.9), ("canary", 10, 0.1))


def test_weight_0_takes_nothing() -> None:
    groups = choice(app=1, off=0, other=1)
    assert {groups.pick() for _ in range(200)} == {"app", "other"}
    assert groups.shares[1] == ("off", 0, 0.0)


@pytest.mark.parametrize("weights", [{"app": 5}, {"app": 0}, {"app": 0, "canary": 0}, {"off": 0, "app": 3}])
def test_a_single_group_needs_no_draw(weights: dict[str, int]) -> None:
    groups = choice(**weights)
    assert {groups.pick() for _ in range(10)} == {"app"}
    assert sum(share for _, _, share in groups.shares) == 1


def test_the_highest_draw_is_still_a_group() -> None:
    forward = Forward((WeightedGroup("a", 999), WeightedGroup("b", 999), WeightedGroup("c", 999)))
    assert GroupChoice(forward, HighestDraw()).pick() == "c"
