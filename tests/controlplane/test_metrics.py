from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from lbproxy.controlplane.metrics import MetricsStore
from lbproxy.controlplane.state import SourceStatus
from lbproxy.model.listener import Certificate, Listener, ListenerProtocol
from lbproxy.model.rule import FixedResponse
from lbproxy.model.snapshot import Configuration, GroupState, Snapshot
from lbproxy.model.target import RegisteredTarget, Target, TargetHealth, TargetState
from lbproxy.telemetry.counters import WorkerCounters
from tests.controlplane.config.pem import NOW, make_pem


def a_report(connections: int = 1, requests: int = 1, active: int = 0, target: str = "10.0.0.1:80") -> dict[str, Any]:
    worker = WorkerCounters()
    listener = worker.listener("web")
    listener.connections = connections
    listener.active = active
    for _ in range(requests):
        listener.finished(200, 0.02, 100, 1000)
    counters = worker.target("app", target)
    counters.requests = requests
    counters.responded(200, 0.01)
    counters.faults["TargetReset"] += 1
    worker.access_log_dropped = 2
    report: dict[str, Any] = json.loads(json.dumps(worker.report()))
    return report


def a_target(host: str, state: TargetState) -> RegisteredTarget:
    return RegisteredTarget(target=Target(host=host, port=80, address=host), health=TargetHealth(state=state), cell=0)


@attrs.define
class FakeState:
    """One group with a healthy and an unhealthy target."""

    snapshot: Snapshot = Snapshot(
        version=7,
        configuration_version=3,
        configuration=Configuration(
            listeners=(
                Listener(
                    name="web", protocol=ListenerProtocol.HTTP, binds=(), default_action=FixedResponse(status=404)
                ),
            )
        ),
        groups={
            "app": GroupState(
                targets=(a_target("10.0.0.1", TargetState.HEALTHY), a_target("10.0.0.2", TargetState.UNHEALTHY))
            ),
        },
    )

    def fail_open(self, group: str) -> bool:
        return group == "app"

    def serving(self, group: str) -> str:
        return "spare" if group == "app" else group

    def circuits(self, group: str) -> dict[str, tuple[int, int]]:
        return {"requests": (7, 100)}

    def sources(self, group: str) -> tuple[SourceStatus, ...]:
        return (SourceStatus(source="file:app.yaml", state="held", targets=2, updates=4, failures=3),)

    def in_flight(self, group: str, key: str) -> int:
        return 5 if key == "10.0.0.1:80" else 0


def samples(store: MetricsStore) -> dict[tuple[str, ...], float]:
    """Parse the exposition: {(name, label values sorted by label name...): value}."""
    result: dict[tuple[str, ...], float] = {}
    for family in text_string_to_metric_families(store.exposition().decode()):
        for sample in family.samples:
            key = (sample.name, *(value for _, value in sorted(sample.labels.items())))
            assert key not in result, key
            result[key] = sample.value
    return result


def test_workers_add_up() -> None:
    store = MetricsStore()
    store.update(0, 1, a_report(connections=3, requests=2, active=1))
    store.update(1, 1, a_report(connections=4, requests=5, active=2))
    totals = store.totals()
    assert totals["listeners"]["web"]["connections"] == 7
    assert totals["listeners"]["web"]["active"] == 3
    assert totals["listeners"]["web"]["requests"] == 7
    assert totals["listeners"]["web"]["requests_by_status"] == {"200": 7}
    assert totals["listeners"]["web"]["duration"]["count"] == 7
    assert 0.01 <= totals["listeners"]["web"]["duration"]["p99"] <= 0.025
    assert totals["targets"]["app"]["10.0.0.1:80"]["requests"] == 7
    assert totals["access_log_dropped"] == 4
    assert list(totals["workers"]) == ["0", "1"]
    json.dumps(totals)


def test_a_later_report_replaces_the_former() -> None:
    store = MetricsStore()
    store.update(0, 1, a_report(connections=3))
    store.update(0, 1, a_report(connections=5))
    assert store.totals()["listeners"]["web"]["connections"] == 5


def test_totals_outlive_a_worker() -> None:
    store = MetricsStore(FakeState())
    store.update(0, 1, a_report(connections=3, active=2))
    store.retire(0)
    assert store.workers_up == 0
    assert store.totals()["listeners"]["web"]["connections"] == 3
    assert store.totals()["listeners"]["web"]["active"] == 0
    store.worker_restarted(0)
    store.update(0, 2, a_report(connections=1, active=1))
    totals = store.totals()
    assert totals["listeners"]["web"]["connections"] == 4
    assert totals["listeners"]["web"]["active"] == 1
    assert totals["targets"]["app"]["10.0.0.1:80"]["requests"] == 2
    assert totals["access_log_dropped"] == 4
    assert totals["workers"]["0"]["restarts"] == 1
    assert totals["workers"]["0"]["incarnation"] == 2


