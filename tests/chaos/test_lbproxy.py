"""lbproxy itself is reloaded, and loses workers and its supervisor, under load."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.fleet import CheckedLoad, Fleet
from tests.integration.harness import Balancer, free_port, wait_until

pytestmark = pytest.mark.chaos


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    with Fleet(tmp_path, size=2) as made:
        yield made


def test_a_hundred_reloads(tmp_path: Path, fleet: Fleet) -> None:
    port = free_port()
    texts = [fleet.configuration(port, algorithm=name) for name in ("round_robin", "least_time")]
    with Balancer(tmp_path, texts[0]) as balancer:
        balancer.wait_healthy("app", 2)
        with CheckedLoad(port) as load:
            for number in range(100):
                balancer.write(texts[number % 2] if number % 3 else texts[0].replace("300ms", "350ms"))
                assert balancer.reload()["ok"]
    assert load.failures == []
    assert load.closed_idle == 0


def test_workers_are_killed(tmp_path: Path, fleet: Fleet) -> None:
    """Only what was in flight on the killed worker itself may fail: at most one request a client thread."""
    port = free_port()
    with Balancer(tmp_path, fleet.configuration(port)) as balancer:
        balancer.wait_healthy("app", 2)
        with CheckedLoad(port) as load:
            for _ in range(2):
                time.sleep(0.5)
                (victim, *_) = pids = balancer.worker_pids()
                before = len(load.failures)
                os.kill(victim, signal.SIGKILL)
                wait_until(lambda pids=pids: balancer.get("/ready")[0] == 200 and balancer.worker_pids() != pids, 20)
                time.sleep(0.3)
                assert len(load.failures) - before <= load.threads, load.failures
        assert load.requests > 100
        wait_until(lambda: _in_flight(balancer) == 0, 10, "nothing is counted as in flight for ever")


def _in_flight(balancer: Balancer) -> int:
    (group,) = balancer.status()["target_groups"]
    return sum(target["in_flight"] for target in group["targets"])


def test_the_supervisor_is_killed_and_replaced(tmp_path: Path, fleet: Fleet) -> None:
    port = free_port()
    text = fleet.configuration(port)
    with Balancer(tmp_path, text) as balancer:
        balancer.wait_healthy("app", 2)
        with CheckedLoad(port) as load:
            orphans = balancer.worker_pids()
            os.kill(balancer.process.pid, signal.SIGKILL)
            balancer.process.wait(10)
            time.sleep(1.0)
            assert load.failures == [], "the workers go on"
            with Balancer(tmp_path, text) as successor:
                wait_until(lambda: not any(map(_lives, orphans)), 30, "the orphans are relieved")
                successor.wait_healthy("app", 2)
                served = load.requests
                time.sleep(0.5)
                assert load.requests > served
                load.__exit__()
    assert load.failures == []


def _lives(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
