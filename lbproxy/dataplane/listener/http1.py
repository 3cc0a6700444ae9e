"""A client's connection, speaking HTTP/1.1 or 1.0.

Requests are read one after the other; the next one is looked at when the answer to the one
before is written, so that pipelined requests are answered in order.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet.interfaces import IHalfCloseableProtocol, IHandshakeListener, IProtocol, IPushProducer
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import classImplements

from lbproxy.dataplane.deadlines import NEVER, TICK_SECONDS, Deadlines
from lbproxy.dataplane.listener.admission import Admission, replace
from lbproxy.dataplane.listener.pace import Pace
from lbproxy.dataplane.proxy.answers import reason_phrase
from lbproxy.dataplane.proxy.ends import Downstream
from lbproxy.dataplane.proxy.exchange import RELAY_FROM, Exchange
from lbproxy.dataplane.proxy.faults import Fault
from lbproxy.dataplane.proxy.forwarded import ForwardedFields, ForwardedStyle
from lbproxy.dataplane.proxy.runtime import HttpRuntime
from lbproxy.model.listener import Listener
from lbproxy.native.clock import Clock
from lbproxy.native.tls import finish
from lbproxy.native.transport import Address, StreamTransport
from lbproxy.telemetry import ledger
from lbproxy.wire.errors import RemoteProtocolError
from lbproxy.wire.http.desync import REASONS, classification, number_of
from lbproxy.wire.http.fields import without_odd_names
from lbproxy.wire.http1.body import LAST_CHUNK, ChunkedReader, encode_chunk, last_chunk
from lbproxy.wire.http1.codec import (
    CHUNKED,
    CONNECTION_CLOSE,
    CONNECTION_KEEP_ALIVE,
    CONNECTION_UNSAID,
    NO_BODY,
    codec,
)
from lbproxy.wire.http1.head import RequestHead

_log = Logger(__name__)  # compiled, it could not see where it is made

_CODEC = codec
_RELAY_FROM = RELAY_FROM  # compiled, a number in C
_WALL = Clock(time.time)

_LINGER_SECONDS = 2.0
"""How long, once our last answer is sent, a connection still takes in what the client sends, so that the answer
is not lost to a reset (RFC 9112 section 9.6)."""

_LOOK_SECONDS = 1.0
"""How long after the last write of a connection it is looked at whether the client takes it; the wheel of deadlines may
take up to five seconds for it."""

_MAX_AHEAD = 65536
"""Bytes of pipelined requests held while an answer is in progress; beyond that reading pauses."""

DRAIN_GRACE_SECONDS = 2.0
"""When draining, how long an idle connection may still bring a request, to be answered with
``Connection: close``; closing at once could cross with it."""

# What is awaited from the client.
_HEAD = 0
_LENGTH = 1
_CHUNKS = 2
_NOTHING = 3
_TUNNEL = 4
_CLOSING = 5
_LINGERING = 6


def unreadable(version: bytes) -> RequestHead:
    """Stands in the access log for the head of a request that could not be read."""
    head = RequestHead()
    head.method = head.target = b"-"
    head.version = version
    head.authority = head.host = head.path = head.query = head.user_agent = head.referer = b""
    head.minor = 1
    return head


UNREADABLE = unreadable(b"-")

_HTTP2_PREFACE = b"PRI * HTTP/2.0\r\n"
"""What a client of HTTP/2 begins with looks like a request (RFC 9113 section 3.4)."""


def classify(exchange: Exchange, desync: int) -> None:
    """Say in the log and in the metrics how far a request strays from what everybody reads alike."""
    exchange.classification = classification(desync)
    exchange.classification_reason = REASONS[desync]
    exchange.runtime.counters.desync[f"{exchange.classification} {exchange.classification_reason}"] += 1


class TlsDescription(Protocol):
    """What is told of a TLS connection in the access log."""

    @property
    def version(self) -> str: ...
    @property
    def cipher(self) -> str: ...
    @property
    def server_name(self) -> str: ...
    @property
    def resumed(self) -> bool: ...
    @property
    def alpn(self) -> bytes: ...


class HttpFront:
    """What the connections of one bind of a listener share.

    ``runtime`` is replaced when a snapshot changes the listener; a connection looks at it
    with each request.
    """

    runtime: HttpRuntime

    def __init__(
        self,
        port: int,
        deadlines: Deadlines,
        describe_tls: Callable[[Any], TlsDescription] | None = None,
        http2: Callable[..., Any] | None = None,
    ) -> None:
        self.port = port
        self.deadlines = deadlines
        self.draining = False
        self.drain_cause = ledger.DRAIN
        self.connections: set[Any] = set()
        self.admission: Admission | None = None
        self.describe_tls = describe_tls
        """For an HTTPS listener: what to say of a TLS transport."""
        self.certificates: Any = None
        """For an HTTPS listener: its `ServerTls`, which knows what hosts its certificates are good for."""
        self._forwarded_style: ForwardedStyle | None = None
        self.http2 = http2
        """Makes what takes a connection over when the client turns out to speak HTTP/2."""

    def buildProtocol(self, addr: Address) -> ClientConnection | None:
        """A connection from ``addr``, which is the client's also where a PROXY header gave it; None to refuse it."""
        if self.admission is not None and self.admission.refuses(addr.host):
            return None
        kind = ClientConnection if self.describe_tls is None else SecureClientConnection
        return kind(self, addr.host, addr.port)

    def forwarded_style(self, listener: Listener) -> ForwardedStyle:
        """How connections of this bind tell targets of their clients; ``listener`` is ours in the present snapshot."""
        style = self._forwarded_style
        if style is None or style.listener is not listener:
            style = self._forwarded_style = ForwardedStyle(listener, self.port)
        return style

    def admit(self, admission: Admission | None) -> None:
        """Ask this of connections to come, and count those that are open."""
        replace(self.admission, admission, [connection.host for connection in self.connections])
        self.admission = admission

    def drain(self, cause: str) -> None:
        """Answer with ``Connection: close`` from now on; close idle connections after a moment."""
        self.draining = True
        self.drain_cause = cause
        for connection in list(self.connections):
            connection.drain()

    def end(self) -> int:
        """End what is left; return how many exchanges that cut."""
        cut = 0
        for connection in list(self.connections):
            cut += connection.end()
        return cut