def test_a_draining_worker_and_its_successor_report_side_by_side() -> None:
    store = MetricsStore()
    for n in (1, 2, 3):
        store.update(0, 1, a_report(connections=n))
        store.update(0, 2, a_report(connections=10 * n))
    assert store.totals()["listeners"]["web"]["connections"] == 33
    assert store.workers_up == 1
    store.retire(0, 1)
    assert store.totals()["listeners"]["web"]["connections"] == 33
    store.update(0, 1, a_report(connections=99))  # it had been under way
    assert store.totals()["listeners"]["web"]["connections"] == 33


def test_forgotten_workers_do_not_pile_up() -> None:
    store = MetricsStore()
    for incarnation in range(10):
        store.update(0, incarnation, a_report(connections=1, active=1))
    assert store.totals()["listeners"]["web"]["connections"] == 10
    assert store.totals()["listeners"]["web"]["active"] == 2


def test_targets_that_are_gone_are_forgotten() -> None:
    store = MetricsStore(FakeState())
    for n in range(50):
        store.update(0, 1, a_report(target=f"10.9.9.{n}:80"))
    assert list(store.totals()["targets"]["app"]) == ["10.9.9.49:80"]


def test_a_configured_target_that_a_worker_dropped_is_remembered() -> None:
    """It was removed and registered again between two reports."""
    store = MetricsStore(FakeState())
    store.update(0, 1, a_report(requests=5))
    store.update(0, 1, a_report(target="10.0.0.2:80"))
    assert store.totals()["targets"]["app"]["10.0.0.1:80"]["requests"] == 5


@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from(["report", "restart", "end"])), max_size=30))
def test_totals_never_go_down(steps: list[tuple[int, str]]) -> None:
    store = MetricsStore(FakeState())
    incarnation = dict.fromkeys(range(3), 1)
    connections = dict.fromkeys(range(3), 0)
    expected = 0
    for slot, step in steps:
        if step == "report":
            connections[slot] += 1
            expected += 1
            store.update(slot, incarnation[slot], a_report(connections=connections[slot]))
        else:
            if step == "end":
                store.retire(slot, incarnation[slot])
            incarnation[slot] += 1
            connections[slot] = 0
        seen = store.totals()["listeners"].get("web", {"connections": 0})["connections"]
        assert seen == expected


def test_exposition() -> None:
    store = MetricsStore(FakeState())
    store.reloaded(True, 1700000000.0)
    store.reloaded(False, 1700000001.0)
    store.update(0, 1, a_report(connections=3, requests=2, active=1))
    store.worker_restarted(0)
    found = samples(store)
    for key, value in {
        ("lbproxy_workers_up",): 1,
        ("lbproxy_worker_restarts_total", "0"): 1,
        ("lbproxy_config_reloads_total", "success"): 1,
        ("lbproxy_config_reloads_total", "failure"): 1,
        ("lbproxy_config_last_reload_successful",): 0,
        ("lbproxy_config_last_reload_success_timestamp_seconds",): 1700000000,
        ("lbproxy_access_log_dropped_lines_total",): 2,
        ("lbproxy_listener_connections_total", "web"): 3,
        ("lbproxy_listener_active_connections", "web"): 1,
        ("lbproxy_listener_requests_total", "200", "web"): 2,
        ("lbproxy_listener_sent_bytes_total", "web"): 2000,
        ("lbproxy_listener_request_duration_seconds_count", "web"): 2,
        ("lbproxy_listener_request_duration_seconds_sum", "web"): 0.04,
        ("lbproxy_listener_request_duration_seconds_bucket", "+Inf", "web"): 2,
        ("lbproxy_listener_request_duration_seconds_bucket", "0.01", "web"): 0,
        ("lbproxy_listener_request_duration_seconds_bucket", "0.025", "web"): 2,
        ("lbproxy_target_requests_total", "10.0.0.1:80", "app"): 2,
        ("lbproxy_target_responses_total", "2xx", "10.0.0.1:80", "app"): 1,
        ("lbproxy_target_responses_total", "5xx", "10.0.0.1:80", "app"): 0,
        ("lbproxy_target_faults_total", "TargetReset", "10.0.0.1:80", "app"): 1,
        ("lbproxy_target_response_time_seconds_count", "10.0.0.1:80", "app"): 1,
        ("lbproxy_snapshot_version",): 7,
        ("lbproxy_target_state", "healthy", "10.0.0.1:80", "app"): 1,
        ("lbproxy_target_state", "unhealthy", "10.0.0.1:80", "app"): 0,
        ("lbproxy_target_state", "unhealthy", "10.0.0.2:80", "app"): 1,
        ("lbproxy_target_in_flight", "10.0.0.1:80", "app"): 5,
        ("lbproxy_target_group_targets", "app"): 2,
        ("lbproxy_target_group_healthy_targets", "app"): 1,
        ("lbproxy_target_group_fail_open", "app"): 1,
        ("lbproxy_circuit_load", "requests", "app"): 7,
        ("lbproxy_circuit_limit", "requests", "app"): 100,
        ("lbproxy_discovery_state", "file:app.yaml", "held", "app"): 1,
        ("lbproxy_discovery_state", "file:app.yaml", "ok", "app"): 0,
        ("lbproxy_discovery_targets", "file:app.yaml", "app"): 2,
        ("lbproxy_discovery_updates_total", "file:app.yaml", "app"): 4,
        ("lbproxy_discovery_failures_total", "file:app.yaml", "app"): 3,
    }.items():
        assert found[key] == pytest.approx(value), key
    assert all(key[0].startswith(("lbproxy_", "process_")) for key in found)


