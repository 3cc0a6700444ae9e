"""`lbproxy top`: rates from two samples, and how it prints them."""

from __future__ import annotations

import copy
import json
import os
import pty
from collections.abc import Iterator
from typing import Any

import pytest
from rich.console import Console
from rich.live import Live

from lbproxy.cli import top
from lbproxy.cli.client import AdminClient
from lbproxy.cli.top import Sample, rates
from tests.cli.stub import AdminStub, make_status, run_cli, serve


@pytest.fixture
def stub() -> Iterator[AdminStub]:
    with serve() as served:
        yield served


def later_status() -> dict[str, Any]:
    status = copy.deepcopy(make_status())
    listener = status["listeners"][0]
    listener["requests"] += 100
    listener["requests_by_status"]["503"] = 10
    listener["connections"] += 4
    listener["sent_bytes"] += 2000
    status["listeners"][1]["faults"] = {"ConnectTimeout": 6}
    target = status["target_groups"][0]["targets"][0]
    target["requests"] += 50
    target["faults"] = {"TargetReset": 2}
    target["responses"] = [0, 0, 40, 0, 0, 8]
    return status


def test_rates_are_differences_over_the_time_between() -> None:
    now = rates(Sample(10.0, make_status()), Sample(12.0, later_status()))
    web, database = now["listeners"]
    (target,) = now["targets"]
    assert now["seconds"] == 2
    assert (web["requests_per_second"], web["errors_per_second"], web["connections_per_second"]) == (50, 5, 2)
    assert (web["sent_bytes_per_second"], web["active"], web["p99_seconds"]) == (1000, 3, 1.5)
    assert database["errors_per_second"] == 3, "where there are no answers, connections that failed"
    assert (target["requests_per_second"], target["errors_per_second"], target["in_flight"]) == (25, 5, 2)


def test_counters_that_went_back_give_no_negative_rate() -> None:
    now = rates(Sample(10.0, later_status()), Sample(11.0, make_status()))
    assert now["listeners"][0]["requests_per_second"] == 0


def test_what_is_new_has_no_rate_yet() -> None:
    now = rates(Sample(10.0, make_status(listeners=[], target_groups=[])), Sample(11.0, make_status()))
    assert now["listeners"][0]["requests_per_second"] == 0
    assert now["targets"][0]["requests_per_second"] == 0


def test_without_a_terminal_it_prints_once(stub: AdminStub, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(top, "--admin", stub.address, "--interval", "0.1") == 0
    out = capsys.readouterr().out
    words = [line.split() for line in out.splitlines()]
    assert len(stub.requests) == 2
    assert ["web", "HTTP", "3", "0.0", "0.0", "0.0", "0.0", "0.0", "12.3", "ms", "1.5", "s"] in words
    assert ["app", "10.0.0.1:80", "unhealthy", "2", "0.0", "0.0", "-", "-"] in words


def test_once_as_json(stub: AdminStub, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(top, "--admin", stub.address, "--interval", "0.1", "--once", "--json") == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line)["targets"][0]["state"] == "unhealthy"


def test_unreachable_at_the_start(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(top, "--admin", "unix:/nonexistent/admin.sock") == 1
    assert "is lbproxy running?" in capsys.readouterr().err


def test_an_interval_that_makes_no_sense(stub: AdminStub) -> None:
    with pytest.raises(SystemExit):
        run_cli(top, "--interval", "0")


def test_ctrl_c_ends_it_quietly(stub: AdminStub, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(top.time, "sleep", interrupt)
    assert run_cli(top, "--admin", stub.address) == 0


def test_the_live_view_survives_a_restart_of_lbproxy(stub: AdminStub) -> None:
    answers = iter([(200, later_status()), (500, {}), (200, later_status())])
    stub.answers["/status"] = lambda: next(answers)
    presses = iter([False, False, False, True])
    console = Console(file=open(os.devnull, "w"), force_terminal=True, width=200)  # noqa: SIM115 - closed below
    with console.file, Live(console=console, auto_refresh=False) as live:
        shown = []
        real_update = live.update

        def update(renderable: Any, *, refresh: bool = False) -> None:
            with console.capture() as capture:
                console.print(renderable)
            shown.append(capture.get())
            real_update(renderable)

        live.update = update  # type: ignore[method-assign]
        top._show_until_q(AdminClient(stub.address), Sample(0.0, make_status()), 1, lambda seconds: next(presses), live)
    assert len(shown) == 4
    assert "10.0.0.1:80" in shown[1]
    assert "status 500" in shown[2]
    assert "10.0.0.1:80" in shown[2], "what was known stays on the screen"
    assert "status 500" not in shown[3]


def test_q_is_heard_without_enter(monkeypatch: pytest.MonkeyPatch) -> None:
    parent, child = pty.openpty()
    with open(child) as terminal:
        monkeypatch.setattr("sys.stdin", terminal)
        with top._keys() as wait_for_q:
            assert not wait_for_q(0.01)
            os.write(parent, b"x")
            assert not wait_for_q(1)
            os.write(parent, b"q")
            assert wait_for_q(1)
    os.close(parent)
