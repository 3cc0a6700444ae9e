"""What a worker counts: for each listener, for each target, and for itself.

The objects are looked up when a snapshot is applied and held by whoever counts, so
that a request costs attribute additions only.  One thread, no locks.  A report holds
absolute values since the worker's start; `lbproxy.controlplane.metrics` merges the
reports of all workers.
"""

from __future__ import annotations

import resource
from array import array
from collections import defaultdict
from collections.abc import Collection, Mapping
from typing import Any

from lbproxy.telemetry.histograms import Histogram

_STATUSES = 1000
"""Any status of three digits."""


class ListenerCounters:
    """What happened at one listener."""

    __slots__ = (
        "_statuses",
        "active",
        "closed",
        "connections",
        "desync",
        "duration",
        "faults",
        "name",
        "rate_limited",
        "received_bytes",
        "sent_bytes",
        "tls_failures",
        "tls_handshakes",
        "tls_resumed",
    )

    def __init__(self, name: str) -> None:
        self.name = name
        self.connections = 0
        """Accepted since the start."""
        self.active = 0
        """Open now."""
        self._statuses = array("q", bytes(8 * _STATUSES))
        self.received_bytes = 0
        """From clients."""
        self.sent_bytes = 0
        """To clients."""
        self.faults: dict[str, int] = defaultdict(int)
        """Exchanges and connections that failed, by the fault's reason."""
        self.closed: dict[str, int] = defaultdict(int)
        """Connections that were closed after all they asked for was answered, by cause (`lbproxy.telemetry.ledger`)."""
        self.rate_limited: dict[str, int] = defaultdict(int)
        """Requests over a rate limit, by its name and ``enforced`` or ``dry-run``."""
        self.desync: dict[str, int] = defaultdict(int)
        """Requests that were not compliant, by ``classification reason``."""
        self.tls_handshakes = 0
        """Completed, resumed ones included."""
        self.tls_failures = 0
        self.tls_resumed = 0
        self.duration = Histogram()
        """Seconds of whole requests, first byte in to last byte out."""

    @property
    def requests_by_status(self) -> dict[int, int]:
        """Requests that ended, by the status the client got (460 and the like included)."""
        return {status: count for status, count in enumerate(self._statuses) if count}

    @property
    def requests(self) -> int:
        """How many requests ended."""
        return sum(self._statuses)

    def finished(self, status: int, seconds: float, received_bytes: int, sent_bytes: int) -> None:
        """Count a request that ended."""
        self._statuses[status if 0 <= status < _STATUSES else 0] += 1
        self.received_bytes += received_bytes
        self.sent_bytes += sent_bytes
        self.duration.observe(seconds)

    def report(self) -> dict[str, Any]:
        """Give the values in a form that JSON knows; see `add`."""
        return {
            "connections": self.connections,
            "active": self.active,
            "requests_by_status": {str(status): count for status, count in self.requests_by_status.items()},
            "received_bytes": self.received_bytes,
            "sent_bytes": self.sent_bytes,
            "faults": dict(self.faults),
            "desync": dict(self.desync),
            "closed": dict(self.closed),
            "rate_limited": dict(self.rate_limited),
            "tls_handshakes": self.tls_handshakes,
            "tls_failures": self.tls_failures,
            "tls_resumed": self.tls_resumed,
            "duration": self.duration.report(),
        }

    def add(self, report: Mapping[str, Any]) -> None:
        """Add the values of a `report`."""
        self.connections += report["connections"]
        self.active += report["active"]
        for status, count in report["requests_by_status"].items():
            self._statuses[int(status)] += count
        self.received_bytes += report["received_bytes"]
        self.sent_bytes += report["sent_bytes"]
        for reason, count in report["faults"].items():
            self.faults[reason] += count
        for cause, count in report["closed"].items():
            self.closed[cause] += count
        for limit, count in report["rate_limited"].items():
            self.rate_limited[limit] += count
        for reason, count in report["desync"].items():
            self.desync[reason] += count
        self.tls_handshakes += report["tls_handshakes"]
        self.tls_failures += report["tls_failures"]
        self.tls_resumed += report["tls_resumed"]
        self.duration.add(report["duration"])


