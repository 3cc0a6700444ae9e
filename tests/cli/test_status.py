"""`lbproxy status` and `lbproxy reload` against canned answers."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from lbproxy.cli import reload, status
from lbproxy.cli.display import show_count, show_duration, show_latency, show_rate
from tests.cli.stub import AdminStub, make_status, run_cli, serve


@pytest.fixture
def stub() -> Iterator[AdminStub]:
    with serve() as served:
        yield served


def test_status_shows_workers_listeners_and_targets(stub: AdminStub, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(status, "--admin", stub.address) == 0
    out = capsys.readouterr().out
    words = [line.split() for line in out.splitlines()]
    assert out.startswith("lbproxy 0.1.0  up 1h 1m  snapshot 7  ready\n/etc/lbproxy/lb.ini, loaded 2023-11-1")
    assert ["0", "42", "running", "1", "0.4s", "ago"] in words
    assert ["web", "HTTP", "0.0.0.0:8080,", "[::]:8080", "3", "20", "12.3k", "40"] in words
    assert "Target group app  HTTP, round_robin  fails open: too few targets are healthy" in out
    target = next(line for line in words if line[:1] == ["10.0.0.1:80"])
    assert target[1:6] == ["unhealthy", "1", "2", "100", "Target.ResponseCodeMismatch"]
    assert "Health checks failed with these codes: [503]" in out
    assert "\x1b" not in out, "plain where there is no terminal"


def test_an_open_circuit_shows_in_one_line(stub: AdminStub, capsys: pytest.CaptureFixture[str]) -> None:
    circuits = {
        "requests": {"now": 100, "limit": 100, "open": True},
        "retries": {"now": 1, "limit": 2, "open": False},
    }
    group = {
        "name": "app",
        "protocol": "HTTP",
        "algorithm": "first",
        "fail_open": False,
        "removed": False,
        "targets": [],
        "circuits": circuits,
    }
    stub.answers["/status"] = lambda: (200, make_status(target_groups=[group]))
    assert run_cli(status, "--admin", stub.address) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "Target group app  HTTP, first  circuit open: 100 of 100 (requests)" in lines


def test_status_as_json(stub: AdminStub, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(status, "--admin", stub.address, "--json") == 0
    assert json.loads(capsys.readouterr().out) == make_status()


def test_status_of_what_is_not_ready_and_drains(stub: AdminStub, capsys: pytest.CaptureFixture[str]) -> None:
    group = {"name": "old", "protocol": None, "algorithm": None, "fail_open": False, "removed": True, "targets": []}
    worker = {"slot": 1, "pid": None, "state": "starting", "restarts": 0, "last_report_seconds": None}
    stub.answers["/status"] = lambda: (200, make_status(ready=False, target_groups=[group], workers=[worker]))
    assert run_cli(status, "--admin", stub.address) == 0
    out = capsys.readouterr().out
    assert "not ready" in out
    assert "Target group old" in out
    assert ["1", "-", "starting", "0", "-"] in [line.split() for line in out.splitlines()]


def test_reload(stub: AdminStub, capsys: pytest.CaptureFixture[str]) -> None:
    stub.answers["/reload"] = lambda: (200, {"ok": True, "problems": [], "warnings": [], "changes": [], "version": 8})
    assert run_cli(reload, "--admin", stub.address) == 0
    assert capsys.readouterr() == ("nothing has changed\nreloaded: snapshot 8 is in force\n", "")


def test_a_reload_tells_what_changed_and_what_has_to_wait(stub: AdminStub, capsys: pytest.CaptureFixture[str]) -> None:
    answer = {
        "ok": True,
        "problems": [],
        "warnings": ["admin: at a restart"],
        "changes": ["rule a added"],
        "version": 8,
    }
    stub.answers["/reload"] = lambda: (200, answer)
    assert run_cli(reload, "--admin", stub.address) == 0
    assert capsys.readouterr() == (
        "rule a added\nreloaded: snapshot 8 is in force\n",
        "warning: admin: at a restart\n",
    )


def test_a_refused_reload_prints_the_problems_and_fails(stub: AdminStub, capsys: pytest.CaptureFixture[str]) -> None:
    problem = "lb.ini:3: [listener:web] bnd: no such option"
    answer = {"ok": False, "problems": [problem], "warnings": [], "changes": [], "version": 7}
    stub.answers["/reload"] = lambda: (422, answer)
    assert run_cli(reload, "--admin", stub.address) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == ("lb.ini:3: [listener:web] bnd: no such option\nnot reloaded: snapshot 7 stays in force\n")
    assert run_cli(reload, "--admin", stub.address, "--json") == 1
    assert json.loads(capsys.readouterr().out) == answer


def test_a_reload_that_breaks(stub: AdminStub, capsys: pytest.CaptureFixture[str]) -> None:
    stub.answers["/reload"] = lambda: (500, {"error": "internal error, see the log"})
    assert run_cli(reload, "--admin", stub.address) == 1
    assert "status 500: internal error, see the log" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (show_count(0), "0"),
        (show_count(9999), "9999"),
        (show_count(12345), "12.3k"),
        (show_count(999_900), "1M"),
        (show_count(12_345_678), "12.3M"),
        (show_count(5e15), "5P"),
        (show_rate(0), "0.0"),
        (show_rate(12.34), "12.3"),
        (show_rate(1234.5), "1234"),
        (show_duration(0.4), "0s"),
        (show_duration(59), "59s"),
        (show_duration(3600), "1h"),
        (show_duration(90061), "1d 1h"),
        (show_latency(None), "-"),
        (show_latency(0.01234), "12.3 ms"),
        (show_latency(1.5), "1.5 s"),
    ],
)
def test_numbers_with_units(shown: str, expected: str) -> None:
    assert shown == expected


def test_without_a_terminal_no_line_ends_in_spaces(stub: AdminStub, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(status, "--admin", stub.address) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > 10
    assert [line for line in lines if line != line.rstrip()] == []
