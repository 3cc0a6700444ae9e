"""What exchanges work with: a listener's and its target groups' part of one snapshot.

Built by the worker when a snapshot arrives, never changed afterwards; an exchange keeps the
one that it started with.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from lbproxy.dataplane.proxy.answers import ALLOW, ErrorPages, grpc_fields, own_fields
from lbproxy.model.listener import DesyncMitigationMode, PathNormalization
from lbproxy.model.target_group import ProxyProtocolVersion
from lbproxy.wire.http.desync import BOTH_TE_CL_PRESENT, FIRST_AMBIGUOUS, FIRST_SEVERE

if TYPE_CHECKING:
    from lbproxy.dataplane.balancer.base import Balancer, Cells
    from lbproxy.dataplane.balancer.observation import Observation
    from lbproxy.dataplane.balancer.stickiness import GroupStickiness, TargetStickiness
    from lbproxy.dataplane.proxy.ends import Upstream
    from lbproxy.dataplane.proxy.exchange import Exchange
    from lbproxy.dataplane.proxy.forwarded import TraceIds
    from lbproxy.dataplane.proxy.gate import Gate
    from lbproxy.dataplane.proxy.ratelimit import RateLimits
    from lbproxy.dataplane.proxy.retry import Retrying
    from lbproxy.dataplane.router.table import Table
    from lbproxy.model.listener import Listener
    from lbproxy.model.retry import RetryChange
    from lbproxy.model.target import RegisteredTarget
    from lbproxy.model.target_group import TargetGroup
    from lbproxy.telemetry.counters import ListenerCounters, TargetCounters
    from lbproxy.telemetry.records import RequestLog
    from lbproxy.wire.http1.head import RequestHead


class Pool:
    """One worker's connections to one target."""

    __slots__ = ("authority", "counters", "gate", "key", "observation")

    key: str
    """The target's ``host:port``."""
    authority: bytes
    """The same, for a Host field."""
    counters: TargetCounters
    observation: Observation | None
    """Told how requests fare, where somebody wants to know."""
    gate: Gate | None
    """Told when a request is over, where others may wait for that."""

    def begin(self) -> None:
        """Count a request as in flight."""
        raise NotImplementedError  # interface

    def end(self) -> None:
        """It is over."""
        raise NotImplementedError  # interface

    def take(self, repeatable: bool) -> Upstream | None:
        """Hand out a kept connection, if there is one; surely alive unless the request may be repeated."""
        raise NotImplementedError  # interface

    def connect(self, exchange: Exchange) -> None:
        """Make a connection; later `Exchange.connected` or `Exchange.connect_failed` is called."""
        raise NotImplementedError  # interface

    def cancel(self, exchange: Exchange) -> None:
        """This exchange waits no longer."""
        raise NotImplementedError  # interface


class GroupRuntime:
    """A target group as a worker uses it."""

    __slots__ = (
        "_cells",
        "_order",
        "_position_cell",
        "_retrying",
        "balancer",
        "encrypted",
        "gate",
        "group",
        "name",
        "pools",
        "response_timeout",
        "retrying",
        "sends_header",
        "stickiness",
    )

    def __init__(
        self,
        group: TargetGroup,
        balancer: Balancer,
        pools: Mapping[int, Pool],
        retrying: Retrying | None = None,
        stickiness: TargetStickiness | None = None,
        gate: Gate | None = None,
    ) -> None:
        self.name = group.name
        self.group = group
        self.encrypted = group.protocol.is_encrypted
        self.sends_header = group.proxy_protocol is not ProxyProtocolVersion.OFF
        self.balancer = balancer
        self.pools = pools
        """By the target's cell."""
        self.stickiness = stickiness
        """By which cookie clients come back to their targets, if by any."""
        self.gate = gate
        """Where requests wait while the targets are given no more, if that is bounded."""
        self.response_timeout = group.response_timeout_seconds
        self._retrying = retrying
        self.retrying = None if retrying is None or retrying.is_idle else retrying
        """None where there is nothing to keep account of, unless a rule says otherwise."""
        self._order: list[RegisteredTarget] | None = None
        self._cells: Cells | None = None
        self._position_cell = 0
        rotation = balancer.rotation
        if rotation is not None:
            self._order, self._cells, self._position_cell = rotation

    def pick(self, request: RequestHead | None, source: str) -> RegisteredTarget | None:
        """The target for the next request (None: for a TCP connection), or None when there is none at all."""
        order = self._order
        if order is None:
            return self.balancer.pick(request, source)
        cells = self._cells
        assert cells is not None
        cell = self._position_cell
        position = cells[cell]
        cells[cell] = position + 1
        return order[position % len(order)]

    def retrying_for(self, change: RetryChange) -> Retrying:
        """The policy for requests of a rule that has some of it otherwise."""
        assert self._retrying is not None
        return self._retrying.changed(change)


