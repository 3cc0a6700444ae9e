"""HTTP/2 through processes of their own, with another implementation's client."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import itertools
import re
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import h2.config
import h2.connection
import h2.events
import h2.settings
import pytest

from tests.conformance.test_rfc9113 import CASES
from tests.integration.harness import (
    HOST,
    Balancer,
    HttpTarget,
    RawTarget,
    echo,
    free_port,
    listener,
    read_head,
    resident_bytes,
    target_group,
    trusting,
    wait_until,
)
from tests.wire.http2.raw import CLIENT_PREFACE, GET, POST, headers, reset, settings, window_update

pytestmark = pytest.mark.integration


class Client:
    """One connection; with TLS if the listener wants it."""

    def __init__(self, port: int, secure: bool = False) -> None:
        self.socket = socket.create_connection((HOST, port), timeout=15)
        if secure:
            context = trusting()
            context.set_alpn_protocols(["h2", "http/1.1"])
            wrapped = context.wrap_socket(self.socket)
            assert wrapped.selected_alpn_protocol() == "h2"
            self.socket = wrapped
        self.scheme = "https" if secure else "http"
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding="utf-8"))
        self.h2.initiate_connection()
        self.bodies: dict[int, bytes] = {}
        self.statuses: dict[int, int] = {}
        self.ended: set[int] = set()
        self.goaways = 0
        self.flush()

    def flush(self) -> None:
        self.socket.sendall(self.h2.data_to_send())

    def pump(self) -> bool:
        """Read once; tell whether the connection goes on."""
        data = self.socket.recv(65536)
        for event in self.h2.receive_data(data) if data else ():
            if isinstance(event, h2.events.ResponseReceived):
                self.statuses[event.stream_id] = int(dict(event.headers)[":status"])
            elif isinstance(event, h2.events.DataReceived):
                self.bodies[event.stream_id] = self.bodies.get(event.stream_id, b"") + event.data
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, h2.events.StreamEnded):
                self.ended.add(event.stream_id)
            elif isinstance(event, h2.events.ConnectionTerminated):
                self.goaways += 1
        self.flush()
        return bool(data)

    def request(self, path: str, method: str = "GET", body: bytes = b"", **more: str) -> int:
        number = self.h2.get_next_available_stream_id()
        fields = [(":method", method), (":scheme", self.scheme), (":authority", "example.com"), (":path", path)]
        self.h2.send_headers(number, [*fields, *more.items()], end_stream=not body and method == "GET")
        at = 0
        while at < len(body):
            size = min(self.h2.local_flow_control_window(number), self.h2.max_outbound_frame_size, len(body) - at)
            if size > 0:
                at += size
                self.h2.send_data(number, body[at - size : at], end_stream=at == len(body))
            self.flush()
            if size == 0:
                self.pump()
        self.flush()
        return number

    def finish(self, *numbers: int) -> None:
        while not self.ended.issuperset(numbers):
            assert self.pump()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exc: object) -> None:
        self.socket.close()


def configuration(web: int, secure: int, target: int) -> str:
    return (
        listener("web", web, "forward app", http2="on")
        + listener("secure", secure, "forward app", "HTTPS")
        + target_group("app", target, health_check_path="/health")
    )


class World:
    def __init__(self, balancer: Balancer, web: int, secure: int) -> None:
        self.balancer = balancer
        self.web = web
        self.secure = secure


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with HttpTarget("one") as target:
        web, secure = free_port(), free_port()
        text = configuration(web, secure, target.port)
        with Balancer(tmp_path_factory.mktemp("http2"), text, "workers = 1\ndrain-timeout = 10s") as balancer:
            balancer.wait_healthy("app", 1)
            yield World(balancer, web, secure)


@pytest.mark.parametrize("secure", [False, True])
def test_requests_side_by_side(world: World, secure: bool) -> None:
    with Client(world.secure if secure else world.web, secure) as client:
        numbers = [client.request("/slow/0.2") for _ in range(20)] + [client.request("/") for _ in range(80)]
        client.finish(*numbers)
    assert {client.statuses[number] for number in numbers} == {200}
    assert {client.bodies[number] for number in numbers} == {b"one\n"}
    wait_until(
        lambda: len([line for line in world.balancer.access_log() if line["version"] == "HTTP/2.0"]) >= 100, 10, "lines"
    )


@pytest.mark.parametrize("secure", [False, True])
def test_large_content_both_ways(world: World, secure: bool) -> None:
    content = bytes(range(256)) * 8000
    with Client(world.secure if secure else world.web, secure) as client:
        up = client.request("/", "POST", content)
        down = client.request("/bytes/5000000")
        client.finish(up, down)
    assert client.bodies[up] == content
    assert len(client.bodies[down]) == 5000000


def test_the_conformance_cases_over_tcp(world: World) -> None:
    """None of them shakes the worker; those that break the connection get GOAWAY and the end."""
    for name, (received, (kind, _)) in CASES.items():
        with socket.create_connection((HOST, world.web), timeout=15) as skt:
            skt.sendall(CLIENT_PREFACE + received)
            if kind == "connection":
                answer = b""
                with contextlib.suppress(ConnectionError):
                    while more := skt.recv(65536):
                        answer += more
                assert b"\x07\x00\x00\x00\x00\x00" in answer, name
    with Client(world.web) as client:
        client.finish(client.request("/"))


def rapid_reset(number: int) -> bytes:
    return headers(number, GET) + reset(number)


ABUSE = {
    "rapid reset": rapid_reset,
    "made you reset": lambda number: headers(number, POST, 4) + window_update(number, 0),
    "settings": lambda number: settings() * 10,
    "pings": lambda number: (b"\0\0\x08\x06\0\0\0\0\0" + bytes(8)) * 10,
    "priorities": lambda number: (b"\0\0\x05\x02\0\0\0\0\x07" + bytes(5)) * 10,
    "window updates": lambda number: window_update(0, 1) * 10,
    "header blocks without end": lambda number: (
        (headers(1, GET, 0) if number == 1 else b"") + b"\0\x10\0\x09\0\0\0\0\1" + bytes(4096)
    ),
}


def abuse(port: int, name: str, ended: list[str]) -> None:
    """Do it until the balancer ends the connection."""
    deadline = time.monotonic() + 30
    with socket.create_connection((HOST, port), timeout=20) as skt:
        skt.sendall(CLIENT_PREFACE)
        for number in itertools.count(1, 2):
            try:
                skt.sendall(ABUSE[name](number))
            except ConnectionError:
                ended.append(name)
                return
            if time.monotonic() > deadline:
                return


@pytest.mark.parametrize("name", ABUSE)
def test_good_clients_are_served_while_others_abuse(world: World, name: str) -> None:
    [pid] = world.balancer.worker_pids()
    before = resident_bytes(pid)
    ended: list[str] = []
    abusers = [threading.Thread(target=abuse, args=(world.web, name, ended), daemon=True) for _ in range(20)]
    for thread in abusers:
        thread.start()
    with Client(world.web) as client:
        while any(thread.is_alive() for thread in abusers):
            number = client.request("/")
            client.finish(number)
            assert client.statuses[number] == 200
    assert ended == [name] * 20
    assert resident_bytes(pid) - before < 64 << 20


def test_stalled_readers_hold_little(world: World) -> None:
    """A window of nothing for large answers, on all streams of twenty connections."""
    [pid] = world.balancer.worker_pids()
    before = resident_bytes(pid)
    fields = [*GET[:3], (":path", "/bytes/200000")]
    with contextlib.ExitStack() as stack:
        for _ in range(20):
            skt = stack.enter_context(socket.create_connection((HOST, world.web), timeout=15))
            skt.sendall(CLIENT_PREFACE + settings((4, 0)) + b"".join(headers(n, fields) for n in range(1, 40, 2)))
        with Client(world.web) as client:
            for _ in range(20):
                client.finish(client.request("/"))
        assert resident_bytes(pid) - before < 64 << 20


def accept_websocket(skt: socket.socket) -> None:
    """A target that switches and echoes."""
    head = read_head(skt)
    match = re.search(rb"[Ss]ec-[Ww]eb[Ss]ocket-[Kk]ey: ([^\r]*)\r\n", head)
    if match is None:
        skt.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        return
    accept = base64.b64encode(hashlib.sha1(match[1] + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
    skt.sendall(
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Accept: %b\r\n\r\n" % accept
    )
    echo(skt)


def open_websocket(client: Client) -> int:
    while not client.h2.remote_settings.get(h2.settings.SettingCodes.ENABLE_CONNECT_PROTOCOL):
        client.pump()
    number = client.h2.get_next_available_stream_id()
    client.h2.send_headers(
        number,
        [
            (":method", "CONNECT"),
            (":protocol", "websocket"),
            (":scheme", client.scheme),
            (":authority", "example.com"),
            (":path", "/chat"),
            ("sec-websocket-version", "13"),
        ],
    )
    client.flush()
    while number not in client.statuses:
        client.pump()
    assert client.statuses[number] == 200
    return number


@pytest.mark.parametrize("encrypted", [False, True])
def test_a_websocket_that_outlasts_the_drain_is_told(tmp_path: Path, encrypted: bool) -> None:
    """RFC 6455 section 7.4.1."""
    with RawTarget(accept_websocket) as target:
        web, secure = free_port(), free_port()
        text = configuration(web, secure, target.port)
        with Balancer(tmp_path, text, "workers = 1\ndrain-timeout = 1s") as balancer:
            balancer.wait_healthy("app", 1)
            with Client(secure if encrypted else web, encrypted) as client:
                number = open_websocket(client)
                balancer.process.terminate()
                while not client.goaways:
                    client.pump()
                client.h2.state_machine.state = h2.connection.ConnectionState.CLIENT_OPEN
                client.finish(number)
                assert client.bodies[number] == b"\x88\x02\x03\xe9"
            assert balancer.process.wait(15) == 0


def test_a_websocket_and_a_drain(tmp_path: Path) -> None:
    """RFC 8441; then SIGTERM: what is in flight ends in its time, after GOAWAY."""
    with RawTarget(accept_websocket) as target:
        web, secure = free_port(), free_port()
        text = configuration(web, secure, target.port)
        with Balancer(tmp_path, text, "workers = 1\ndrain-timeout = 10s") as balancer:
            balancer.wait_healthy("app", 1)
            with Client(web) as client:
                number = open_websocket(client)
                for piece in (b"ping", b"x" * 16000):
                    client.h2.send_data(number, piece)
                    client.flush()
                while len(client.bodies.get(number, b"")) < 16004:
                    client.pump()
                balancer.process.terminate()
                while not client.goaways:
                    client.pump()
                client.h2.state_machine.state = h2.connection.ConnectionState.CLIENT_OPEN
                client.h2.send_data(number, b"", end_stream=True)
                client.flush()
                while client.pump():
                    pass
            assert balancer.process.wait(15) == 0
