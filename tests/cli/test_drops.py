"""`lbproxy drops` against canned answers."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from lbproxy.cli import drops
from tests.cli.stub import AdminStub, run_cli, serve

LEDGER = {
    "uptime_seconds": 3700.0,
    "drops": [
        {
            "listener": "web",
            "kind": "failed",
            "cause": "NoTargets",
            "side": "ours",
            "count": 12345,
            "meaning": "no target may take traffic",
        },
        {
            "listener": "web",
            "kind": "closed",
            "cause": "IdleTimeout",
            "side": "ours",
            "count": 3,
            "meaning": "no request for idle-timeout",
        },
    ],
    "requests_lost_with_workers": 2,
}


@pytest.fixture
def stub() -> Iterator[AdminStub]:
    with serve() as served:
        served.answers["/drops"] = lambda: (200, LEDGER)
        yield served


def test_drops_are_shown_by_kind(stub: AdminStub, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(drops, "--admin", stub.address) == 0
    out = capsys.readouterr().out
    words = [line.split() for line in out.splitlines()]
    assert ["web", "NoTargets", "12.3k", "ours", "no", "target", "may", "take", "traffic"] in words
    assert ["web", "IdleTimeout", "3", "ours", "no", "request", "for", "idle-timeout"] in words
    assert out.index("Failed: did not get") < out.index("NoTargets") < out.index("Closed:") < out.index("IdleTimeout")
    assert "2 requests or TCP connections were in flight at workers that ended without draining" in out


def test_nothing_dropped(stub: AdminStub, capsys: pytest.CaptureFixture[str]) -> None:
    stub.answers["/drops"] = lambda: (200, {**LEDGER, "drops": [], "requests_lost_with_workers": 0})
    assert run_cli(drops, "--admin", stub.address) == 0
    out = capsys.readouterr().out
    assert "Failed: did not get what they asked for: none" in out
    assert "in flight" not in out


def test_drops_as_json(stub: AdminStub, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(drops, "--admin", stub.address, "--json") == 0
    assert json.loads(capsys.readouterr().out) == LEDGER
