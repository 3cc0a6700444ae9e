"""The numbers of all workers as one: for the admin API, ``lbproxy top`` and Prometheus.

A worker reports absolute values since its start.  When it ends, its last values move to
a base, so that totals never go down.  What neither the snapshot nor a report has any more
is forgotten, so that targets that come and go do not pile up.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, Protocol

from cryptography import x509
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from lbproxy import __version__
from lbproxy.controlplane.state import SOURCE_STATES, SourceStatus
from lbproxy.model.snapshot import Snapshot
from lbproxy.model.target import TargetState
from lbproxy.telemetry.counters import ListenerCounters, TargetCounters
from lbproxy.telemetry.histograms import BOUNDS, Histogram
from lbproxy.telemetry.ledger import WORKER_EXIT

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""Of `MetricsStore.exposition`."""

_OVERLAPPING_WORKERS = 2
"""Workers that share a slot at a time: one that drains, and its successor."""


class MetricsState(Protocol):
    """What the metrics read of the control plane's state."""

    @property
    def snapshot(self) -> Snapshot:
        """The newest snapshot."""

    def sources(self, group: str) -> tuple[SourceStatus, ...]:
        """How the sources of a group's targets fare."""

    def fail_open(self, group: str) -> bool:
        """Tell whether the group uses all its targets because too few are healthy."""
        ...

    def serving(self, group: str) -> str:
        """Name the group that does this one's work."""

    def in_flight(self, group: str, key: str) -> int:
        """Requests or TCP connections in flight to a target, all workers together."""
        ...

    def circuits(self, group: str) -> Mapping[str, tuple[int, int]]:
        """What of a group is bounded: (how many now, the limit) by name."""


