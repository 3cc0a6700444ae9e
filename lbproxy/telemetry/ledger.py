"""The ledger: every connection and request that lbproxy itself ended or refused, by cause.

Two kinds: what *failed* did not get what it asked for; what was *closed* had it, and only the connection did not
stay open.  The causes are counted where they happen (`lbproxy.telemetry.counters`); here is what they mean.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

WORKER_EXIT = "WorkerExit"
"""Open at a worker that ended without draining; as of its last report, which is at most a second old."""

# Causes of closed connections
RELOAD = "Reload"
DRAIN = "Drain"
DRAIN_DEADLINE = "DrainDeadline"
IDLE_TIMEOUT = "IdleTimeout"
KEEP_ALIVE_AGE = "KeepAliveAge"
MAX_REQUESTS = "MaxRequests"

_CLOSED = {
    RELOAD: "its listener left with a reload; the last answer said so, or it was idle",
    DRAIN: "its worker stopped; the last answer said so, or it was idle",
    DRAIN_DEADLINE: "idle at the end of drain-timeout",
    IDLE_TIMEOUT: "no request for idle-timeout",
    KEEP_ALIVE_AGE: "older than client-keep-alive",
    MAX_REQUESTS: "has had max-requests-per-connection",
}

_OURS = {
    "DrainDeadline": "still in flight at the end of drain-timeout",
    "InternalError": "a bug: the log has it",
    "TransformFailed": "a transform of the request's URL or host made something that cannot be sent",
    "IncompatibleTargetGroup": "the target group cannot serve this request",
    WORKER_EXIT: "its worker ended without draining",
}
_TARGET = {
    "NoTargets": "no target may take traffic",
    "ConnectRefused": "the targets refused to connect",
    "ConnectTimeout": "the targets did not connect in connect-timeout",
    "TargetTlsFailed": "TLS with the target failed",
    "TargetClosed": "the target closed without an answer",
    "TargetReset": "the target reset the connection",
    "TargetRefused": "the target took no more requests on its connection",
    "BadResponse": "the answer is malformed",
    "UnaskedResponse": "the target answered what nobody asked",
    "ResponseTimeout": "no answer in response-timeout",
    "CircuitOpen": "the target group had circuit-breaker-max-requests in flight",
    "QueueFull": "every target has max-concurrent-requests, and the queue is full",
    "QueueTimeout": "every target had max-concurrent-requests for queue-timeout",
    "RequestTimeout": "no answer in request-timeout, all tries together",
    "TargetStalled": "the answer stopped for idle-timeout",
    "TargetDeregistered": "the target left, and deregistration-delay is over",
}
_CLIENT = {
    "SecurityGroupDenied": "no rule of a security group lets the address in",
    "ConnectionLimit": "more than max-connections",
    "ClientConnectionLimit": "more than max-connections-per-client",
    "RateLimited": "over a rate limit",
    "ClientTimeout": "the client stopped in the middle of a request or an answer",
    "ClientTooSlow": "the client was slower than min-request-rate or min-response-rate",
    "ClientTlsFailed": "no TLS handshake with the client came about",
    "IdleTimeout": "nothing moved for idle-timeout in a TCP connection or WebSocket",
    "BadRequest": "the request is malformed",
    "BadPath": "the path means different things to different servers",
    "TooManyForwardedAddresses": "X-Forwarded-For has too many addresses",
    "HeadersTooLargeForTarget": "the head is larger than the target said it takes",
    "Http2SettingsTimeout": "the client never acknowledged our SETTINGS",
    "MisdirectedRequest": "asks for a host that its connection does not serve",
    "MethodNotAllowed": "the method is not served",
}
_NOT_OURS = frozenset(("ClientClosed",))
"""Nobody ended these but the client."""


def entries(listeners: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Make the ledger of the listeners' totals, the largest first of each kind."""
    found = [
        _entry(listener, "failed", cause, count)
        for listener, counters in listeners.items()
        for cause, count in counters["faults"].items()
        if cause not in _NOT_OURS
    ]
    found += [
        _entry(listener, "closed", cause, count)
        for listener, counters in listeners.items()
        for cause, count in counters["closed"].items()
    ]
    return sorted(found, key=lambda entry: (entry["kind"] != "failed", -entry["count"], entry["listener"]))


def _entry(listener: str, kind: str, cause: str, count: int) -> dict[str, Any]:
    return {
        "listener": listener,
        "kind": kind,
        "cause": cause,
        "side": "ours" if kind == "closed" else side_of(cause),
        "count": count,
        "meaning": _meaning(kind, cause),
    }


def side_of(cause: str) -> str:
    """Whose doing a failure is: ``ours``, the ``target``'s or the ``client``'s."""
    return "ours" if cause in _OURS else "target" if cause in _TARGET else "client"


def _meaning(kind: str, cause: str) -> str:
    if kind == "closed":
        return _CLOSED.get(cause, "")
    return _OURS.get(cause) or _TARGET.get(cause) or _CLIENT.get(cause) or "refused as malformed (docs/protocols.md)"
