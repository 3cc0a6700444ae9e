"""Targets that say more than they were asked: what answers a request is its own answer, or none."""

from __future__ import annotations

import os
import re
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.harness import (
    Balancer,
    RawTarget,
    connection,
    free_port,
    listener,
    read_answer,
    read_head,
    read_until,
    talk,
    target_group,
    wait_until,
)

pytestmark = pytest.mark.integration

STOLEN = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nstolen"


def answer(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


def get(path: bytes = b"/") -> bytes:
    return b"GET %b HTTP/1.1\r\nHost: h\r\n\r\n" % path


class OddTarget:
    """Answers each request with its path, and by the path with something else besides."""

    def __init__(self) -> None:
        self.say_more = threading.Event()
        """Set: the connection of /later sends an answer that nobody asked for."""
        self.said_more = threading.Event()
        self.raw = RawTarget(self._serve)

    def _serve(self, skt: socket.socket) -> None:
        skt.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while head := read_head(skt):
            path = head.split(b" ")[1]
            if path == b"/later":
                skt.sendall(answer(path))
                self.say_more.wait(10)
                skt.sendall(STOLEN)
                self.said_more.set()
            elif path == b"/full":
                # the answer ends where the balancer's first read does, at 16384 bytes
                room = 16384 - len(b"HTTP/1.1 200 OK\r\nContent-Length: 16343\r\n\r\n")
                skt.sendall(answer(b"f" * room) + STOLEN)
            elif path == b"/interim":
                skt.sendall(b"HTTP/1.1 103 Early Hints\r\nX: y\r\n\r\n" * 5000 + answer(path))
            elif path == b"/early":
                skt.sendall(answer(path))
            elif path == b"/not-modified":
                skt.sendall(b"HTTP/1.1 304 Not Modified\r\nContent-Length: %d\r\n\r\n" % len(STOLEN) + STOLEN)
            elif path == b"/no-content":
                skt.sendall(b"HTTP/1.1 204 No Content\r\nContent-Length: %d\r\n\r\n" % len(STOLEN) + STOLEN)
            elif head.startswith(b"HEAD "):
                skt.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(STOLEN) + STOLEN)
            else:
                skt.sendall(answer(path))


class World:
    def __init__(self, folder: Path) -> None:
        self.target = OddTarget()
        self.port = free_port()
        self.balancer = Balancer(
            folder,
            listener("web", self.port, "forward app") + target_group("app", self.target.raw.port),
            "workers = 1",
        )

    def faults(self, cause: str) -> int:
        text = self.balancer.get("/metrics")[1].decode()
        found = re.search(rf'lbproxy_target_faults_total{{.*cause="{cause}".*}} (\d+)', text)
        return int(found[1]) if found else 0


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    world = World(tmp_path_factory.mktemp("desync"))
    with world.balancer:
        yield world
    world.target.raw.close()


def test_an_answer_that_was_there_before_the_request_is_not_its_answer(world: World) -> None:
    """The worker learns of a request and of bytes on an idle connection at once, of the request first."""
    [worker] = world.balancer.worker_pids()
    with connection(world.port) as first, connection(world.port) as second:
        second.sendall(get(b"/warm"))
        assert read_answer(second).endswith(b"/warm")
        first.sendall(get(b"/later"))
        assert read_answer(first).endswith(b"/later")
        time.sleep(0.1)  # it waits for events again
        os.kill(worker, signal.SIGSTOP)
        try:
            stat = Path(f"/proc/{worker}/stat")
            wait_until(lambda: stat.read_text().rpartition(")")[2].split()[0] == "T", what="it stands still")
            second.sendall(get(b"/mine"))
            time.sleep(0.05)  # the kernel queues the events in this order
            world.target.say_more.set()
            assert world.target.said_more.wait(5)
            time.sleep(0.05)
        finally:
            os.kill(worker, signal.SIGCONT)
        assert read_answer(second).endswith(b"/mine")


@pytest.mark.parametrize("path", [b"/full", b"/not-modified", b"/no-content"])
def test_what_follows_an_answer_is_not_the_next_one(world: World, path: bytes) -> None:
    with connection(world.port) as skt:
        for _ in range(5):
            skt.sendall(get(path) + get(b"/next"))
            assert b"stolen" not in read_until(skt, b"/next")


def test_the_body_of_an_answer_to_head_is_not_the_next_answer(world: World) -> None:
    with connection(world.port) as skt:
        for _ in range(5):
            skt.sendall(b"HEAD /head HTTP/1.1\r\nHost: h\r\n\r\n" + get(b"/next"))
            assert b"stolen" not in read_until(skt, b"/next")


def test_interim_answers_without_end_fail_the_request(world: World) -> None:
    received = talk(world.port, get(b"/interim"), seconds=5)
    assert received.count(b"HTTP/1.1 103 ") <= 100
    assert b"HTTP/1.1 502 " in received


def test_an_early_answer_reaches_the_client_and_the_rest_of_the_request_nobody(world: World) -> None:
    hidden = get(b"/hidden") * 50
    before = world.target.raw.connections
    with connection(world.port) as skt:
        skt.sendall(b"POST /early HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % len(hidden))
        assert read_answer(skt).endswith(b"/early")
        skt.sendall(hidden)
        skt.settimeout(5)
        assert skt.recv(1000) == b"", "the connection ends after the answer"
    assert talk(world.port, b"GET /after HTTP/1.0\r\n\r\n").endswith(b"/after")
    assert world.target.raw.connections > before, "the target's connection is not used again"


def test_what_nobody_asked_for_is_counted(world: World) -> None:
    assert world.faults("UnaskedResponse") >= 1