class MetricsStore:
    """Merges reports; offers them as totals and as Prometheus text.

    The supervisor calls `update` for each report and `retire` when a worker's process has ended.
    ``state`` None (in tests) leaves out what only the state knows.
    """

    def __init__(self, state: MetricsState | None = None) -> None:
        self.state = state
        self.reloads = {"success": 0, "failure": 0}
        """Configuration loads by result, the first included."""
        self.last_reload_succeeded = True
        self.last_success_time = 0.0
        """Unix time of the last successful load, 0 if there was none."""
        self.restarts: dict[int, int] = {}
        """By slot: workers started in place of one that ended unasked."""
        self.requests_lost = 0
        """In flight to targets at workers that ended without draining."""
        self._drained: set[tuple[int, int]] = set()
        self._live: dict[int, dict[int, Mapping[str, Any]]] = {}
        self._retired: dict[int, int] = {}
        self._listeners: dict[str, ListenerCounters] = {}
        self._targets: dict[tuple[str, str], TargetCounters] = {}
        self._cpu_seconds: dict[int, float] = {}
        self._access_log_dropped = 0
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._registry.register(_Collector(self))

    # What happens

    def update(self, slot: int, incarnation: int, counters: Mapping[str, Any]) -> None:
        """Take a worker's report (`WorkerCounters.report`).

        ``incarnation`` grows with each worker of the slot.  A draining worker and its successor may
        report side by side.  A report that arrives after its worker was retired is ignored.
        """
        live = self._live.setdefault(slot, {})
        if incarnation not in live and incarnation <= self._retired.get(slot, -1):
            return
        former = live.get(incarnation)
        live[incarnation] = counters
        if former is not None:
            self._keep_vanished(former, counters)
        for oldest in sorted(live)[:-_OVERLAPPING_WORKERS]:
            self.retire(slot, oldest)
        self._forget_removed()

    def retire(self, slot: int, incarnation: int | None = None) -> None:
        """Note that a worker has ended (without ``incarnation``: every one of the slot); its counts stay."""
        live = self._live.get(slot, {})
        for ended in [incarnation] if incarnation is not None else list(live):
            self._retired[slot] = max(ended, self._retired.get(slot, -1))
            report = live.pop(ended, None)
            drained = (slot, ended) in self._drained
            self._drained.discard((slot, ended))
            if report is not None:
                if not drained:
                    report = _with_worker_exit(report)
                self._keep_vanished(report, {"listeners": {}, "targets": {}})
                self._access_log_dropped += report["access_log_dropped"]
                self._cpu_seconds[slot] = self._cpu_seconds.get(slot, 0.0) + report["process"]["cpu_seconds"]
        if not live:
            self._live.pop(slot, None)

    def drained(self, slot: int, incarnation: int) -> None:
        """Note that a worker has said that nothing is left of what it had: its end loses nothing."""
        self._drained.add((slot, incarnation))

    def worker_restarted(self, slot: int) -> None:
        """Count a worker that had to be started again."""
        self.restarts[slot] = self.restarts.get(slot, 0) + 1

    def reloaded(self, success: bool, unix_time: float) -> None:
        """Count a load of the configuration, the one at the start included."""
        self.reloads["success" if success else "failure"] += 1
        self.last_reload_succeeded = success
        if success:
            self.last_success_time = unix_time

    def _keep_vanished(self, former: Mapping[str, Any], report: Mapping[str, Any]) -> None:
        """Add to the base what the former report has and the new one has not."""
        for name, values in former["listeners"].items():
            if name not in report["listeners"]:
                listener = self._listeners.setdefault(name, ListenerCounters(name))
                listener.add(values)
                listener.active = 0  # the connections ended with the worker
        for group, members in former["targets"].items():
            remaining = report["targets"].get(group, {})
            for key, values in members.items():
                if key not in remaining:
                    self._targets.setdefault((group, key), TargetCounters(group, key)).add(values)

    def _forget_removed(self) -> None:
        """Drop from the base what nobody has any more."""
        if not self._listeners and not self._targets:
            return
        listeners: set[str] = set()
        targets: set[tuple[str, str]] = set()
        if self.state is not None:
            snapshot = self.state.snapshot
            listeners.update(listener.name for listener in snapshot.configuration.listeners)
            for group, members in snapshot.groups.items():
                targets.update((group, registered.target.key) for registered in members.targets)
        for report in self._reports():
            listeners.update(report["listeners"])
            targets.update((group, key) for group, keys in report["targets"].items() for key in keys)
        for name in self._listeners.keys() - listeners:
            del self._listeners[name]
        for pair in self._targets.keys() - targets:
            del self._targets[pair]

    # What came of it

    def _reports(self) -> Iterator[Mapping[str, Any]]:
        for live in self._live.values():
            yield from live.values()

    @property
    def workers_up(self) -> int:
        """Slots with a worker that reports."""
        return len(self._live)

    def listeners(self) -> dict[str, ListenerCounters]:
        """Merge the counters of each listener, sorted by name."""
        merged: dict[str, ListenerCounters] = {}
        for report in ({"listeners": {n: c.report() for n, c in self._listeners.items()}}, *self._reports()):
            for name, values in report["listeners"].items():
                merged.setdefault(name, ListenerCounters(name)).add(values)
        return dict(sorted(merged.items()))

    def targets(self) -> dict[tuple[str, str], TargetCounters]:
        """Merge the counters of each target of each group, sorted by (group, key)."""
        merged: dict[tuple[str, str], TargetCounters] = {}
        for pair, base in self._targets.items():
            merged.setdefault(pair, TargetCounters(*pair)).add(base.report())
        for report in self._reports():
            for group, members in report["targets"].items():
                for key, values in members.items():
                    merged.setdefault((group, key), TargetCounters(group, key)).add(values)
        return dict(sorted(merged.items()))

    def workers(self) -> dict[int, dict[str, Any]]:
        """Tell of each slot that has or had a worker: up, incarnation, restarts, CPU seconds, memory."""
        result: dict[int, dict[str, Any]] = {}
        for slot in sorted({*self._live, *self._retired, *self.restarts}):
            live = self._live.get(slot, {})
            processes = [report["process"] for report in live.values()]
            result[slot] = {
                "up": bool(live),
                "incarnation": max(live, default=self._retired.get(slot, 0)),
                "restarts": self.restarts.get(slot, 0),
                "cpu_seconds": self._cpu_seconds.get(slot, 0.0) + sum(process["cpu_seconds"] for process in processes),
                "max_rss_bytes": sum(process["max_rss_bytes"] for process in processes),
            }
        return result

    @property
    def access_log_dropped(self) -> int:
        """Access-log lines that no worker could write."""
        lines: int = sum(report["access_log_dropped"] for report in self._reports())
        return self._access_log_dropped + lines

    def totals(self) -> dict[str, Any]:
        """Merge everything, in a form that JSON knows, for the admin API and ``lbproxy top``.

        As in the reports, but each histogram is told by its count, sum, p50 and p99 (estimates, seconds).
        """
        targets: dict[str, dict[str, Any]] = {}
        for (group, key), target in self.targets().items():
            targets.setdefault(group, {})[key] = {
                **target.report(),
                "response_time": _summary(target.response_time),
            }
        return {
            "listeners": {
                name: {**listener.report(), "requests": listener.requests, "duration": _summary(listener.duration)}
                for name, listener in self.listeners().items()
            },
            "targets": targets,
            "workers": {str(slot): values for slot, values in self.workers().items()},
            "access_log_dropped": self.access_log_dropped,
            "requests_lost_with_workers": self.requests_lost,
        }

    def exposition(self) -> bytes:
        """Give everything as Prometheus text (`CONTENT_TYPE`)."""
        return generate_latest(self._registry)


