"""Large bodies: whole, in constant memory, at any reader's speed."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import socket
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
    read_answer,
    read_head,
    read_until,
    reset_when_closed,
    resident_bytes,
    target_group,
    trusting,
    wait_until,
)

pytestmark = pytest.mark.integration

MB = 1 << 20
PIECE = os.urandom(MB)
IDLE_SECONDS = 2


def serve(skt: socket.socket) -> None:
    """``GET /N`` answers N MiB, ``/=N`` N bytes, ``/less`` less than it says; a POST answers the digest of its body.

    ``/deaf`` reads nothing of it.
    """
    while head := read_head(skt):
        head, _, body = head.partition(b"\r\n\r\n")
        path = head.split(b" ")[1]
        if path == b"/cut":
            skt.sendall(b"HTTP/1.0 200 OK\r\n\r\nnot all")
            time.sleep(0.1)
            reset_when_closed(skt)
            return
        if path[:7] == b"/close=":
            size = int(path[7:])
            answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + (2 * PIECE)[:size]
            with contextlib.suppress(OSError):
                skt.sendall(answer)
            return
        if path == b"/less":
            skt.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (2 * MB) + PIECE)
            return
        if path[:2] == b"/=":
            skt.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %b\r\n\r\n" % path[2:] + (2 * PIECE)[: int(path[2:])])
            continue
        if path == b"/deaf":
            time.sleep(2 * IDLE_SECONDS + 1)
            return
        asked = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
        if asked is None:
            skt.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (int(path[1:]) * MB))
            for _ in range(int(path[1:])):
                skt.sendall(PIECE)
            continue
        digest = hashlib.blake2b(body)
        left = int(asked[1]) - len(body)
        buffer = bytearray(MB)
        while left:
            size = skt.recv_into(buffer, min(MB, left))
            if not size:
                return
            digest.update(memoryview(buffer)[:size])
            left -= size
        answer = digest.hexdigest().encode()
        skt.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(answer), answer))


class World:
    def __init__(self, folder: Path) -> None:
        self.target = RawTarget(serve)
        self.http, self.https, self.both = free_port(), free_port(), free_port()
        idle = f"{IDLE_SECONDS}s"
        self.balancer = Balancer(
            folder,
            listener("http", self.http, "forward plain", idle_timeout=idle)
            + listener("https", self.https, "forward plain", "HTTPS", idle_timeout=idle)
            + listener("both", self.both, "forward secure", "HTTPS", idle_timeout=idle)
            + target_group("plain", self.target.port)
            + target_group("secure", self.https, protocol="HTTPS", tls_verify="off"),
            "workers = 1",
        )
        self.pid = 0

    @contextlib.contextmanager
    def connect(self, way: str, buffer_bytes: int = 0) -> Iterator[socket.socket]:
        with socket.socket() as skt:
            skt.settimeout(30)
            if buffer_bytes:
                skt.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)
            skt.connect((HOST, getattr(self, way)))
            if way == "http":
                yield skt
            else:
                with trusting().wrap_socket(skt, suppress_ragged_eofs=False) as tls:
                    yield tls

    def resident(self) -> int:
        """The worker's memory in bytes."""
        return resident_bytes(self.pid)

    def in_flight(self) -> int:
        groups = self.balancer.status()["target_groups"]
        return sum(target["in_flight"] for group in groups for target in group["targets"])


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    world = World(tmp_path_factory.mktemp("bodies"))
    with world.balancer:
        [world.pid] = world.balancer.worker_pids()
        yield world
    world.target.close()


sizes = pytest.mark.parametrize(("way", "size"), [("http", 1024), ("https", 50), ("both", 50)])


@sizes
def test_a_large_download_is_whole_and_takes_no_memory(world: World, way: str, size: int) -> None:
    with world.connect(way) as skt:
        skt.sendall(b"GET /1 HTTP/1.1\r\nHost: x\r\n\r\n")
        read_answer(skt)
        before = world.resident()
        skt.sendall(b"GET /%d HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" % size)
        body = bytearray(read_head(skt).partition(b"\r\n\r\n")[2])
        received = 0
        while True:
            if len(body) >= MB:
                assert body[:MB] == PIECE, f"after {received} bytes"
                received += MB
                del body[:MB]
            more = skt.recv(MB)
            if not more:
                break
            body += more
    assert received + len(body) == size * MB
    assert world.resident() - before < 8 * MB


