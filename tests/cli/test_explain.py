"""The command, with a configuration loader and an admin listener that stand in for the real ones."""

from __future__ import annotations

import argparse
import http.server
import json
import socketserver
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lbproxy.cli import explain as command
from lbproxy.controlplane.config import load as loading
from lbproxy.controlplane.config.errors import ConfigurationError, Problem
from lbproxy.model.listener import Bind, Listener, ListenerProtocol
from lbproxy.model.rule import Forward, HostCondition, Pattern, Rule, WeightedGroup
from lbproxy.model.snapshot import Configuration
from lbproxy.model.target_group import TargetGroup, TargetProtocol

FORWARD = Forward((WeightedGroup("app"),))
CONFIGURATION = Configuration(
    listeners=(
        Listener(
            name="web",
            protocol=ListenerProtocol.HTTP,
            binds=(Bind("0.0.0.0", 8080),),
            default_action=FORWARD,
            rules=(Rule(name="api", priority=1, conditions=(HostCondition((Pattern("api.com"),)),), action=FORWARD),),
        ),
    ),
    target_groups=(TargetGroup(name="app", protocol=TargetProtocol.HTTP),),
)
STATUS = {
    "version": 1,
    "target_groups": [
        {
            "name": "app",
            "targets": [{"target": "127.0.0.1:40001", "state": "healthy", "reason": "", "description": ""}],
        }
    ],
}


@pytest.fixture(autouse=True)
def _loader(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(path: str) -> Any:
        if path == "bad.ini":
            problem = Problem(
                file="lb.ini", line=3, section="listener:web", option="bind", value="nonsense", message="wrong"
            )
            raise ConfigurationError((problem,))
        return SimpleNamespace(configuration=CONFIGURATION, demo={"app": 3})

    monkeypatch.setattr(loading, "load", load)


def run(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return command.run(parser.parse_args(arguments))


def test_text(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("api.com:8080/x", "-X", "PUT", "--from", "::1", "-c", "lb.ini") == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "PUT http://api.com:8080/x from ::1"
    assert printed[2] == "rule api (priority 1): yes"
    assert printed[-1] == "note: app has 3 demo targets, known only to the lbproxy that runs and starts them"


def test_json_and_headers(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("localhost:8080", "-H", "Host: api.com", "-H", "X-A: b:c", "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    assert (printed["listener"], printed["rules"][-1]["rule_name"]) == ("web", "api")


def test_exit_status_1_without_a_listener(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("https://api.com/") == 1
    assert "listener none takes this URL" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["http://x", "-c", "bad.ini"], "lb.ini:3: [listener:web] bind = nonsense: wrong"),
        (["ftp://x"], "lbproxy explain: ftp://x: the scheme is ftp, it should be one of http"),
        (["http://x", "--from", "me"], "lbproxy explain: 'me' does not appear to be an IPv4 or IPv6 address"),
        (["http://x", "--admin", "unix:/nowhere/admin.sock"], "no answer from the admin listener at unix:/nowhere"),
    ],
)
def test_mistakes_are_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*arguments) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_header_needs_a_colon(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run("http://x", "-H", "nonsense")
    assert "'nonsense' should be 'Name: value'" in capsys.readouterr().err


class _Admin(http.server.BaseHTTPRequestHandler):
    answer: tuple[int, bytes] = (200, json.dumps(STATUS).encode())

    def do_GET(self) -> None:
        status, body = self.answer if self.path == "/status" else (404, b"")
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def address_string(self) -> str:
        return "client"

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(params=["tcp", "unix"])
def admin(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, type[_Admin]]]:
    class Handler(_Admin):
        pass

    server: socketserver.BaseServer
    if request.param == "tcp":
        tcp = http.server.HTTPServer(("127.0.0.1", 0), Handler)
        server, address = tcp, f"127.0.0.1:{tcp.server_port}"
    else:
        path = tmp_path / "admin.sock"
        server, address = socketserver.UnixStreamServer(str(path), Handler), f"unix:{path}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield address, Handler
    server.shutdown()
    thread.join()
    server.server_close()


def test_states_come_from_the_admin_listener(
    admin: tuple[str, type[_Admin]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("http://x:8080/", "--admin", admin[0], "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["groups"][0]["candidates"][0]["target"] == "127.0.0.1:40001"
    assert printed["groups"][0]["candidates"][0]["state"] == "healthy"
    assert printed["notes"] == []


@pytest.mark.parametrize(
    ("status", "body"),
    [(500, b""), (200, b"["), (200, b"[]"), (200, b"{}"), (200, b'{"target_groups": [{"name": 1}]}')],
)
def test_a_bad_answer_of_the_admin_listener_is_one_line(
    admin: tuple[str, type[_Admin]], capsys: pytest.CaptureFixture[str], status: int, body: bytes
) -> None:
    admin[1].answer = (status, body)
    assert run("http://x:8080/", "--admin", admin[0]) == 1
    assert capsys.readouterr().err.startswith("lbproxy explain: ")
