from __future__ import annotations

import json

from lbproxy.telemetry.counters import ListenerCounters, TargetCounters, WorkerCounters


def test_the_same_name_gives_the_same_counters() -> None:
    worker = WorkerCounters()
    assert worker.listener("web") is worker.listener("web")
    assert worker.target("app", "a:1") is worker.target("app", "a:1")
    assert worker.target("app", "a:1") is not worker.target("other", "a:1")


def test_a_finished_request_is_counted() -> None:
    listener = ListenerCounters("web")
    listener.finished(200, 0.01, 100, 2000)
    listener.finished(404, 0.02, 50, 300)
    assert (listener.requests, listener.received_bytes, listener.sent_bytes) == (2, 150, 2300)
    assert listener.requests_by_status == {200: 1, 404: 1}
    assert listener.duration.count == 2


def test_answers_are_counted_by_class() -> None:
    target = TargetCounters("app", "a:1")
    for status in (101, 200, 204, 503, 999, 7):
        target.responded(status, 0.001)
    assert target.responses == [2, 1, 2, 0, 0, 1]


def test_reports_survive_json_and_add_up() -> None:
    listener = ListenerCounters("web")
    listener.connections = 3
    listener.active = 1
    listener.tls_handshakes = 2
    listener.tls_failures = 1
    listener.tls_resumed = 1
    listener.faults["ClientClosed"] += 1
    listener.finished(200, 0.01, 100, 2000)
    target = TargetCounters("app", "a:1")
    target.requests = 4
    target.connects = 2
    target.connect_failures = 1
    target.reused = 1
    target.sent_bytes = 10
    target.received_bytes = 20
    target.faults["ConnectRefused"] += 1
    target.responded(200, 0.001)

    doubled_listener, doubled_target = ListenerCounters("web"), TargetCounters("app", "a:1")
    for _ in range(2):
        doubled_listener.add(json.loads(json.dumps(listener.report())))
        doubled_target.add(json.loads(json.dumps(target.report())))

    assert doubled_listener.connections == 6
    assert doubled_listener.requests_by_status == {200: 2}
    assert doubled_listener.faults == {"ClientClosed": 2}
    assert doubled_listener.duration.count == 2
    assert doubled_target.responses == [0, 0, 2, 0, 0, 0]
    assert doubled_target.faults == {"ConnectRefused": 2}
    assert doubled_target.report()["requests"] == 8


def test_a_workers_report_is_absolute_and_json() -> None:
    worker = WorkerCounters()
    worker.listener("web").connections = 5
    worker.target("app", "a:1").requests = 7
    worker.report()
    report = json.loads(json.dumps(worker.report()))
    assert report["listeners"]["web"]["connections"] == 5
    assert report["targets"]["app"]["a:1"]["requests"] == 7
    assert report["process"]["cpu_seconds"] > 0
    assert report["process"]["max_rss_bytes"] > 1024 * 1024


def test_what_is_removed_is_reported_until_it_rests() -> None:
    worker = WorkerCounters()
    worker.listener("web")
    target = worker.target("app", "a:1")
    worker.keep_only({"web"}, set())
    assert "a:1" in worker.report()["targets"]["app"]
    target.requests += 1  # what was in flight at its removal
    assert worker.report()["targets"]["app"]["a:1"]["requests"] == 1
    assert "app" in worker.report()["targets"]
    assert worker.report()["targets"] == {}
    assert "web" in worker.report()["listeners"]


def test_a_removed_listener_with_open_connections_stays() -> None:
    worker = WorkerCounters()
    listener = worker.listener("web")
    listener.active = 1
    worker.keep_only(set(), set())
    for _ in range(4):
        assert "web" in worker.report()["listeners"]
    listener.active = 0
    for _ in range(2):
        assert "web" in worker.report()["listeners"]
    assert worker.report()["listeners"] == {}


def test_what_comes_back_keeps_its_counts() -> None:
    worker = WorkerCounters()
    target = worker.target("app", "a:1")
    worker.keep_only(set(), set())
    worker.report()
    assert worker.target("app", "a:1") is target
    worker.keep_only(set(), {("app", "a:1")})
    for _ in range(3):
        assert "a:1" in worker.report()["targets"]["app"]
