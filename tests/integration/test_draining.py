"""A drain waits for what is in flight, tunnels included, and is over as soon as nothing is."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.harness import (
    HOST,
    Balancer,
    RawTarget,
    free_port,
    listener,
    read_head,
    target_group,
    trusting,
    wait_until,
)

pytestmark = pytest.mark.integration

SWITCHING = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
SOON_SECONDS = 20.0
"""Much less than the deregistration delay, even where the machine is busy."""

KINDS = ("websocket", "secure websocket", "tcp", "tls")


class EchoTarget(RawTarget):
    """Says its name to begin with, then sends everything back; ``end`` closes."""

    def __init__(self, name: bytes, *, upgrades: bool) -> None:
        self._name = name
        self._upgrades = upgrades
        super().__init__(self._echo)

    def _echo(self, skt: socket.socket) -> None:
        if self._upgrades:
            read_head(skt)
            skt.sendall(SWITCHING)
        skt.sendall(self._name)
        while (data := skt.recv(65536)) and data != b"end":
            skt.sendall(data)


class Tunnel:
    """A client's connection to one of the targets."""

    def __init__(self, port: int, kind: str) -> None:
        self.socket = socket.create_connection((HOST, port), timeout=10)
        if kind in ("secure websocket", "tls"):
            self.socket = trusting().wrap_socket(self.socket)
        if kind.endswith("websocket"):
            key = base64.b64encode(bytes(16))
            self.socket.sendall(
                b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %b\r\n\r\n" % key
            )
            head, _, rest = read_head(self.socket).partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 101"), head
            self.target = rest or self.socket.recv(1)
        else:
            self.target = self.socket.recv(1)

    def echoes(self) -> bool:
        self.socket.sendall(b"hello")
        return self.socket.recv(5) == b"hello"


class World:
    def __init__(self, folder: Path, kind: str, delay_seconds: int = 60) -> None:
        self.kind = kind
        self.port = free_port()
        is_http = kind.endswith("websocket")
        protocol = {"websocket": "HTTP", "secure websocket": "HTTPS", "tcp": "TCP", "tls": "TLS"}[kind]
        self.targets = {name: EchoTarget(name, upgrades=is_http) for name in (b"a", b"b")}
        self.balancer = Balancer(
            folder,
            listener("front", self.port, "forward app", protocol)
            + target_group(
                "app",
                *(each.port for each in self.targets.values()),
                protocol="HTTP" if is_http else "TCP",
                deregistration_delay=f"{delay_seconds}s",
            ),
        )

    def key(self, name: bytes) -> str:
        return f"{HOST}:{self.targets[name].port}"

    def drain(self, name: bytes, *more: str) -> subprocess.Popen[str]:
        root = str(Path(__file__).resolve().parents[2])
        command = [sys.executable, "-m", "lbproxy", "drain", self.key(name), *more]
        return subprocess.Popen(
            [*command, "--admin", f"{HOST}:{self.balancer.admin}", "--json"],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": root},
        )

    def state(self, name: bytes) -> tuple[str, int]:
        (group,) = self.balancer.status()["target_groups"]
        return next((t["state"], t["in_flight"]) for t in group["targets"] if t["target"] == self.key(name))

    def other(self, name: bytes) -> bytes:
        return b"b" if name == b"a" else b"a"

    def reset(self) -> None:
        """Bring all targets back."""
        for name in self.targets:
            status, _ = self.balancer.get(f"/target-groups/app/targets/{self.key(name)}/override", "DELETE")
            assert status in (200, 404)  # that one had none

    def close(self) -> None:
        for target in self.targets.values():
            target.close()


@pytest.fixture(scope="module", params=KINDS)
def running(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[World]:
    with contextlib.closing(World(tmp_path_factory.mktemp("draining"), request.param)) as world, world.balancer:
        yield world


@pytest.fixture
def world(running: World) -> Iterator[World]:
    yield running
    running.reset()


@pytest.mark.parametrize("who_ends", ["client", "target"])
def test_a_drain_waits_for_an_open_tunnel_and_no_longer(world: World, who_ends: str) -> None:
    tunnel = Tunnel(world.port, world.kind)
    with tunnel.socket:
        name = tunnel.target
        assert world.drain(name).communicate(timeout=40)[0]
        wait_until(lambda: world.state(name) == ("draining", 1), 10, "it drains, with one in flight")
        others = [Tunnel(world.port, world.kind) for _ in range(4)]
        assert {each.target for each in others} == {world.other(name)}
        for each in others:
            each.socket.close()
        time.sleep(2.0)
        assert world.state(name) == ("draining", 1)
        assert tunnel.echoes()
        if who_ends == "target":
            tunnel.socket.sendall(b"end")
            assert tunnel.socket.recv(1) == b""
    began = time.monotonic()
    wait_until(lambda: world.state(name) == ("unused", 0), 20, "it has drained")
    assert time.monotonic() - began < SOON_SECONDS


def test_a_target_without_tunnels_has_drained_at_once(world: World) -> None:
    began = time.monotonic()
    assert world.drain(b"a", "--wait").communicate(timeout=40)[0]
    assert time.monotonic() - began < SOON_SECONDS
    assert world.state(b"a") == ("unused", 0)


def test_the_command_waits_until_the_tunnel_ends(world: World) -> None:
    tunnel = Tunnel(world.port, world.kind)
    with tunnel.socket:
        command = world.drain(tunnel.target, "--wait")
        wait_until(lambda: world.state(tunnel.target) == ("draining", 1), 10, "it drains")
        time.sleep(1.0)
        assert command.poll() is None
    told, _ = command.communicate(timeout=40)
    assert command.returncode == 0
    assert [each["state"] for each in json.loads(told)] == ["unused"]


def test_a_tunnel_that_outlives_the_delay_is_ended(tmp_path: Path) -> None:
    with contextlib.closing(World(tmp_path, "tcp", delay_seconds=1)) as world, world.balancer:
        tunnel = Tunnel(world.port, world.kind)
        with tunnel.socket:
            assert world.drain(tunnel.target).communicate(timeout=40)[0]
            with contextlib.suppress(ConnectionResetError):
                assert tunnel.socket.recv(1) == b""
        wait_until(lambda: world.state(tunnel.target) == ("unused", 0), 10, "it has drained")
