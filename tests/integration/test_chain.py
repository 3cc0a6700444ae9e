"""Two balancers, one behind the other, with HTTP/2 between them; curl as the client."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.harness import HOST, Balancer, HttpTarget, free_port, wait_until


def curl(*arguments: str) -> bytes:
    return subprocess.run(["curl", "-s", "-S", "--max-time", "20", *arguments], capture_output=True, check=True).stdout


def listener(port: int, group: str) -> str:
    return f"""
[listener:web]
protocol = HTTP
bind = {HOST}:{port}
http2 = on
default-action = forward app

[target-group:app]
protocol = HTTP
{group}
"""


@pytest.fixture
def chain(tmp_path: Path) -> Iterator[tuple[int, Balancer]]:
    """The port of the first, and the first."""
    first, second = free_port(), free_port()
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    quick = "health-check-interval = 200ms\nhealth-check-timeout = 200ms\n"
    with HttpTarget("good") as target:
        behind = listener(second, f"targets = {HOST}:{target.port}\nhealth-check = off")
        between = listener(first, f"protocol-version = HTTP2\ntargets = {HOST}:{second}\n{quick}")
        with (
            Balancer(tmp_path / "second", behind, "workers = 1"),
            Balancer(tmp_path / "first", between, "workers = 1") as balancer,
        ):
            balancer.wait_healthy("app", 1)
            yield first, balancer


@pytest.mark.parametrize("version", ["--http1.1", "--http2-prior-knowledge"])
def test_requests_and_bodies_pass_whole(chain: tuple[int, Balancer], tmp_path: Path, version: str) -> None:
    port, balancer = chain
    url = f"http://{HOST}:{port}"
    assert curl(version, f"{url}/") == b"good\n"
    assert len(curl(version, f"{url}/bytes/3000000")) == 3_000_000
    body = tmp_path / "body"
    body.write_bytes(bytes(range(256)) * 8000)
    assert curl(version, "--data-binary", f"@{body}", f"{url}/") == body.read_bytes()
    assert curl(version, "-T", "-", f"{url}/x", "-H", "Expect:") == b""
    fields = dict(json.loads(curl(version, f"{url}/headers"))["headers"])
    assert fields["X-Forwarded-For"] == f"{HOST}, {HOST}"
    assert curl(version, "-I", f"{url}/").startswith(b"HTTP/")
    lines = wait_until(lambda: len(lines := balancer.access_log()) == 6 and lines)
    assert {line["target_status"] for line in lines} == {200}
    assert len({line["trace_id"] for line in lines}) == 6


def test_requests_at_a_time_share_a_connection(chain: tuple[int, Balancer]) -> None:
    port, balancer = chain
    urls = [f"http://{HOST}:{port}/slow/0.3?{number}" for number in range(20)]
    assert curl("-Z", *urls) == b"good\n" * 20

    def connects() -> list[str]:
        lines = balancer.get("/metrics")[1].decode().splitlines()
        return [line.rpartition(" ")[2] for line in lines if line.startswith("lbproxy_target_connects_total")]

    wait_until(lambda: connects() == ["1.0"])
