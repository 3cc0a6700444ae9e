"""One exchange: a client's request, the target it goes to, and the answer.

The exchange decides and keeps account; it does no I/O.  Its two ends are a `Downstream`, a client's
connection or stream, and an `Upstream`, a connection to a target.  Each calls the exchange when something has
arrived, and the exchange calls the other; all calls are direct, so a request in one
piece with its answer in one piece costs a handful of them.

The phases: *match* (rule), *pick* (target), *connect*, *send*, *wait*, *relay*, *done*.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from lbproxy.dataplane.proxy.answers import (
    ALLOW,
    date_line,
    error_body,
    grpc_fields,
    is_grpc_call,
    own_fields,
    reason_phrase,
)
from lbproxy.dataplane.proxy.ends import Downstream, Upstream
from lbproxy.dataplane.proxy.faults import Fault, Retry, Side
from lbproxy.dataplane.proxy.forwarded import too_many_addresses
from lbproxy.dataplane.router.redirect import expand
from lbproxy.dataplane.router.transform import is_preflight
from lbproxy.model.retry import IDEMPOTENT_METHODS
from lbproxy.model.rule import FixedResponse, Redirect
from lbproxy.native.transport import Flow, StreamTransport, relay
from lbproxy.telemetry.records import HttpRecord
from lbproxy.wire.errors import RemoteProtocolError
from lbproxy.wire.http.fields import with_max_forwards
from lbproxy.wire.http.path import normalize_target, use_normalized_path
from lbproxy.wire.http1.codec import CHUNKED, NO_BODY, codec
from lbproxy.wire.websocket import GOING_AWAY, FrameTracker, close_frame

if TYPE_CHECKING:
    from lbproxy.dataplane.proxy.retry import Tries
    from lbproxy.dataplane.proxy.runtime import GroupRuntime, HttpRuntime, Pool
    from lbproxy.dataplane.router.groups import GroupChoice
    from lbproxy.dataplane.router.table import Match
    from lbproxy.dataplane.router.transform import CompiledTransform
    from lbproxy.model.target import RegisteredTarget
    from lbproxy.native.clock import Clock
    from lbproxy.wire.http1.head import RequestHead, ResponseHead

_CODEC = codec

_IDEMPOTENT = frozenset(method.encode("ascii") for method in IDEMPOTENT_METHODS)

_MAX_KEPT_BODY = 65536
"""A request body up to this size can be sent again: in any case if it was there in one piece, in more pieces where
the target group has a policy for retries."""


RELAY_FROM = 131072
"""The transports relay the rest of a body if it is at least so long,"""
_RELAY_LEAVES = 16384
"""all but so much of it."""

_RELAY_FROM = RELAY_FROM  # compiled, a number in C
_LONG_AGO = -math.inf


class Exchange(HttpRecord):
    """One request with its response(s).

    It is also its own record for the access log; `complete_record` adds the rest to that.
    """

    __slots__ = (
        "_sent_authority",
        "_block",
        "_chosen",
        "_connecting",
        "_counted",
        "_data",
        "_down",
        "_earlier_tries",
        "_following",
        "_framing",
        "_from_client",
        "_from_target",
        "_kept_failed",
        "_others",
        "_queued",
        "_paused_request",
        "_paused_response",
        "_refusable",
        "_repeatable",
        "_sticky",
        "_sticky_group",
        "_sent_target",
        "_trailers",
        "_transform",
        "_up",
        "alone",
        "answered",
        "began",
        "client",
        "dispatched",
        "done",
        "group",
        "head",
        "parted",
        "pool",
        "request_ended",
        "response_started",
        "runtime",
        "tries",
        "tunnel",
        "upstream",
    )

    def __init__(self, client: Downstream, runtime: HttpRuntime, head: RequestHead, began: float) -> None:
        self.begin_exchange(client, runtime, head, began)

    def begin_exchange(self, client: Downstream, runtime: HttpRuntime, head: RequestHead, began: float) -> None:
        """What `__init__` does; compiled, it is cheaper to call this on a new object than to have Python do so."""
        self.begin_record()
        self.client = client
        self.runtime = runtime
        self.head = head
        self.began = began
        """When the first byte of the request came, by the connection's clock."""
        self.dispatched = 0.0
        self.answered = 0.0
        self.group: GroupRuntime | None = None
        self.upstream: Upstream | None = None
        self.request_ended = False
        self.response_started = False
        self.tunnel = False
        self.parted = False
        """Whether a tunnel is over and the client was told so: its connection ends in order."""
        self.done = False
        self.alone = False
        """The target's connection serves no other request after this one."""
        self.tries: Tries | None = None
        """What the policy for retries leaves, where the group or the rule has one."""
        self._others: Iterator[RegisteredTarget] | None = None
        self._following: RegisteredTarget | None = None
        self._chosen: RegisteredTarget | None = None
        self._data = b""
        self._trailers = b""
        self._earlier_tries: tuple[tuple[str, int], ...] = ()
        self._block = b""
        self._framing = NO_BODY
        self._connecting = False
        self._counted = False
        self._paused_request = False
        self._paused_response = False
        self._kept_failed: RegisteredTarget | None = None
        self._refusable = False
        self._repeatable = False
        self._transform: CompiledTransform | None = runtime.transform
        self._sent_target = b""
        self._sent_authority = b""
        self.request_target = b""
        """As it came, where what is sent on differs; `complete_record` fills in the others."""
        self._queued = False
        self._up: Flow | None = None
        self._down: Flow | None = None
        """What the transports relay of the bodies by themselves; not counted yet."""
        self._sticky = False
        self._sticky_group: str | None = None

    def complete_record(self) -> None:
        """Put into the access-log record what is known elsewhere; for an exchange that is over."""
        client = self.client
        head = self.head
        scheme = client.scheme
        self.started = self.began + client.wall_time() - client.clock.now()
        if self.tunnel:
            self.kind = "wss" if scheme == "https" else "ws"
        else:
            self.kind = scheme
        self.scheme = scheme
        self.listener = self.runtime.name
        self.client_host = client.host
        self.client_port = client.port
        self.method = head.method
        self.authority = head.authority
        if not self.request_target:
            self.request_target = head.target
        self.version = head.version
        self.user_agent = head.user_agent
        self.referer = head.referer
        if self.target:
            tried = (self.target, self.target_status)
            self.targets_tried = (*self._earlier_tries, tried) if self._earlier_tries else (tried,)

    # The client's side calls

    def start(self, data: bytes, ended: bool, trailers: bytes = b"") -> None:
        """Route the request; ``data`` is what is there of its body, ``ended`` whether that is all."""
        head = self.head
        runtime = self.runtime
        self._data = data
        self._trailers = trailers
        self.request_ended = ended
        self.trace_id = runtime.trace_ids.value(head.trace_id)
        if head.x_forwarded_for is not None and too_many_addresses(head.x_forwarded_for):
            self.fail(Fault.TOO_MANY_FORWARDED)
            return
        if head.odd_path and runtime.normalizes_paths and not self._normalize_path(head, runtime.strict_paths):
            self.fail(Fault.BAD_PATH)
            return
        if runtime.preflight and is_preflight(head):
            self.action = "cors-preflight"
            self._respond(204, b"text/plain", b"", "")
            self._finish()
            return
        match = runtime.table.match(head, self.client.host)
        transform = self._transform = match.transform
        self.rule = match.rule_name
        self.priority = match.priority
        self.action = match.action_text
        if runtime.rate_limits is not None and self._is_limited(head, match.rule_name):
            return
        if match.forward is None:
            self._answer(match)
            return
        if head.method == b"OPTIONS" and not self._may_go_on(head):
            return
        if transform is not None and transform.rewrites and not self._rewrite(transform):
            self.fail(Fault.TRANSFORM_FAILED)
            return
        forward = match.forward
        name = forward.pick() if forward.stickiness_seconds == 0.0 else self._choose_group(forward)
        group = self.group = runtime.groups[name]
        self.target_group = group.name
        chosen = None if group.stickiness is None else self._bound_target()
        if chosen is None:
            chosen = group.pick(head, self.client.host)
        if chosen is None:
            self.fail(Fault.NO_TARGETS)
            return
        if match.retry is not None:
            self.tries = group.retrying_for(match.retry).begin(self)
        elif group.retrying is not None:
            self.tries = group.retrying.begin(self)
        if group.gate is None:
            self._try(chosen)
        else:
            self._pass_gate(chosen, match.queue_priority)

    def request_data(self, data: bytes) -> None:
        """A piece of the request's body has come, or of what goes through the tunnel."""
        self.received_bytes += len(data)
        if self.tunnel:
            self._from_client.receive_data(data)
        upstream = self.upstream
        if upstream is not None:
            if (self._repeatable or self._refusable) and not self.response_started:
                self._keep(data)
            upstream.send_data(data)
        else:
            self._data += data
        self.client.expect_progress(self.runtime.idle_timeout)

    def end_request(self, trailers: bytes) -> None:
        """The request is whole."""
        self.request_ended = True
        self._trailers = trailers
        if self._up is not None:
            self.settle()
            self._up = None
        if self.tries is not None:
            self.tries.began()
        upstream = self.upstream
        if upstream is not None:
            upstream.send_end(trailers)
            self.client.expect_progress(self._patience())

    def client_failed(self, fault: Fault) -> None:
        """The request cannot be finished: the client broke the protocol in its body, or stalled."""
        self.fail(fault)

    def client_lost(self) -> None:
        """The client is gone."""
        if self.done:
            return
        if self.tunnel:
            self._leave_tunnel()
            self._finish()
            return
        self.error_reason = Fault.CLIENT_CLOSED.reason
        if not self.response_started:
            self.status = Fault.CLIENT_CLOSED.status
        self.runtime.counters.faults[Fault.CLIENT_CLOSED.reason] += 1
        self._drop_upstream()
        self._finish()

    def client_closed_tunnel(self) -> None:
        """The client ended its side of the tunnel."""
        self._leave_tunnel()
        self.client.end_tunnel()
        self._finish()

    def pause_response(self) -> None:
        """The client reads slower than the target writes."""
        self._paused_response = True
        upstream = self.upstream
        if upstream is not None:
            upstream.pause_response()

    def resume_response(self) -> None:
        self._paused_response = False
        upstream = self.upstream
        if upstream is not None:
            self.client.expect_progress(self.runtime.idle_timeout)
            upstream.resume_response()

    def timed_out(self) -> None:
        """Nothing has come or gone, that we know of, for as long as the present phase allows."""
        if self._queued:
            self.client.expect_progress(3600.0)
            return
        upstream = self.upstream
        until = self._relayed_last() + self.runtime.idle_timeout
        now = self.client.clock.now()
        if until > now:
            self.client.expect_progress(until - now)
        elif upstream is not None and upstream.is_taking():
            self.client.expect_progress(self.runtime.idle_timeout)
        elif self.tunnel:
            self.error_reason = Fault.IDLE_TIMEOUT.reason
            self.runtime.counters.faults[Fault.IDLE_TIMEOUT.reason] += 1
            self._drop_upstream()
            self.client.end_tunnel()
            self._finish()
        elif self.response_started:
            if self._paused_response:
                self.fail(Fault.CLIENT_TIMEOUT)
            else:
                self._count_target_fault(Fault.TARGET_STALLED)
                self.fail(Fault.TARGET_STALLED)
        elif self.request_ended or self._paused_request:
            self._count_target_fault(Fault.RESPONSE_TIMEOUT)
            self.fail(Fault.RESPONSE_TIMEOUT)
        else:
            self.fail(Fault.CLIENT_TIMEOUT)

    # Relay

    def relay_request(self, source: StreamTransport, remaining: int) -> int:
        """Have the transports move what they can of what is to come of the request's body; return how much that is.

        Only for a body that will not be sent again.
        """
        upstream = self.upstream
        if upstream is None or self._repeatable or self._refusable:
            return 0
        self._up = _relay_most(source, upstream.relay_sink(), self.client.clock, remaining)
        return self._relaying(self._up, remaining)

    def relay_response(self, source: StreamTransport, remaining: int) -> int:
        """The same for the answer's body."""
        self._down = _relay_most(source, self.client.relay_sink(), self.client.clock, remaining)
        return self._relaying(self._down, remaining)

    def _relaying(self, flow: Flow | None, remaining: int) -> int:
        if flow is None:
            return 0
        self.runtime.relaying.add(self)
        return remaining - _RELAY_LEAVES

    def _relayed_last(self) -> float:
        """When the transports have moved something by themselves; minus infinity if they do not."""
        up, down = self._up, self._down
        return max(up.last if up is not None else _LONG_AGO, down.last if down is not None else _LONG_AGO)

    def settle(self) -> None:
        """Count what the transports have relayed by themselves."""
        up, down = self._up, self._down
        if up is not None:
            size = up.settle()
            self.received_bytes += size
            self.pool.counters.sent_bytes += size
        if down is not None:
            size = down.settle()
            self.sent_bytes += size
            self.pool.counters.received_bytes += size

    # The target's side calls

    def admitted(self, group: GroupRuntime, chosen: RegisteredTarget) -> None:
        """The wait for a target is over; ``group`` is what the latest snapshot has made of its group."""
        self._queued = False
        self.group = group
        self._try(chosen)

    def connected(self, upstream: Upstream) -> None:
        """The connection that was asked for stands."""
        self._connecting = False
        self._repeatable = self._may_repeat()  # more of the body may be here by now
        self._send(upstream)

    def pause_request(self) -> None:
        """The target reads slower than the client sends."""
        self._paused_request = True
        self.client.pause_request()

    def resume_request(self) -> None:
        self._paused_request = False
        self.client.expect_progress(self._patience())
        self.client.resume_request()

    def connect_failed(self, fault: Fault) -> None:
        """The connection that was asked for could not be made."""
        self._connecting = False
        self.upstream_failed(fault, False)

    def informational(self, head: ResponseHead) -> None:
        """An interim answer (1xx but 101); HTTP/1.0 clients don't know them (RFC 9110 section 15.2)."""
        self._refusable = False
        if self.tries is not None:
            self._repeatable = False
            self.tries.settle()
        self.client.expect_progress(self._patience())
        self.client.send_informational(head.status, head.reason, head.forwarded)

    def response(self, head: ResponseHead, has_body: bool, data: bytes, ended: bool) -> None:
        """The answer starts; ``ended`` when ``data`` is all of its body.

        When it has ended the upstream has let go of the exchange already.
        """
        client = self.client
        self.answered = now = client.clock.now()
        self.target_status = self.status = status = head.status
        assert self.group is not None
        pool = self.pool
        pool.counters.responded(status, now - self.dispatched)
        if pool.observation is not None:
            pool.observation.responded(status, now - self.dispatched, now)
        if self.tries is not None:
            if self._repeatable and self._ask_another(status, ended):
                return
            self.tries.settle()
        self.response_started = True
        if not head.has_date:  # RFC 9110 section 6.6.1
            head.forwarded += date_line(client.wall_time())
        if self._transform is not None:
            head.forwarded = self._changed(head.forwarded)
        fields = self._with_cookies(head) if self._sticky else head.forwarded
        if ended:
            self.upstream = None
            client.send_response(status, head.reason, fields, head.content_length, has_body, data, True)
            self._finish()
        else:
            client.expect_progress(self.runtime.idle_timeout)
            client.send_response(status, head.reason, fields, head.content_length, has_body, data, False)

    def response_data(self, data: bytes) -> None:
        """A piece of the answer's body, or of what comes back through the tunnel."""
        if self.tunnel:
            self._from_target.receive_data(data)
        self.client.expect_progress(self.runtime.idle_timeout)
        self.client.send_data(data)

    def response_ended(self, trailers: bytes) -> None:
        """The answer is whole; the upstream has let go of the exchange already."""
        self.upstream = None
        self.client.send_end(trailers)
        self._finish()

    def switch_protocols(self, head: ResponseHead) -> None:
        """The target answered 101 to a request that asked for it: bytes pass unframed from now on."""
        self.answered = self.client.clock.now()
        self.target_status = self.status = 101
        self.pool.counters.responded(101, self.answered - self.dispatched)
        if self.tries is not None:
            self.tries.end()
        self.response_started = True
        self._from_client = FrameTracker()
        self._from_target = FrameTracker()
        self.tunnel = True
        self.client.expect_progress(self.runtime.idle_timeout)
        fields = self._with_cookies(head) if self._sticky else head.forwarded
        self.client.start_tunnel(head.reason, fields, head.upgrade)

    def upstream_closed_tunnel(self) -> None:
        """The target ended its side of the tunnel; the upstream has let go of the exchange already."""
        self.upstream = None
        self.client.end_tunnel()
        self._finish()

    def upstream_failed(self, fault: Fault, reused: bool) -> None:
        """The target's connection failed; the upstream has let go of the exchange already.

        ``reused``: it had served another exchange before and failed without a byte of an answer.
        """
        self.upstream = None
        self._count_target_fault(fault)
        if not self.response_started:
            if self.tries is not None and self.tries.leave_to_hedge():
                self._await_hedge()
                return
            if fault.retry is Retry.UNPROCESSED and self._kept_failed is not self._chosen:
                reused = True  # a target that renews its connections refuses on the old one
            following = self._chosen if reused else self._peek()
            if following is not None and self._may_retry(fault, reused):
                self._try_instead(following, fault.reason, 0)
                return
        self.fail(fault)

    def target_gone(self) -> None:
        """The target left its group, and the time that it had to finish is over."""
        self.end(Fault.TARGET_DEREGISTERED)

    # The tries call (`lbproxy.dataplane.proxy.retry`, `lbproxy.dataplane.proxy.hedge`)

    def may_try_again(self) -> bool:
        """Tell whether the present try can be given up for another: nothing was sent, or it can be sent again."""
        return not self.response_started and not self.done and (self._connecting or self._repeatable)

    def may_hedge(self) -> bool:
        """Tell whether the request can be sent to a second target while the first one has it."""
        return self.request_ended and self._repeatable and not self.response_started and not self.done

    def has_another(self) -> bool:
        """Tell whether there is a target that was not tried."""
        return self._peek() is not None

    def take_another(self) -> RegisteredTarget:
        """The one that `has_another` told of; it is now tried."""
        following = self._peek()
        assert following is not None
        self._following = None
        return following

    def try_elsewhere(self, fault: Fault) -> None:
        """The present try takes too long; there is another target."""
        self._drop_try(fault)
        self._try_instead(self._following, fault.reason, 0)

    def give_up_try(self, fault: Fault) -> None:
        """The present try takes too long; another one is under way."""
        self._drop_try(fault)
        self._await_hedge()

    def send_copy(self, upstream: Upstream) -> None:
        """Send the request, which is whole, on a second connection."""
        if not self._block:
            self._prepare()
        upstream.send_request(self._block, self.head.method, self._framing, self._data, not self._trailers)
        if self._trailers:
            upstream.send_end(self._trailers)

    def note_try(self, target: str, status: int) -> None:
        """Enter a try that gave no answer for the client."""
        self._earlier_tries = (*self._earlier_tries, (target, status))

    def note_reason(self, reason: str) -> None:
        """Enter why one more try begins."""
        self.retry_reason = f"{self.retry_reason},{reason}" if self.retry_reason else reason

    def hedge_failed(self, target: str, status: int, fault: Fault) -> None:
        """The second try came to nothing."""
        self.note_try(target, status)
        assert self.tries is not None
        self.tries.hedge_over()
        if self._counted:
            return  # the first goes on
        following = self._peek()
        if following is not None and self._may_retry(fault, False):
            self._try_instead(following, fault.reason, self.target_status)
        else:
            self.fail(fault)

    def has_better_than(self, status: int) -> bool:
        """Tell whether the second try's answer is one to throw away while the first try is under way."""
        assert self.tries is not None
        refused: bool = self.tries.retries_status(status)
        return self._counted and refused

    def take_over(self, upstream: Upstream | None, pool: Pool, chosen: RegisteredTarget, dispatched: float) -> None:
        """The second try has the first answer: go on with it instead; without ``upstream`` where that has ended."""
        self.note_try(self.target, self.target_status)
        assert self.tries is not None
        self.tries.hedge_over()
        self._drop_upstream()
        self._end_try()
        if upstream is not None:
            self.upstream = upstream
            upstream.exchange = self
        self.pool = pool
        self.target = pool.key
        self._chosen = chosen
        self._counted = True
        self.dispatched = dispatched

    # Ending

    def fail(self, fault: Fault) -> None:
        """Give up: tell the client if its answer has not started, else cut it short."""
        if self.done:
            return
        self.error_reason = fault.reason
        self.runtime.counters.faults[fault.reason] += 1
        self._drop_upstream()
        if self.response_started:
            self.client.cut()
        else:
            self._tell(fault)
        self._finish()

    def end(self, fault: Fault) -> None:
        """The time to finish is over: give up, but take leave of the ends of a WebSocket."""
        if self.tunnel and not self.done:
            self._part(fault)
        else:
            self.fail(fault)

    # Inside

    def _part(self, fault: Fault) -> None:
        """End a tunnel: each side gets a close frame unless it has a part of another frame, or had its last."""
        self.error_reason = fault.reason
        self.runtime.counters.faults[fault.reason] += 1
        upstream = self.upstream
        if upstream is not None and self._from_client.between_frames and not self._from_client.closed:
            upstream.send_data(close_frame(GOING_AWAY, os.urandom(4)))
            self._leave_tunnel()
        else:
            self._drop_upstream()
        if self._from_target.between_frames and not self._from_target.closed:
            self.parted = True
            self.client.leave_tunnel(close_frame(GOING_AWAY))
        else:
            self.client.cut()
        self._finish()

    def _tell(self, fault: Fault) -> None:
        content_type, body = self.runtime.error_pages.page(fault.status, self.trace_id)
        self._respond(fault.status, content_type, body, fault.reason)

    def _is_limited(self, head: RequestHead, rule: str) -> bool:
        """Refuse the request if it is over a rate limit (RFC 6585 section 4), and tell whether it was."""
        limits = self.runtime.rate_limits
        assert limits is not None
        over = limits.check(head, rule, self.client.host)
        if over is None:
            return False
        if over.dry_run:
            self.rate_limit = over.name + " dry-run"
            return False
        self.rate_limit = over.name
        self.error_reason = Fault.RATE_LIMITED.reason
        self.runtime.counters.faults[Fault.RATE_LIMITED.reason] += 1
        content_type, body = self.runtime.error_pages.page(429, self.trace_id)
        again = b"Retry-After: %d\r\n" % over.retry_after_seconds
        self._respond(429, content_type, body, Fault.RATE_LIMITED.reason, again)
        self._finish()
        return True

    def _normalize_path(self, head: RequestHead, strict: bool) -> bool:
        """Tell whether there is one path for the rules and the target."""
        received = head.target
        try:
            if use_normalized_path(head, strict=strict):
                self.request_target = received
        except RemoteProtocolError:
            return False
        return True

    def _rewrite(self, transform: CompiledTransform) -> bool:
        """Make the target and the host that are sent on; tell whether they are that."""
        head = self.head
        try:
            target = transform.rewrite_target(head.target)
            authority = transform.rewrite_authority(head.authority)
            if target != head.target:
                if self.runtime.normalizes_paths:
                    target = normalize_target(target, strict=self.runtime.strict_paths)
                self._sent_target = self.transformed_uri = target
            if authority != head.authority:
                self._sent_authority = self.transformed_host = authority
        except RemoteProtocolError:
            return False
        return True

    def _changed(self, fields: bytes) -> bytes:
        """An answer's field lines as the listener and the rule want them."""
        assert self._transform is not None
        changes = self._transform.response
        changed: bytes = fields if changes is None else changes.apply(fields, self.value_of)
        return changed

    def value_of(self, name: bytes) -> bytes:
        """What a placeholder in a field's new value stands for."""
        client = self.client
        head = self.head
        if name == b"client-ip":
            return client.host.encode("ascii")
        if name == b"client-port":
            return b"%d" % client.port
        if name == b"protocol":
            return client.scheme.encode("ascii")
        if name == b"port":
            return b"%d" % client.listener_port
        if name == b"trace-id":
            return self.trace_id
        text: bytes = {b"host": head.host, b"path": head.path, b"query": head.query}[name]
        return text

    def _answer(self, match: Match) -> None:
        """Carry out an action that needs no target."""
        action = match.action
        if isinstance(action, FixedResponse):
            text = action.body if action.content_type.startswith("text/plain") else ""
            self._respond(action.status, action.content_type.encode("latin-1"), action.body.encode(), text)
        else:
            assert isinstance(action, Redirect)
            host = self.head.host or _local_host(self.client)
            location = expand(action, self.head, self.client.scheme, self.client.listener_port, host)
            self.redirect_url = location.decode("latin-1")
            body = error_body(action.status, b"")
            where = b"Location: %b\r\n" % location
            self._respond(action.status, b"text/plain; charset=utf-8", body, self.redirect_url, where)
        self._finish()

    def _may_go_on(self, head: RequestHead) -> bool:
        """Count Max-Forwards down; when it has come to zero, the request is answered here (RFC 9110 section 7.6.2)."""
        found = head.field_values(b"max-forwards")
        if len(found) != 1 or not found[0].isdigit() or len(found[0]) > 9:
            return True
        left = int(found[0])
        if left == 0:
            self._respond(204, b"text/plain", b"", "", ALLOW)
            self._finish()
            return False
        head.forwarded = with_max_forwards(head.forwarded, left - 1)
        return True

    def _pass_gate(self, chosen: RegisteredTarget, priority: int) -> None:
        """Try the target if it may be given one more request, or another one; else wait."""
        assert self.group is not None
        assert self.group.gate is not None
        admitted = self.group.gate.admit(self, chosen, priority)
        if admitted is not None:
            self._try(admitted)
        elif not self.done:
            self._queued = True
            if not self.request_ended:
                self.client.pause_request()
            self.client.expect_progress(3600.0)  # the gate keeps its own, shorter time

    def _choose_group(self, forward: GroupChoice) -> str:
        """The target group that the client is bound to, or one by weight."""
        sticky = self.runtime.group_stickiness
        assert sticky is not None
        self._sticky = True
        name = sticky.group(forward, self.head, self.client.wall_time())
        self._sticky_group = name if name is not None else forward.pick()
        return self._sticky_group

    def _bound_target(self) -> RegisteredTarget | None:
        """The target that the client is bound to, if there is one."""
        assert self.group is not None
        assert self.group.stickiness is not None
        self._sticky = True
        return self.group.stickiness.target(self.head, self.client.wall_time())

    def _with_cookies(self, head: ResponseHead) -> bytes:
        """The field lines of an answer, with those that bind the client to who gave it."""
        assert self.group is not None
        now = self.client.wall_time()
        fields: bytes = head.forwarded
        if self._sticky_group is not None:
            assert self.runtime.group_stickiness is not None
            fields += self.runtime.group_stickiness.fields(self._sticky_group, now)
        if self.group.stickiness is not None:
            assert self._chosen is not None
            fields += self.group.stickiness.fields(self.head, head, self._chosen, now)
        return fields

    def _respond(self, status: int, content_type: bytes, body: bytes, text: str, fields: bytes = b"") -> None:
        """Answer for ourselves; ``text`` is what a caller by gRPC, who sees no body, is told instead."""
        head = self.head
        self.response_started = True
        wall = self.client.wall_time()
        if is_grpc_call(head):
            # a head that is all of the answer, with the status that counts in it ("Trailers-Only")
            self.status = 200
            fields = own_fields(wall, b"application/grpc") + grpc_fields(status, text) + fields
            if self._transform is not None:
                fields = self._changed(fields)
            self.client.send_response(200, b"OK", fields, -1, True, b"", True)
            return
        self.status = status
        fields = own_fields(wall, content_type) + fields
        if self._transform is not None:
            fields = self._changed(fields)
        has_body = status not in (204, 304) and head.method != b"HEAD"
        length = len(body) if status not in (204, 304) else -1
        self.client.send_response(
            status, reason_phrase(status), fields, length, has_body, body if has_body else b"", True
        )

    def _try(self, chosen: RegisteredTarget) -> None:
        """Send the request to this target, on a kept connection or a new one."""
        assert self.group is not None
        self._chosen = chosen
        pool = self.pool = self.group.pools[chosen.cell]
        self.target = pool.key
        pool.begin()
        self._counted = True
        if self.tries is not None:
            self.tries.began()
        self._repeatable = self._may_repeat()
        upstream = None if self._kept_failed is not None else pool.take(self._repeatable)
        if upstream is None:
            self._connecting = True
            if not self.request_ended:
                self.client.pause_request()
            self.client.expect_progress(3600.0)  # the connector keeps its own, shorter time
            pool.connect(self)
        else:
            self._send(upstream)

    def _try_instead(self, following: RegisteredTarget | None, reason: str, status: int) -> None:
        """The present try is over without an answer for the client: go on with this target."""
        if following is self._following:
            self._following = None
        self.pool.counters.retries[reason] += 1
        self.note_try(self.target, status)
        self.note_reason(reason)
        self._end_try()
        self.target_status = 0
        self.answered = 0.0
        self._paused_request = False
        assert following is not None
        self._try(following)

    def _ask_another(self, status: int, ended: bool) -> bool:
        """Throw this answer away where the policy says so and another can be had; ``ended`` as for `response`."""
        tries = self.tries
        assert tries is not None
        if not tries.retries_status(status):
            return False
        hedged = tries.leave_to_hedge()
        if not hedged and (self._peek() is None or not tries.take()):
            return False
        if ended:
            self.upstream = None
        else:
            self._drop_upstream()
        if hedged:
            self._await_hedge()
        else:
            self._try_instead(self._following, str(status), status)
        return True

    def _await_hedge(self) -> None:
        """The first try is over; the second one goes on."""
        self._end_try()
        self.client.expect_progress(self._patience())

    def _drop_try(self, fault: Fault) -> None:
        self._count_target_fault(fault)
        self._drop_upstream()

    def _keep(self, data: bytes) -> None:
        """A piece of a body that can still be sent again if it stays small."""
        self._data += data
        if len(self._data) > _MAX_KEPT_BODY:
            self._repeatable = self._refusable = False
            self._data = b""

    def _send(self, upstream: Upstream) -> None:
        self.upstream = upstream
        upstream.exchange = self
        if not self._block:
            self._prepare()
        self.dispatched = self.client.clock.now()
        data = self._data
        ended = self.request_ended
        if not self._repeatable:
            self._refusable = upstream.may_refuse and len(data) <= _MAX_KEPT_BODY
            if not self._refusable:
                self._data = b""
        if not ended:
            # first, for what is there already may be more than the target takes at once
            self.client.resume_request()
        upstream.send_request(self._block, self.head.method, self._framing, data, ended and not self._trailers)
        if self.upstream is not upstream:
            return  # it failed at once
        if ended and self._trailers:
            upstream.send_end(self._trailers)
        self.client.expect_progress(self._patience())

    def _prepare(self) -> None:
        """Write the request head that the target will get, but for its framing."""
        head = self.head
        authority = head.authority
        if not authority and head.minor == 0:
            authority = self.pool.authority
        target = head.target
        forwarded = head.forwarded
        if self._transform is not None:
            target = self._sent_target or target
            authority = self._sent_authority or authority
            if self._transform.request is not None:
                forwarded = self._transform.request.apply(forwarded, self.value_of)
        upgrade = b"Connection: upgrade\r\nUpgrade: %b\r\n" % head.upgrade if head.upgrade else b""
        if head.te_trailers:
            upgrade += b"Connection: te\r\nTE: trailers\r\n" if not upgrade else b""
        self._block = _CODEC.request_block(
            head.method,
            target,
            authority,
            forwarded,
            self.client.forwarded_fields(head.x_forwarded_for),
            self.trace_id,
            upgrade,
        )
        self._framing = CHUNKED if head.chunked else head.content_length

    def _patience(self) -> float:
        """How long the present phase may last without progress."""
        if self.request_ended and not self.response_started:
            assert self.group is not None
            return self.group.response_timeout
        return self.runtime.idle_timeout

    def _may_retry(self, fault: Fault, reused: bool) -> bool:
        if fault.retry is Retry.YES:
            return self.tries is None or self.tries.connects_elsewhere
        if fault.retry is Retry.UNPROCESSED:
            if reused:
                self._kept_failed = self._chosen
            return self._repeatable or self._refusable
        if fault.retry is not Retry.IF_REUSED or not self._repeatable:
            return False
        if reused:
            self._kept_failed = self._chosen
            return True
        # A target that goes down closes what it has first and takes new connections for a moment longer.
        return self._kept_failed is self._chosen or (self.tries is not None and self.tries.may_follow())

    def _may_repeat(self) -> bool:
        """Whether the request, sent now, can be sent once more and means the same then."""
        if len(self._data) > _MAX_KEPT_BODY:
            return False
        method = self.head.method
        if self.tries is not None:
            return method in self.tries.methods
        return self.request_ended and (method == b"GET" or method in _IDEMPOTENT)

    def _peek(self) -> RegisteredTarget | None:
        """The next target to try, without taking it."""
        if self._following is None:
            assert self.group is not None
            if self._others is None:
                assert self._chosen is not None
                self._others = iter(self.group.balancer.others(self._chosen, self.head, self.client.host))
            self._following = next(self._others, None)
            gate = self.group.gate
            while gate is not None and self._following is not None and not gate.has_room(self._following):
                self._following = next(self._others, None)
        return self._following

    def _count_target_fault(self, fault: Fault) -> None:
        """The target of this try has failed."""
        pool = self.pool
        pool.counters.faults[fault.reason] += 1
        if pool.observation is not None and fault.side is not Side.CLIENT:
            now = self.client.clock.now()
            pool.observation.failed(now - self.dispatched if self.dispatched else 0.0, now)

    def _end_try(self) -> None:
        if self._counted:
            self._counted = False
            self.pool.end()

    def _drop_upstream(self) -> None:
        if self.upstream is not None:
            upstream, self.upstream = self.upstream, None
            upstream.exchange = None
            upstream.abort()
        elif self._connecting:
            self._connecting = False
            pool = self.pool
            pool.cancel(self)
        elif self._queued:
            self._queued = False
            assert self.group is not None
            assert self.group.gate is not None
            self.group.gate.leave(self)

    def _leave_tunnel(self) -> None:
        """The client is gone in order; what it sent last is for the target yet."""
        upstream, self.upstream = self.upstream, None
        assert upstream is not None
        upstream.exchange = None
        upstream.close()

    def _finish(self) -> None:
        if self.done:
            return
        self.done = True
        if self._up is not None or self._down is not None:
            self.settle()
            self.runtime.relaying.discard(self)
        if self.tries is not None:
            self.tries.end()
        if self._counted:
            self._counted = False
            self.pool.end()
        try:
            self.runtime.finished(self)
        finally:
            self.client.exchange_done()


def _relay_most(source: StreamTransport, sink: StreamTransport | None, clock: Clock, remaining: int) -> Flow | None:
    """The end is left to the protocols: what comes last, and what follows, is read by them as ever."""
    if sink is None or remaining < _RELAY_FROM:
        return None
    return relay(source, sink, clock, remaining - _RELAY_LEAVES)


def _local_host(client: Downstream) -> bytes:
    """The address that the client connected to, for a request that names no host."""
    host = client.local_address()[0]
    return f"[{host}]".encode() if ":" in host else host.encode()