class HttpRuntime:
    """An HTTP(S) listener as a worker uses it."""

    __slots__ = (
        "access_log",
        "client_keep_alive",
        "counters",
        "desync_closes",
        "desync_refuses",
        "drop_odd_names",
        "error_pages",
        "group_stickiness",
        "groups",
        "header_timeout",
        "http2",
        "idle_timeout",
        "listener",
        "max_requests",
        "min_request_rate",
        "min_response_rate",
        "name",
        "normalizes_paths",
        "preflight",
        "rate_limits",
        "relaying",
        "slow_client_grace",
        "strict_paths",
        "table",
        "trace_ids",
        "transform",
    )

    def __init__(
        self,
        listener: Listener,
        table: Table,
        groups: dict[str, GroupRuntime],
        counters: ListenerCounters,
        trace_ids: TraceIds,
        access_log: RequestLog | None,
        group_stickiness: GroupStickiness | None = None,
        rate_limits: RateLimits | None = None,
        relaying: set[Exchange] | None = None,
    ) -> None:
        self.name = listener.name
        self.rate_limits = rate_limits
        """None for none."""
        self.listener = listener
        self.table = table
        self.groups = groups
        self.counters = counters
        self.trace_ids = trace_ids
        self.access_log = access_log
        self.group_stickiness = group_stickiness
        """For forward actions with group stickiness."""
        self.idle_timeout = listener.idle_timeout_seconds
        self.header_timeout = listener.request_header_timeout_seconds
        self.client_keep_alive = listener.client_keep_alive_seconds
        mode = listener.desync_mitigation_mode
        self.desync_refuses = 1 if mode is DesyncMitigationMode.STRICTEST else FIRST_SEVERE
        """Requests from this number of `wire.http.desync` on are refused."""
        # RFC 9112 section 6.3: with two framings the connection ends, whatever one wants
        self.desync_closes = BOTH_TE_CL_PRESENT if mode is DesyncMitigationMode.MONITOR else FIRST_AMBIGUOUS
        """From this number on their connections serve no other request."""
        self.transform = table.default.transform
        """The listener's own, for what meets no rule."""
        self.error_pages = ErrorPages(listener.error_pages)
        self.preflight = listener.cors_preflight
        self.normalizes_paths = listener.path_normalization is not PathNormalization.OFF
        self.strict_paths = listener.path_normalization is PathNormalization.STRICT
        self.drop_odd_names = listener.drop_invalid_header_fields
        self.min_request_rate = float(listener.min_request_rate)
        self.min_response_rate = float(listener.min_response_rate)
        self.slow_client_grace = listener.slow_client_grace_seconds
        self.relaying = set() if relaying is None else relaying
        """Those whose bodies the transports relay by themselves, to be asked for what they have counted."""
        self.http2 = listener.http2
        self.max_requests = listener.max_requests_per_connection
        """0 for any number."""

    def refusal(self, refused: Exchange, status: int, wall: float) -> tuple[bytes, bytes]:
        """Field lines and body of the answer to a request that goes no further than its head."""
        content_type, body = self.error_pages.page(status, b"")
        fields = own_fields(wall, content_type)
        if status == 405:
            fields += ALLOW
        return self._changed(refused, fields), body

    def call_refusal(self, refused: Exchange, status: int, wall: float) -> bytes:
        """The same for a call of gRPC: field lines of an answer that is a head alone, with the status 200."""
        fields = own_fields(wall, b"application/grpc") + grpc_fields(status, refused.error_reason)
        return self._changed(refused, fields)

    def _changed(self, refused: Exchange, fields: bytes) -> bytes:
        if self.transform is not None and self.transform.response is not None:
            changed: bytes = self.transform.response.apply(fields, refused.value_of)
            return changed
        return fields

    def finished(self, exchange: Exchange) -> None:
        """Account for an exchange that is over."""
        now = exchange.client.clock.now()
        exchange.duration = duration = now - exchange.began
        if exchange.dispatched:
            exchange.request_time = exchange.dispatched - exchange.began
            if exchange.answered:
                exchange.target_time = exchange.answered - exchange.dispatched
                exchange.response_time = now - exchange.answered
        self.counters.finished(exchange.status, duration, exchange.received_bytes, exchange.sent_bytes)
        if self.access_log is not None:
            exchange.complete_record()
            self.access_log.log(exchange)
