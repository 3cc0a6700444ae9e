"""The ledger: what lbproxy itself ended or refused, whose doing it was, and what it means."""

from __future__ import annotations

import pytest

from lbproxy.dataplane.proxy.faults import Fault
from lbproxy.telemetry import ledger
from lbproxy.telemetry.counters import ListenerCounters


def test_every_fault_has_its_side_and_a_meaning() -> None:
    for fault in Fault:
        if fault is Fault.CLIENT_CLOSED:
            continue
        counters = ListenerCounters("web")
        counters.faults[fault.reason] = 1
        [entry] = ledger.entries({"web": counters.report()})
        assert (fault.reason, entry["side"]) == (fault.reason, fault.side.value)
        assert "docs/" not in entry["meaning"], fault


def test_what_failed_comes_first_and_the_most_of_it() -> None:
    web, api = ListenerCounters("web"), ListenerCounters("api")
    web.faults.update({"NoTargets": 2, "ClientClosed": 50, "SpaceBeforeColon": 1})
    web.closed["IdleTimeout"] = 100
    api.faults["DrainDeadline"] = 7
    found = ledger.entries({"web": web.report(), "api": api.report()})
    assert [(entry["listener"], entry["kind"], entry["cause"], entry["count"]) for entry in found] == [
        ("api", "failed", "DrainDeadline", 7),
        ("web", "failed", "NoTargets", 2),
        ("web", "failed", "SpaceBeforeColon", 1),
        ("web", "closed", "IdleTimeout", 100),
    ]
    assert [entry["side"] for entry in found] == ["ours", "target", "client", "ours"]


@pytest.mark.parametrize(
    "cause",
    [
        ledger.RELOAD,
        ledger.DRAIN,
        ledger.DRAIN_DEADLINE,
        ledger.IDLE_TIMEOUT,
        ledger.KEEP_ALIVE_AGE,
        ledger.MAX_REQUESTS,
    ],
)
def test_every_cause_of_a_close_has_a_meaning(cause: str) -> None:
    counters = ListenerCounters("web")
    counters.closed[cause] = 1
    [entry] = ledger.entries({"web": counters.report()})
    assert entry["meaning"]
