"""Clients and targets that misbehave by the hundred, and what is left when they are gone: nothing."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import re
import socket
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.integration.harness import (
    HOST,
    Balancer,
    RawTarget,
    busy_seconds,
    free_port,
    listener,
    read_all,
    read_head,
    reset_when_closed,
    resident_bytes,
    rule,
    talk,
    target_group,
    wait_until,
)

pytestmark = pytest.mark.integration

BIG = b"k" * 5_000_000


def serve(skt: socket.socket) -> None:
    """Reads whole requests; the path says how they are answered."""
    buffer = b""
    while True:
        while b"\r\n\r\n" not in buffer:
            more = skt.recv(65536)
            if not more:
                return
            buffer += more
        head, _, buffer = buffer.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
        end = int(length[1]) if length else 0
        while len(buffer) < end or (b"chunked" in head and b"0\r\n\r\n" not in buffer):
            more = skt.recv(65536)
            if not more:
                return
            buffer += more
        buffer = b"" if b"chunked" in head else buffer[end:]
        path = head.split(b" ")[1]
        if path == b"/hang":
            time.sleep(3)
            return
        if path == b"/slow":
            time.sleep(0.3)
        content = BIG if path == b"/big" else b"kk"
        skt.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(content) + content[:2])
        if content is BIG:
            skt.sendall(memoryview(BIG)[2:])


class World:
    def __init__(self, folder: Path) -> None:
        self.target = RawTarget(serve)
        self.port = free_port()
        self.balancer = Balancer(
            folder,
            listener("web", self.port, "forward app", idle_timeout="1s", request_header_timeout="1s")
            + rule("fixed", 1, "/fixed", 'fixed-response 200 text/plain "fixed"')
            + target_group("app", self.target.port, response_timeout="1s", max_idle_connections="10"),
            "workers = 1",
        )
        self.pid = 0

    def connect(self, data: bytes = b"") -> socket.socket:
        skt = socket.create_connection((HOST, self.port), timeout=10)
        skt.sendall(data)
        return skt

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def resident(self) -> int:
        return resident_bytes(self.pid)

    def busy_seconds(self) -> float:
        return busy_seconds(self.pid)

    def open_now(self) -> tuple[int, int]:
        """Client connections and exchanges, as the metrics tell."""
        text = self.balancer.get("/metrics")[1].decode()
        values = [
            re.search(rf"^{name}{{.*}} ([0-9.]+)$", text, re.MULTILINE)
            for name in ("lbproxy_listener_active_connections", "lbproxy_target_in_flight")
        ]
        clients, exchanges = (int(float(value[1])) if value else -1 for value in values)
        return clients, exchanges


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    world = World(tmp_path_factory.mktemp("abuse"))
    with world.balancer:
        [world.pid] = world.balancer.worker_pids()
        yield world
    world.target.close()


@pytest.fixture
def world(shared: World) -> Iterator[World]:
    """The world, which must be after each test what it was before."""
    talk(shared.port, b"GET / HTTP/1.0\r\n\r\n")
    descriptors, memory = shared.descriptors(), shared.resident()
    yield shared
    # The target, a Python program, may need a moment to get through what was thrown at it.
    wait_until(lambda: talk(shared.port, b"GET / HTTP/1.0\r\n\r\n").endswith(b"kk"), 10, "others are served")
    wait_until(lambda: shared.open_now() == (0, 0), 10, "the gauges are at zero")
    wait_until(lambda: shared.descriptors() <= descriptors + 10, 5, "no descriptor is left")
    assert shared.resident() < memory + 40_000_000
    busy = shared.busy_seconds()
    time.sleep(0.5)
    assert shared.busy_seconds() - busy < 0.2, "it spins"


def test_a_thousand_unfinished_heads(world: World) -> None:
    clients = [world.connect(b"GET / HTTP/1.1\r\nHost:") for _ in range(1000)]
    assert talk(world.port, b"GET / HTTP/1.0\r\n\r\n").endswith(b"kk"), "others are served meanwhile"
    assert {skt.recv(12) for skt in clients} == {b"HTTP/1.1 408"}
    for skt in clients:
        skt.close()


def test_a_thousand_connections_reset_at_once(world: World) -> None:
    for data in (b"", b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n"):
        clients = [world.connect(data) for _ in range(500)]
        for skt in clients:
            reset_when_closed(skt)
            skt.close()


def test_bodies_that_stop(world: World) -> None:
    clients = [world.connect(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n1234") for _ in range(200)]
    assert {skt.recv(12) for skt in clients} == {b"HTTP/1.1 408"}
    for skt in clients:
        skt.close()


def test_readers_that_stall_hold_little(world: World) -> None:
    """What was read for them and is not taken: less than 192 KiB each."""
    before = world.resident()
    clients = []
    for _ in range(200):
        skt = socket.socket()
        skt.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        skt.connect((HOST, world.port))
        skt.sendall(b"GET /big HTTP/1.1\r\nHost: x\r\n\r\n")
        clients.append(skt)
    wait_until(lambda: world.open_now() == (200, 200), 10, "all are answered")
    assert talk(world.port, b"GET / HTTP/1.0\r\n\r\n").endswith(b"kk"), "others are served meanwhile"
    held = 0
    for _ in range(20):
        held = max(held, world.resident() - before)
        time.sleep(0.05)
    assert held < 200 * 196608
    for skt in clients:
        skt.close()


def test_targets_that_hang(world: World) -> None:
    clients = [world.connect(b"GET /hang HTTP/1.1\r\nHost: x\r\n\r\n") for _ in range(100)]
    assert {skt.recv(12) for skt in clients} == {b"HTTP/1.1 504"}
    for skt in clients:
        skt.close()


def test_clients_that_leave_in_every_phase(world: World) -> None:
    messages = [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n" + b"x" * 1000,
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        b"GET /big HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n" * 3,
    ]

    def leave(number: int) -> None:
        choice = random.Random(number)
        message = choice.choice(messages)
        with world.connect(message[: choice.randrange(len(message) + 1)]) as skt, contextlib.suppress(OSError):
            if choice.random() < 0.3:
                time.sleep(choice.random() * 0.02)
            if choice.random() < 0.2:
                skt.shutdown(socket.SHUT_WR)
            if choice.random() < 0.2:
                skt.settimeout(0.01)
                skt.recv(100)
            if choice.random() < 0.5:
                reset_when_closed(skt)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(leave, range(600)))


def test_requests_byte_by_byte(world: World) -> None:
    for message in (
        b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n1;x\r\nh\r\n0\r\n\r\n",
    ):
        with world.connect() as skt:
            skt.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for index in range(len(message)):
                skt.sendall(message[index : index + 1])
            assert read_all(skt).endswith(b"\r\n\r\nkk")


def test_pipelines_whose_answers_nobody_reads(world: World) -> None:
    clients = [world.connect() for _ in range(10)]
    for skt in clients:
        skt.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            for _ in range(500):
                skt.send(b"GET /fixed HTTP/1.1\r\nHost: x\r\n\r\n" * 50)
    time.sleep(0.5)
    for skt in clients:
        skt.close()


def test_every_answer_of_a_pipeline_comes_however_late_it_is_read(world: World) -> None:
    count = 20_000
    with world.connect() as skt, ThreadPoolExecutor(1) as pool:
        sending = pool.submit(skt.sendall, b"GET /fixed HTTP/1.1\r\nHost: x\r\n\r\n" * count)
        time.sleep(0.5)
        received = tail = b""
        answers = 0
        while answers < count:
            received = skt.recv(1 << 20)
            assert received, answers
            answers += (tail + received).count(b"\r\n\r\nfixed")
            tail = (tail + received)[-8:]
        sending.result(5)
    assert answers == count


# Targets


@pytest.fixture
def farm(tmp_path: Path) -> Iterator[tuple[int, list[str]]]:
    """A port in front of a target that closes or resets its kept connections when it likes, and what was posted."""
    posted: list[str] = []
    luck = random.Random(1)

    def moody(skt: socket.socket) -> None:
        skt.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while head := read_head(skt):
            if head.startswith(b"POST"):
                posted.append(head.partition(b"\r\n\r\n")[2].decode())
            skt.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            mood = luck.random()
            if mood < 0.3:
                time.sleep(luck.random() * 0.003)
                if mood < 0.1:
                    reset_when_closed(skt)
                return

    port = free_port()
    with (
        RawTarget(moody) as target,
        Balancer(
            tmp_path,
            listener("web", port, "forward moody") + target_group("moody", target.port),
        ),
    ):
        yield port, posted


def test_a_target_that_closes_kept_connections_fails_no_get_and_gets_no_post_twice(
    farm: tuple[int, list[str]],
) -> None:
    port, posted = farm

    def ask(number: int) -> list[tuple[str, bytes]]:
        statuses = []
        with socket.create_connection((HOST, port), timeout=10) as skt:
            for index in range(100):
                name = f"{number}-{index}"
                method = "POST" if index % 4 == 0 else "GET"
                body = name if method == "POST" else ""
                skt.sendall(f"{method} / HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
                head, _, rest = read_head(skt).partition(b"\r\n\r\n")
                length = re.search(rb"(?i)content-length: (\d+)", head)
                assert length is not None
                while len(rest) < int(length[1]):
                    rest += skt.recv(1000)
                statuses.append((method, head[9:12]))
        return statuses

    with ThreadPoolExecutor(6) as pool:
        results = Counter(itertools.chain.from_iterable(pool.map(ask, range(6))))
    assert results["GET", b"200"] == 450
    assert set(results) <= {("GET", b"200"), ("POST", b"200"), ("POST", b"502")}
    assert max(Counter(posted).values()) == 1