def _with_worker_exit(report: Mapping[str, Any]) -> dict[str, Any]:
    """What a worker counted, and that its open connections ended with it."""
    listeners = {
        name: {**values, "faults": {**values["faults"], WORKER_EXIT: values["active"]}} if values["active"] else values
        for name, values in report["listeners"].items()
    }
    return {**report, "listeners": listeners}


def _summary(histogram: Histogram) -> dict[str, float]:
    return {
        "count": histogram.count,
        "sum": histogram.sum,
        "p50": histogram.quantile(0.5),
        "p99": histogram.quantile(0.99),
    }


_LISTENER_COUNTERS = (
    ("connections", "connections", "Connections accepted"),
    ("received_bytes", "received_bytes", "Bytes received from clients"),
    ("sent_bytes", "sent_bytes", "Bytes sent to clients"),
    ("tls_handshakes", "tls_handshakes", "TLS handshakes completed, resumed ones included"),
    ("tls_failures", "tls_failures", "TLS handshakes that failed"),
    ("tls_resumed", "tls_resumptions", "TLS sessions resumed"),
)
"""(attribute, name, help)"""

_TARGET_COUNTERS = (
    ("requests", "requests", "Requests or TCP connections sent to the target, each attempt one"),
    ("connects", "connects", "Connections made to the target"),
    ("connect_failures", "connect_failures", "Connections to the target that failed"),
    ("reused", "connection_reuses", "Requests that found a connection in the pool"),
    (
        "retries_over_budget",
        "retries_over_budget",
        "Retries that the group's budget or circuit breaker did not allow",
    ),
    ("sent_bytes", "sent_bytes", "Bytes sent to the target"),
    ("received_bytes", "received_bytes", "Bytes received from the target"),
)


