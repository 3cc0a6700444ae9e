"""From the workers' counters to the targets' shares."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from lbproxy.controlplane.outliers.service import OutlierService
from lbproxy.model.target_group import OutlierDetection
from lbproxy.telemetry.counters import TargetCounters
from tests.controlplane.fakes import HEALTHY, UNHEALTHY, StateBench, make_configuration, make_group, make_target

DETECTION = OutlierDetection(interval_seconds=10, base_ejection_seconds=30, max_ejected_percentage=50)


class Bench(StateBench):
    """A group ``app`` with four healthy targets."""

    def __init__(self) -> None:
        super().__init__()
        self.counters = {number: TargetCounters("app", f"10.0.0.{number}:80") for number in range(1, 5)}
        self.service = OutlierService(
            self.clock, self.state, lambda: {("app", each.key): each for each in self.counters.values()}
        )
        self.service.startService()

    def configure(self, **settings: Any) -> None:
        group = attrs.evolve(make_group(*map(make_target, self.counters)), **settings)
        self.state.configure(make_configuration(group), 1)
        self.tell(HEALTHY, *self.counters)

    def serve(self, number: int, requests: int, errors: int = 0, faults: int = 0) -> None:
        counters = self.counters[number]
        counters.requests += requests
        for each in range(requests - faults):
            counters.responded(503 if each < errors else 200, 0.02)
        counters.faults["TargetReset"] += faults

    def wait(self, seconds: float) -> None:
        self.clock.pump([0.5] * round(seconds * 2))

    def shares(self) -> list[int]:
        return [one.share for one in self.state.snapshot.groups["app"].targets]

    def reasons(self) -> list[str]:
        return [one.share_reason for one in self.state.snapshot.groups["app"].targets]


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_nothing_runs_where_nobody_asks_for_it(bench: Bench) -> None:
    bench.configure()
    assert not bench.clock.getDelayedCalls()
    bench.service.suspect("app", "10.0.0.1:80", 5)
    assert bench.shares() == [100] * 4


def test_a_suspect_is_taken_out_and_comes_back(bench: Bench) -> None:
    bench.configure(outlier_detection=DETECTION)
    bench.service.suspect("app", "10.0.0.2:80", 5)
    bench.clock.advance(0.1)
    assert bench.shares() == [100, 0, 100, 100]
    assert bench.reasons()[1] == "ejected: 5 failures in a row"
    bench.wait(29)
    assert bench.shares() == [100, 0, 100, 100]
    bench.wait(1.5)
    assert bench.shares() == [100] * 4
    assert bench.reasons() == [""] * 4


def test_errors_are_compared_over_an_interval(bench: Bench) -> None:
    bench.configure(outlier_detection=DETECTION)
    for number in bench.counters:
        bench.serve(number, 100, faults=60 if number == 3 else 0)
    bench.wait(11)
    assert bench.shares() == [100, 100, 0, 100]
    assert bench.reasons()[2] == "ejected: 60% errors where others have 0%"
    bench.wait(31)
    assert bench.shares() == [100] * 4, "old errors do not count again"


def test_health_checks_have_the_last_word(bench: Bench) -> None:
    bench.configure(outlier_detection=DETECTION)
    bench.tell(UNHEALTHY, 1, 2, 3)
    bench.service.suspect("app", "10.0.0.4:80", 5)
    bench.service.suspect("app", "10.0.0.1:80", 5)
    bench.clock.advance(0.1)
    assert bench.shares() == [100] * 4, "the last healthy one stays"


def test_anomalies_lower_the_share_step_by_step(bench: Bench) -> None:
    bench.configure(anomaly_mitigation=True, algorithm="weighted_random")
    seen = []
    for _ in range(3):
        for number in bench.counters:
            bench.serve(number, 100, errors=30 if number == 1 else 0)
        bench.wait(10.5)
        seen.append(bench.shares()[0])
    assert seen == [50, 25, 12]
    assert bench.reasons()[0] == "anomalous"
    bench.wait(50)
    assert bench.shares() == [100] * 4


def test_switching_it_off_gives_all_their_shares_back(bench: Bench) -> None:
    bench.configure(outlier_detection=DETECTION)
    bench.service.suspect("app", "10.0.0.2:80", 5)
    bench.configure()
    bench.clock.advance(0.1)
    assert bench.shares() == [100] * 4
    bench.wait(40)
    assert not bench.clock.getDelayedCalls()


def test_other_settings_of_the_group_do_not_disturb_it(bench: Bench) -> None:
    bench.configure(outlier_detection=DETECTION)
    bench.service.suspect("app", "10.0.0.2:80", 5)
    bench.configure(outlier_detection=DETECTION, response_timeout_seconds=7.0)
    bench.clock.advance(0.1)
    assert bench.shares() == [100, 0, 100, 100]
    bench.wait(31)
    assert bench.shares() == [100] * 4


def test_ejection_and_slow_start_go_together(bench: Bench) -> None:
    bench.configure(outlier_detection=DETECTION, slow_start_seconds=100.0)
    bench.tell(UNHEALTHY, 2)
    bench.tell(HEALTHY, 2)
    assert bench.shares()[1] == 5
    bench.service.suspect("app", "10.0.0.2:80", 5)
    bench.clock.advance(0.1)
    assert bench.shares()[1] == 0
    bench.wait(31)
    assert bench.shares()[1] == 30
    assert bench.reasons()[1] == "slow start"


def test_nothing_is_left_behind(bench: Bench) -> None:
    bench.configure(outlier_detection=DETECTION)
    bench.service.suspect("app", "10.0.0.2:80", 5)
    bench.clock.advance(0.1)
    bench.service.stopService()
    bench.state.close()
    assert not bench.clock.getDelayedCalls()
