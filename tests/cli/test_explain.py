"""The command, with a configuration loader and an admin listener that stand in for the real ones."""

from __future__ import annotations

import argparse
import copy
import json
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
from tests.cli.stub import AdminStub, serve

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
CONFIGURATION_IN_FORCE = {"file": __file__, "loaded_at": 4e9}
STATUS = {
    "version": 1,
    "configuration": CONFIGURATION_IN_FORCE,
    "target_groups": [
        {
            "name": "app",
            "targets": [
                {
                    "target": "127.0.0.1:40001",
                    "address": "127.0.0.1",
                    "weight": 1,
                    "state": "healthy",
                    "reason": "",
                    "description": "",
                }
            ],
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
        return SimpleNamespace(configuration=CONFIGURATION, demo={"app": 3}, discovery={})

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
    assert printed[-1] == "note: app has 3 demo targets, known only to the lbproxy that runs: ask it with --admin"


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
        (["ftp://x"], "lbproxy: ftp://x: the scheme is ftp, it should be one of http"),
        (["http://x", "--from", "me"], "lbproxy: 'me' does not appear to be an IPv4 or IPv6 address"),
        (["http://x", "--admin", "unix:/nowhere/admin.sock"], "cannot reach the admin API at unix:/nowhere"),
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


@pytest.fixture(params=["tcp", "unix"])
def admin(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[AdminStub]:
    with serve(None if request.param == "tcp" else str(tmp_path / "admin.sock")) as stub:
        stub.answers["/status"] = lambda: (200, STATUS)
        yield stub


def test_states_and_file_come_from_the_admin_api(admin: AdminStub, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("http://x:8080/", "--admin", admin.address, "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["groups"][0]["candidates"][0]["target"] == "127.0.0.1:40001"
    assert printed["groups"][0]["candidates"][0]["state"] == "healthy"
    assert printed["notes"] == []


def test_discovered_targets_have_the_weights_that_are_in_force(
    admin: AdminStub, capsys: pytest.CaptureFixture[str]
) -> None:
    status = copy.deepcopy(STATUS)
    (group,) = [each for each in status["target_groups"] if each["name"] == "app"]
    (one,) = group["targets"]
    group["targets"] += [{**one, "target": "[::1]:81", "address": "::1", "weight": 7, "zone": "east", "priority": 0}]
    admin.answers["/status"] = lambda: (200, status)
    assert run("http://x:8080/", "--admin", admin.address, "--json") == 0
    candidates = json.loads(capsys.readouterr().out)["groups"][0]["candidates"]
    found = {each["target"]: (each["weight"], each["zone"]) for each in candidates}
    assert found["[::1]:81"] == (7, "east")


@pytest.mark.parametrize(
    ("configuration", "file", "note"),
    [
        (CONFIGURATION_IN_FORCE, "other.ini", f"the lbproxy that runs works from {__file__}"),
        ({"file": __file__, "loaded_at": 1.0}, __file__, f"{__file__} was changed after the running lbproxy read it"),
    ],
)
def test_a_file_that_is_not_in_force_is_told(
    admin: AdminStub, capsys: pytest.CaptureFixture[str], configuration: dict[str, Any], file: str, note: str
) -> None:
    admin.answers["/status"] = lambda: (200, {**STATUS, "configuration": configuration})
    assert run("http://x:8080/", "--admin", admin.address, "-c", file, "--json") == 0
    assert json.loads(capsys.readouterr().out)["notes"][0].startswith(note)


@pytest.mark.parametrize(
    ("status", "body"),
    [(500, b""), (200, b"["), (200, b"[]"), (200, b"{}"), (200, b'{"target_groups": [{"name": 1}]}')],
)
def test_a_bad_answer_of_the_admin_api_is_one_line(
    admin: AdminStub, capsys: pytest.CaptureFixture[str], status: int, body: bytes
) -> None:
    admin.answers["/status"] = lambda: (status, body)
    assert run("http://x:8080/", "--admin", admin.address) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"lbproxy: {admin.address} answers /status with ")
    assert error.count("\n") == 1