class _Collector(Collector):
    """Turns the store into metric families at each scrape."""

    def __init__(self, store: MetricsStore) -> None:
        self._store = store

    def describe(self) -> list[Metric]:
        """Nothing: the registry need not collect to check for duplicates."""
        return []

    def collect(self) -> Iterator[Metric]:
        yield from self._process()
        yield from self._listeners()
        yield from self._targets()
        if self._store.state is not None:
            yield from self._state(self._store.state)

    def _process(self) -> Iterator[Metric]:
        store = self._store
        build = GaugeMetricFamily("lbproxy_build_info", "The running version; always 1", labels=["version"])
        build.add_metric([__version__], 1)
        yield build
        yield GaugeMetricFamily("lbproxy_workers_up", "Worker slots with a worker that reports", store.workers_up)
        restarts = CounterMetricFamily("lbproxy_worker_restarts", "Workers that ended unasked", labels=["worker"])
        cpu = CounterMetricFamily("lbproxy_worker_cpu_seconds", "User and system CPU time", labels=["worker"])
        memory = GaugeMetricFamily("lbproxy_worker_max_rss_bytes", "Peak resident memory", labels=["worker"])
        for slot, values in store.workers().items():
            restarts.add_metric([str(slot)], values["restarts"])
            cpu.add_metric([str(slot)], values["cpu_seconds"])
            memory.add_metric([str(slot)], values["max_rss_bytes"])
        yield from (restarts, cpu, memory)
        yield CounterMetricFamily(
            "lbproxy_worker_lost_requests",
            "Requests and TCP connections in flight at workers that ended without draining",
            store.requests_lost,
        )
        reloads = CounterMetricFamily("lbproxy_config_reloads", "Loads of the configuration", labels=["result"])
        for result, count in store.reloads.items():
            reloads.add_metric([result], count)
        yield reloads
        yield GaugeMetricFamily(
            "lbproxy_config_last_reload_successful",
            "Whether the last load of the configuration succeeded",
            store.last_reload_succeeded,
        )
        yield GaugeMetricFamily(
            "lbproxy_config_last_reload_success_timestamp_seconds",
            "Unix time of the last successful load",
            store.last_success_time,
        )
        yield CounterMetricFamily(
            "lbproxy_access_log_dropped_lines",
            "Access-log lines that could not be written",
            store.access_log_dropped,
        )

    def _listeners(self) -> Iterator[Metric]:
        listeners = self._store.listeners()
        for attribute, name, text in _LISTENER_COUNTERS:
            family = CounterMetricFamily(f"lbproxy_listener_{name}", text, labels=["listener"])
            for listener, counters in listeners.items():
                family.add_metric([listener], getattr(counters, attribute))
            yield family
        active = GaugeMetricFamily("lbproxy_listener_active_connections", "Connections open now", labels=["listener"])
        requests = CounterMetricFamily(
            "lbproxy_listener_requests", "Requests by the status the client got", labels=["listener", "code"]
        )
        faults = CounterMetricFamily(
            "lbproxy_listener_faults", "Requests and connections that failed", labels=["listener", "cause"]
        )
        closed = CounterMetricFamily(
            "lbproxy_listener_closed_connections",
            "Connections closed by lbproxy after all they asked for was answered",
            labels=["listener", "cause"],
        )
        limited = CounterMetricFamily(
            "lbproxy_listener_rate_limited_requests",
            "Requests over a rate limit: refused, or served in a dry run",
            labels=["listener", "limit", "mode"],
        )
        desync = CounterMetricFamily(
            "lbproxy_listener_desync_requests",
            "Requests that were not compliant (desync mitigation)",
            labels=["listener", "classification", "reason"],
        )
        duration = HistogramMetricFamily(
            "lbproxy_listener_request_duration_seconds", "Whole requests, first byte to last", labels=["listener"]
        )
        for listener, counters in listeners.items():
            active.add_metric([listener], counters.active)
            for code, count in _by_code(counters.requests_by_status).items():
                requests.add_metric([listener, code], count)
            for cause, count in sorted(counters.faults.items()):
                faults.add_metric([listener, cause], count)
            for cause, count in sorted(counters.closed.items()):
                closed.add_metric([listener, cause], count)
            for limit, count in sorted(counters.rate_limited.items()):
                limited.add_metric([listener, *limit.split()], count)
            for classified, count in sorted(counters.desync.items()):
                desync.add_metric([listener, *classified.split()], count)
            duration.add_metric([listener], _buckets(counters.duration), counters.duration.sum)
        yield from (active, requests, faults, closed, limited, desync, duration)

    def _targets(self) -> Iterator[Metric]:
        targets = self._store.targets()
        labels = ["target_group", "target"]
        for attribute, name, text in _TARGET_COUNTERS:
            family = CounterMetricFamily(f"lbproxy_target_{name}", text, labels=labels)
            for pair, counters in targets.items():
                family.add_metric(pair, getattr(counters, attribute))
            yield family
        responses = CounterMetricFamily("lbproxy_target_responses", "Answers by class", labels=[*labels, "code"])
        faults = CounterMetricFamily("lbproxy_target_faults", "Attempts that failed", labels=[*labels, "cause"])
        retries = CounterMetricFamily(
            "lbproxy_target_retries", "Attempts that followed one with this target", labels=[*labels, "cause"]
        )
        time = HistogramMetricFamily(
            "lbproxy_target_response_time_seconds", "From dispatch to the answer's first byte", labels=labels
        )
        for pair, counters in targets.items():
            for klass, count in enumerate(counters.responses):
                if count or klass:
                    responses.add_metric([*pair, f"{klass}xx" if klass else "other"], count)
            for cause, count in sorted(counters.faults.items()):
                faults.add_metric([*pair, cause], count)
            for cause, count in sorted(counters.retries.items()):
                retries.add_metric([*pair, cause], count)
            time.add_metric(pair, _buckets(counters.response_time), counters.response_time.sum)
        yield from (responses, faults, retries, time)

    def _state(self, state: MetricsState) -> Iterator[Metric]:
        snapshot = state.snapshot
        yield GaugeMetricFamily("lbproxy_snapshot_version", "Version of the newest snapshot", snapshot.version)
        labels = ["target_group", "target"]
        states = GaugeMetricFamily("lbproxy_target_state", "1 for the target's state", labels=[*labels, "state"])
        flight = GaugeMetricFamily("lbproxy_target_in_flight", "Requests or connections in flight", labels=labels)
        members = GaugeMetricFamily("lbproxy_target_group_targets", "Registered targets", labels=["target_group"])
        healthy = GaugeMetricFamily("lbproxy_target_group_healthy_targets", "Healthy targets", labels=["target_group"])
        open_ = GaugeMetricFamily(
            "lbproxy_target_group_fail_open",
            "1 while all targets are used as too few are healthy",
            labels=["target_group"],
        )
        backup = GaugeMetricFamily(
            "lbproxy_target_group_on_backup", "1 while the backup does the group's work", labels=["target_group"]
        )
        labels_of_circuits = ["target_group", "circuit"]
        load = GaugeMetricFamily(
            "lbproxy_circuit_load", "Requests in flight, in the queue or in a retry", labels=labels_of_circuits
        )
        limits = GaugeMetricFamily(
            "lbproxy_circuit_limit",
            "With how many the circuit is open",
            labels=labels_of_circuits,
        )
        share = GaugeMetricFamily(
            "lbproxy_target_share_percent", "How much of its weight a target gets now", labels=labels
        )
        for group, group_state in sorted(snapshot.groups.items()):
            count = 0
            for registered in group_state.targets:
                pair = (group, registered.target.key)
                count += registered.health.state is TargetState.HEALTHY
                for target_state in TargetState:
                    states.add_metric([*pair, target_state.value], registered.health.state is target_state)
                flight.add_metric(pair, state.in_flight(*pair))
                share.add_metric(pair, registered.share)
            members.add_metric([group], len(group_state.targets))
            healthy.add_metric([group], count)
            open_.add_metric([group], state.fail_open(group))
            backup.add_metric([group], state.serving(group) != group)
            for what, (now, limit) in state.circuits(group).items():
                load.add_metric([group, what], now)
                limits.add_metric([group, what], limit)
        expiry = GaugeMetricFamily(
            "lbproxy_certificate_expiry_timestamp_seconds",
            "Unix time at which a certificate ends",
            labels=["listener", "certificate"],
        )
        for listener in snapshot.configuration.listeners:
            for certificate in listener.certificates:
                expiry.add_metric([listener.name, certificate.source], _expiry(certificate.pem))
        yield from (states, flight, share, members, healthy, open_, backup, load, limits, expiry)
        yield from _discovery(state)


