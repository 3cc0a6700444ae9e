"""Retries and hedges between real processes: flaky and slow targets, a client that need not know."""

from __future__ import annotations

import socket
import subprocess
import time
from pathlib import Path

import pytest

from tests.integration.harness import (
    HOST,
    Balancer,
    HttpTarget,
    RawTarget,
    answering,
    free_port,
    read_head,
    wait_until,
)

BUSY = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 5\r\n\r\nbusy\n"


def curl(*arguments: str) -> str:
    return subprocess.run(
        ["curl", "-s", "-S", "--max-time", "10", *arguments], capture_output=True, text=True, check=True
    ).stdout


def never(skt: socket.socket) -> None:
    """Read the request and say nothing."""
    read_head(skt)
    skt.recv(1)


def resets(skt: socket.socket) -> None:
    read_head(skt)


@pytest.fixture
def port() -> int:
    return free_port()


def configuration(port: int, first: RawTarget, second: HttpTarget, policy: str) -> str:
    return f"""
[listener:web]
protocol = HTTP
bind = {HOST}:{port}
default-action = forward app

[target-group:app]
protocol = HTTP
algorithm = first
targets = {HOST}:{first.port}, {HOST}:{second.port}
health-check = off
{policy}
"""


def test_a_client_sees_nothing_of_a_target_in_trouble(tmp_path: Path, port: int) -> None:
    policy = "retry-on = connect-failure, reset, 503\ntry-timeout = 500ms"
    trouble = [resets, never, answering(BUSY)]
    calls: list[int] = []

    def serve(skt: socket.socket) -> None:
        calls.append(1)
        trouble[(len(calls) - 1) % 3](skt)

    with RawTarget(serve) as first, HttpTarget("good") as second:
        with Balancer(tmp_path, configuration(port, first, second, policy), "workers = 1") as balancer:
            answers = [curl(f"http://{HOST}:{port}/") for _ in range(3)]
            assert answers == ["good\n"] * 3
            log = wait_until(lambda: len(lines := balancer.access_log()) == 3 and lines)
            metrics = wait_until(lambda: 'cause="503"' in (text := balancer.get("/metrics")[1].decode()) and text)
    assert [line["retry_reason"] for line in log] == ["TargetClosed", "ResponseTimeout", "503"]
    assert [[tried["status"] for tried in line["targets_tried"]] for line in log] == [[0, 200], [0, 200], [503, 200]]
    assert 'lbproxy_target_retries_total{cause="TargetClosed"' in metrics


def test_a_rule_may_have_it_otherwise(tmp_path: Path, port: int) -> None:
    rule = "[rule:api]\nlistener = web\npriority = 1\npath = /api/*\naction = forward app\nretry-on = 503\n"
    with RawTarget(answering(BUSY)) as first, HttpTarget("good") as second:
        text = configuration(port, first, second, "retry-on = off") + rule
        with Balancer(tmp_path, text, "workers = 1") as balancer:
            assert [curl(f"http://{HOST}:{port}{path}") for path in ("/api/1", "/")] == ["good\n", "busy\n"]
            lines = wait_until(lambda: len(lines := balancer.access_log()) == 2 and lines)
    assert [line["retry_reason"] for line in lines] == ["503", ""]


def test_a_post_reaches_one_target_only(tmp_path: Path, port: int) -> None:
    with RawTarget(resets) as first, HttpTarget("good") as second:
        policy = "retry-on = connect-failure, reset, 502"
        with Balancer(tmp_path, configuration(port, first, second, policy), "workers = 1"):
            status = curl("-d", "order=1", "-o", str(tmp_path / "out"), "-w", "%{http_code}", f"http://{HOST}:{port}/")
            assert status == "502"
            assert second.bodies == 0
    assert first.connections == 1


def test_an_upload_goes_to_the_next_target_from_its_start(tmp_path: Path, port: int) -> None:
    with RawTarget(resets) as first, HttpTarget("good") as second:
        with Balancer(tmp_path, configuration(port, first, second, "retry-on = reset"), "workers = 1") as balancer:
            upload = tmp_path / "upload"
            upload.write_bytes(b"0123456789" * 1000)
            for _ in range(3):
                answer = curl("-T", str(upload), "-H", "Expect: 100-continue", f"http://{HOST}:{port}/x")
                assert answer == upload.read_text()
            lines = wait_until(lambda: len(lines := balancer.access_log()) == 3 and lines)
    assert {line["retry_reason"] for line in lines} <= {"TargetClosed", "TargetReset"}


def test_a_second_target_is_asked_beside_a_slow_one(tmp_path: Path, port: int) -> None:
    with RawTarget(never) as first, HttpTarget("good") as second:
        with Balancer(tmp_path, configuration(port, first, second, "hedge-delay = 100ms"), "workers = 1") as balancer:
            began = time.monotonic()
            assert curl(f"http://{HOST}:{port}/") == "good\n"
            assert 0.1 <= time.monotonic() - began < 3.0
            (line,) = wait_until(balancer.access_log)
    assert line["retry_reason"] == "Hedge"
    assert [tried["status"] for tried in line["targets_tried"]] == [0, 200]