class TargetCounters:
    """What happened with one target in one target group."""

    __slots__ = (
        "_classes",
        "connect_failures",
        "connects",
        "faults",
        "group",
        "key",
        "received_bytes",
        "requests",
        "response_time",
        "retries",
        "retries_over_budget",
        "reused",
        "sent_bytes",
    )

    def __init__(self, group: str, key: str) -> None:
        self.group = group
        self.key = key
        """The target's ``host:port``."""
        self.requests = 0
        """Requests (for TCP: connections) sent to the target, each attempt one."""
        self._classes = array("q", bytes(8 * 6))
        self.connects = 0
        """New connections that succeeded."""
        self.connect_failures = 0
        self.reused = 0
        """Requests that found a connection in the pool."""
        self.faults: dict[str, int] = defaultdict(int)
        """Attempts that failed, by the fault's reason."""
        self.retries: dict[str, int] = defaultdict(int)
        """Attempts that followed one with this target, by what led to them (`HttpRecord.retry_reason`)."""
        self.retries_over_budget = 0
        """Those that the group's budget did not allow."""
        self.sent_bytes = 0
        """To the target."""
        self.received_bytes = 0
        """From the target."""
        self.response_time = Histogram()
        """Seconds from dispatch to the first byte of the answer."""

    @property
    def responses(self) -> list[int]:
        """Answers by class: [2] counts 2xx; [0] what is outside 100-599."""
        return list(self._classes)

    def responded(self, status: int, seconds: float) -> None:
        """Count an answer whose first byte came this long after the dispatch."""
        klass = status // 100 if 100 <= status < 600 else 0
        self._classes[klass] += 1
        self.response_time.observe(seconds)

    def report(self) -> dict[str, Any]:
        """Give the values in a form that JSON knows; see `add`."""
        return {
            "requests": self.requests,
            "responses": self.responses,
            "connects": self.connects,
            "connect_failures": self.connect_failures,
            "reused": self.reused,
            "faults": dict(self.faults),
            "retries": dict(self.retries),
            "retries_over_budget": self.retries_over_budget,
            "sent_bytes": self.sent_bytes,
            "received_bytes": self.received_bytes,
            "response_time": self.response_time.report(),
        }

    def add(self, report: Mapping[str, Any]) -> None:
        """Add the values of a `report`."""
        self.requests += report["requests"]
        self._classes = array("q", [a + b for a, b in zip(self._classes, report["responses"], strict=True)])
        self.connects += report["connects"]
        self.connect_failures += report["connect_failures"]
        self.reused += report["reused"]
        for reason, count in report["faults"].items():
            self.faults[reason] += count
        for reason, count in report["retries"].items():
            self.retries[reason] += count
        self.retries_over_budget += report["retries_over_budget"]
        self.sent_bytes += report["sent_bytes"]
        self.received_bytes += report["received_bytes"]
        self.response_time.add(report["response_time"])


class WorkerCounters:
    """Everything that one worker counts.

    What a snapshot no longer has (`keep_only`) stays until two reports in a row
    agree on it and, for a listener, its last connection is closed: what was in flight
    at its removal is still told.  After that it is dropped, for targets come and go.
    """

    def __init__(self) -> None:
        self.access_log_dropped = 0
        """Access-log lines that were not written; the worker copies `AccessLog.dropped` here."""
        self._listeners: dict[str, ListenerCounters] = {}
        self._targets: dict[str, dict[str, TargetCounters]] = {}
        self._leaving_listeners: dict[str, dict[str, Any] | None] = {}
        self._leaving_targets: dict[tuple[str, str], dict[str, Any] | None] = {}

    def listener(self, name: str) -> ListenerCounters:
        """Get or make a listener's counters; not for every request."""
        self._leaving_listeners.pop(name, None)
        counters = self._listeners.get(name)
        if counters is None:
            counters = self._listeners[name] = ListenerCounters(name)
        return counters

    def target(self, group: str, key: str) -> TargetCounters:
        """Get or make the counters of a target in its group; not for every request."""
        self._leaving_targets.pop((group, key), None)
        targets = self._targets.setdefault(group, {})
        counters = targets.get(key)
        if counters is None:
            counters = targets[key] = TargetCounters(group, key)
        return counters

    def keep_only(self, listeners: Collection[str], targets: Collection[tuple[str, str]]) -> None:
        """Let go of what is not among these names and (group, key) pairs, once it is reported."""
        for name in self._listeners:
            if name in listeners:
                self._leaving_listeners.pop(name, None)
            else:
                self._leaving_listeners.setdefault(name, None)
        for group, members in self._targets.items():
            for key in members:
                if (group, key) in targets:
                    self._leaving_targets.pop((group, key), None)
                else:
                    self._leaving_targets.setdefault((group, key), None)

    def report(self) -> dict[str, Any]:
        """Give all values since the worker's start in a form that JSON knows."""
        usage = resource.getrusage(resource.RUSAGE_SELF)
        report = {
            "listeners": {name: counters.report() for name, counters in self._listeners.items()},
            "targets": {
                group: {key: counters.report() for key, counters in members.items()}
                for group, members in self._targets.items()
            },
            "access_log_dropped": self.access_log_dropped,
            "process": {
                "cpu_seconds": usage.ru_utime + usage.ru_stime,
                "max_rss_bytes": usage.ru_maxrss * 1024,  # Linux counts in KiB
            },
        }
        self._drop_settled(report)
        return report

    def _drop_settled(self, report: dict[str, Any]) -> None:
        for name, last in list(self._leaving_listeners.items()):
            values = report["listeners"][name]
            if values == last and not values["active"]:
                del self._listeners[name], self._leaving_listeners[name]
            else:
                self._leaving_listeners[name] = values
        for (group, key), last in list(self._leaving_targets.items()):
            values = report["targets"][group][key]
            if values == last:
                del self._targets[group][key], self._leaving_targets[group, key]
                if not self._targets[group]:
                    del self._targets[group]
            else:
                self._leaving_targets[group, key] = values