def _discovery(state: MetricsState) -> Iterator[Metric]:
    labels = ["target_group", "source"]
    states = GaugeMetricFamily(
        "lbproxy_discovery_state", "1 for the state of a source of targets", labels=[*labels, "state"]
    )
    targets = GaugeMetricFamily("lbproxy_discovery_targets", "Targets in force by a source", labels=labels)
    updates = CounterMetricFamily("lbproxy_discovery_updates", "Answers that changed something", labels=labels)
    failures = CounterMetricFamily("lbproxy_discovery_failures", "Answers that failed or were held", labels=labels)
    for group in sorted(state.snapshot.groups):
        for source in state.sources(group):
            pair = (group, source.source)
            for name in SOURCE_STATES:
                states.add_metric([*pair, name], source.state == name)
            targets.add_metric(pair, source.targets)
            updates.add_metric(pair, source.updates)
            failures.add_metric(pair, source.failures)
    yield from (states, targets, updates, failures)


@lru_cache(maxsize=1024)
def _expiry(pem: bytes) -> float:
    return x509.load_pem_x509_certificate(pem).not_valid_after_utc.timestamp()


def _by_code(requests_by_status: Mapping[int, int]) -> dict[str, int]:
    """Group the statuses that HTTP does not know as ``other``, for a target may send any number."""
    codes: dict[str, int] = {}
    for status, count in sorted(requests_by_status.items()):
        code = str(status) if 100 <= status < 600 else "other"
        codes[code] = codes.get(code, 0) + count
    return codes


def _buckets(histogram: Histogram) -> list[tuple[str, float]]:
    total = 0
    buckets: list[tuple[str, float]] = []
    for bound, count in zip((*map(str, BOUNDS), "+Inf"), histogram.counts, strict=True):
        total += count
        buckets.append((bound, total))
    return buckets
