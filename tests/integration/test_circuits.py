"""Limits of a target group hold for all workers together, and show."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.harness import (
    HOST,
    Balancer,
    RawTarget,
    free_port,
    listener,
    read_answer,
    read_head,
    target_group,
    wait_until,
)

pytestmark = pytest.mark.integration

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class World:
    """Two workers in front of a target that answers when it may."""

    def __init__(self, folder: Path, **options: str) -> None:
        self.let_go = threading.Event()
        self.target = RawTarget(self._serve)
        self.port = free_port()
        self.balancer = Balancer(
            folder,
            listener("web", self.port, "forward app") + target_group("app", self.target.port, **options),
        )
        self._links: list[socket.socket] = []

    def _serve(self, skt: socket.socket) -> None:
        while read_head(skt):
            self.let_go.wait(30)
            skt.sendall(ANSWER)

    def ask(self) -> socket.socket:
        """Send a request and do not wait."""
        skt = socket.create_connection((HOST, self.port), timeout=15)
        skt.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        self._links.append(skt)
        return skt

    def circuits(self) -> dict[str, Any]:
        (group,) = self.balancer.status()["target_groups"]
        found: dict[str, Any] = group["circuits"]
        return found

    def drops(self) -> dict[str, int]:
        drops = json.loads(self.balancer.get("/drops")[1])["drops"]
        return {each["cause"]: each["count"] for each in drops if each["kind"] == "failed"}

    def close(self) -> None:
        self.let_go.set()
        for skt in self._links:
            skt.close()
        self.target.close()


@contextlib.contextmanager
def running(folder: Path, **options: str) -> Iterator[World]:
    with contextlib.closing(World(folder, **options)) as world, world.balancer:
        yield world


def statuses(links: list[socket.socket]) -> Counter[bytes]:
    return Counter(read_answer(skt)[9:12] for skt in links)


def test_a_circuit_breaker_opens_for_all_workers_and_closes(tmp_path: Path) -> None:
    with running(tmp_path, circuit_breaker_max_requests="6") as world:
        held = [world.ask() for _ in range(6)]
        wait_until(lambda: world.circuits()["requests"]["now"] == 6, 10, "six are in flight")
        assert world.circuits()["requests"] == {"now": 6, "limit": 6, "open": True}
        refused = statuses([world.ask() for _ in range(10)])
        assert refused == {b"503": 10}
        wait_until(lambda: world.drops() == {"CircuitOpen": 10}, 5)
        metrics = world.balancer.get("/metrics")[1].decode()
        assert 'lbproxy_circuit_load{circuit="requests",target_group="app"} 6.0' in metrics
        assert 'lbproxy_circuit_limit{circuit="requests",target_group="app"} 6.0' in metrics
        world.let_go.set()
        assert statuses(held) == {b"200": 6}
        closed = {"now": 0, "limit": 6, "open": False}
        wait_until(lambda: world.circuits()["requests"] == closed, 5, "nothing is in flight")
        assert statuses([world.ask() for _ in range(3)]) == {b"200": 3}


def test_the_queue_is_one_for_all_workers(tmp_path: Path) -> None:
    """One request may be at the target and four may wait, whichever workers they came to."""
    with running(tmp_path, max_concurrent_requests="1", queue_length="4", queue_timeout="20s") as world:
        links = [world.ask() for _ in range(1)]
        wait_until(lambda: world.balancer.status()["target_groups"][0]["targets"][0]["in_flight"] == 1, 10)
        for count in range(1, 5):
            links.append(world.ask())
            wait_until(lambda count=count: world.circuits()["queue"]["now"] == count, 10, f"{count} wait")
        assert statuses([world.ask() for _ in range(8)]) == {b"503": 8}
        assert world.circuits()["queue"] == {"now": 4, "limit": 4, "open": True}
        world.let_go.set()
        assert statuses(links) == {b"200": 5}
        wait_until(lambda: world.circuits()["queue"]["now"] == 0, 5, "nobody waits")


def test_who_waited_at_a_killed_worker_is_counted_no_more(tmp_path: Path) -> None:
    with running(tmp_path, max_concurrent_requests="1", queue_length="100", queue_timeout="60s") as world:
        for _ in range(20):
            world.ask()
        wait_until(lambda: world.circuits()["queue"]["now"] >= 19, 10, "all but one wait")
        pids = world.balancer.worker_pids()
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not set(world.balancer.worker_pids()) & set(pids), 15, "others work")
        wait_until(lambda: world.circuits()["queue"]["now"] == 0, 10, "nobody waits")
        world.let_go.set()
        assert statuses([world.ask() for _ in range(3)]) == {b"200": 3}
