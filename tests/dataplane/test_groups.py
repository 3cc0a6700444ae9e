"""A worker's groups follow snapshots and keep what need not change."""

from __future__ import annotations

from array import array
from random import Random
from typing import Any

from twisted.internet.task import Clock

from lbproxy.dataplane.balancer.seal import Seal
from lbproxy.dataplane.deadlines import Deadlines
from lbproxy.dataplane.groups import Groups
from lbproxy.model.snapshot import Configuration, GroupState, Snapshot
from lbproxy.model.target import RegisteredTarget, Target, TargetHealth, TargetState
from lbproxy.model.target_group import OutlierDetection, TargetGroup, TargetProtocol
from lbproxy.telemetry.counters import WorkerCounters

from .doubles import FakeConnector

HEALTHY, UNHEALTHY, DRAINING = TargetState.HEALTHY, TargetState.UNHEALTHY, TargetState.DRAINING


class Bench:
    """Groups ``app`` (targets 1 and 2, backup ``spare``) and ``spare`` (target 9)."""

    def __init__(self) -> None:
        clock = Clock()
        self.gone: list[tuple[str, str]] = []
        self.suspects: list[tuple[str, str, int]] = []
        self.groups = Groups(
            Deadlines(clock.callLater, clock.seconds),
            FakeConnector(clock),  # type: ignore[arg-type]
            WorkerCounters(),
            array("q", [0] * 1000),
            0,
            Random(1),
            Seal(),
            lambda group, key: self.gone.append((group, key)),
            lambda *suspect: self.suspects.append(suspect),
        )
        self.version = 0
        self.settings: dict[str, Any] = {"backup": "spare"}
        self.zone = ""

    def apply(self, app: dict[int, TargetState]) -> None:
        self.version += 1
        groups = (
            TargetGroup(name="app", protocol=TargetProtocol.HTTP, **self.settings),
            TargetGroup(name="spare", protocol=TargetProtocol.HTTP),
        )
        self.groups.apply(
            Snapshot(
                version=self.version,
                configuration_version=1,
                configuration=Configuration(target_groups=groups, zone=self.zone),
                groups={"app": state(app, 0), "spare": state({9: HEALTHY}, 1)},
            )
        )


def state(targets: dict[int, TargetState], cell: int) -> GroupState:
    return GroupState(
        cell=cell,
        targets=tuple(
            RegisteredTarget(
                target=Target(host=f"10.0.0.{number}", port=80, address=f"10.0.0.{number}"),
                health=TargetHealth(state=health),
                cell=number * 64,
            )
            for number, health in targets.items()
        ),
    )


def test_what_is_the_same_is_kept() -> None:
    bench = Bench()
    bench.apply({1: HEALTHY, 2: HEALTHY})
    before = dict(bench.groups.runtimes)
    bench.apply({1: HEALTHY, 2: HEALTHY})
    assert bench.groups.runtimes == before
    bench.apply({1: HEALTHY, 2: UNHEALTHY})
    assert bench.groups.runtimes["spare"] is before["spare"]
    assert bench.groups.runtimes["app"] is not before["app"]
    assert bench.groups.runtimes["app"].pools == before["app"].pools


def test_the_backup_stands_in_and_gives_back() -> None:
    bench = Bench()
    bench.apply({1: HEALTHY, 2: HEALTHY})
    own = bench.groups.runtimes["app"]
    bench.apply({1: UNHEALTHY, 2: UNHEALTHY})
    assert bench.groups.runtimes["app"] is bench.groups.runtimes["spare"]
    bench.apply({1: HEALTHY, 2: HEALTHY})
    again = bench.groups.runtimes["app"]
    assert again.name == "app"
    assert again.pools == own.pools


def test_another_zone_of_our_own_makes_another_balancer() -> None:
    bench = Bench()
    bench.apply({1: HEALTHY})
    before = bench.groups.runtimes["app"].balancer
    bench.zone = "a"
    bench.apply({1: HEALTHY})
    assert bench.groups.runtimes["app"].balancer is not before


def test_what_was_observed_outlives_changes() -> None:
    bench = Bench()
    bench.settings = {"algorithm": "least_time"}
    bench.apply({1: HEALTHY, 2: HEALTHY})
    observation = bench.groups.pools["app", "10.0.0.1:80"].observation
    assert observation is not None
    assert bench.groups.pools["spare", "10.0.0.9:80"].observation is None
    bench.apply({1: HEALTHY, 2: UNHEALTHY})
    assert bench.groups.pools["app", "10.0.0.1:80"].observation is observation
    bench.settings = {}
    bench.apply({1: HEALTHY, 2: UNHEALTHY})
    assert bench.groups.pools["app", "10.0.0.1:80"].observation is None


def test_a_draining_target_is_let_go_in_two_steps() -> None:
    bench = Bench()
    bench.apply({1: HEALTHY, 2: HEALTHY})
    pool = bench.groups.pools["app", "10.0.0.2:80"]
    bench.apply({1: HEALTHY, 2: DRAINING})
    assert pool.retired
    assert bench.gone == []
    bench.apply({1: HEALTHY})
    assert bench.gone == [("app", "10.0.0.2:80")]
    assert ("app", "10.0.0.2:80") not in bench.groups.pools


def test_failures_in_a_row_are_told_once_they_are_too_many() -> None:
    bench = Bench()
    bench.settings = {"outlier_detection": OutlierDetection(consecutive_failures=3)}
    bench.apply({1: HEALTHY, 2: HEALTHY})
    observation = bench.groups.pools["app", "10.0.0.1:80"].observation
    assert observation is not None
    for _ in range(2):
        observation.failed(0.0, 1.0)
    observation.responded(200, 0.1, 1.0)
    for _ in range(2):
        observation.responded(503, 0.1, 1.0)
    assert bench.suspects == []
    observation.failed(0.0, 1.0)
    assert bench.suspects == [("app", "10.0.0.1:80", 3)]
    for _ in range(3):
        observation.failed(0.0, 1.0)
    assert len(bench.suspects) == 2


def test_the_queue_outlives_changes() -> None:
    bench = Bench()
    bench.settings = {"max_concurrent_requests": 5}
    bench.apply({1: HEALTHY, 2: HEALTHY})
    gate = bench.groups.runtimes["app"].gate
    assert gate is not None
    bench.apply({1: HEALTHY, 2: UNHEALTHY})
    assert bench.groups.runtimes["app"].gate is gate
    assert gate.runtime is bench.groups.runtimes["app"]
    assert bench.groups.pools["app", "10.0.0.1:80"].gate is gate
    assert bench.groups.runtimes["spare"].gate is None
    bench.settings = {}
    bench.apply({1: HEALTHY, 2: UNHEALTHY})
    assert bench.groups.runtimes["app"].gate is None
    assert bench.groups.pools["app", "10.0.0.1:80"].gate is None
