"""A connection to a target, speaking HTTP/2: many exchanges at a time, a stream for each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IProtocol, IPushProducer
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import classImplements

from lbproxy.dataplane.deadlines import NEVER
from lbproxy.dataplane.proxy.answers import reason_phrase
from lbproxy.dataplane.proxy.ends import Upstream
from lbproxy.dataplane.proxy.exchange import Exchange
from lbproxy.dataplane.proxy.faults import Fault
from lbproxy.native.clock import turns
from lbproxy.native.protocol import StreamProtocol
from lbproxy.wire.errors import RemoteProtocolError
from lbproxy.wire.http1.codec import NO_BODY
from lbproxy.wire.http2 import events as kinds
from lbproxy.wire.http2.connection import Connection
from lbproxy.wire.http2.errors import CANCEL, REFUSED_STREAM, SETTINGS_TIMEOUT
from lbproxy.wire.http2.fieldline import ENTRY_OVERHEAD
from lbproxy.wire.http2.stream import CLOSED, Stream

if TYPE_CHECKING:
    from lbproxy.dataplane.upstream.multiplex import MultiplexPool
    from lbproxy.wire.http2.events import Event

_log = Logger(__name__)  # compiled, it could not see where it is made

_TURNS = turns

PING_SECONDS = 300.0
"""A target from which nothing has come for so long, though streams are open, is asked for a sign of life.
gRPC's servers take more than that for abuse."""

_PONG_SECONDS = 20.0
"""How long that may take."""

_SETTINGS_SECONDS = 20.0
"""How long a target may take to acknowledge our SETTINGS."""

_OWN_FIELDS_SIZE = 5 * ENTRY_OVERHEAD + 40
"""Of pseudo-header fields and content-length, but for what the request line and Host hold."""

_PING = b"lbproxy?"
_VERSION = b" HTTP/1.1"
_HOST = b"Host: "


class TargetStream(Upstream):
    """One exchange's part of a connection."""

    __slots__ = ("_connection", "_full", "_seen", "_sent", "stream")

    def __init__(self, connection: Http2Connection) -> None:
        self.exchange: Exchange | None = None
        self.reused = connection.served
        self.may_refuse = True
        self.stream: Stream | None = None
        self._connection = connection
        self._full = False
        self._seen = False
        self._sent = 0

    # The exchange calls

    def send_request(self, block: bytes, method: bytes, framing: int, data: bytes, ended: bool) -> None:
        """Open the stream."""
        self._connection.open(self, block, method, framing, data, ended)

    def send_data(self, data: bytes) -> None:
        if self.stream is not None and data:
            self._connection.send(self, data, False)

    def send_end(self, trailers: bytes) -> None:
        if self.stream is not None:
            self._connection.send_end(self, trailers)

    def pause_response(self) -> None:
        if self.stream is not None:
            self._connection.codec.hold(self.stream)

    def resume_response(self) -> None:
        if self.stream is not None:
            self._connection.codec.release(self.stream)
            self._connection.flush()

    def is_taking(self) -> bool:
        if not self._full or self.stream is None:
            return False
        before, self._sent = self._sent, self.stream.sent
        return self._sent > before

    def abort(self) -> None:
        """Give the stream up; the connection goes on."""
        self.exchange = None
        self._connection.give_up(self)

    def close(self) -> None:
        self.abort()

    # The connection calls

    def written(self, all_of_it: bool) -> None:
        """Some content was given to the codec."""
        exchange = self.exchange
        if all_of_it or self._full or exchange is None or self.stream is None:
            return
        self._full = True
        self._sent = self.stream.sent
        exchange.pause_request()

    def writable(self) -> None:
        """All content that was given to the codec has left."""
        exchange = self.exchange
        if self._full and exchange is not None:
            self._full = False
            exchange.resume_request()

    def let_go(self) -> Exchange | None:
        """The stream has nothing more for its exchange."""
        exchange, self.exchange = self.exchange, None
        if self.stream is not None:
            self.stream.owner = None
            self.stream = None
        return exchange

    def fail(self, fault: Fault) -> None:
        """The stream, or its connection, is no more."""
        unanswered = self.reused and not self._seen
        exchange = self.let_go()
        if exchange is not None:
            exchange.upstream_failed(fault, unanswered and fault is not Fault.BAD_RESPONSE)

    def receive(self, event: Event) -> None:
        """A response, or a part of one."""
        exchange = self.exchange
        if exchange is None:
            return
        self._seen = True
        if event.head is not None:
            event.head.reason = reason_phrase(event.head.status)
        if event.kind == kinds.INFORMATIONAL:
            exchange.informational(event.head)
        elif event.kind == kinds.RESPONSE:
            self._receive_response(exchange, event)
        else:
            if event.data:
                exchange.response_data(event.data)
            self._receive_end(event)

    def _receive_response(self, exchange: Exchange, event: Event) -> None:
        head = event.head
        has_body = exchange.head.method != b"HEAD" and head.status not in (204, 304)
        if not event.ended or event.trailers:
            exchange.response(head, has_body, event.data, False)
            self._receive_end(event)
            return
        if has_body and head.content_length < 0 and not self._connection.pool.is_grpc:
            head.content_length = len(event.data)
        self._connection.finish(self)
        exchange.response(head, has_body, event.data, True)

    def _receive_end(self, event: Event) -> None:
        exchange = self.exchange  # a hedge may have given it to its exchange
        if event.ended and exchange is not None:
            self._connection.finish(self)
            exchange.response_ended(event.trailers)


