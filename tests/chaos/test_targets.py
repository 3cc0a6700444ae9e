"""Targets that die, hang, fail and slow down under load."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.fleet import CheckedLoad, Fleet, percentile
from tests.integration.harness import Balancer, free_port, wait_until

pytestmark = pytest.mark.chaos


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    with Fleet(tmp_path) as made:
        yield made


def start(tmp_path: Path, fleet: Fleet, **options: str) -> tuple[Balancer, int]:
    port = free_port()
    balancer = Balancer(tmp_path, fleet.configuration(port, **options))
    balancer.wait_ready().wait_healthy("app", len(fleet.servers))
    return balancer, port


def test_targets_are_killed_and_come_back(tmp_path: Path, fleet: Fleet) -> None:
    balancer, port = start(tmp_path, fleet)
    with balancer, CheckedLoad(port) as load:
        for server in fleet.servers:
            server.kill()
            time.sleep(0.6)
            server.start()
            balancer.wait_healthy("app", len(fleet.servers))
    assert load.failures == []
    assert load.closed_idle == 0
    assert load.requests > 200


def test_a_target_hangs(tmp_path: Path, fleet: Fleet) -> None:
    balancer, port = start(tmp_path, fleet, try_timeout="400ms")
    with balancer, CheckedLoad(port) as load:
        for server in fleet.servers[:2]:
            server.hang()
            wait_until(lambda server=server: balancer.states("app")[server.key] == "unhealthy", 20, "it is noticed")
            load.take_seconds()
            time.sleep(0.5)
            seconds = load.take_seconds()
            server.go_on()
            balancer.wait_healthy("app", len(fleet.servers))
            assert seconds
    assert load.failures == []


def test_a_target_answers_500_to_all_but_health_checks(tmp_path: Path, fleet: Fleet) -> None:
    balancer, port = start(tmp_path, fleet, outlier_detection="on", outlier_base_ejection_time="30s")
    with balancer, CheckedLoad(port) as load:
        fleet.servers[1].become("fail")
        wait_until(lambda: ejected(balancer) == [fleet.servers[1].key], 15, "it is ejected")
    assert load.failures == []


def ejected(balancer: Balancer) -> list[str]:
    (group,) = balancer.status()["target_groups"]
    return [target["target"] for target in group["targets"] if target["share"] == 0]


def test_a_target_breaks_its_answers_off(tmp_path: Path, fleet: Fleet) -> None:
    """What has begun cannot be taken back: such answers fail, and are seen to fail, but no others."""
    balancer, port = start(tmp_path, fleet, outlier_detection="on", outlier_base_ejection_time="30s")
    with balancer, CheckedLoad(port) as load:
        fleet.servers[2].become("cut")
        wait_until(lambda: ejected(balancer) == [fleet.servers[2].key], 15, "it is ejected")
        cuts = fleet.servers[2].cuts
        time.sleep(0.5)
    assert 0 < len(load.failures) <= fleet.servers[2].cuts
    assert fleet.servers[2].cuts - cuts <= load.threads


def test_a_slow_target_does_not_make_the_group_slow(tmp_path: Path) -> None:
    """One of four is ten times slower: p99 stays below twice that of a healthy group; round robin stands beside it."""
    with Fleet(tmp_path, seconds=0.03) as fleet:
        round_robin = _measure(tmp_path / "round_robin", fleet, "round_robin")
        least_time = _measure(tmp_path / "least_time", fleet, "least_time")
        if least_time[1] >= 2 * least_time[0]:  # somebody else may have needed the machine
            least_time = _measure(tmp_path / "again", fleet, "least_time")
    assert least_time[1] < 2 * least_time[0]
    assert round_robin[1] > least_time[1]


def _measure(folder: Path, fleet: Fleet, algorithm: str) -> tuple[float, float]:
    """p99 in seconds with all targets well, and with one of them ten times slower."""
    folder.mkdir()
    balancer, port = start(folder, fleet, algorithm=algorithm)
    with balancer, CheckedLoad(port, threads=8, pause=0.0) as load:
        found = []
        for mode in ("", "slow"):
            fleet.servers[3].become(mode)
            time.sleep(1.0)
            load.take_seconds()
            time.sleep(4.0)
            found.append(load.take_seconds())
        fleet.servers[3].become("")
    assert load.failures == []
    well, degraded = (percentile(seconds, 0.99) for seconds in found)
    print(
        f"{algorithm}: p99 {well * 1000:.0f} ms ({len(found[0])} requests),"
        f" with one of four ten times slower {degraded * 1000:.0f} ms ({len(found[1])})"
    )
    return well, degraded