def test_exposition_of_nothing() -> None:
    assert samples(MetricsStore())[("lbproxy_workers_up",)] == 0


def test_statuses_that_http_does_not_know_share_a_label() -> None:
    worker = WorkerCounters()
    for status in (0, 99, 600, 999, 200):
        worker.listener("web").finished(status, 0.1, 0, 0)
    store = MetricsStore()
    store.update(0, 1, worker.report())
    found = samples(store)
    assert found["lbproxy_listener_requests_total", "other", "web"] == 4
    assert found["lbproxy_listener_requests_total", "200", "web"] == 1


def test_odd_names_are_escaped() -> None:
    worker = WorkerCounters()
    worker.listener('we"b\\\n').connections = 1
    store = MetricsStore()
    store.update(0, 1, worker.report())
    assert samples(store)["lbproxy_listener_connections_total", 'we"b\\\n'] == 1


def test_the_end_of_each_certificate() -> None:
    pem = make_pem("web", ends=30)
    listener = attrs.evolve(
        FakeState().snapshot.configuration.listeners[0], certificates=(Certificate(source="/tls/web.pem", pem=pem),)
    )
    snapshot = attrs.evolve(FakeState().snapshot, configuration=Configuration(listeners=(listener,)))
    text = MetricsStore(FakeState(snapshot)).exposition().decode()
    (line,) = [line for line in text.splitlines() if line.startswith("lbproxy_certificate_expiry")]
    labels, _, value = line.rpartition(" ")
    assert labels == 'lbproxy_certificate_expiry_timestamp_seconds{certificate="/tls/web.pem",listener="web"}'
    assert float(value) == NOW.timestamp() + 30 * 86400


def test_each_metric_is_in_the_manual() -> None:
    """docs/operations.md has a row for each metric, with its name and labels as Prometheus shows them."""
    manual = (Path(__file__).resolve().parents[2] / "docs" / "operations.md").read_text()
    rows = dict(re.findall(r"^\| `(lbproxy_\w+)` \| ([^|]*) \|", manual, re.MULTILINE))
    store = MetricsStore(FakeState())
    store.update(0, 1, a_report())
    store.reloaded(True, 1.0)
    text = store.exposition().decode()
    shown = {
        f"{family.name}_total" if family.type == "counter" else family.name: family
        for family in text_string_to_metric_families(text)
        if family.name.startswith("lbproxy_")
    }
    assert sorted(rows) == sorted(shown)
    for name, family in shown.items():
        for sample in family.samples:
            assert set(re.findall(r"\w+", rows[name])) == sample.labels.keys() - {"le"}, name


def test_what_a_worker_had_open_when_it_died_is_in_the_ledger() -> None:
    store = MetricsStore()
    store.update(0, 1, a_report(active=3))
    store.retire(0, 1)
    assert store.listeners()["web"].faults == {"WorkerExit": 3}
    assert store.listeners()["web"].active == 0


def test_a_worker_that_has_drained_loses_nothing() -> None:
    store = MetricsStore()
    store.update(0, 1, a_report(active=3))
    store.drained(0, 1)
    store.retire(0, 1)
    store.update(0, 2, a_report(active=2))
    store.retire(0, 2)
    assert store.listeners()["web"].faults == {"WorkerExit": 2}