@sizes
def test_a_large_upload_is_whole_and_takes_no_memory(world: World, way: str, size: int) -> None:
    digest = hashlib.blake2b()
    with world.connect(way) as skt:
        skt.sendall(b"GET /1 HTTP/1.1\r\nHost: x\r\n\r\n")
        read_answer(skt)
        before = world.resident()
        skt.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (size * MB))
        for _ in range(size):
            skt.sendall(PIECE)
            digest.update(PIECE)
        assert read_answer(skt).endswith(digest.hexdigest().encode())
    assert world.resident() - before < 8 * MB


@pytest.mark.parametrize("way", ["http", "https", "both"])
def test_readers_that_do_not_read_take_no_memory_and_are_cut(world: World, way: str) -> None:
    with contextlib.ExitStack() as stack:
        before = world.resident()
        clients = [stack.enter_context(world.connect(way, 65536)) for _ in range(10)]
        for skt in clients:
            skt.sendall(b"GET /50 HTTP/1.1\r\nHost: x\r\n\r\n")
        time.sleep(1)
        assert world.resident() - before < 16 * MB
        wait_until(lambda: world.in_flight() == 0, 3 * IDLE_SECONDS + 3, "all are cut")


@pytest.mark.parametrize("way", ["http", "https"])
def test_a_slow_reader_has_all_the_time_as_long_as_it_reads(world: World, way: str) -> None:
    """At this rate the kernel needs longer than the idle timeout to tell of room."""
    with world.connect(way, 65536) as skt:
        skt.sendall(b"GET /20 HTTP/1.1\r\nHost: x\r\n\r\n")
        end = time.monotonic() + 3 * IDLE_SECONDS
        while time.monotonic() < end:
            assert skt.recv(16384)
            time.sleep(0.05)


@pytest.mark.parametrize("way", ["http", "https", "both"])
def test_a_target_that_does_not_read_stops_the_client_in_bounded_memory(world: World, way: str) -> None:
    before = world.resident()
    with world.connect(way) as skt:
        _send_for_a_second(skt)
        assert world.resident() - before < 8 * MB
        assert skt.recv(12) == b"HTTP/1.1 504"