class ClientConnection(Downstream):
    """One client connection; the `Downstream` of its exchanges, one at a time."""

    __slots__ = (
        "_age_limit",
        "_buffer",
        "_began",
        "_chunked_out",
        "_chunks",
        "_exchange",
        "_forwarded",
        "_forwarded_for",
        "_front",
        "_giving",
        "_half_closed",
        "_keep",
        "_may_switch",
        "_reading",
        "_reading_paused",
        "_remaining",
        "_requests_left",
        "_runtime",
        "_starting",
        "_stream",
        "_taking",
        "_tls",
        "_transport",
        "_unlooked",
        "_untaken",
        "_write_paused",
        "secure",
    )

    def __init__(self, front: HttpFront, host: str, port: int) -> None:
        self._front = front
        self._runtime = front.runtime
        self.host = host
        self.port = port
        self.listener_port = front.port
        self.scheme = "http"
        self.secure = False
        self.clock = front.deadlines.clock
        self.armed = 0
        self.deadline = NEVER
        self._transport: Any = None
        self._stream: StreamTransport | None = None
        self._buffer = b""
        self._began = 0.0
        self._reading = _HEAD
        self._remaining = 0
        self._chunks: ChunkedReader | None = None
        self._exchange: Exchange | None = None
        self._starting = False
        self._keep = True
        self._may_switch = False
        self._chunked_out = False
        self._half_closed = False
        self._write_paused = False
        self._untaken = 0
        self._unlooked = False
        self._reading_paused = False
        self._forwarded: ForwardedFields | None = None
        self._forwarded_for: Any = None
        self._tls: TlsDescription | None = None
        self._age_limit = 0.0
        self._requests_left = self._runtime.max_requests
        self._giving: Pace | None = None
        self._taking: Pace | None = None

    # The transport calls

    def makeConnection(self, transport: Any) -> None:
        self._transport = transport
        if isinstance(transport, StreamTransport):
            self._stream = transport
        self.connectionMade()

    def connectionMade(self) -> None:
        front = self._front
        front.connections.add(self)
        if front.admission is not None:
            front.admission.entered(self.host)
        counters = self._runtime.counters
        counters.connections += 1
        counters.active += 1
        now = self.clock.now()
        self._age_limit = now + self._runtime.client_keep_alive
        self._may_switch = self._runtime.http2 and not self.secure
        self._transport.registerProducer(self, True)
        front.deadlines.set(self, now + (DRAIN_GRACE_SECONDS if front.draining else self._first_patience()))

    def _first_patience(self) -> float:
        return self._runtime.idle_timeout

    def dataReceived(self, data: bytes) -> None:
        reading = self._reading
        if reading == _HEAD:
            if self._buffer:
                data = self._buffer + data
                self._buffer = b""
            self._read_requests(data)
        elif reading == _LENGTH:
            self._read_length(data)
        elif reading == _CHUNKS:
            self._read_chunks(data)
        elif reading == _TUNNEL:
            exchange = self._exchange
            assert exchange is not None
            exchange.request_data(data)
        elif reading == _NOTHING:
            self._buffer += data
            if len(self._buffer) > _MAX_AHEAD:
                self.pause_request()

    def readConnectionLost(self) -> None:
        """The client has finished sending; it may still want its answer (RFC 9112 section 9.6)."""
        self._half_closed = True
        exchange = self._exchange
        if self._reading == _CLOSING or exchange is None:
            self._close()
        elif self._reading == _TUNNEL:
            exchange.client_closed_tunnel()
        elif self._reading != _NOTHING:
            exchange.client_failed(Fault.BAD_REQUEST)
            self._close()

    def writeConnectionLost(self) -> None:
        """All is sent and our end is closed; see `_linger`."""
        if self._reading == _CLOSING:
            self._reading = _LINGERING
            self._unlooked = False
            self._front.deadlines.set(self, self.clock.now() + _LINGER_SECONDS)

    def connectionLost(self, reason: Failure) -> None:
        front = self._front
        front.connections.discard(self)
        if front.admission is not None:
            front.admission.left(self.host)
        self._runtime.counters.active -= 1
        self._reading = _CLOSING
        front.deadlines.clear(self)
        if self._taking is not None:
            self._taking.stop()
        exchange = self._exchange
        if exchange is not None:
            exchange.client_lost()

    # The transport's producer: back-pressure on the answer

    def pauseProducing(self) -> None:
        self._write_paused = True
        self._untaken = self._transport.untaken()
        self._watch_taking()
        exchange = self._exchange
        if exchange is not None:
            exchange.pause_response()

    def resumeProducing(self) -> None:
        self._write_paused = False
        self._untaken = 0
        if self._taking is not None:
            self._taking.hold()
        exchange = self._exchange
        if exchange is not None:
            exchange.resume_response()
        elif self._reading == _HEAD and self._buffer and not self._starting:
            self.resume_request()
            self._read_buffered()

    def stopProducing(self) -> None:
        pass

    # Deadlines

    def expired(self, now: float) -> None:
        exchange = self._exchange
        if self._unlooked:
            self._look_who_takes(now)
        elif self._untaken and self._is_taking():
            self._front.deadlines.set(self, now + self._runtime.idle_timeout)
        elif exchange is not None:
            exchange.timed_out()
        elif self._reading == _CLOSING:
            if self._transport.untaken():
                self._runtime.counters.faults[Fault.CLIENT_TIMEOUT.reason] += 1
            self._abort()
        elif self._buffer and not self._write_paused:
            self._refuse(Fault.CLIENT_TIMEOUT.status, Fault.CLIENT_TIMEOUT.reason, UNREADABLE)
        else:
            if self._write_paused:
                self._runtime.counters.faults[Fault.CLIENT_TIMEOUT.reason] += 1
            elif self._reading == _HEAD and (not self.secure or self._tls is not None):
                front = self._front
                cause = front.drain_cause if front.draining else ledger.IDLE_TIMEOUT
                self._runtime.counters.closed[cause] += 1
            self._close()

    def _is_taking(self) -> bool:
        """Tell whether the client, which reads slowly, has taken something since the last look.

        The kernel may hold megabytes for it, and tells us only when there is much room again.
        """
        before, self._untaken = self._untaken, self._transport.untaken()
        return 0 < self._untaken < before

    # How fast the client is

    def _watch_giving(self) -> None:
        """The rest of a request's body is awaited from now on."""
        rate = self._runtime.min_request_rate
        if rate > 0.0:
            if self._giving is None:
                self._giving = Pace(self._front.deadlines, self.given, self.gave_too_slowly)
            self._giving.begin(rate, self._runtime.slow_client_grace)

    def _watch_taking(self) -> None:
        """The client has to take something before there can be more."""
        rate = self._runtime.min_response_rate
        if rate > 0.0:
            if self._taking is None:
                self._taking = Pace(self._front.deadlines, self.taken, self.took_too_slowly)
            self._taking.begin(rate, self._runtime.slow_client_grace)

    def given(self) -> int:
        """How much of the present request has come."""
        exchange = self._exchange
        if exchange is None:
            return 0
        exchange.settle()
        return exchange.received_bytes

    def taken(self) -> int:
        """How much of what waits for the client it has taken, from any start."""
        untaken: int = self._transport.untaken()
        return -untaken

    def gave_too_slowly(self) -> None:
        """End the request, unless it is a conversation: who is answered already may take time to think."""
        exchange = self._exchange
        if exchange is not None and not exchange.response_started:
            exchange.client_failed(Fault.CLIENT_TOO_SLOW)

    def took_too_slowly(self) -> None:
        """End the connection: the client does not read what it asked for."""
        exchange = self._exchange
        if exchange is not None:
            exchange.client_failed(Fault.CLIENT_TOO_SLOW)
        else:
            self._runtime.counters.faults[Fault.CLIENT_TOO_SLOW.reason] += 1
        self._abort()

    def drain(self) -> None:
        """No request after the present one, or the one that comes within a moment."""
        if self._exchange is None and self._reading == _HEAD and not self._buffer:
            self._front.deadlines.set(self, self.clock.now() + DRAIN_GRACE_SECONDS)

    def end(self) -> bool:
        """End at once, or after a WebSocket's last frame; tell whether that cut an exchange."""
        exchange = self._exchange
        if exchange is not None:
            exchange.end(Fault.DRAIN_DEADLINE)
            if exchange.parted:
                return True
        elif self._reading == _HEAD:
            self._runtime.counters.closed[ledger.DRAIN_DEADLINE] += 1
        self._abort()
        return exchange is not None

    # Reading requests

    def _read_buffered(self) -> None:
        data, self._buffer = self._buffer, b""
        self._read_requests(data)

    def _read_requests(self, data: bytes) -> None:
        """Take request after request from ``data`` until one has to wait."""
        start = 0
        size = len(data)
        self._runtime = runtime = self._front.runtime
        if not self._began:
            self._began = self.clock.now()
        while start < size:
            if self._write_paused:
                # The answers so far are not taken: this request waits, and what follows it in the kernel.
                self._buffer = data[start:]
                self.pause_request()
                self._front.deadlines.set(self, self.clock.now() + runtime.idle_timeout)
                return
            try:
                head = _CODEC.scan_request(data, start)
            except RemoteProtocolError as error:
                self._buffer = b""
                if self._may_switch and data.startswith(_HTTP2_PREFACE, start):
                    self._switch_to_http2(data)
                    return
                self._refuse(error.status, error.reason, UNREADABLE)
                return
            if head is None:
                self._await_head(data[start:], runtime)
                return
            start = self._start_exchange(runtime, head, data, start, size)
            if self._exchange is not None:
                self._buffer = data[start:] if start < size else b""
                return
            if self._reading != _HEAD:
                return
            self._began = self.clock.now()
        self._buffer = b""
        self._await_request()

    def _start_exchange(self, runtime: HttpRuntime, head: RequestHead, data: bytes, start: int, size: int) -> int:
        """Start on the request at ``start``; return the index of what does not belong to it."""
        desync = head.desync
        if desync and desync >= runtime.desync_refuses:
            self._refuse(400, REASONS[desync], head)
            return size
        if head.odd_names and runtime.drop_odd_names:
            head.forwarded = without_odd_names(head.forwarded)
        end = head.end
        body = b""
        trailers = b""
        ended = True
        length = head.content_length
        if head.chunked:
            chunks = self._chunks = ChunkedReader()
            try:
                if end < size:
                    body = chunks.receive_data(data[end:])
            except RemoteProtocolError as error:
                self._refuse(error.status, error.reason, head)
                return size
            if chunks.ended:
                end = size - len(chunks.rest)
                trailers = chunks.trailers
                self._chunks = None
            else:
                end = size
                ended = False
                self._reading = _CHUNKS
        elif length > 0:
            following = end + length
            if following <= size:
                body = data[end:following]
                end = following
            else:
                body = data[end:]
                self._remaining = following - size
                end = size
                ended = False
                self._reading = _LENGTH
        if ended:
            self._reading = _NOTHING
        self._may_switch = False
        self._requests_left -= 1
        self._keep = head.keep_alive
        if self._keep and self._requests_left == 0:
            self._keep = False
            runtime.counters.closed[ledger.MAX_REQUESTS] += 1
        self._chunked_out = False
        exchange = self._exchange = Exchange.__new__(Exchange)
        exchange.begin_exchange(self, runtime, head, self._began)
        exchange.received_bytes = head.end - start + len(body)
        if self.secure:
            self._describe_tls(exchange)
        if desync:
            classify(exchange, desync)
            if desync >= runtime.desync_closes:
                exchange.alone = True
                self._keep = False
        self._starting = True
        try:
            exchange.start(body, ended, trailers)
        except Exception:
            _log.failure("a request could not be handled")
            exchange.fail(Fault.INTERNAL)
        self._starting = False
        if not ended and not self._reading_paused and self._exchange is exchange:
            self._watch_giving()
        return end

    def _switch_to_http2(self, data: bytes) -> None:
        """The client speaks HTTP/2: another protocol has the connection from now on."""
        front = self._front
        assert front.http2 is not None
        self._reading = _CLOSING
        front.connections.discard(self)
        front.deadlines.clear(self)
        transport = self._transport
        transport.unregisterProducer()
        successor = front.http2(front, self.host, self.port, self._tls, self._age_limit)
        if self.secure:
            transport.wrappedProtocol = successor
        else:
            transport.protocol = successor
        successor.take_over(transport, data)

    def _describe_tls(self, exchange: Exchange) -> None:
        tls = self._tls
        assert tls is not None
        exchange.tls_version = tls.version
        exchange.tls_cipher = tls.cipher
        exchange.server_name = tls.server_name

    def _await_head(self, part: bytes, runtime: HttpRuntime) -> None:
        """A request's head is not whole yet."""
        if self._half_closed:
            self._close()
            return
        self._reading = _HEAD
        self._buffer = part
        self._front.deadlines.set(self, self._began + runtime.header_timeout)

    def _await_request(self) -> None:
        """Nothing of a next request is there."""
        self._began = 0.0
        if self._half_closed:
            self._close()
            return
        patience = DRAIN_GRACE_SECONDS if self._front.draining else self._runtime.idle_timeout
        self._set_deadline(self.clock.now() + patience)

    def _read_length(self, data: bytes) -> None:
        exchange = self._exchange
        assert exchange is not None
        remaining = self._remaining - len(data)
        if remaining > 0:
            self._remaining = remaining
            exchange.request_data(data)
            if remaining >= _RELAY_FROM and self._stream is not None and self._exchange is exchange:
                self._remaining -= exchange.relay_request(self._stream, remaining)
            return
        self._reading = _NOTHING
        if self._giving is not None:
            self._giving.stop()
        if remaining < 0:
            self._buffer = data[remaining:]
            data = data[:remaining]
        exchange.request_data(data)
        if self._exchange is exchange:
            exchange.end_request(b"")

    def _read_chunks(self, data: bytes) -> None:
        exchange, chunks = self._exchange, self._chunks
        assert exchange is not None
        assert chunks is not None
        try:
            body = chunks.receive_data(data)
        except RemoteProtocolError as error:
            self._keep = False
            exchange.client_failed(Fault.BAD_REQUEST)
            _log.debug("bad request body from {client}: {error}", client=self.host, error=error)
            return
        if chunks.ended:
            self._chunks = None
            self._reading = _NOTHING
            self._buffer = chunks.rest
            if self._giving is not None:
                self._giving.stop()
        if body:
            exchange.request_data(body)
        if chunks.ended and self._exchange is exchange:
            exchange.end_request(chunks.trailers)

    def _refuse(self, status: int, reason: str, head: RequestHead) -> None:
        """Answer a request that could not be read, or must not be sent on, and close (RFC 9112 section 2.2).

        Where HTTP/2 may begin as well, what is neither gets no answer: in frames, ours would be nonsense.
        """
        refused = Exchange(self, self._runtime, head, self._began or self.clock.now())
        refused.status = status
        refused.error_reason = reason
        if self.secure:
            self._describe_tls(refused)
        if desync := number_of(reason):
            classify(refused, desync)
        fields, body = self._runtime.refusal(refused, status, self.wall_time())
        message = b"HTTP/1.1 %d %b\r\n%bContent-Length: %d\r\nConnection: close\r\n\r\n%b" % (
            status,
            reason_phrase(status),
            fields,
            len(body),
            body if head.method != b"HEAD" else b"",
        )
        refused.sent_bytes = len(message)
        self._runtime.counters.faults[reason] += 1
        self._runtime.finished(refused)
        if not (self._may_switch and reason == "BadVersion" and status == 400):
            self._write(message)
        self._linger()

    # The exchange calls

    def wall_time(self) -> float:
        return _WALL.now()

    def local_address(self) -> tuple[str, int]:
        """The address that the client connected to."""
        host = self._transport.getHost()
        return host.host, host.port

    def forwarded_fields(self, received: bytes | None) -> bytes:
        listener = self._runtime.listener
        if self._forwarded_for is not listener:
            self._forwarded_for = listener
            self._forwarded = ForwardedFields(self._front.forwarded_style(listener), self.host, self.port)
        assert self._forwarded is not None
        return self._forwarded.fields(received)

    def expect_progress(self, seconds: float) -> None:
        self._set_deadline(self.clock.now() + seconds)

    def _set_deadline(self, at: float) -> None:
        self.deadline = at
        if not 0.0 < self.armed * TICK_SECONDS <= at:  # else the wheel looks in time, and a store is all that it takes
            self._front.deadlines.set(self, at)

    def pause_request(self) -> None:
        if not self._reading_paused and self._reading != _CLOSING:
            self._reading_paused = True
            if self._giving is not None:
                self._giving.hold()
            self._transport.pauseProducing()

    def resume_request(self) -> None:
        if self._reading_paused and self._reading != _CLOSING:
            self._reading_paused = False
            if self._reading == _LENGTH or self._reading == _CHUNKS:
                self._watch_giving()
            self._transport.resumeProducing()

    def send_informational(self, status: int, reason: bytes, fields: bytes) -> None:
        exchange = self._exchange
        assert exchange is not None
        if exchange.head.minor >= 1:
            message = b"HTTP/1.1 %d %b\r\n%b\r\n" % (status, reason, fields)
            exchange.sent_bytes += len(message)
            self._write(message)

    def send_response(
        self, status: int, reason: bytes, fields: bytes, content_length: int, has_body: bool, data: bytes, ended: bool
    ) -> None:
        exchange = self._exchange
        assert exchange is not None
        minor = exchange.head.minor
        framing = NO_BODY
        if content_length >= 0:
            if status != 204:
                framing = content_length
        elif has_body:
            if minor >= 1:
                framing = CHUNKED
                self._chunked_out = True
                if data:
                    data = encode_chunk(data)
                if ended:
                    data += LAST_CHUNK
            else:
                self._keep = False
        if self._keep and (self._front.draining or self.clock.now() > self._age_limit):
            self._keep = False
            front = self._front
            self._runtime.counters.closed[front.drain_cause if front.draining else ledger.KEEP_ALIVE_AGE] += 1
        connection = CONNECTION_UNSAID
        if not self._keep or (not exchange.request_ended and ended):
            self._keep = False
            connection = CONNECTION_CLOSE
        elif minor == 0:
            connection = CONNECTION_KEEP_ALIVE
        message = _CODEC.response(status, reason, fields, framing, connection, data)
        exchange.sent_bytes += len(message)
        self._write(message)

    def send_data(self, data: bytes) -> None:
        exchange = self._exchange
        assert exchange is not None
        if self._chunked_out:
            data = encode_chunk(data)
        exchange.sent_bytes += len(data)
        self._write(data)

    def send_end(self, trailers: bytes) -> None:
        if self._chunked_out:
            assert self._exchange is not None
            end = last_chunk(trailers)
            self._exchange.sent_bytes += len(end)
            self._write(end)

    def _write(self, data: bytes) -> None:
        stream = self._stream
        if stream is not None:  # compiled, a call in C
            stream.write(data)
        else:
            self._transport.write(data)

    def relay_sink(self) -> StreamTransport | None:
        return None if self._chunked_out else self._stream

    def cut(self) -> None:
        self._abort()

    def start_tunnel(self, reason: bytes, fields: bytes, protocol: bytes) -> None:
        exchange = self._exchange
        assert exchange is not None
        self._reading = _TUNNEL
        self._keep = False
        message = b"HTTP/1.1 101 %b\r\n%bConnection: upgrade\r\nUpgrade: %b\r\n\r\n" % (reason, fields, protocol)
        exchange.sent_bytes += len(message)
        self._write(message)
        self.resume_request()
        if self._buffer:
            data, self._buffer = self._buffer, b""
            exchange.request_data(data)

    def end_tunnel(self) -> None:
        if self._half_closed:
            self._close()
        else:
            self._linger()

    def leave_tunnel(self, data: bytes) -> None:
        self.send_data(data)
        self._linger()

    def exchange_done(self) -> None:
        exchange, self._exchange = self._exchange, None
        assert exchange is not None
        if self._giving is not None:
            self._giving.stop()
        if self._reading == _CLOSING:
            return
        if not self._keep or not exchange.request_ended:
            if exchange.request_ended and not self._buffer and not self._reading_paused and not exchange.alone:
                self._close()
            else:
                self._linger()
            return
        self._reading = _HEAD
        self._began = 0.0
        self.resume_request()
        if self._starting:
            return
        if self._buffer:
            self._read_buffered()
        else:
            self._await_request()

    # Closing

    def _close(self) -> None:
        """Close when all is written; what the client still sends is not awaited."""
        self._reading = _CLOSING
        self._buffer = b""
        self._await_taken()
        if self._reading_paused:  # Twisted's TLS waits for the client's close_notify
            self._reading_paused = False
            self._transport.resumeProducing()
        self._finish()

    def _finish(self) -> None:
        self._transport.loseConnection()

    def _await_taken(self) -> None:
        """Let the client take what is written, as long as it goes on doing so.

        Nearly every client has it within a moment; those that have not are looked at then.
        """
        self._unlooked = True
        self.deadline = self.clock.now() + min(_LOOK_SECONDS, self._runtime.idle_timeout)
        if self.armed == 0:  # else the wheel looks in time
            self._front.deadlines.set(self, self.deadline)
        self._transport.unregisterProducer()

    def _look_who_takes(self, now: float) -> None:
        self._unlooked = False
        patience = self._runtime.idle_timeout
        self._untaken = self._transport.untaken()
        if self._untaken:
            self._watch_taking()
        else:
            patience = max(0.0, patience - _LOOK_SECONDS)
        self._front.deadlines.set(self, now + patience)

    def _linger(self) -> None:
        """Close when all is sent, after taking in what the client sends for a little while."""
        self._reading = _CLOSING
        self._buffer = b""
        self._chunks = None
        self._await_taken()
        if self._reading_paused:
            self._reading_paused = False
            self._transport.resumeProducing()
        self._lose_write()

    def _lose_write(self) -> None:
        self._transport.loseWriteConnection()

    def _abort(self) -> None:
        self._reading = _CLOSING
        self._transport.unregisterProducer()
        self._transport.abortConnection()


