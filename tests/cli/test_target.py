"""``lbproxy target`` and ``lbproxy drain``: what they ask for and what they say."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest

from lbproxy.cli import drain as drain_command
from lbproxy.cli import target as target_command
from tests.cli.stub import AdminStub, make_status, run_cli, serve

KEY = "10.0.0.1:80"
PATH = "/target-groups/app/targets/10.0.0.1%3A80"


@pytest.fixture
def stub() -> Iterator[AdminStub]:
    with serve() as served:
        yield served


def answer(**changes: Any) -> dict[str, Any]:
    shown = {"target_group": "app", "target": KEY, "state": "healthy", "in_flight": 0, "override": None}
    return {**shown, **changes}


def run(stub: AdminStub, command: Any, *arguments: str) -> int:
    return run_cli(command, *arguments, "--admin", stub.address)


@pytest.mark.parametrize(
    ("arguments", "body", "override", "said"),
    [
        (("up",), {"state": "up"}, {"state": "up", "weight": None}, "held up"),
        (("down",), {"state": "down"}, {"state": "down", "weight": None}, "taken out"),
        (("drain",), {"state": "drain"}, {"state": "drain", "weight": 3}, "to drain, weight 3"),
        (("weight",), {"weight": 7}, {"state": None, "weight": 7}, "weight 7"),
    ],
)
def test_decisions(
    stub: AdminStub,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    body: object,
    override: object,
    said: str,
) -> None:
    stub.answers[f"{PATH}/override"] = lambda: (200, answer(override=override))
    more = ("7",) if arguments == ("weight",) else ()
    assert run(stub, target_command, *arguments, KEY, *more) == 0
    assert [json.loads(each) for each in stub.bodies] == [body]
    assert stub.requests[-1] == f"PUT {PATH}/override"
    assert capsys.readouterr().out == f"{KEY} in app: {said}\n"


def test_all_groups_with_the_target_are_meant_unless_one_is_named(stub: AdminStub) -> None:
    status = make_status()
    status["target_groups"] += [copy.deepcopy(status["target_groups"][0])]
    status["target_groups"][1]["name"] = "two"
    stub.answers["/status"] = lambda: (200, status)
    for group in ("app", "two"):
        stub.answers[f"/target-groups/{group}/targets/10.0.0.1%3A80/override"] = lambda: (200, answer())
    assert run(stub, target_command, "up", KEY) == 0
    assert len(stub.bodies) == 2
    assert run(stub, target_command, "up", KEY, "--target-group", "two") == 0
    assert stub.requests[-1] == "PUT /target-groups/two/targets/10.0.0.1%3A80/override"


def test_what_is_refused_is_told(stub: AdminStub, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(stub, target_command, "up", "10.9.9.9:1") == 1
    stub.answers[f"{PATH}/override"] = lambda: (401, {"error": "refused: send an admin-token"})
    assert run(stub, target_command, "up", KEY) == 1
    assert run(stub, target_command, "reset", KEY) == 1
    stub.answers[f"{PATH}/override"] = lambda: (404, {"error": "nothing was decided"})
    assert run(stub, target_command, "reset", KEY) == 1
    assert capsys.readouterr().err.splitlines() == [
        "lbproxy: no target group has a target 10.9.9.9:1",
        "lbproxy: refused: send an admin-token",
        "lbproxy: refused: send an admin-token",
        "lbproxy: nothing was decided for 10.0.0.1:80",
    ]


def test_decisions_are_listed(stub: AdminStub, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(stub, target_command, "list") == 0
    assert "nothing was decided" in capsys.readouterr().out
    status = make_status()
    (target,) = status["target_groups"][0]["targets"]
    target["override"], target["checked"] = {"state": "down", "weight": None}, "healthy"
    stub.answers["/status"] = lambda: (200, status)
    assert run(stub, target_command, "list") == 0
    assert capsys.readouterr().out.splitlines()[-1].split() == ["app", KEY, "taken", "out", "unhealthy", "healthy"]


# Drain


@pytest.fixture
def draining(stub: AdminStub, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the target looks like, one look after the other; the last one stays."""
    looks: list[Any] = []
    monkeypatch.setattr(drain_command, "LOOK_SECONDS", 0.01)
    stub.answers[f"{PATH}/override"] = lambda: (200, answer(state="healthy", in_flight=2))
    stub.answers[PATH] = lambda: looks.pop(0) if len(looks) > 1 else looks[0]
    return looks


def test_drain_waits_and_tells_how_it_goes(
    stub: AdminStub, draining: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    states = [("healthy", 2), ("draining", 2), ("draining", 2), ("draining", 1), ("unused", 0)]
    draining += [(200, answer(state=state, in_flight=count)) for state, count in states]
    assert run(stub, drain_command, KEY, "--wait") == 0
    captured = capsys.readouterr()
    assert captured.err.splitlines() == [f"{KEY} in app: 2 in flight", f"{KEY} in app: 1 in flight"]
    assert captured.out == f"{KEY} in app: drained\n"


def test_drain_gives_up_after_its_time(
    stub: AdminStub, draining: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    draining += [(200, answer(state="draining", in_flight=2))]
    assert run(stub, drain_command, KEY, "--timeout", "0.05") == 1
    assert capsys.readouterr().out == f"{KEY} in app: draining, 2 in flight\n"


def test_drain_without_waiting(stub: AdminStub, draining: list[Any]) -> None:
    assert run(stub, drain_command, KEY) == 0
    assert [json.loads(each) for each in stub.bodies] == [{"state": "drain"}]
    assert f"GET {PATH}" not in stub.requests
