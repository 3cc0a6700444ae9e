"""Workers, reloads and endings, with real processes under load."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.integration.harness import (
    HOST,
    Balancer,
    HttpTarget,
    Load,
    RawTarget,
    connection,
    echo,
    free_port,
    listener,
    read_answer,
    read_head,
    rule,
    talk,
    target_group,
    wait_until,
)

pytestmark = pytest.mark.integration


def websocket_echo(skt: socket.socket) -> None:
    read_head(skt)
    skt.sendall(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
    echo(skt)


class Site:
    """Two HTTP targets, a WebSocket and a TCP one, and the configuration for them."""

    def __init__(self) -> None:
        self.a = HttpTarget("a")
        self.b = HttpTarget("b")
        self.echo = RawTarget(echo)
        self.websocket = RawTarget(websocket_echo)
        self.http_port = free_port()
        self.tcp_port = free_port()

    def configuration(self, extra: str = "", targets: Sequence[int] = ()) -> str:
        """``targets`` are ports, those of both unless given."""
        targets = targets or (self.a.port, self.b.port)
        health = {"health_check_path": "/health", "health_check_interval": "300ms"}
        return (
            listener("web", self.http_port, "forward app")
            + rule("websocket", 5, "/ws", "forward websocket")
            + listener("tcp", self.tcp_port, "forward echo", "TCP")
            + target_group("app", *targets, deregistration_delay="5s", **health)
            + target_group("websocket", self.websocket.port)
            + target_group("echo", self.echo.port, protocol="TCP")
            + extra
        )

    def close(self) -> None:
        for target in (self.a, self.b, self.echo, self.websocket):
            target.close()


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site()
    yield site
    site.close()


def get(port: int, path: str = "/") -> bytes:
    return talk(port, f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())


def open_websocket(port: int) -> socket.socket:
    skt = socket.create_connection((HOST, port), timeout=10)
    skt.sendall(b"GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
    assert read_head(skt).startswith(b"HTTP/1.1 101 ")
    return skt


def says_back(skt: socket.socket, text: bytes) -> bool:
    skt.sendall(text)
    received = b""
    while len(received) < len(text):
        more = skt.recv(100)
        if not more:
            return False
        received += more
    return received == text


def test_fifty_reloads_under_load_lose_nothing_and_long_connections_live(site: Site, tmp_path: Path) -> None:
    with Balancer(tmp_path, site.configuration()) as balancer:
        balancer.wait_healthy("app", 2)
        websocket = open_websocket(site.http_port)
        stream = socket.create_connection((HOST, site.tcp_port), timeout=10)
        with Load(site.http_port) as load:
            for index in range(50):
                extra = rule(f"r{index}", 100 + index, f"/r{index}", 'fixed-response 200 text/plain "x"')
                balancer.write(site.configuration(extra))
                result = balancer.reload()
                assert result["ok"], result
                assert get(site.http_port, f"/r{index}").endswith(b"x")
                assert says_back(websocket, b"reload %d" % index)
                assert says_back(stream, b"reload %d" % index)
                time.sleep(0.03)
        websocket.close()
        stream.close()
        assert load.requests > 50
        assert load.failures == []


def test_listeners_and_groups_come_and_go_live(site: Site, tmp_path: Path) -> None:
    other = free_port()
    with Balancer(tmp_path, site.configuration()) as balancer:
        more = listener("more", other, "forward more") + target_group("more", site.a.port)
        with Load(site.http_port) as load:
            balancer.write(site.configuration(more))
            assert balancer.reload()["ok"]
            assert get(other).endswith(b"a\n")
            balancer.write(site.configuration())
            assert balancer.reload()["ok"]
            wait_until(lambda: _refused(other), 5, "the removed listener is closed")
        assert load.failures == []


def _refused(port: int) -> bool:
    with socket.socket() as skt:
        return skt.connect_ex((HOST, port)) != 0


def test_a_bad_file_changes_nothing_and_says_why(site: Site, tmp_path: Path) -> None:
    with Balancer(tmp_path, site.configuration()) as balancer:
        balancer.write(
            site.configuration("\n[rule:bad]\nlistener = nowhere\npriority = x\npath = /x\naction = forward app\n")
        )
        result = balancer.reload()
        assert not result["ok"]
        text = "\n".join(map(str, result["problems"]))
        assert "nowhere" in text
        assert "priority" in text
        balancer.signal(signal.SIGHUP)
        wait_until(lambda: balancer.output().count("nowhere") >= 1, 5, "the log says what is wrong")
        assert get(site.http_port).startswith(b"HTTP/1.1 200 ")


def test_sighup_applies_a_changed_file(site: Site, tmp_path: Path) -> None:
    with Balancer(tmp_path, site.configuration()) as balancer:
        extra = rule("new", 1, "/new", 'fixed-response 200 text/plain "new"')
        balancer.write(site.configuration(extra))
        balancer.signal(signal.SIGHUP)
        wait_until(lambda: get(site.http_port, "/new").endswith(b"new"), 10)


def test_a_killed_worker_is_replaced_and_queued_connections_are_served(site: Site, tmp_path: Path) -> None:
    with Balancer(tmp_path, site.configuration(), "workers = 1") as balancer:
        balancer.wait_healthy("app", 2)
        [pid] = balancer.worker_pids()
        os.kill(pid, signal.SIGKILL)
        clients = [socket.create_connection((HOST, site.http_port), timeout=15) for _ in range(20)]
        for client in clients:
            client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        for client in clients:
            assert read_head(client).startswith(b"HTTP/1.1 200 ")
            client.close()
        assert pid not in wait_until(lambda: balancer.worker_pids(), 5)


def test_killing_workers_under_load_costs_only_what_they_had_in_flight(site: Site, tmp_path: Path) -> None:
    with Balancer(tmp_path, site.configuration()) as balancer:
        balancer.wait_healthy("app", 2)
        kills = 3
        with Load(site.http_port, threads=4) as load:
            for _ in range(kills):
                time.sleep(0.7)
                pids = balancer.worker_pids()
                os.kill(pids[0], signal.SIGKILL)
                wait_until(lambda before=set(pids): len(set(balancer.worker_pids()) - before) >= 1, 10)  # type: ignore[misc]
        assert load.requests > 100
        assert len(load.failures) <= 4 * kills, load.failures


def test_sigterm_finishes_what_is_in_flight(site: Site, tmp_path: Path) -> None:
    with Balancer(tmp_path, site.configuration()) as balancer:
        balancer.wait_healthy("app", 2)
        with connection(site.http_port) as slow, connection(site.http_port) as kept:
            kept.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert b"Connection: close" not in read_answer(kept)
            slow.sendall(b"GET /slow/1.5 HTTP/1.1\r\nHost: x\r\n\r\n")
            time.sleep(0.3)
            balancer.signal(signal.SIGTERM)
            time.sleep(0.3)
            kept.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            answer = read_head(kept)
            assert answer.startswith(b"HTTP/1.1 200 ")
            assert b"Connection: close\r\n" in answer
            answer = read_head(slow)
            assert answer.startswith(b"HTTP/1.1 200 ")
            assert b"Connection: close\r\n" in answer
        assert balancer.process.wait(10) == 0
        assert _refused(site.http_port)


def test_the_drain_deadline_ends_what_does_not_end(site: Site, tmp_path: Path) -> None:
    with Balancer(tmp_path, site.configuration(), "workers = 1\ndrain-timeout = 1s") as balancer:
        with socket.create_connection((HOST, site.tcp_port), timeout=10) as skt:
            assert says_back(skt, b"hello")
            began = time.monotonic()
            balancer.signal(signal.SIGTERM)
            assert balancer.process.wait(10) == 0
            assert 0.8 < time.monotonic() - began < 5


def test_a_removed_target_drains_and_then_gets_nothing(site: Site, tmp_path: Path) -> None:
    with Balancer(tmp_path, site.configuration()) as balancer:
        balancer.wait_healthy("app", 2)
        with connection(site.http_port) as first, connection(site.http_port) as second:
            for skt in (first, second):
                skt.sendall(b"GET /slow/1.5 HTTP/1.1\r\nHost: x\r\n\r\n")
            time.sleep(0.3)
            balancer.write(site.configuration(targets=[site.a.port]))
            assert balancer.reload()["ok"]
            assert balancer.states("app")[f"{HOST}:{site.b.port}"] == "draining"
            for _ in range(4):
                assert get(site.http_port).endswith(b"a\n")
            bodies = {read_answer(skt).partition(b"\r\n\r\n")[2] for skt in (first, second)}
            assert bodies == {b"a\n", b"b\n"}
        wait_until(lambda: len(balancer.states("app")) == 1, 8, "the target is gone when it has finished")


def test_health_decides_who_gets_traffic(site: Site, tmp_path: Path) -> None:
    with Balancer(tmp_path, site.configuration()) as balancer:
        balancer.wait_healthy("app", 2)
        site.b.health_status = 503
        wait_until(lambda: balancer.states("app")[f"{HOST}:{site.b.port}"] == "unhealthy", 10)
        assert {get(site.http_port)[-2:] for _ in range(6)} == {b"a\n"}
        site.a.health_status = 503
        wait_until(lambda: set(balancer.states("app").values()) == {"unhealthy"}, 10)
        assert {get(site.http_port)[-2:] for _ in range(6)} == {b"a\n", b"b\n"}, "fail open"
        assert b"fail_open" in balancer.get("/metrics")[1]
        site.a.health_status = site.b.health_status = 200
        balancer.wait_healthy("app", 2)


def test_everything_in_one_process(site: Site, tmp_path: Path) -> None:
    with Balancer(tmp_path, site.configuration(), "workers = 0") as balancer:
        balancer.wait_healthy("app", 2)
        assert {get(site.http_port)[-2:] for _ in range(4)} == {b"a\n", b"b\n"}
        assert balancer.reload()["ok"]
        assert get(site.http_port).startswith(b"HTTP/1.1 200 ")


def test_a_port_in_use_is_one_line_and_status_1(site: Site, tmp_path: Path) -> None:
    with socket.create_server((HOST, site.http_port)):
        balancer = Balancer(tmp_path, site.configuration())
        assert balancer.process.wait(20) == 1
        output = balancer.output()
        balancer.stop()
    assert str(site.http_port) in output
    assert "Traceback" not in output


def test_a_mistake_is_one_line_and_status_1(site: Site, tmp_path: Path) -> None:
    balancer = Balancer(tmp_path, site.configuration("\n[rule:x]\nlistener = web\npath = /x\nactoin = forward app\n"))
    assert balancer.process.wait(20) == 1
    output = balancer.output()
    balancer.stop()
    assert "actoin" in output
    assert "Traceback" not in output


def test_the_access_log_is_reopened_on_sigusr1(site: Site, tmp_path: Path) -> None:
    with Balancer(tmp_path, site.configuration()) as balancer:
        get(site.http_port)
        log = tmp_path / "access.log"
        wait_until(log.exists, 5)
        log.rename(tmp_path / "access.log.1")
        balancer.signal(signal.SIGUSR1)
        wait_until(lambda: get(site.http_port) and log.exists() and log.read_text(), 10)


def test_a_supervisor_that_dies_leaves_the_workers_serving_until_the_next_one(site: Site, tmp_path: Path) -> None:
    first = Balancer(tmp_path, site.configuration()).wait_ready()
    folder = tmp_path / "second"
    folder.mkdir()
    second = None
    try:
        first.wait_healthy("app", 2)
        pids = first.worker_pids()
        with Load(site.http_port) as load:
            first.process.send_signal(signal.SIGKILL)
            first.process.wait(5)
            time.sleep(1)
            second = Balancer(folder, site.configuration(), f"workers = 2\nstate-directory = {tmp_path}/state")
            second.wait_ready()
            wait_until(lambda: not any(map(_alive, pids)), 20, "the former workers have ended")
            time.sleep(0.5)
        assert load.requests > 100
        assert load.failures == []
    finally:
        first.kill()
        if second is not None:
            second.stop()


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
