"""Targets that register themselves, and operators that decide for them, with real processes under load."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.harness import HOST, Balancer, HttpTarget, Load, RawTarget, free_port, read_head, wait_until
from tests.integration.test_discovery import ask, configuration

pytestmark = pytest.mark.integration

TOKEN = "a-token-for-registrations"

SERVER = """
import signal, sys, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    def do_GET(self):
        if self.path == "/slow":
            time.sleep(1)
        body = sys.argv[2].encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *args):
        pass

time.sleep(0.2)
server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
server.daemon_threads = True
signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
server.serve_forever()
"""
"""A server that drops what it has in hand when it is told to end."""


class Member:
    """``lbproxy register`` around a server of its own."""

    def __init__(self, balancer: Balancer, port: int, name: str, *options: str, ttl: float = 3.0) -> None:
        self.port = port
        root = str(Path(__file__).resolve().parents[2])
        command = [sys.executable, "-c", SERVER, str(port), name]
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "lbproxy", "register", "--admin", f"{HOST}:{balancer.admin}"),
                *("--target-group", "app", "--target", f"{HOST}:{port}", "--ttl", str(ttl)),
                *("--token-file", str(balancer.folder / "token"), *options, "--", *command),
            ],
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])},
        )

    def end(self) -> tuple[int, str]:
        """Ask it to end; give its exit status and what it said."""
        self.process.send_signal(signal.SIGTERM)
        _, said = self.process.communicate(timeout=30)
        return self.process.returncode, said.decode()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(30)
        if self.process.stderr is not None:
            self.process.stderr.close()  # the server still has its other end

    def __enter__(self) -> Member:
        return self

    def __exit__(self, *exc: object) -> None:
        if self.process.poll() is None:
            self.end()


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def balancer(tmp_path: Path, port: int) -> Iterator[Balancer]:
    (tmp_path / "token").write_text(f"# of today\n{TOKEN}\n")
    (tmp_path / "token").chmod(0o600)
    with Balancer(tmp_path, configuration(port, "registration-token = file:token")) as balancer:
        yield balancer


def register(balancer: Balancer, target: HttpTarget, method: str = "PUT", ttl: float = 30.0) -> int:
    link = http.client.HTTPConnection(HOST, balancer.admin, timeout=10)
    with contextlib.closing(link):
        body = json.dumps({"ttl": ttl}) if method == "PUT" else None
        link.request(
            method,
            f"/target-groups/app/targets/{HOST}:{target.port}",
            body,
            {"Authorization": f"Bearer {TOKEN}"},
        )
        return link.getresponse().status


def cli(balancer: Balancer, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "lbproxy", *arguments, "--admin", f"{HOST}:{balancer.admin}"]
    root = str(Path(__file__).resolve().parents[2])
    return subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=False, env={**os.environ, "PYTHONPATH": root}
    )


def test_scaling_by_registration_loses_nothing(balancer: Balancer, port: int) -> None:
    with contextlib.ExitStack() as stack:
        targets = [stack.enter_context(HttpTarget(f"t{number}")) for number in range(30)]
        for target in targets[:3]:
            assert register(balancer, target) == 201
        balancer.wait_healthy("app", 3)
        with Load(port, threads=4, pause=0.002) as load:
            for target in targets[3:]:
                assert register(balancer, target) == 201
            balancer.wait_healthy("app", 30)
            for target in targets[3:]:
                assert register(balancer, target, "DELETE") == 200
            wait_until(lambda: len(balancer.states("app")) == 3, 30, "3 targets are left")
        assert (load.failures, load.requests > 200) == ([], True)


def test_rolling_all_targets_under_load_loses_nothing(balancer: Balancer, port: int) -> None:
    """Each server is replaced by another one, which drops what it has in hand when it ends: so it must have nothing."""
    with contextlib.ExitStack() as stack:
        old = [stack.enter_context(Member(balancer, free_port(), f"old-{number}")) for number in range(3)]
        balancer.wait_healthy("app", 3)
        with Load(port, threads=3, pause=0.002) as fast, Load(port, "/slow", threads=3) as slow:
            for number, member in enumerate(old):
                stack.enter_context(Member(balancer, free_port(), f"new-{number}"))
                balancer.wait_healthy("app", 4)
                wait_until(lambda before=slow.requests: slow.requests > before, 20, "a slow request more")
                status, said = member.end()
                assert status == 7, said
                assert "has left app" in said
                balancer.wait_healthy("app", 3)
        assert (fast.failures, slow.failures) == ([], [])
        assert fast.requests > 200
        assert slow.requests > 5
        assert {ask(port)[1][:3] for _ in range(6)} == {"new"}


def test_the_server_ends_by_itself(balancer: Balancer, port: int) -> None:
    """Then it is out at once, and its exit status is passed on."""
    with Member(balancer, free_port(), "one") as member:
        balancer.wait_healthy("app", 1)
        (child,) = children(member.process.pid)
        os.kill(child, signal.SIGKILL)
        _, said = member.process.communicate(timeout=20)
        assert member.process.returncode == 128 + signal.SIGKILL
        assert "has left app" in said.decode()
        wait_until(lambda: balancer.states("app") == {}, 10, "it is gone")


def test_one_that_vanishes_is_drained_when_its_time_is_over(balancer: Balancer, port: int) -> None:
    with Member(balancer, free_port(), "stays"), Member(balancer, free_port(), "goes", ttl=1.0) as goes:
        balancer.wait_healthy("app", 2)
        (child,) = children(goes.process.pid)
        goes.kill()
        wait_until(lambda: len(balancer.states("app")) == 1, 15, "its registration is over")
        os.kill(child, signal.SIGKILL)
        assert "has not renewed its registration in app for 1 s" in balancer.output()


def test_when_nobody_can_renew_the_group_stays_but_for_those_that_fail(balancer: Balancer, port: int) -> None:
    """As when the network between the targets and the admin API is cut."""
    with contextlib.ExitStack() as stack:
        targets = [stack.enter_context(HttpTarget(f"t{number}")) for number in range(4)]
        for target in targets:
            assert register(balancer, target, ttl=1.0) == 201
            time.sleep(0.1)
        balancer.wait_healthy("app", 4)
        time.sleep(2.5)
        assert list(balancer.states("app").values()) == ["healthy"] * 4
        (group,) = balancer.status()["target_groups"]
        assert [(each["state"], each["targets"]) for each in group["sources"]] == [("failing", 4)]
        targets[3].health_status = 503
        wait_until(lambda: len(balancer.states("app")) == 3, 20, "one that fails has gone")
        assert {ask(port)[0] for _ in range(6)} == {200}


def test_registrations_outlive_the_balancer(balancer: Balancer, port: int, tmp_path: Path) -> None:
    with Member(balancer, free_port(), "one", ttl=30):
        balancer.wait_healthy("app", 1)
        time.sleep(0.6)
        os.kill(balancer.process.pid, signal.SIGKILL)  # its workers serve on
        assert ask(port)[0] == 200
        text = balancer.path.read_text().partition("\n\n")[2]
        again = Balancer.__new__(Balancer)
        with contextlib.ExitStack() as stack:
            balancer.process.wait(10)
            again.__init__(tmp_path, text)  # type: ignore[misc]
            stack.enter_context(again)
            assert len(again.states("app")) == 1
            again.wait_healthy("app", 1)
            assert ask(port)[0] == 200


def test_a_wrong_token_is_told_and_the_server_serves_on(balancer: Balancer, tmp_path: Path) -> None:
    (tmp_path / "wrong").write_text("another-token-than-the-right-one\n")
    with Member(balancer, free_port(), "one", "--token-file", str(tmp_path / "wrong")) as member:
        wait_until(lambda: "came with a wrong token" in balancer.output(), 10)
        status, said = member.end()
        assert status == 7
        assert "is not registered in app" in said
        assert TOKEN not in said
        assert balancer.states("app") == {}


# Operators


def test_drain_waits_for_what_is_in_flight(balancer: Balancer, port: int) -> None:
    """A tunnel or a long answer counts as long as it lasts; then the drain is over at once."""
    release = threading.Event()

    def serve(skt: socket.socket) -> None:
        while read_head(skt):
            skt.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\na")
            release.wait(20)
            skt.sendall(b"b")

    with RawTarget(serve) as target, HttpTarget("other") as other:
        balancer.write(
            configuration(port, f"targets = {HOST}:{target.port}, {HOST}:{other.port}", "health-check = off")
        )
        assert balancer.reload()["ok"]
        key = f"{HOST}:{target.port}"
        answers: list[str] = []
        asking = threading.Thread(target=lambda: answers.extend(ask(port)[1] for _ in range(2)))
        asking.start()
        wait_until(lambda: in_flight(balancer, key) == 1, 10, "a request is in flight")
        refused = cli(balancer, "drain", key, "--timeout", "0.5")
        assert refused.returncode == 1
        assert f"{key} in app: 1 in flight" in refused.stderr
        assert f"{key} in app: draining, 1 in flight" in refused.stdout
        done: list[subprocess.CompletedProcess[str]] = []
        waiting = threading.Thread(target=lambda: done.append(cli(balancer, "drain", key, "--wait")))
        waiting.start()
        time.sleep(1.5)
        assert not done
        release.set()
        waiting.join(20)
        asking.join(20)
        assert done[0].returncode == 0, done[0].stderr
        assert done[0].stdout.strip() == f"{key} in app: drained"
        assert sorted(answers) == ["ab", "other"]
        assert {ask(port)[1] for _ in range(4)} == {"other"}
        assert "to drain" in cli(balancer, "target", "list").stdout
        assert cli(balancer, "target", "reset", key).returncode == 0
        wait_until(lambda: {ask(port)[1] for _ in range(4)} == {"other", "ab"}, 10, "it is back")


def test_decisions_outlive_a_killed_supervisor(balancer: Balancer, port: int, tmp_path: Path) -> None:
    with HttpTarget("one") as one, HttpTarget("two") as two:
        text = configuration(port, f"targets = {HOST}:{one.port}, {HOST}:{two.port}")
        balancer.write(text)
        assert balancer.reload()["ok"]
        balancer.wait_healthy("app", 2)
        assert cli(balancer, "target", "down", f"{HOST}:{one.port}").returncode == 0
        wait_until(lambda: {ask(port)[1] for _ in range(4)} == {"two"}, 10, "one is out")
        assert balancer.reload()["ok"]
        assert {ask(port)[1] for _ in range(4)} == {"two"}
        os.kill(balancer.process.pid, signal.SIGKILL)
        assert {ask(port)[1] for _ in range(4)} == {"two"}
        balancer.process.wait(10)
        with Balancer(tmp_path, text) as again:
            again.wait_healthy("app", 1)
            assert {ask(port)[1] for _ in range(4)} == {"two"}
            assert again.states("app")[f"{HOST}:{one.port}"] == "unused"
            assert cli(again, "target", "reset", f"{HOST}:{one.port}").returncode == 0
            again.wait_healthy("app", 2)


def in_flight(balancer: Balancer, key: str) -> int:
    (group,) = balancer.status()["target_groups"]
    return next((int(target["in_flight"]) for target in group["targets"] if target["target"] == key), -1)


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
