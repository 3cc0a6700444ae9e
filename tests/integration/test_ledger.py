"""The ledger tells of every failure that clients see, while workers, targets and listeners go."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.integration.harness import (
    HOST,
    Balancer,
    RawTarget,
    free_port,
    read_answer,
    read_head,
    reset_when_closed,
    wait_until,
)

pytestmark = pytest.mark.integration


class Moody:
    """A target that answers, until it is told to reset every connection in place of an answer."""

    def __init__(self) -> None:
        self.resets = False
        self.hangs = threading.Event()
        self.hangs.set()
        self.target = RawTarget(self._serve)

    def _serve(self, skt: socket.socket) -> None:
        while read_head(skt):
            self.hangs.wait(10)
            if self.resets:
                reset_when_closed(skt)
                return
            skt.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")


CONFIGURATION = """
[listener:web]
protocol = HTTP
bind = {host}:{port}
default-action = forward app
{extra}

[target-group:app]
protocol = HTTP
targets = {host}:{target}
health-check = off
"""


def ledger(balancer: Balancer) -> tuple[Counter[str], dict[str, Any]]:
    """Failures by cause, and the whole document."""
    document = json.loads(balancer.get("/drops")[1])
    failed = Counter({entry["cause"]: entry["count"] for entry in document["drops"] if entry["kind"] == "failed"})
    return failed, document


def post(port: int, skt: socket.socket | None = None) -> tuple[str, socket.socket | None]:
    """Send a POST, which is not repeated by anybody; what came of it, and the connection if it was kept."""
    try:
        skt = skt or socket.create_connection((HOST, port), 10)
        skt.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi")
        answer = read_answer(skt)
    except OSError:
        return "lost", None
    if not answer.startswith(b"HTTP"):
        return "lost", None
    return answer[9:12].decode(), None if b"Connection: close" in answer else skt


def test_the_ledger_is_what_clients_saw(tmp_path: Path) -> None:
    port, moody = free_port(), Moody()

    def configuration(extra: str = "") -> str:
        return CONFIGURATION.format(host=HOST, port=port, target=moody.target.port, extra=extra)

    with Balancer(tmp_path, configuration(), "workers = 2\ndrain-timeout = 1s") as balancer:
        seen: Counter[str] = Counter()

        # Kept connections through reloads: nothing is lost, nothing is in the ledger.
        kept: list[socket.socket | None] = [None] * 4
        for number in range(5):
            for index, skt in enumerate(kept):
                status, kept[index] = post(port, skt)
                seen[status] += 1
            balancer.write(configuration(f"max-requests-per-connection = {100 + number}"))
            assert balancer.reload()["ok"]
        assert seen == {"200": 20}
        assert ledger(balancer)[0] == {}

        # A target that resets: each POST fails, and each is in the ledger.
        moody.resets = True
        for _ in range(6):
            status, skt = post(port)
            seen[status] += 1
            if skt:
                skt.close()
        moody.resets = False
        assert seen["502"] == 6
        wait_until(lambda: ledger(balancer)[0].total() == 6, 5, "they are in the ledger")
        failed, _ = ledger(balancer)
        assert set(failed) <= {"TargetReset", "TargetClosed"}

        # A worker that is killed: what it had in flight is lost, and told.
        moody.hangs.clear()
        outcomes: Counter[str] = Counter()
        threads = [threading.Thread(target=lambda: outcomes.update([post(port)[0]])) for _ in range(8)]
        for thread in threads:
            thread.start()
        wait_until(lambda: moody.target.connections >= 8 + 1, 10, "all wait for their answer")
        time.sleep(1.2)  # a report of each worker, so that it is known what the killed one had open
        os.kill(balancer.worker_pids()[0], signal.SIGKILL)
        wait_until(lambda: len(balancer.worker_pids()) == 2, 10, "another worker")
        moody.hangs.set()
        for thread in threads:
            thread.join(15)
        wait_until(lambda: ledger(balancer)[1]["requests_lost_with_workers"] == outcomes["lost"], 5, str(outcomes))
        assert set(outcomes) <= {"200", "lost"}
        failed, _ = ledger(balancer)
        assert failed["WorkerExit"] >= outcomes["lost"], "and the kept connections that it had"
        assert failed["WorkerExit"] <= outcomes["lost"] + len(kept)
        for skt in kept:
            if skt:
                skt.close()
    moody.target.close()
