"""A client's connection, speaking HTTP/2 (RFC 9113).

`Http2Connection` moves bytes between its transport and the codec and keeps the connection's time; each request is
a `ClientStream`.  `lbproxy.dataplane.listener.http1` makes the connection and
hands it over once the client turns out to speak HTTP/2.

Frames gather until the reactor's turn ends and go into one write.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IHalfCloseableProtocol, IProtocol, IPushProducer
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import classImplements

from lbproxy.dataplane.deadlines import NEVER, TICK_SECONDS
from lbproxy.dataplane.listener.http1 import DRAIN_GRACE_SECONDS, HttpFront, TlsDescription, classify, unreadable
from lbproxy.dataplane.listener.http2stream import ClientStream
from lbproxy.dataplane.listener.pace import Pace
from lbproxy.dataplane.proxy.answers import is_grpc, is_grpc_call
from lbproxy.dataplane.proxy.exchange import Exchange
from lbproxy.dataplane.proxy.faults import Fault
from lbproxy.dataplane.proxy.forwarded import ForwardedFields
from lbproxy.native.clock import Clock, turns
from lbproxy.native.protocol import StreamProtocol
from lbproxy.telemetry import ledger
from lbproxy.wire.errors import RemoteProtocolError
from lbproxy.wire.http.desync import REASONS, number_of
from lbproxy.wire.http.fields import without_odd_names
from lbproxy.wire.http2 import events as kinds
from lbproxy.wire.http2.connection import Connection
from lbproxy.wire.http2.errors import CANCEL, NO_ERROR, SETTINGS_TIMEOUT
from lbproxy.wire.http2.stream import CLOSED, Stream

if TYPE_CHECKING:
    from lbproxy.wire.http1.head import RequestHead
    from lbproxy.wire.http2.events import Event

_log = Logger(__name__)  # compiled, it could not see where it is made

_WALL = Clock(time.time)
_TURNS = turns

_LINGER_SECONDS = 2.0
"""How long, once our last frame is sent, a connection still takes in what the client sends, so that the frame is not
lost to a reset."""

_MAX_UNSENT = 65536
"""Bytes of frames that wait for a client that takes none; beyond that no more is read from it."""

_UNREADABLE = unreadable(b"HTTP/2.0")

_SETTINGS_TIMEOUT_REASON = "Http2SettingsTimeout"

# What becomes of the connection.
_SERVING = 0
_LEAVING = 1  # the first GOAWAY is sent
_LEFT = 2  # the final one is: what is in flight may end
_CLOSING = 3


class Http2Connection(StreamProtocol):
    """One client connection of HTTP/2."""

    __slots__ = (
        "_age_limit",
        "_certificates",
        "_due",
        "_forwarded",
        "_forwarded_for",
        "_front",
        "_give_pace",
        "_givers",
        "_half_closed",
        "_head_by",
        "_idle_by",
        "_known_host",
        "_leave_at",
        "_life",
        "_received",
        "_requests_left",
        "_runtime",
        "_settings_by",
        "_take_pace",
        "_takers",
        "_tls",
        "_transport",
        "_unread",
        "_untaken",
        "clock",
        "codec",
        "host",
        "listener_port",
        "port",
        "scheme",
        "secure",
    )

    def __init__(self, front: HttpFront, host: str, port: int, tls: TlsDescription | None, age_limit: float) -> None:
        self._front = front
        self._runtime = front.runtime
        self.host = host
        self.port = port
        self.listener_port = front.port
        self.secure = tls is not None
        self.scheme = "https" if self.secure else "http"
        self.clock = front.deadlines.clock
        self.codec = Connection(False, front.runtime.listener.http2_max_concurrent_streams)
        self.armed = 0
        self.deadline = NEVER
        self._tls = tls
        self._certificates = front.certificates
        self._age_limit = age_limit
        self._requests_left = front.runtime.max_requests
        self._transport: Any = None
        self._life = _SERVING
        self._leave_at = NEVER
        """When the final GOAWAY is due."""
        self._head_by = NEVER
        """When the head that has begun to come must be whole."""
        self._idle_by = NEVER
        """When a connection without requests is closed."""
        self._settings_by = NEVER
        """When our SETTINGS must have been acknowledged."""
        self._due = False
        """Whether the end of this turn is waited for."""
        self._half_closed = False
        self._unread = False
        """Whether reading is paused, for the client does not take what answers its frames."""
        self._untaken = 0
        self._received = 0
        self._forwarded: ForwardedFields | None = None
        self._forwarded_for: Any = None
        self._known_host = b""
        """The last host that this connection's certificate was found good for."""
        self._givers: set[ClientStream] = set()
        """Those whose requests are waited for."""
        self._takers: set[ClientStream] = set()
        """Those whose answers wait for the client."""
        self._give_pace: Pace | None = None
        self._take_pace: Pace | None = None

    # The transport calls

    def take_over(self, transport: Any, data: bytes) -> None:
        """Go on with a connection that stands; ``data`` came on it already."""
        front = self._front
        self._transport = transport
        front.connections.add(self)
        transport.registerProducer(self, True)
        self._be_idle()
        self._head_by = self._settings_by = self.clock.now() + self._runtime.header_timeout
        self.look_by(self._head_by)
        if front.draining:
            self.drain()
        self.send_soon()
        if data:
            self.dataReceived(data)

    def makeConnection(self, transport: Any) -> None:
        self._transport = transport
        self.connectionMade()

    def connectionMade(self) -> None:
        self.take_over(self._transport, b"")

    def dataReceived(self, data: bytes) -> None:
        if self._life == _CLOSING:
            return
        now = self.clock.now()
        self._runtime = self._front.runtime
        codec = self.codec
        last_id = codec.last_id
        busy = len(codec.streams) > 0
        gathering = not self._due
        self._due = True  # all that follows goes into one write
        try:
            events = codec.receive_data(data, now)
        except RemoteProtocolError as error:
            self._fail(error)
            return
        for event in events:
            self._handle(event, now)
            if self._life == _CLOSING:
                return
        if not codec.is_reading_head:
            self._head_by = NEVER
        elif self._head_by == NEVER or codec.begins_head:
            self._head_by = now + self._runtime.header_timeout
            self.look_by(self._head_by)
        if not codec.streams and (busy or codec.last_id != last_id):
            self.request_done()  # without requests, what comes (PING, say) leaves the connection idle
        if gathering:
            _TURNS.at_end(self)

    def _handle(self, event: Event, now: float) -> None:
        kind = event.kind
        if kind == kinds.REQUEST:
            self._start(event, now)
        elif kind == kinds.GOAWAY:
            self._leave_at_once()
        elif kind == kinds.REFUSED:
            self._refuse(event.stream, event.error, _UNREADABLE, now, is_grpc(event.content_types))
        elif event.stream is not None and kind != kinds.NOTHING:
            client = event.stream.owner
            if client is None:
                if kind == kinds.RESET and event.error is not None:
                    self._note_malformed(event.stream, event.error, now)
            elif kind == kinds.DATA:
                self._received += len(event.data)
                client.received(event)
            elif kind == kinds.RESET:
                client.was_reset(event.error is not None)
                self.no_longer_taking(client)
            elif kind == kinds.WRITABLE:
                client.writable()

    def readConnectionLost(self) -> None:
        """The client has finished sending; it may still want its answers."""
        self._half_closed = True
        if self._life == _CLOSING or not self.codec.streams:
            self._close()
        for client in self._clients():
            exchange = client.exchange
            if exchange is not None and not exchange.request_ended:
                client.was_reset(True)
        if self.codec.streams:
            self.send_soon()

    def writeConnectionLost(self) -> None:
        """All is sent and our end is closed; see `_linger`."""
        if self._life == _CLOSING:
            self._front.deadlines.set(self, self.clock.now() + _LINGER_SECONDS)

    def connectionLost(self, reason: Failure) -> None:
        self._life = _CLOSING
        front = self._front
        front.connections.discard(self)
        if front.admission is not None:
            front.admission.left(self.host)
        self._runtime.counters.active -= 1
        front.deadlines.clear(self)
        self._lose_streams()

    def _lose_streams(self) -> None:
        """The client is gone, or as good as."""
        for pace in (self._give_pace, self._take_pace):
            if pace is not None:
                pace.stop()
        for client in self._clients():
            client.was_reset(False)

    # The transport's producer: back-pressure on all answers

    def pauseProducing(self) -> None:
        self.codec.blocked = True
        self._untaken = self._transport.untaken()

    def resumeProducing(self) -> None:
        self._untaken = 0
        if self._life == _CLOSING:
            return
        codec = self.codec
        now = self.clock.now()
        for event in codec.unblock():
            self._handle(event, now)
        if self._unread:
            self._unread = False
            self._transport.resumeProducing()
        if not codec.streams:
            self.request_done()
        self.send_soon()

    def stopProducing(self) -> None:
        pass

    # Sending

    def send_soon(self) -> None:
        """Have what gathered written at the end of this turn."""
        if not self._due:
            self._due = True
            _TURNS.at_end(self)

    def turn_ended(self) -> None:
        """Write what gathered."""
        self._due = False
        codec = self.codec
        if self._life == _CLOSING:
            return
        if self._takers:
            for client in list(self._takers):
                if not client.stream.queued:  # of an answer's end, taken or given up, nobody tells
                    self.no_longer_taking(client)
        if codec.blocked:
            if codec.pending_bytes() > _MAX_UNSENT and not self._unread:
                self._unread = True
                self._transport.pauseProducing()
            return
        data = codec.data_to_send()
        if data:
            self._transport.write(data)
        if self._half_closed and not codec.blocked:
            self._give_up_stalled()

    def _give_up_stalled(self) -> None:
        """A client that has finished sending opens no window any more, so what waits for one never leaves."""
        for client in self._clients():
            if client.stream.queued or client.exchange is None:
                self.codec.reset(client.stream, CANCEL)
                client.was_reset(False)
        if not self.codec.streams:
            self.request_done()

    # Requests

    def _start(self, event: Event, now: float) -> None:
        stream = event.stream
        head = event.head
        assert stream is not None
        runtime = self._runtime
        desync = head.desync
        if desync and desync >= runtime.desync_refuses:
            error = RemoteProtocolError("refused by its class", reason=REASONS[desync])
            self._refuse(stream, error, head, now, is_grpc_call(head))
            return
        if head.odd_names and runtime.drop_odd_names:
            head.forwarded = without_odd_names(head.forwarded)
        client = ClientStream(self, stream)
        stream.owner = client
        exchange = client.exchange = Exchange.__new__(Exchange)
        exchange.begin_exchange(client, runtime, head, now)
        exchange.received_bytes = event.head_bytes + len(event.data)
        if self.secure:
            self._describe_tls(exchange)
        if desync:
            classify(exchange, desync)
            exchange.alone = desync >= runtime.desync_closes
        self._requests_left -= 1
        if self._requests_left == 0 or now > self._age_limit:
            if self._life == _SERVING:
                cause = ledger.KEEP_ALIVE_AGE if self._requests_left else ledger.MAX_REQUESTS
                self._runtime.counters.closed[cause] += 1
            self._leave_at_once()
        ended = event.ended
        data = event.data
        try:
            if self.secure and head.host != self._known_host and self._is_misdirected(head.host):
                exchange.fail(Fault.MISDIRECTED)
                return
            if head.upgrade:
                if ended:
                    exchange.fail(Fault.BAD_REQUEST)
                    return
                client.ask_for_tunnel(head)
                exchange.start(b"", True, b"")
                if data:
                    client.received(event)
                return
            exchange.start(data, ended, event.trailers)
            if not ended and client.exchange is not None and not stream.held:
                self.giving(client)
        except Exception:
            _log.failure("a request could not be handled")
            exchange.fail(Fault.INTERNAL)

    def _describe_tls(self, exchange: Exchange) -> None:
        tls = self._tls
        assert tls is not None
        exchange.tls_version = tls.version
        exchange.tls_cipher = tls.cipher
        exchange.server_name = tls.server_name

    def _is_misdirected(self, host: bytes) -> bool:
        """Whether the listener has a certificate for this host, but not the one that the client has seen."""
        tls = self._tls
        assert tls is not None
        if self._certificates is not None and self._certificates.is_misdirected(tls.server_name, host):
            return True
        self._known_host = host
        return False

    def _refuse(
        self, stream: Stream | None, error: RemoteProtocolError, head: RequestHead, now: float, is_call: bool
    ) -> None:
        """Answer a request that could not be read, or must not be sent on; ``is_call`` by gRPC."""
        assert stream is not None
        refused = self._note(stream, error, head, now)
        body = b""
        if is_call:
            fields = self._runtime.call_refusal(refused, error.status, _WALL.now())
            refused.status = 200
            length = -1
        else:
            fields, body = self._runtime.refusal(refused, error.status, _WALL.now())
            length = len(body)
            if head.method == b"HEAD":
                body = b""
        refused.sent_bytes = self.codec.send_response(stream, refused.status, fields, length, not body)
        if body:
            refused.sent_bytes += len(body)
            self.codec.send_data(stream, body, True)
        self._runtime.finished(refused)
        if stream.state != CLOSED:
            client = stream.owner = ClientStream(self, stream)
            client.await_end()
            if stream.queued:
                self.taking(client)

    def _note_malformed(self, stream: Stream, error: RemoteProtocolError, now: float) -> None:
        """A request that was reset for what it is still has its line in the log."""
        self._runtime.finished(self._note(stream, error, _UNREADABLE, now))

    def _note(self, stream: Stream, error: RemoteProtocolError, head: RequestHead, now: float) -> Exchange:
        noted = Exchange(ClientStream(self, stream), self._runtime, head, now)
        noted.status = error.status
        noted.error_reason = error.reason
        if desync := number_of(error.reason):
            classify(noted, desync)
        if self.secure:
            self._describe_tls(noted)
        self._runtime.counters.faults[error.reason] += 1
        _log.debug("bad request from {client}: {error}", client=self.host, error=error)
        return noted

    def request_done(self) -> None:
        """A request is over: perhaps it was the last."""
        if self._life == _CLOSING or self.codec.streams:
            return
        if self._half_closed or self._life == _LEFT:
            self._close()
        else:
            self._be_idle()

    # What streams ask of their connection

    def local_address(self) -> tuple[str, int]:
        """The address that the client connected to."""
        host = self._transport.getHost()
        return host.host, host.port

    def forwarded_fields(self, received: bytes | None) -> bytes:
        """See `Downstream.forwarded_fields`."""
        listener = self._runtime.listener
        if self._forwarded_for is not listener:
            self._forwarded_for = listener
            self._forwarded = ForwardedFields(self._front.forwarded_style(listener), self.host, self.port)
        forwarded = self._forwarded
        assert forwarded is not None
        return forwarded.fields(received)

    def idle_timeout(self) -> float:
        """How long a stream or the connection may be without progress."""
        return self._runtime.idle_timeout

    # Deadlines

    def look_by(self, at: float) -> None:
        """Have `expired` called at this time at the latest; a look too early does no harm."""
        if at < self.deadline:
            self.deadline = at
            if not 0.0 < self.armed * TICK_SECONDS <= at:
                self._front.deadlines.set(self, at)

    def _be_idle(self) -> None:
        """Nothing is in flight."""
        patience = DRAIN_GRACE_SECONDS if self._front.draining else self._runtime.idle_timeout
        self._idle_by = self.clock.now() + patience
        self.deadline = NEVER
        self.look_by(min(self._idle_by, self._leave_at, self._head_by, self._settings_by))

    def expired(self, now: float) -> None:
        """Some deadline has come, or was moved meanwhile."""
        if self._life == _CLOSING:
            self._abort()
            return
        if self._untaken and self._is_taking():
            self.look_by(now + self._runtime.idle_timeout)
            return
        if now >= self._head_by:
            self._runtime.counters.faults[Fault.CLIENT_TIMEOUT.reason] += 1
            self._say_goodbye()
            return
        if now >= self._settings_by:
            self._settings_by = NEVER
            if not self.codec.settings_acknowledged:
                # RFC 9113 section 6.5.3: it may not go by what we have told it
                self._runtime.counters.faults[_SETTINGS_TIMEOUT_REASON] += 1
                self.codec.send_goaway(SETTINGS_TIMEOUT)
                self._close()
                self._lose_streams()
                return
        if now >= self._leave_at:
            self._leave_at_once()
            if self._life == _CLOSING:
                return
        if not self.codec.streams and now >= self._idle_by:
            if self._life == _SERVING:
                self._runtime.counters.closed[ledger.IDLE_TIMEOUT] += 1
            self._say_goodbye()
            return
        clients = self._clients()
        for client in clients:
            if client.deadline <= now:
                self._look_at(client, now)
        self.send_soon()
        if not self.codec.streams:
            self.request_done()
        following = min((client.deadline for client in clients if client.stream.state != CLOSED), default=NEVER)
        self.look_by(min(following, self._leave_at, self._head_by, self._settings_by))

    def _clients(self) -> list[ClientStream]:
        return [stream.owner for stream in self.codec.streams.values() if stream.owner is not None]

    def _look_at(self, client: ClientStream, now: float) -> None:
        sent = client.stream.sent
        if sent != client.seen_sent and client.stream.queued:
            # the client takes what waits for it, but not so much that the target was asked for more
            client.seen_sent = sent
            client.deadline = now + self._runtime.idle_timeout
        else:
            client.deadline = NEVER
            client.timed_out()

    def _is_taking(self) -> bool:
        """Tell whether the client, which reads slowly, has taken something since the last look."""
        before, self._untaken = self._untaken, self._transport.untaken()
        return 0 < self._untaken < before

    # How fast the client is, all its streams together

    def giving(self, client: ClientStream) -> None:
        """The rest of a request is awaited."""
        rate = self._runtime.min_request_rate
        if rate > 0.0:
            self._givers.add(client)
            if self._give_pace is None:
                self._give_pace = Pace(self._front.deadlines, self.given, self.gave_too_slowly)
            self._give_pace.begin(rate, self._runtime.slow_client_grace)

    def no_longer_giving(self, client: ClientStream) -> None:
        """It has come, or is not what is awaited."""
        if self._give_pace is not None:
            self._givers.discard(client)
            if not self._givers:
                self._give_pace.stop()

    def taking(self, client: ClientStream) -> None:
        """The client has to take something before there can be more."""
        rate = self._runtime.min_response_rate
        if rate > 0.0:
            self._takers.add(client)
            if self._take_pace is None:
                self._take_pace = Pace(self._front.deadlines, self.taken, self.took_too_slowly)
            self._take_pace.begin(rate, self._runtime.slow_client_grace)

    def no_longer_taking(self, client: ClientStream) -> None:
        """It has taken it."""
        if self._take_pace is not None:
            self._takers.discard(client)
            if not self._takers:
                self._take_pace.hold()

    def given(self) -> int:
        """How much content has come."""
        return self._received

    def taken(self) -> int:
        """How much content has left and was taken."""
        untaken: int = self._transport.untaken()
        return self.codec.sent_bytes - untaken

    def gave_too_slowly(self) -> None:
        """End the requests that are waited for, unless they are conversations."""
        for client in list(self._givers):
            exchange = client.exchange
            if exchange is not None and not exchange.response_started:
                exchange.client_failed(Fault.CLIENT_TOO_SLOW)

    def took_too_slowly(self) -> None:
        """End the connection: the client does not read what it asked for."""
        for client in list(self._takers):
            exchange = client.exchange
            if exchange is not None:
                exchange.client_failed(Fault.CLIENT_TOO_SLOW)
            else:
                self._runtime.counters.faults[Fault.CLIENT_TOO_SLOW.reason] += 1
        self._abort()

    # Ending

    def drain(self) -> None:
        """Take no more requests, after those that cross with the first GOAWAY (RFC 9113 section 6.8)."""
        if self._life == _SERVING:
            self._life = _LEAVING
            self._runtime.counters.closed[self._front.drain_cause] += 1
            self.codec.send_goaway(NO_ERROR, False)
            self._leave_at = self.clock.now() + DRAIN_GRACE_SECONDS
            self.look_by(self._leave_at)
            self.send_soon()

    def _leave_at_once(self) -> None:
        """No request after those that have come."""
        if self._life < _LEFT:
            self._life = _LEFT
            self._leave_at = NEVER
            self.codec.send_goaway()
            self.send_soon()
        if not self.codec.streams:
            self._close()

    def end(self) -> int:
        """End at once, or after the last frames of WebSockets; tell how many exchanges that cut."""
        cut = 0
        parted = False
        for client in self._clients():
            exchange = client.exchange
            if exchange is not None:
                cut += 1
                exchange.end(Fault.DRAIN_DEADLINE)
                parted = parted or exchange.parted
        if parted:
            self._leave_at_once()
        self._flush()
        if not parted:
            self._abort()
        return cut

    def _fail(self, error: RemoteProtocolError) -> None:
        """The client broke the rules so that the connection cannot go on; the codec has written GOAWAY."""
        self._runtime.counters.faults[error.reason] += 1
        _log.debug("bad connection from {client}: {error}", client=self.host, error=error)
        self._close()
        for stream in self.codec.untold:
            if stream.owner is not None:
                stream.owner.was_reset(False)
        self._lose_streams()

    def _say_goodbye(self) -> None:
        """Nothing has come for too long."""
        if self._life < _LEFT:
            self.codec.send_goaway()
        self._close()
        self._lose_streams()

    def _flush(self) -> None:
        if not self.codec.blocked:
            data = self.codec.data_to_send()
            if data:
                self._transport.write(data)

    def _close(self) -> None:
        """Close when all is sent, after taking in what the client sends for a little while."""
        if self._life == _CLOSING:
            return
        self._flush()
        self._life = _CLOSING
        transport = self._transport
        self._untaken = transport.untaken()
        self.deadline = NEVER
        self._front.deadlines.set(self, self.clock.now() + min(self._runtime.idle_timeout, 10.0))
        transport.unregisterProducer()
        if self._unread:
            self._unread = False
            transport.resumeProducing()
        if self._half_closed or self.secure:
            # TLS ends with close_notify
            transport.loseConnection()
        else:
            transport.loseWriteConnection()

    def _abort(self) -> None:
        self._life = _CLOSING
        transport = self._transport
        transport.unregisterProducer()
        getattr(transport, "transport", transport).abortConnection()


classImplements(Http2Connection, IProtocol, IPushProducer, IHalfCloseableProtocol)
