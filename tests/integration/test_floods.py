"""Ten thousand bad connections to each kind of listener: no descriptor stays, no memory; none that waits costs CPU."""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest

from tests.integration.harness import (
    HOST,
    Balancer,
    RawTarget,
    busy_seconds,
    free_port,
    listener,
    read_head,
    reset_when_closed,
    resident_bytes,
    rule,
    talk,
    target_group,
    trusting,
    wait_until,
)
from tests.integration.websocket_cases import frame as websocket_frame
from tests.wire.http2.raw import CLIENT_PREFACE, GET, POST, data, frame, headers, reset, settings

pytestmark = pytest.mark.integration

CONNECTIONS = 10_000
AT_ONCE = 100

MUCH_MEMORY = 100 << 20
"""What a worker may keep after all that, once: allocators and the garbage collector take their time."""

PROXY_V2 = b"\r\n\r\n\0\r\nQUIT\n"
TUNNEL = b"GET /websocket HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
REQUEST = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"


class Target:
    """One thread that answers each piece that comes with what ``answer`` makes of it; what is not taken is lost."""

    def __init__(self, answer: Callable[[bytes], bytes]) -> None:
        self._answer = answer
        self._listening = socket.create_server((HOST, 0), backlog=1024)
        self._listening.setblocking(False)
        self.port: int = self._listening.getsockname()[1]
        self.open: set[socket.socket] = set()
        self._ended = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        with selectors.EpollSelector() as selector:
            selector.register(self._listening, selectors.EVENT_READ)
            while not self._ended:
                for key, _ in selector.select(0.1):
                    assert isinstance(key.fileobj, socket.socket)
                    if key.fileobj is self._listening:
                        with contextlib.suppress(OSError):
                            skt = self._listening.accept()[0]
                            skt.setblocking(False)
                            selector.register(skt, selectors.EVENT_READ)
                            self.open.add(skt)
                    elif not self._serve(key.fileobj):
                        selector.unregister(key.fileobj)
                        self.open.discard(key.fileobj)
                        key.fileobj.close()
            for skt in (self._listening, *self.open):
                skt.close()

    def _serve(self, skt: socket.socket) -> bool:
        try:
            data = skt.recv(65536)
            if data:
                skt.send(self._answer(data))
        except BlockingIOError:
            return True
        except OSError:
            return False
        return bool(data)

    def close(self) -> None:
        self._ended = True
        self._thread.join(5)