class SecureClientConnection(ClientConnection):
    """A client connection inside TLS."""

    __slots__ = ()

    def __init__(self, front: HttpFront, host: str, port: int) -> None:
        super().__init__(front, host, port)
        self.scheme = "https"
        self.secure = True

    def _first_patience(self) -> float:
        return self._runtime.header_timeout

    def handshakeCompleted(self) -> None:
        """TLS stands: a request may take as long as on an idle connection."""
        front = self._front
        assert front.describe_tls is not None
        tls = self._tls = front.describe_tls(self._transport)
        counters = self._runtime.counters
        counters.tls_handshakes += 1
        counters.tls_resumed += tls.resumed
        if tls.alpn == b"h2":
            self._switch_to_http2(b"")
        else:
            self._await_request()

    def connectionLost(self, reason: Failure) -> None:
        if self._tls is None:
            self._runtime.counters.tls_failures += 1
            self._runtime.counters.faults[Fault.CLIENT_TLS_FAILED.reason] += 1
        ClientConnection.connectionLost(self, reason)  # compiled, these are C methods, which `super` does not know

    def _abort(self) -> None:
        # Below Twisted's TLS, which would say close_notify first: an answer up to the close would pass for whole.
        self._reading = _CLOSING
        transport = self._transport
        transport.unregisterProducer()
        getattr(transport, "transport", transport).abortConnection()

    def _finish(self) -> None:
        finish(self._transport)

    def _lose_write(self) -> None:
        # TLS ends with close_notify; Twisted reads on until the client's own.
        self._transport.loseConnection()


classImplements(ClientConnection, IProtocol, IPushProducer, IHalfCloseableProtocol)
classImplements(SecureClientConnection, IHandshakeListener)
