"""Limits on clients, with real workers: connections, and how slow they may be while others are served."""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.harness import (
    HOST,
    Balancer,
    free_port,
    listener,
    read_all,
    read_until,
    resident_bytes,
    rule,
    target_group,
    trusting,
    wait_until,
)

pytestmark = pytest.mark.integration

ATTACKERS = 250
READERS = 50
"""Fewer, since the kernel takes some megabytes for each, which costs more time than it takes us."""


TARGET = """
import asyncio, re, sys

async def serve(reader, writer):
    writer.transport.set_write_buffer_limits(65536)
    try:
        while True:
            head = await reader.readuntil(b"\\r\\n\\r\\n")
            length = re.search(rb"(?i)content-length: (\\d+)", head)
            await reader.readexactly(int(length[1]) if length else 0)
            size = 10_000_000 if b" /big " in head else 2
            writer.write(b"HTTP/1.1 200 OK\\r\\nContent-Length: %d\\r\\n\\r\\n" % size)
            while size > 0:
                writer.write(b"k" * min(size, 65536))
                size -= 65536
                await writer.drain()
    except (OSError, asyncio.IncompleteReadError):
        writer.close()

async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", int(sys.argv[1]), backlog=512)
    await server.serve_forever()

asyncio.run(main())
"""
"""Reads whole requests with their bodies; a process of its own, so that what it costs us is not measured.  ``/big`` is
answered with more than the kernel holds."""


class Attack(threading.Thread):
    """Connections that each send ``start``, then do ``step`` about ten times a second until they are ended."""

    def __init__(self, port: int, count: int, start: bytes, step: Callable[[socket.socket], object]) -> None:
        super().__init__(daemon=True)
        self._step = step
        self._stopping = threading.Event()
        self._open = []
        for _ in range(count):
            skt = socket.socket()
            skt.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            skt.settimeout(10)
            skt.connect((HOST, port))
            skt.sendall(start)
            skt.setblocking(False)
            self._open.append(skt)

    def run(self) -> None:
        while self._open and not self._stopping.is_set():
            for skt in list(self._open):
                try:
                    self._step(skt)
                except BlockingIOError:
                    pass
                except OSError:
                    self._open.remove(skt)
                    skt.close()
            time.sleep(0.1)

    def stop(self) -> None:
        self._stopping.set()
        self.join(5)
        while self._open:
            self._open.pop().close()


def send_header(skt: socket.socket) -> None:
    skt.send(b"X: 1\r\n")


def send_byte(skt: socket.socket) -> None:
    skt.send(b"x")


def read_little(skt: socket.socket) -> None:
    if not skt.recv(5):
        raise ConnectionError


def requests(port: int, seconds: float) -> list[float]:
    """How long each request of a good client takes; it fails when one is not served."""
    took = []
    with socket.create_connection((HOST, port), timeout=10) as skt:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            began = time.monotonic()
            skt.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            read_until(skt, b"\r\n\r\nkk")
            took.append(time.monotonic() - began)
            time.sleep(0.002)
    return took