def http_answer(data: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok" * data.count(b"\r\n\r\n")


def stream_answer(data: bytes) -> bytes:
    """Much for one word, for a client that does not read; else the same again."""
    return bytes(50_000_000) if data == b"flood" else data


LENGTHS = {
    "/length": b"HTTP/1.1 200 OK\r\nContent-Length: 999999999999999999\r\n\r\nx",
    "/chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffff\r\nx",
    "/websocket": b"HTTP/1.1 101 OK\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n\x82\x7f\x7f" + b"\xff" * 8,
}
"""Answers that announce more than there ever is."""


def announce(skt: socket.socket) -> None:
    """Answer what the path names, then wait for the end."""
    skt.sendall(LENGTHS[read_head(skt).split(b" ")[1].decode()])
    while skt.recv(65536):
        pass


class World:
    def __init__(self, folder: Path) -> None:
        self.http, self.stream = Target(http_answer), Target(stream_answer)
        self.announcing = RawTarget(announce)
        self.ports = {name: free_port() for name in ("http", "https", "http2", "proxied", "tcp", "tls")}
        p = self.ports
        proxied = {"proxy_protocol": "on", "proxy_protocol_trusted": f"{HOST}/32"}
        self.balancer = Balancer(
            folder,
            listener("http", p["http"], "forward http", request_header_timeout="3s")
            + listener("https", p["https"], "forward http", "HTTPS", request_header_timeout="3s")
            + listener("http2", p["http2"], "forward http", http2="on", request_header_timeout="3s")
            + rule("announcing", 1, "/length, /chunk, /websocket", "forward announcing", listener="http2")
            + listener("proxied", p["proxied"], "forward http", request_header_timeout="3s", **proxied)
            + listener("tcp", p["tcp"], "forward stream", "TCP")
            + listener("tls", p["tls"], "forward stream", "TLS", request_header_timeout="3s")
            + target_group("announcing", self.announcing.port)
            + target_group("http", self.http.port, max_idle_connections="5")
            + target_group("stream", self.stream.port, protocol="TCP"),
            "workers = 1",
        )
        self.pid = 0

    def descriptors(self) -> int:
        """The worker's, without the few pipes that it keeps to splice through."""
        count = 0
        for name in os.listdir(f"/proc/{self.pid}/fd"):
            with contextlib.suppress(OSError):
                count += not os.readlink(f"/proc/{self.pid}/fd/{name}").startswith("pipe:")
        return count

    def resident(self) -> int:
        return resident_bytes(self.pid)

    def busy_seconds(self) -> float:
        return busy_seconds(self.pid)

    def assert_at_rest(self, seconds: float = 1.0) -> None:
        """What is open now costs next to nothing: a loop that spins would take all of the time it gets."""
        time.sleep(0.3)
        before = self.busy_seconds()
        time.sleep(seconds)
        busy = self.busy_seconds() - before
        assert busy < 0.1 * seconds, f"{busy:.2f} s of CPU in {seconds} s"

    def active(self) -> int:
        lines = self.balancer.get("/metrics")[1].decode().splitlines()
        return sum(int(float(line.split()[-1])) for line in lines if line.startswith("lbproxy_listener_active_conn"))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    world = World(tmp_path_factory.mktemp("floods"))
    with world.balancer:
        [world.pid] = world.balancer.worker_pids()
        yield world
    world.http.close()
    world.stream.close()
    world.announcing.close()


def hello() -> bytes:
    """What a TLS client says first."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = trusting().wrap_bio(incoming, outgoing, server_hostname="localhost")
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


class Flood:
    """Opens connections and does harm on those that are open, some at a time."""

    def __init__(self, port: int, messages: list[bytes]) -> None:
        self.port = port
        self.messages = messages
        self.random = Random(7)
        self.open: list[list[object]] = []
        """Sockets and what is to be sent a byte at a time."""

    def step(self) -> None:
        random = self.random
        skt = socket.socket()
        skt.setblocking(False)
        skt.connect_ex((HOST, self.port))
        message = random.choice(self.messages)
        self.open.append([skt, message])
        with contextlib.suppress(OSError):
            match random.randrange(6):
                case 0:
                    skt.send(message[: random.randrange(len(message) + 1)])
                case 1:
                    skt.send(message)
                case 2:
                    skt.send(message)
                    skt.shutdown(socket.SHUT_WR)
                case 3:
                    skt.send(random.randbytes(random.choice((1, 100, 20_000))))
        for _ in range(2):
            self.trickle(random.choice(self.open))
        while len(self.open) > AT_ONCE:
            self.end(self.open.pop(random.randrange(len(self.open))))

    def trickle(self, entry: list[object]) -> None:
        skt, rest = entry
        assert isinstance(skt, socket.socket)
        assert isinstance(rest, bytes)
        with contextlib.suppress(OSError):
            skt.send(rest[:1])
            entry[1] = rest[1:]

    def end(self, entry: list[object]) -> None:
        skt = entry[0]
        assert isinstance(skt, socket.socket)
        with contextlib.suppress(OSError):
            if self.random.random() < 0.3:
                skt.recv(self.random.choice((1, 100_000)))
            if self.random.random() < 0.5:
                reset_when_closed(skt)
        skt.close()


@pytest.mark.parametrize("listener", ["http", "https", "http2", "proxied", "tcp", "tls"])
def test_ten_thousand_bad_connections_leave_no_descriptor(world: World, listener: str) -> None:
    port = world.ports[listener]
    messages = {
        "http": [REQUEST, REQUEST * 3, b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 50 + b"\r\n"],
        "https": [hello(), hello()[:100], REQUEST],
        "http2": [
            CLIENT_PREFACE + headers(1, GET) + headers(3, GET),
            CLIENT_PREFACE + headers(1, POST, 4) + data(1, bytes(16384)),
            CLIENT_PREFACE + settings((4, 0)) + headers(1, GET),
            CLIENT_PREFACE + headers(1, GET) + reset(1) + headers(1, GET),
        ],
        "proxied": [
            b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n" + REQUEST,
            PROXY_V2 + b"\x21\x11\0\x0c" + bytes(12) + REQUEST,
            PROXY_V2 + b"\x21\x11\xff\xff" + bytes(3000),
        ],
        "tcp": [b"word", b"flood", b"x" * 30_000],
        "tls": [hello(), hello()[:100], REQUEST],
    }
    wait_until(lambda: world.active() == 0, 10, "what was before is gone")
    before, memory = world.descriptors(), world.resident()
    flood = Flood(port, messages[listener])
    for _ in range(CONNECTIONS):
        flood.step()
    for entry in flood.open:
        flood.end(entry)
    wait_until(lambda: world.active() == 0, 20, "all connections are gone")
    wait_until(lambda: world.descriptors() <= before + 10, 5, "no descriptor is left")
    assert world.balancer.worker_pids() == [world.pid], "the worker lives"
    assert world.resident() < memory + MUCH_MEMORY
    if listener in ("http", "http2"):
        assert talk(port, b"GET / HTTP/1.0\r\n\r\n").endswith(b"ok")
    world.assert_at_rest()


def test_tls_clients_that_vanish_leave_no_descriptor(world: World) -> None:
    """After the handshake, in the middle of anything."""
    before = world.descriptors()
    context, random = trusting(), Random(3)
    for _ in range(500):
        listener = random.choice(("https", "tls"))
        skt = socket.create_connection((HOST, world.ports[listener]), timeout=10)
        with context.wrap_socket(skt, server_hostname="localhost") as secure, contextlib.suppress(OSError):
            secure.sendall(REQUEST[: random.randrange(len(REQUEST) + 1)])
            if random.random() < 0.3:
                secure.settimeout(0.02)
                secure.recv(1)
            if random.random() < 0.5:
                reset_when_closed(secure)
    wait_until(lambda: world.active() == 0, 20, "all connections are gone")
    wait_until(lambda: world.descriptors() <= before + 10, 5, "no descriptor is left")
    world.assert_at_rest()


def test_no_length_from_the_network_is_trusted(world: World) -> None:
    """What is announced and never comes takes no memory, in either direction."""
    before = world.resident()
    huge = [
        ("http", b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 999999999999999999\r\n\r\nx"),
        ("http", b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffff\r\nx"),
        ("http2", CLIENT_PREFACE + b"\xff\xff\xff\0\0\0\0\0\1" + bytes(100)),
        ("http2", CLIENT_PREFACE + frame(1, 5, 1, b"\0\x7f\xff\xff\xff\xff\x07x")),
        ("http2", CLIENT_PREFACE + headers(1, [*POST, ("content-length", "999999999999999999")], 4)),
        ("proxied", PROXY_V2 + b"\x21\x11\xff\xff" + bytes(12)),
        ("tls", b"\x16\x03\x01\xff\xff\x01\xff\xff\xff"),
        *(("http2", b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % path.encode()) for path in ("/length", "/chunk")),
        (
            "http2",
            TUNNEL + b"\x82\xff\x7f" + b"\xff" * 7 + b"mask",
        ),
    ]  # fmt: skip
    with contextlib.ExitStack() as stack:
        for listener, sent in huge * 20:
            skt = stack.enter_context(socket.create_connection((HOST, world.ports[listener]), timeout=10))
            with contextlib.suppress(OSError):
                skt.sendall(sent)
        world.assert_at_rest()
        assert world.resident() < before + MUCH_MEMORY / 4
    assert world.balancer.worker_pids() == [world.pid], "the worker lives"


def test_connections_that_wait_cost_nothing(world: World) -> None:
    """Idle, half said, half closed by either end, or stalled: nothing is to be done, so nothing must be."""
    with contextlib.ExitStack() as stack:

        def connect(listener: str, data: bytes = b"") -> socket.socket:
            skt = stack.enter_context(socket.create_connection((HOST, world.ports[listener]), timeout=10))
            skt.sendall(data)
            return skt

        for _ in range(20):
            connect("http")
            connect("http", REQUEST).recv(1000)
            connect("http", REQUEST[:-1]).recv(0)
            connect("http", b"GET / HTTP/1.1\r\n").shutdown(socket.SHUT_WR)
            connect("tcp")
            connect("tcp", b"half").shutdown(socket.SHUT_WR)
            connect("tcp", b"flood")
            connect("tls")
            connect("tls", hello()[:50])
            connect("https", hello()[:50])
            connect("http2", CLIENT_PREFACE)
            connect("http2", CLIENT_PREFACE[:20])
            connect("http2", CLIENT_PREFACE + headers(1, POST, 4) + data(1, b"part"))
            connect("http2", CLIENT_PREFACE + settings((4, 0)) + headers(1, GET))
            connect("http2", CLIENT_PREFACE + headers(1, GET)[:15])
            connect("http2", TUNNEL).recv(1000)
            connect("http2", TUNNEL + websocket_frame(1, b"half")[:7]).recv(1000)
            connect("proxied", b"PROXY TCP4 192.0.2.1")
            secure = trusting().wrap_socket(connect("tls"), server_hostname="localhost")
            stack.enter_context(secure)
            secure.sendall(b"flood")
        world.assert_at_rest(2.0)


@pytest.mark.parametrize("listener", ["tcp", "tls"])
def test_a_half_closed_pair_costs_nothing(world: World, listener: str) -> None:
    """The client has finished and waits for an answer that does not come, then the other way round."""
    with contextlib.ExitStack() as stack:
        for _ in range(20):
            skt = stack.enter_context(socket.create_connection((HOST, world.ports[listener]), timeout=10))
            if listener == "tls":
                skt = stack.enter_context(trusting().wrap_socket(skt, server_hostname="localhost"))
            skt.sendall(b"word")
            assert skt.recv(10) == b"word"
        for skt in list(world.stream.open):
            with contextlib.suppress(OSError):
                skt.shutdown(socket.SHUT_WR)
        world.assert_at_rest()
