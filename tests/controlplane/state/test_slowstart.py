"""Slow start, by ELB's rules."""

from __future__ import annotations

import attrs
import pytest

from lbproxy.model.target import TargetState
from tests.controlplane.fakes import (
    HEALTHY,
    UNHEALTHY,
    StateBench,
    make_configuration,
    make_group,
    make_target,
    registered,
)


class Bench(StateBench):
    """A group ``app`` of three targets with a slow start of 100 s."""

    def __init__(self) -> None:
        super().__init__()
        self.configure()
        self.tell(HEALTHY, 1, 2, 3)
        self.tell(UNHEALTHY, 1, 2, 3)
        self.wait(200)
        self.published.clear()

    def configure(self, *numbers: int, seconds: float = 100.0) -> None:
        group = make_group(*map(make_target, numbers or (1, 2, 3)), delay=5.0)
        self.state.configure(make_configuration(attrs.evolve(group, slow_start_seconds=seconds)), 1)

    def wait(self, seconds: int) -> None:
        self.clock.pump([1.0] * seconds)

    def shares(self) -> list[int]:
        targets = self.state.snapshot.groups["app"].targets
        return [one.share for one in targets if one.health.state is not TargetState.DRAINING]


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_a_target_among_others_grows_linearly(bench: Bench) -> None:
    bench.tell(HEALTHY, 1)
    bench.tell(HEALTHY, 2)
    assert bench.shares() == [100, 5, 100]
    assert registered(bench.state.snapshot, "10.0.0.2:80").share_reason == "slow start"
    seen = []
    for _ in range(11):
        seen.append(bench.shares()[1])
        bench.wait(10)
    assert seen == [5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100]
    assert registered(bench.state.snapshot, "10.0.0.2:80").share_reason == ""
    assert len(bench.published) <= 24
    assert not bench.clock.getDelayedCalls()


def test_a_new_group_does_not_start_slowly(bench: Bench) -> None:
    bench.configure(4, 5, 6)
    for number in (4, 5, 6):
        bench.tell(HEALTHY, number)
        bench.wait(10)
        assert bench.shares() == [100, 100, 100]
    bench.tell(UNHEALTHY, 5)
    bench.tell(HEALTHY, 5)
    assert bench.shares() == [100, 5, 100], "it comes back to others"


def test_who_comes_late_to_a_new_group_starts_slowly(bench: Bench) -> None:
    bench.configure(4, 5)
    bench.tell(HEALTHY, 4)
    bench.wait(101)
    bench.tell(HEALTHY, 5)
    assert bench.shares() == [100, 5]


def test_who_is_registered_with_a_group_in_service_starts_slowly(bench: Bench) -> None:
    bench.configure(4)
    bench.tell(HEALTHY, 4)
    bench.configure(4, 5)
    bench.tell(HEALTHY, 5)
    assert bench.shares() == [100, 5]


def test_a_reload_before_the_first_checks_changes_nothing(bench: Bench) -> None:
    bench.configure(4, 5)
    bench.tell(HEALTHY, 4)
    bench.configure(4, 5, 6)
    bench.tell(HEALTHY, 5, 6)
    assert bench.shares() == [100, 100, 5]


def test_there_has_to_be_one_that_is_not_in_slow_start(bench: Bench) -> None:
    bench.tell(HEALTHY, 1)
    bench.tell(HEALTHY, 2, 3)
    assert bench.shares() == [100, 5, 5]
    bench.tell(UNHEALTHY, 1)
    bench.tell(HEALTHY, 1)
    assert bench.shares() == [100, 5, 5]


def test_a_failure_ends_it_and_the_way_back_begins_anew(bench: Bench) -> None:
    bench.tell(HEALTHY, 1)
    bench.tell(HEALTHY, 2)
    bench.wait(50)
    assert bench.shares() == [100, 50, 100]
    bench.tell(UNHEALTHY, 2)
    assert bench.shares() == [100, 100, 100]
    bench.tell(HEALTHY, 2)
    assert bench.shares() == [100, 5, 100]


def test_a_target_that_leaves_and_comes_back_begins_anew(bench: Bench) -> None:
    bench.tell(HEALTHY, 1)
    bench.tell(HEALTHY, 2)
    bench.wait(30)
    bench.configure(1, 3)
    bench.configure(1, 2, 3)
    assert bench.shares() == [100, 100, 100]
    bench.tell(HEALTHY, 2)
    assert bench.shares() == [100, 5, 100]


def test_a_reload_does_not_disturb_it(bench: Bench) -> None:
    bench.tell(HEALTHY, 1)
    bench.tell(HEALTHY, 2)
    bench.wait(30)
    bench.configure()
    assert bench.shares() == [100, 30, 100]
    bench.configure(seconds=60.0)
    assert bench.shares() == [100, 50, 100]


def test_a_reload_without_it_ends_it(bench: Bench) -> None:
    bench.tell(HEALTHY, 1)
    bench.tell(HEALTHY, 2)
    bench.configure(seconds=0.0)
    assert bench.shares() == [100, 100, 100]
    bench.wait(2)
    assert not bench.clock.getDelayedCalls()