def p99(values: list[float]) -> float:
    return sorted(values)[len(values) * 99 // 100]


class World:
    def __init__(self, folder: Path) -> None:
        ports = free_port(), free_port()
        self.targets = [subprocess.Popen([sys.executable, "-c", TARGET, str(port)]) for port in ports]
        for port in ports:
            wait_until(lambda port=port: not socket.socket().connect_ex((HOST, port)), 10, "the targets listen")
        self.port = free_port()
        slow = {"min_request_rate": "1k", "min_response_rate": "1k", "slow_client_grace": "2s"}
        self.balancer = Balancer(
            folder,
            listener("web", self.port, "forward quick", request_header_timeout="1s", **slow)
            + rule("big", 1, "/big", "forward busy")
            + target_group("quick", ports[0])
            + target_group("busy", ports[1]),
            "workers = 1",
        )

    def resident(self) -> int:
        [pid] = self.balancer.worker_pids()
        return resident_bytes(pid)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    world = World(tmp_path_factory.mktemp("limits"))
    with world.balancer:
        yield world
    for target in world.targets:
        target.kill()
        target.wait()


def metric(balancer: Balancer, name: str, before: str = "", after: str = "") -> int:
    """The sum over all listeners; ``before`` and ``after`` are the labels around the listener's."""
    text = balancer.get("/metrics")[1].decode()
    found: list[str] = re.findall(rf'^{name}{{{before}(?:listener="\w+"){after}}} ([0-9.]+)$', text, re.MULTILINE)
    return sum(int(float(value)) for value in found)


def faults(balancer: Balancer, cause: str) -> int:
    return metric(balancer, "lbproxy_listener_faults_total", f'cause="{cause}",')


POST = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n"


@pytest.mark.parametrize(
    ("count", "start", "step", "cause", "growth"),
    [
        (ATTACKERS, b"GET / HTTP/1.1\r\n", send_header, "ClientTimeout", 64),
        (ATTACKERS, POST, send_byte, "ClientTooSlow", 64),
        (READERS, b"GET /big HTTP/1.1\r\nHost: x\r\n\r\n", read_little, "ClientTooSlow", 150),
    ],
    ids=["header", "body", "read"],
)
def test_good_clients_are_served_while_slow_ones_are_ended(
    world: World, count: int, start: bytes, step: Callable[[socket.socket], object], cause: str, growth: int
) -> None:
    quiet = requests(world.port, 1.0)
    counted, memory = faults(world.balancer, cause), world.resident()
    attack = Attack(world.port, count, start, step)
    attack.start()
    try:
        time.sleep(0.5)
        attacked = requests(world.port, 1.5)
        assert world.resident() - memory < growth << 20
        wait_until(
            lambda: metric(world.balancer, "lbproxy_listener_active_connections") == 0, 15, "all attackers are ended"
        )
    finally:
        attack.stop()
    # A machine that does other things meanwhile is not what is measured here.
    assert p99(attacked) < max(3 * p99(quiet), 0.1), (p99(quiet), p99(attacked))
    wait_until(lambda: faults(world.balancer, cause) == counted + count, 5, "each is counted")


def test_connections_beyond_a_limit_are_closed_unread(tmp_path: Path) -> None:
    """By the client's address and altogether, whichever worker they come to, and before TLS."""
    port = free_port()
    tls = trusting()
    with (
        Balancer(
            tmp_path,
            listener(
                "secure", port, "fixed-response 200", "HTTPS", max_connections="8", max_connections_per_client="5"
            ),
            "workers = 2",
        ) as balancer,
        contextlib.ExitStack() as stack,
    ):

        def connect(source: str) -> socket.socket | None:
            """A connection that is let in, else None."""
            skt = socket.create_connection((HOST, port), 5, (source, 0))
            try:
                return stack.enter_context(tls.wrap_socket(skt))
            except (ssl.SSLError, OSError):
                skt.close()
                return None

        mine = [connect("127.0.0.1") for _ in range(7)]
        assert [skt is not None for skt in mine] == [True] * 5 + [False] * 2
        others = [connect("127.0.0.2") for _ in range(5)]
        assert [skt is not None for skt in others] == [True] * 3 + [False] * 2
        assert others[0]
        others[0].close()
        wait_until(lambda: connect("127.0.0.2") is not None, 5, "there is room again")
        assert connect("127.0.0.1") is None
        wait_until(lambda: faults(balancer, "ConnectionLimit") >= 3, 5, "the reports are in")
        wait_until(lambda: faults(balancer, "ClientConnectionLimit") == 2, 5, "the other worker's too")


GUARDED = """
[listener:web]
protocol = HTTP
bind = {host}:{port}
default-action = fixed-response 200 text/plain "hello"
security-groups = office

[listener:behind]
protocol = TCP
bind = {host}:{behind}
default-action = forward web
security-groups = office
proxy-protocol = on
proxy-protocol-trusted = 127.0.0.0/8

[target-group:web]
protocol = TCP
targets = {host}:{port}
health-check = off

[security-group:office]
ingress = {ingress}
"""


def ask(skt: socket.socket, prefix: bytes = b"") -> bytes:
    """The answer, or nothing if the connection was closed instead."""
    answer = b""
    try:
        skt.sendall(prefix + b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        while not answer.endswith(b"hello"):
            more = skt.recv(1000)
            if not more:
                break
            answer += more
    except ConnectionError:
        pass
    return answer[9:12]


def test_security_groups_decide_who_is_served(tmp_path: Path) -> None:
    port, behind = free_port(), free_port()

    def guarded(ingress: str) -> str:
        return GUARDED.format(host=HOST, port=port, behind=behind, ingress=ingress)

    def serves(source: str, to: int = port, prefix: bytes = b"") -> bool:
        with socket.create_connection((HOST, to), 5, (source, 0)) as skt:
            return ask(skt, prefix) == b"200"

    with Balancer(tmp_path, guarded(f"tcp {port} 127.0.0.1, tcp {behind} 192.0.2.0/24"), "workers = 2") as balancer:
        assert serves("127.0.0.1")
        assert not serves("127.0.0.2")
        header = b"PROXY TCP4 %b 198.51.100.1 1234 80\r\n"
        assert serves("127.0.0.1", behind, header % b"192.0.2.9"), "the address in the PROXY header counts"
        assert not serves("127.0.0.1", behind, header % b"203.0.113.9")
        with socket.create_connection((HOST, port), 5) as open_before:
            assert ask(open_before) == b"200"
            balancer.write(guarded("tcp all 127.0.0.2"))
            assert balancer.reload()["ok"]
            assert serves("127.0.0.2")
            assert not serves("127.0.0.1")
            assert ask(open_before) == b"200", "a connection that was let in goes on"
        wait_until(lambda: faults(balancer, "SecurityGroupDenied") >= 2, 5, "denied connections are counted")


def test_workers_share_a_rate_limit(tmp_path: Path) -> None:
    port = free_port()
    with Balancer(
        tmp_path,
        f"""
[listener:web]
protocol = HTTP
bind = {HOST}:{port}
default-action = fixed-response 200 text/plain "hello"

[rate-limit:clients]
listener = web
rate = 10/h

[rate-limit:noted]
listener = web
key = all
rate = 3/h
dry-run = on
""",
        "workers = 2",
    ) as balancer:

        def statuses(source: str) -> list[bytes]:
            answers = []
            for _ in range(14):  # over as many connections, which the kernel spreads over the workers
                with socket.create_connection((HOST, port), 5, (source, 0)) as skt:
                    skt.sendall(b"GET / HTTP/1.0\r\n\r\n")
                    answers.append(read_all(skt))
            assert all((b"\r\nRetry-After: 3" in answer) == (b" 429 " in answer) for answer in answers)
            return [answer[9:12] for answer in answers]

        assert statuses("127.0.0.1") == [b"200"] * 10 + [b"429"] * 4
        assert statuses("127.0.0.2") == [b"200"] * 10 + [b"429"] * 4
        limited = "lbproxy_listener_rate_limited_requests_total"
        wait_until(lambda: metric(balancer, limited, 'limit="clients",', ',mode="enforced"') == 8, 5, "all are counted")
        assert metric(balancer, limited, 'limit="noted",', ',mode="dry-run"') == 17
        wait_until(lambda: len(balancer.access_log()) == 28, 5, "all are logged")
        assert Counter(line.get("rate_limit") for line in balancer.access_log()) == {
            None: 3,
            "noted dry-run": 17,
            "clients": 8,
        }