class Http2Connection(StreamProtocol):
    """The protocol of a transport, and its producer for back-pressure on requests."""

    __slots__ = (
        "_closing",
        "_due",
        "_gathering",
        "_heard",
        "_pinged",
        "_transport",
        "codec",
        "pool",
        "served",
        "streams",
    )

    def __init__(self, pool: MultiplexPool) -> None:
        self.armed = 0
        self.deadline = NEVER
        self.pool = pool
        self.codec = Connection(client=True)
        self.served = False
        """Whether it has carried a request before."""
        self.streams: dict[TargetStream, None] = {}
        self._transport: Any = None
        self._due = False
        """Whether the end of this turn is waited for."""
        self._gathering = 0
        self._heard = 0.0
        self._pinged = False
        self._closing = False

    # Connecting

    def makeConnection(self, transport: Any) -> None:
        self._transport = transport
        self.connectionMade()

    def connectionMade(self) -> None:
        self._transport.registerProducer(self, True)
        if self.pool.group.protocol.is_encrypted and self._transport.negotiatedProtocol != b"h2":
            self._abort()
            self.pool.connect_failed(self, Fault.TLS_FAILED, "the target does not speak HTTP/2 (ALPN)")
            return
        self._heard = self.pool.now()
        self._gathering += 1
        self.pool.connected(self)
        self._gathering -= 1
        self.flush()
        self._rest()

    def connectFailed(self, fault: Fault, detail: str) -> None:
        """The connector gave up."""
        self._closing = True
        self.pool.connect_failed(self, fault, detail)

    # The pool calls

    @property
    def can_open(self) -> bool:
        """Whether one more stream can be opened."""
        return not self._closing and self.codec.can_open

    def is_quiet(self) -> bool:
        """Tell whether an unused connection has nothing to read, perhaps its end; one in use is known to be alive."""
        if self.streams:
            return True
        quiet: bool = getattr(self._transport, "transport", self._transport).is_quiet()
        return quiet

    def retire(self) -> None:
        """No request any more; those that are under way may end."""
        if not self.streams:
            self._close()

    # Streams call

    def open(self, owner: TargetStream, block: bytes, method: bytes, framing: int, data: bytes, ended: bool) -> None:
        """Send a request, whose head is written as HTTP/1.1 has it up to what frames it."""
        line, host, lines = block.split(b"\r\n", 2)
        end = lines.rfind(b"\r\nConnection: ") + 2
        trailers = self.pool.is_grpc
        if end > 1:  # what speaks of a connection of HTTP/1.1; TE is the only one that has a meaning here
            trailers = trailers or b"\r\nTE: " in lines[end:]
            lines = lines[:end]
        if trailers:
            lines += b"te: trailers\r\n"
        if 0 <= self.codec.peer_max_header_list < _list_size(line, host, lines):
            owner.fail(Fault.TOO_LARGE_FOR_TARGET)
            return
        self.served = True
        bare = framing == NO_BODY or (ended and not data)
        stream = self.codec.send_request(
            method,
            self.pool.scheme,
            host[len(_HOST) :],
            line[len(method) + 1 : -len(_VERSION)],
            lines,
            framing if framing > 0 or (framing == 0 and bare) else -1,
            bare,
        )
        stream.owner = owner
        owner.stream = stream
        self.streams[owner] = None
        if len(self.streams) == 1:
            patience = PING_SECONDS if self.codec.settings_acknowledged else _SETTINGS_SECONDS
            self._set_deadline(self.pool.now() + patience)
        if bare:
            self.flush()
        elif data:
            self.send(owner, data, ended)
        else:
            self.flush()

    def send(self, owner: TargetStream, data: bytes, ended: bool) -> None:
        assert owner.stream is not None
        self.pool.counters.sent_bytes += len(data)
        left = self.codec.send_data(owner.stream, data, ended)
        self.flush()
        owner.written(left or ended)

    def send_end(self, owner: TargetStream, trailers: bytes) -> None:
        assert owner.stream is not None
        self.codec.send_end(owner.stream, trailers)
        self.flush()

    def finish(self, owner: TargetStream) -> None:
        """The response is whole; what may be left of the request is not needed."""
        self.give_up(owner)

    def give_up(self, owner: TargetStream) -> None:
        stream = owner.stream
        owner.let_go()
        if self.streams.pop(owner, self) is self:
            return
        if stream is not None and stream.state != CLOSED:
            self.codec.reset(stream, CANCEL)
            self.flush()
        self._rest()

    def flush(self) -> None:
        """Have what gathered written at the end of this turn, with what other streams add to it."""
        if not self._due and not self._gathering and self.codec.pending_bytes():
            self._due = True
            _TURNS.at_end(self)

    def turn_ended(self) -> None:
        """Write what gathered."""
        self._due = False
        self._write()

    def _write(self) -> None:
        if not self._closing and self.codec.pending_bytes():
            self._transport.write(self.codec.data_to_send())

    # The transport's producer

    def pauseProducing(self) -> None:
        self.codec.blocked = True

    def resumeProducing(self) -> None:
        if not self._closing:
            self._receive(self.codec.unblock())

    def stopProducing(self) -> None:
        pass

    # The transport's protocol

    def dataReceived(self, data: bytes) -> None:
        if self._closing:
            return
        self._heard = now = self.pool.now()
        self._pinged = False
        self.pool.counters.received_bytes += len(data)
        try:
            events = self.codec.receive_data(data, now)
        except RemoteProtocolError as error:
            _log.debug("bad HTTP/2 from {target}: {error}", target=self.pool.key, error=error)
            self._write()
            self._end(Fault.BAD_RESPONSE)
            return
        self._receive(events)

    def _receive(self, events: list[Event]) -> None:
        self._gathering += 1
        try:
            for event in events:
                owner: TargetStream | None = None if event.stream is None else event.stream.owner
                if owner is None:
                    continue
                if event.kind == kinds.WRITABLE:
                    owner.writable()
                elif event.kind == kinds.RESET:
                    self._lose(owner, event)
                elif event.kind != kinds.NOTHING:
                    owner.receive(event)
        finally:
            self._gathering -= 1
        self.flush()
        if self.codec.goaway_received:
            self._rest()

    def _lose(self, owner: TargetStream, event: Event) -> None:
        """One stream ends before its time."""
        self.streams.pop(owner, None)
        if event.error is not None:
            _log.debug("bad answer from {target}: {error}", target=self.pool.key, error=event.error)
            owner.fail(Fault.BAD_RESPONSE)
        else:
            owner.fail(Fault.TARGET_REFUSED if event.code == REFUSED_STREAM else Fault.TARGET_RESET)
        self._rest()

    def connectionLost(self, reason: Failure) -> None:
        clean = reason.check(ConnectionDone) is not None
        self._lost(Fault.TARGET_CLOSED if clean else Fault.TARGET_RESET)

    # Ending

    def _rest(self) -> None:
        """If nothing is under way, keep the connection for a while, or close it."""
        if self.streams or self._closing:
            return
        if self.pool.retired or self.codec.goaway_received or not self.pool.keep_seconds:
            self._close()
        else:
            self._set_deadline(self.pool.now() + self.pool.keep_seconds)

    def _set_deadline(self, at: float) -> None:
        self.pool.deadlines.set(self, at)

    def expired(self, now: float) -> None:
        if self._closing:
            self._transport.abortConnection()
        elif not self.streams:
            self._close()
        elif not self.codec.settings_acknowledged:
            # RFC 9113 section 6.5.3
            self.codec.send_goaway(SETTINGS_TIMEOUT)
            self._write()
            self._end(Fault.BAD_RESPONSE)
        elif self._pinged:
            self._end(Fault.TARGET_CLOSED)
        elif now - self._heard < PING_SECONDS:
            self._set_deadline(self._heard + PING_SECONDS)
        else:
            self._pinged = True
            self.codec.send_ping(_PING)
            self.flush()
            self._set_deadline(now + _PONG_SECONDS)

    def _close(self) -> None:
        """Nothing is under way: say so and close."""
        if self._closing:
            return
        self.codec.send_goaway()
        self._write()
        self._closing = True
        self.pool.lost(self)
        self.pool.closing(self)
        self._transport.unregisterProducer()
        self._transport.loseConnection()

    def _end(self, fault: Fault) -> None:
        self._abort()
        self._lost(fault)

    def _abort(self) -> None:
        self._closing = True
        self._transport.unregisterProducer()
        self._transport.abortConnection()

    def _lost(self, fault: Fault) -> None:
        self._closing = True
        self.pool.lost(self)
        self.pool.deadlines.clear(self)
        for owner in list(self.streams):
            if self.streams.pop(owner, self) is None:
                owner.fail(fault)


classImplements(Http2Connection, IProtocol, IPushProducer)


def _list_size(line: bytes, host: bytes, lines: bytes) -> int:
    """How large a request's header list is as RFC 9113 section 6.5.2 counts, or a few octets more."""
    fields = lines.count(b"\r\n") * (ENTRY_OVERHEAD - len(b": \r\n"))
    return len(line) + len(host) + len(lines) + fields + _OWN_FIELDS_SIZE
