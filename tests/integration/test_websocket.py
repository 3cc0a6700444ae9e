"""WebSocket (RFC 6455) through HTTP and HTTPS listeners and HTTPS targets, with a real client library."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import select
import signal
import socket
import ssl
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import websocket

from tests.integration.harness import (
    HOST,
    Balancer,
    RawTarget,
    free_port,
    listener,
    read_head,
    target_group,
    wait_until,
)

pytestmark = pytest.mark.integration

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
IDLE_SECONDS = 2.0


class Ended(Exception):
    """The other side has closed its TCP connection."""


class ServerEnd:
    """A server's end of one WebSocket connection."""

    def __init__(self, skt: socket.socket, data: bytes = b"") -> None:
        self._socket = skt
        self._data = data

    def _take(self, size: int) -> bytes:
        while len(self._data) < size:
            more = self._socket.recv(max(65536, size - len(self._data)))
            if not more:
                raise Ended
            self._data += more
        taken, self._data = self._data[:size], self._data[size:]
        return taken

    def receive(self) -> tuple[int, bytes]:
        """One unfragmented frame: its opcode and payload."""
        first, second = self._take(2)
        assert second & 0x80, "a client's frames are masked"
        size = second & 0x7F
        if size == 126:
            [size] = struct.unpack("!H", self._take(2))
        elif size == 127:
            [size] = struct.unpack("!Q", self._take(8))
        mask = self._take(4)
        masked = self._take(size)
        key = int.from_bytes((mask * (size // 4 + 1))[:size], "big")
        return first & 0x0F, (int.from_bytes(masked, "big") ^ key).to_bytes(size, "big")

    def send(self, opcode: int, payload: bytes) -> None:
        self._socket.sendall(frame(opcode, payload))


def frame(opcode: int, payload: bytes) -> bytes:
    size = len(payload)
    if size < 126:
        head = struct.pack("!BB", 0x80 | opcode, size)
    elif size < 65536:
        head = struct.pack("!BBH", 0x80 | opcode, 126, size)
    else:
        head = struct.pack("!BBQ", 0x80 | opcode, 127, size)
    return head + payload


class World:
    """A balancer in front of a WebSocket server that echoes, reached in three ways."""

    def __init__(self, folder: Path, options: str = "workers = 1") -> None:
        self.target = RawTarget(self._serve)
        self.http, self.https, self.both = free_port(), free_port(), free_port()
        self.ends: list[str] = []
        """How each connection ended, as the target saw it."""
        self.counted = 0
        idle = f"{IDLE_SECONDS:g}s"
        self.configuration = (
            listener("http", self.http, "forward plain", idle_timeout=idle)
            + listener("https", self.https, "forward plain", "HTTPS", idle_timeout=idle)
            + listener("both", self.both, "forward secure", "HTTPS", idle_timeout=idle)
            + target_group("plain", self.target.port, deregistration_delay="1s")
            + target_group("secure", self.https, protocol="HTTPS", tls_verify="off")
        )
        self.balancer = Balancer(folder, self.configuration, options)

    def _serve(self, skt: socket.socket) -> None:
        head, _, rest = read_head(skt).partition(b"\r\n\r\n")
        path = head.split(b" ")[1]
        if path == b"/refused":
            skt.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")
            return
        asked = re.search(rb"(?i)\r\nsec-websocket-key: *([^\r]+)", head)
        assert asked is not None, head
        accept = base64.b64encode(hashlib.sha1(asked[1] + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
        welcome = (
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: %b\r\n\r\n" % accept
        )
        if path == b"/farewell":  # all at once, then gone
            skt.sendall(welcome + frame(BINARY, bytes(3_000_000)) + frame(CLOSE, struct.pack("!H", 4001) + b"enough"))
            return
        skt.sendall(welcome)
        try:
            if path == b"/flood":
                self._flood(skt)
                return
            self._echo(ServerEnd(skt, rest), path)
        except Ended:
            self.ends.append("closed")
        except OSError:
            self.ends.append("reset")

    def _flood(self, skt: socket.socket) -> None:
        """Send as fast as it goes until a close frame comes."""
        piece = frame(BINARY, bytes(60000)) * 4
        left = memoryview(piece)
        skt.setblocking(False)
        while True:
            readable, writable, _ = select.select([skt], [skt], [], 15)
            if writable:
                left = left[skt.send(left) :] or memoryview(piece)
            if readable:
                skt.setblocking(True)
                opcode, payload = ServerEnd(skt).receive()
                assert opcode == CLOSE
                self.ends.append(f"code {struct.unpack('!H', payload[:2])[0]}")
                return

    def _echo(self, end: ServerEnd, path: bytes) -> None:
        while True:
            opcode, payload = end.receive()
            if opcode == CLOSE:
                self.ends.append(f"code {struct.unpack('!H', payload[:2])[0]}")
                end.send(CLOSE, payload)
                return
            if path == b"/count":
                self.counted += len(payload)
            elif opcode == PING:
                end.send(PONG, payload)
            elif payload == b"bye":
                end.send(CLOSE, struct.pack("!H", 4000) + b"as you wish")
            else:
                end.send(opcode, payload)

    def connect(self, way: str, path: str = "/") -> websocket.WebSocket:
        port = {"http": self.http, "https": self.https, "both": self.both}[way]
        return websocket.create_connection(
            f"{'ws' if way == 'http' else 'wss'}://{HOST}:{port}{path}",
            timeout=15,
            sslopt={"cert_reqs": ssl.CERT_NONE, "check_hostname": False},
        )


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    world = World(tmp_path_factory.mktemp("websocket"))
    with world.balancer:
        yield world
    world.target.close()


every_way = pytest.mark.parametrize("way", ["http", "https", "both"])


@every_way
def test_messages_of_every_size_come_back(world: World, way: str) -> None:
    client = world.connect(way)
    for size in (0, 1, 125, 126, 65535, 65536, 5_000_000):
        payload = os.urandom(size)
        client.send_binary(payload)
        assert client.recv() == payload
    client.send("häßlich")
    assert client.recv() == "häßlich"
    client.close()


@every_way
def test_a_thousand_messages_stay_in_order(world: World, way: str) -> None:
    """Not from two threads: until Python 3.13 they would spoil each other's TLS records."""
    client = world.connect(way)
    received = []
    for number in range(1000):
        client.send(str(number))
        if number >= 100:  # so many are on their way at any time
            received.append(client.recv())
    received += [client.recv() for _ in range(100)]
    assert received == [str(number) for number in range(1000)]
    client.close()


@every_way
def test_pings_are_answered_and_keep_the_connection(world: World, way: str) -> None:
    client = world.connect(way)
    end = time.monotonic() + 1.5 * IDLE_SECONDS
    while time.monotonic() < end:
        client.ping("still there?")
        assert client.recv_data(control_frame=True) == (PONG, b"still there?")
        time.sleep(0.2)
    client.close()


@every_way
def test_the_client_closes(world: World, way: str) -> None:
    client = world.connect(way)
    client.send("x")
    assert client.recv() == "x"
    world.ends.clear()
    client.send_close(4002, b"done")
    assert client.recv_data(control_frame=True) == (CLOSE, struct.pack("!H", 4002) + b"done")
    wait_until(lambda: world.ends == ["code 4002"], 5)
    client.shutdown()


@every_way
def test_the_target_closes(world: World, way: str) -> None:
    client = world.connect(way)
    client.send("bye")
    assert client.recv_data(control_frame=True) == (CLOSE, struct.pack("!H", 4000) + b"as you wish")
    client.close()


@every_way
def test_what_the_target_sent_before_it_closed_arrives(world: World, way: str) -> None:
    client = world.connect(way, "/farewell")
    time.sleep(0.2)
    assert len(client.recv()) == 3_000_000
    assert client.recv_data(control_frame=True) == (CLOSE, struct.pack("!H", 4001) + b"enough")
    client.shutdown()


@every_way
def test_what_the_client_sent_before_it_closed_arrives(world: World, way: str) -> None:
    world.counted = 0
    client = world.connect(way, "/count")
    for _ in range(3):
        client.send_binary(bytes(1_000_000))
    client.shutdown()  # at once, without a closing handshake
    wait_until(lambda: world.counted == 3_000_000, 10, "all bytes are there")


@every_way
def test_a_refused_upgrade_is_an_ordinary_answer(world: World, way: str) -> None:
    with pytest.raises(websocket.WebSocketBadStatusException) as raised:
        world.connect(way, "/refused")
    assert raised.value.status_code == 403


@every_way
def test_a_silent_connection_is_ended_on_both_sides(world: World, way: str) -> None:
    world.ends.clear()
    client = world.connect(way)
    began = time.monotonic()
    with pytest.raises((websocket.WebSocketConnectionClosedException, OSError)):
        client.recv()
    assert IDLE_SECONDS - 0.2 < time.monotonic() - began < IDLE_SECONDS + 2
    wait_until(lambda: world.ends, 5, "the target's side has ended")


@every_way
def test_reloads_do_not_disturb(world: World, way: str) -> None:
    client = world.connect(way)
    for index in range(3):
        world.balancer.write(world.configuration + f"\n[target-group:unused{index}]\nprotocol = HTTP\n")
        assert world.balancer.reload()["ok"]
        client.send(f"reload {index}")
        assert client.recv() == f"reload {index}"
    client.close()


GOING_AWAY = struct.pack("!H", 1001)


def open_all(world: World) -> list[websocket.WebSocket]:
    clients = [world.connect(way) for way in ("http", "https", "both")]
    for client in clients:
        client.send("x")
        assert client.recv() == "x"
    return clients


def test_a_drain_takes_leave_of_both_ends(tmp_path: Path) -> None:
    world = World(tmp_path, "workers = 1\ndrain-timeout = 1s")
    with world.balancer:
        clients = open_all(world)
        began = time.monotonic()
        world.balancer.signal(signal.SIGTERM)
        for client in clients:
            assert client.recv_data(control_frame=True) == (CLOSE, GOING_AWAY)
            client.shutdown()
        assert world.balancer.process.wait(10) == 0
        assert 0.9 < time.monotonic() - began < 5
        wait_until(lambda: world.ends == ["code 1001"] * 3, 5, "the target was told")
        assert {line["error_reason"] for line in world.balancer.access_log()} == {"DrainDeadline"}
    world.target.close()


@pytest.mark.parametrize("way", ["http", "https"])
def test_a_target_that_never_stops_sending_is_told_too(tmp_path: Path, way: str) -> None:
    """It must find the close frame before any error, though the client takes nothing of what it sends."""
    world = World(tmp_path, "workers = 1\ndrain-timeout = 1s")
    with world.balancer:
        client = world.connect(way, "/flood")
        world.balancer.signal(signal.SIGTERM)
        wait_until(lambda: world.ends, 10, "the target was told")
        assert world.ends == ["code 1001"]
        client.shutdown()
    world.target.close()


def test_a_deregistered_target_and_its_clients_are_told(tmp_path: Path) -> None:
    world = World(tmp_path)
    with world.balancer:
        clients = open_all(world)
        target = f"targets = {HOST}:{world.target.port}"
        world.balancer.write(world.configuration.replace(target, f"targets = {HOST}:{free_port()}"))
        assert world.balancer.reload()["ok"]
        for client in clients:
            assert client.recv_data(control_frame=True) == (CLOSE, GOING_AWAY)
            client.shutdown()
        wait_until(lambda: world.ends == ["code 1001"] * 3, 5, "the target was told")
    world.target.close()


def test_nothing_is_left_in_flight(world: World) -> None:
    def in_flight() -> int:
        groups = world.balancer.status()["target_groups"]
        return sum(target["in_flight"] for group in groups for target in group["targets"])

    wait_until(lambda: in_flight() == 0, 10, "no exchange is left")