def _send_for_a_second(skt: socket.socket) -> None:
    """Send as much as is taken, in this thread: two may not share a TLS socket (before Python 3.13)."""
    skt.sendall(b"POST /deaf HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (100 * MB))
    patience = skt.gettimeout()
    skt.settimeout(0.2)
    rest = memoryview(bytes(30 * MB))
    end = time.monotonic() + 1
    while rest and time.monotonic() < end:
        with contextlib.suppress(TimeoutError):
            rest = rest[skt.send(rest[:65536]) :]
    skt.settimeout(patience)


@pytest.mark.parametrize("way", ["http", "https", "both"])
def test_clients_that_vanish_in_a_download_leave_nothing(world: World, way: str) -> None:
    for index in range(20):
        with world.connect(way) as skt:
            skt.sendall(b"GET /20 HTTP/1.1\r\nHost: x\r\n\r\n")
            skt.recv(1000)
            if index % 2:
                reset_when_closed(skt)
    wait_until(lambda: world.in_flight() == 0, 5, "no exchange is left")


@pytest.mark.parametrize("way", ["http", "https", "both"])
def test_an_answer_up_to_the_close_that_is_cut_does_not_pass_for_whole(world: World, way: str) -> None:
    with world.connect(way) as skt:
        skt.sendall(b"GET /cut HTTP/1.0\r\n\r\n")
        answer = read_head(skt)
        with pytest.raises(OSError, match=r"reset|EOF"):
            while more := skt.recv(1000):
                answer += more
    assert answer.endswith(b"\r\n\r\nnot all")


EDGES = [size + more for size in (16384, 131072, 147456, MB) for more in (-1, 0, 1)]
"""Around the sizes from which on, and up to which, the transports relay by themselves."""


@pytest.mark.parametrize("way", ["http", "https", "both"])
def test_bodies_of_any_size_keep_their_place_on_a_connection(world: World, way: str) -> None:
    """Nothing of the next message goes with the one before, and all is counted once."""
    name = way.encode()
    with world.connect(way) as skt:
        for size in EDGES:
            skt.sendall(b"GET /=%d HTTP/1.1\r\nHost: %b\r\n\r\n" % (size, name))
            answer = read_answer(skt)
            assert answer.partition(b"\r\n\r\n")[2] == (2 * PIECE)[:size]
            # the next request comes with the end of this one's body
            body = (2 * PIECE)[:size]
            skt.sendall(b"POST / HTTP/1.1\r\nHost: %b\r\nContent-Length: %d\r\n\r\n" % (name, size))
            time.sleep(0.01)
            skt.sendall(body + b"GET /=1 HTTP/1.1\r\nHost: %b\r\n\r\n" % name)
            answers = read_until(skt, b"\r\n\r\n" + PIECE[:1])
            assert hashlib.blake2b(body).hexdigest().encode() in answers

    def lines() -> list[dict[str, object]]:
        return [line for line in world.balancer.access_log() if line["host"] == way]

    each = 6 if way == "both" else 3  # that one goes through two listeners
    wait_until(lambda: len(lines()) == each * len(EDGES), what="all are logged")
    downs = [line["sent_bytes"] for line in lines() if line["method"] == "GET" and line["request_target"] != "/=1"]
    ups = [line["received_bytes"] for line in lines() if line["method"] == "POST"]
    for logged in (downs, ups):
        for counted, size in zip(sorted(logged), sorted(EDGES * (each // 3)), strict=True):
            assert 0 < counted - size < 300


@pytest.mark.parametrize("way", ["http", "https", "both"])
def test_an_answer_with_the_end_of_its_connection_right_behind_it_is_whole(world: World, way: str) -> None:
    """All of it may be there at the first read, and be known to be the last."""
    for size in [*EDGES, 200_000, 300_000] * 2:
        with world.connect(way) as skt:
            skt.sendall(b"GET /close=%d HTTP/1.1\r\nHost: x\r\n\r\n" % size)
            answer = read_answer(skt)
        assert answer.partition(b"\r\n\r\n")[2] == (2 * PIECE)[:size]


@pytest.mark.parametrize("way", ["http", "https", "both"])
def test_a_target_that_dies_in_an_answer_is_seen_to(world: World, way: str) -> None:
    with world.connect(way) as skt:
        skt.sendall(b"GET /less HTTP/1.1\r\nHost: x\r\n\r\n")
        received = len(read_head(skt))
        with contextlib.suppress(OSError):
            while more := skt.recv(MB):
                received += len(more)
        assert received < 2 * MB, "the reset takes with it what was not read yet"

    def line() -> dict[str, object] | None:
        cut = [line for line in world.balancer.access_log() if line["request_target"] == "/less"]
        return cut[-1] if cut else None

    found = wait_until(line, what="it is logged")
    assert found["error_reason"]
    assert found["sent_bytes"] >= received


def test_a_long_download_shows_in_the_metrics_while_it_runs(world: World) -> None:
    def received() -> float:
        text = world.balancer.get("/metrics")[1].decode()
        lines = [line for line in text.splitlines() if line.startswith("lbproxy_target_received_bytes_total")]
        return sum(float(line.rpartition(" ")[2]) for line in lines)

    with world.connect("http", 65536) as skt:
        before = received()
        skt.sendall(b"GET /20 HTTP/1.1\r\nHost: x\r\n\r\n")
        read_head(skt)
        wait_until(lambda: received() - before > MB // 2, what="the metrics tell of it")


def test_an_answer_flows_while_the_request_does(world: World, tmp_path: Path) -> None:
    """Each MiB comes back before the next one is sent."""

    def echo(skt: socket.socket) -> None:
        body = read_head(skt).partition(b"\r\n\r\n")[2]
        skt.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (20 * MB, body))
        while more := skt.recv(MB):
            skt.sendall(more)

    port = free_port()
    with (
        RawTarget(echo) as target,
        Balancer(
            tmp_path,
            listener("web", port, "forward echo") + target_group("echo", target.port),
            "workers = 0",
        ),
        socket.create_connection((HOST, port), timeout=10) as skt,
    ):
        skt.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (20 * MB))
        received = bytearray()
        for index in range(20):
            skt.sendall(PIECE)
            if not index:
                received += read_head(skt).partition(b"\r\n\r\n")[2]
            while len(received) < MB:
                more = skt.recv(MB)
                assert more
                received += more
            assert received[:MB] == PIECE
            del received[:MB]
        assert not received
