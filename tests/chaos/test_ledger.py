"""Under load and with processes that are killed, the ledger has what clients saw: not one more, not one less.

The clients send POST, which nobody sends twice, so that what a killed target or worker had in hand shows.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.fleet import CheckedLoad, Fleet
from tests.integration.harness import Balancer, free_port, wait_until

pytestmark = pytest.mark.chaos

REPORT_SECONDS = 1.2
"""After so long the supervisor has heard from each worker."""

STATUSES = {"TargetReset": "502", "TargetClosed": "502", "ConnectRefused": "502", "NoTargets": "503"}


def ledger(balancer: Balancer) -> tuple[Counter[str], dict[str, Any]]:
    """Failures by cause, and the whole document."""
    document = json.loads(balancer.get("/drops")[1])
    return Counter({each["cause"]: each["count"] for each in document["drops"] if each["kind"] == "failed"}), document


def logged_reasons(balancer: Balancer) -> Counter[str]:
    return Counter(line["error_reason"] for line in balancer.access_log() if line["status"] != 200)


def test_targets_are_killed(tmp_path: Path) -> None:
    port = free_port()
    with Fleet(tmp_path, size=3, seconds=0.05) as fleet, Balancer(tmp_path, fleet.configuration(port)) as balancer:
        balancer.wait_healthy("app", 3)
        with CheckedLoad(port, method="POST") as load:
            for server in fleet.servers * 2:
                time.sleep(0.3)
                server.kill()
                time.sleep(0.3)
                server.start()
                balancer.wait_healthy("app", 3)
        failed = load.outcomes - Counter({"200": load.outcomes["200"]})
        wait_until(lambda: ledger(balancer)[0].total() == failed.total(), 5, str((ledger(balancer)[0], failed)))
        causes, document = ledger(balancer)
        by_status: Counter[str] = Counter()
        for cause, count in causes.items():
            by_status[STATUSES[cause]] += count
        assert by_status == failed
        assert 0 < failed.total() <= 6 * load.threads, "some were in flight at each kill, if not always"
        assert document["requests_lost_with_workers"] == 0
        wait_until(lambda: logged_reasons(balancer) == causes, 5, "the access log says the same")
    assert load.closed_idle == 0, "no client lost its connection with the target"


def test_workers_are_killed(tmp_path: Path) -> None:
    """Every connection of a killed worker is in the ledger, but for one that it had not accepted yet; of the requests
    those that it had sent on, which are all but what still lay unread in its sockets."""
    port = free_port()
    with Fleet(tmp_path, size=2, seconds=0.05) as fleet, Balancer(tmp_path, fleet.configuration(port)) as balancer:
        balancer.wait_healthy("app", 2)
        with CheckedLoad(port, method="POST") as load:
            for _ in range(3):
                time.sleep(REPORT_SECONDS)
                (victim, *_) = pids = balancer.worker_pids()
                os.kill(victim, signal.SIGKILL)
                wait_until(lambda pids=pids: balancer.get("/ready")[0] == 200 and balancer.worker_pids() != pids, 20)
            time.sleep(REPORT_SECONDS)
        lost = load.outcomes["lost"]
        assert set(load.outcomes) <= {"200", "lost"}
        known = lost + load.closed_idle
        wait_until(lambda: known - 3 <= ledger(balancer)[0]["WorkerExit"] <= known, 5, f"{known}, {ledger(balancer)}")
        causes, document = ledger(balancer)
        assert set(causes) <= {"WorkerExit"}
        assert document["requests_lost_with_workers"] <= lost
        assert lost - document["requests_lost_with_workers"] <= 3, "at most one in a kill had not been sent on"
        assert 0 < lost <= 3 * load.threads
