"""A connection to a target, speaking HTTP/1.1."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IProtocol, IPushProducer
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import classImplements

from lbproxy.dataplane.deadlines import NEVER
from lbproxy.dataplane.proxy.ends import Upstream
from lbproxy.dataplane.proxy.exchange import RELAY_FROM, Exchange
from lbproxy.dataplane.proxy.faults import Fault
from lbproxy.native.clock import turns
from lbproxy.native.transport import StreamTransport
from lbproxy.wire.errors import RemoteProtocolError
from lbproxy.wire.http1.body import ChunkedReader, encode_chunk, last_chunk
from lbproxy.wire.http1.codec import CHUNKED, codec
from lbproxy.wire.http1.head import ResponseHead

if TYPE_CHECKING:
    from lbproxy.dataplane.upstream.pool import TargetPool

_log = Logger(__name__)  # compiled, it could not see where it is made

_CODEC = codec
_TURNS = turns

_RELAY_FROM = RELAY_FROM  # compiled, a number in C

MAX_INFORMATIONAL = 100
"""Interim answers (1xx) to one request; a target that sends more of them would hold the client for ever."""

_FULL_READ = 16384
"""A read that brought so much may have left something behind."""

# What of an answer is awaited.
_HEAD = 0
_LENGTH = 1
_CHUNKS = 2
_CLOSE = 3
_TUNNEL = 4
_CLOSING = 5


class TargetConnection(Upstream):
    """Serves one exchange after another.

    It is the protocol of its transport, and the transport's producer for back-pressure on requests.
    """

    __slots__ = (
        "_buffer",
        "_chunks",
        "_full",
        "_in_pieces",
        "_informational",
        "_keep",
        "_last_read",
        "_method",
        "_paused",
        "_pool",
        "_reading",
        "_remaining",
        "_request_chunked",
        "_request_ended",
        "_seen",
        "_sent_in",
        "_stream",
        "_transport",
        "_untaken",
        "waiting",
    )

    def __init__(self, pool: TargetPool, exchange: Exchange) -> None:
        self._pool = pool
        self.waiting: Exchange | None = exchange
        """The exchange for which the connection is being made."""
        self.exchange: Exchange | None = None
        """The exchange that has the connection now."""
        self.reused = False
        self.may_refuse = False
        self.armed = 0
        self.deadline = NEVER
        self._transport: Any = None
        self._stream: StreamTransport | None = None
        self._untaken = 0
        self._buffer = b""
        self._chunks: ChunkedReader | None = None
        self._full = False
        self._in_pieces = False
        self._informational = 0
        self._keep = False
        self._last_read = 0
        self._method = b""
        self._paused = False
        self._reading = _HEAD
        self._remaining = 0
        self._request_chunked = False
        self._request_ended = True
        self._seen = False
        self._sent_in = 0

    # Connecting

    def makeConnection(self, transport: Any) -> None:
        self._transport = transport
        if isinstance(transport, StreamTransport):
            self._stream = transport
        self.connectionMade()

    def connectionMade(self) -> None:
        self._transport.registerProducer(self, True)
        exchange, self.waiting = self.waiting, None
        assert exchange is not None
        self._pool.connected(self, exchange)

    def connectFailed(self, fault: Fault, detail: str) -> None:
        """The connector gave up."""
        exchange, self.waiting = self.waiting, None
        assert exchange is not None
        _log.debug("cannot connect to {target}: {detail}", target=self._pool.key, detail=detail)
        self._pool.connect_failed(fault, exchange)

    # The exchange calls

    def send_request(self, block: bytes, method: bytes, framing: int, data: bytes, ended: bool) -> None:
        """Send a request head and the first piece of its body."""
        self._method = method
        self._request_ended = ended
        self._in_pieces = not ended
        self._informational = 0
        self._seen = False
        self._sent_in = _TURNS.current
        self._request_chunked = False
        self.deadline = NEVER
        if framing == CHUNKED:
            self._request_chunked = True
            pieces = [block, b"Transfer-Encoding: chunked\r\n\r\n"]
            if data:
                pieces.append(encode_chunk(data))
            if ended:
                pieces.append(b"0\r\n\r\n")
            self._write(b"".join(pieces))
        else:
            self._write(_CODEC.request(block, framing, data))
        self._pool.counters.sent_bytes += len(data)

    def send_data(self, data: bytes) -> None:
        """Send a piece of the request's body, or through the tunnel."""
        if data:
            self._pool.counters.sent_bytes += len(data)
            self._write(encode_chunk(data) if self._request_chunked else data)

    def send_end(self, trailers: bytes) -> None:
        """The request's body is whole."""
        self._request_ended = True
        if self._request_chunked:
            self._write(last_chunk(trailers))

    def _write(self, data: bytes) -> None:
        stream = self._stream
        if stream is not None:  # compiled, a call in C
            stream.write(data)
        else:
            self._transport.write(data)

    def pause_response(self) -> None:
        """Read no more for now."""
        self._paused = True
        self._transport.pauseProducing()

    def resume_response(self) -> None:
        self._paused = False
        self._transport.resumeProducing()

    def abort(self) -> None:
        """Drop the connection; the exchange hears no more of it."""
        self.exchange = None
        self._transport.unregisterProducer()
        self._transport.abortConnection()

    def close(self) -> None:
        """Close in order: what was written is still sent, within a little time.

        A tunnel's target may be sending yet. What it sends is taken in until it closes too, for else a reset would
        overtake our last frame; TLS does that by itself.
        """
        self.exchange = None
        half = self._reading == _TUNNEL and not self._pool.group.protocol.is_encrypted
        self._reading = _CLOSING
        self._pool.closing(self)
        transport = self._transport
        transport.unregisterProducer()
        if self._paused:
            self.resume_response()
        if half:
            transport.loseWriteConnection()
        else:
            transport.loseConnection()

    def relay_sink(self) -> StreamTransport | None:
        return None if self._request_chunked else self._stream

    def is_taking(self) -> bool:
        """Tell whether the target, which reads slowly, has taken something since the last look."""
        if not self._full:
            return False
        before, self._untaken = self._untaken, self._transport.untaken()
        return self._untaken < before

    def is_quiet(self) -> bool:
        """Tell whether the target has neither closed this idle connection nor sent anything on it."""
        quiet: bool = self._lowest_transport().is_quiet()
        return quiet

    def _lowest_transport(self) -> Any:
        return getattr(self._transport, "transport", self._transport)

    # The deadline of an idle connection, or of closing it

    def expired(self, now: float) -> None:
        """Not used for as long as a kept connection may be, or still not closed."""
        if self._reading == _CLOSING:
            self._transport.abortConnection()
        elif self.exchange is None and self.waiting is None:
            self._pool.lost(self)
            self.close()

    # The transport's producer: back-pressure on the request

    def pauseProducing(self) -> None:
        self._full = True
        self._untaken = self._transport.untaken()
        exchange = self.exchange
        if exchange is not None:
            exchange.pause_request()

    def resumeProducing(self) -> None:
        self._full = False
        exchange = self.exchange
        if exchange is not None:
            exchange.resume_request()

    def stopProducing(self) -> None:
        pass

    # The transport's protocol: the answer

    def dataReceived(self, data: bytes) -> None:
        exchange = self.exchange
        if exchange is None:
            if self._reading != _CLOSING:
                # Nothing was asked: what comes now could be taken for the answer to the next request.
                self._pool.counters.faults[Fault.UNASKED_RESPONSE.reason] += 1
                self._pool.lost(self)
                self.abort()
            return
        if not self._seen:
            if self.reused and self._sent_in == _TURNS.current and self._sent_in:
                # It was here before the request was sent, so it answers something else.
                self._fail(Fault.UNASKED_RESPONSE, True)
                return
            self._seen = True
        self._last_read = len(data)
        self._pool.counters.received_bytes += len(data)
        reading = self._reading
        try:
            if reading == _HEAD:
                self._read_head(exchange, self._buffer + data if self._buffer else data)
            elif reading == _LENGTH:
                self._read_length(exchange, data)
            elif reading == _CHUNKS:
                self._read_chunks(exchange, data)
            else:
                exchange.response_data(data)
        except RemoteProtocolError as error:
            _log.debug("bad answer from {target}: {error}", target=self._pool.key, error=error)
            self._fail(Fault.BAD_RESPONSE, False)

    def _read_head(self, exchange: Exchange, data: bytes) -> None:
        start = 0
        while True:
            head = _CODEC.scan_response(data, start)
            if head is None:
                self._buffer = data[start:]
                return
            start = head.end
            status = head.status
            if status >= 200:
                break
            if status == 101:
                self._switch(exchange, head, data[start:])
                return
            self._informational += 1
            if self._informational > MAX_INFORMATIONAL:
                raise RemoteProtocolError("too many interim answers", reason="TooManyInformational")
            exchange.informational(head)
            if self.exchange is not exchange:
                return
        self._buffer = b""
        self._keep = head.keep_alive and self._request_ended and not exchange.alone
        if exchange.head.expect_continue and not self._informational:
            # Who answers at once may not have read the body, and take it for the next request.
            self._keep = False
        if self._method == b"HEAD" or status == 204 or status == 304 or head.content_length == 0:
            self._release(len(data) > start)
            exchange.response(head, False, b"", True)
            return
        length = head.content_length
        if length > 0:
            size = len(data) - start
            if size >= length:
                self._release(size > length)
                exchange.response(head, True, _CODEC.piece(data, start, start + length), True)
                return
            body = data[start:]
            self._remaining = length - len(body)
            self._reading = _LENGTH
            exchange.response(head, True, body, False)
            if self._stream is not None and self.exchange is exchange and self._remaining >= _RELAY_FROM:
                self._remaining -= exchange.relay_response(self._stream, self._remaining)
            return
        if head.chunked:
            chunks = ChunkedReader()
            body = chunks.receive_data(data[start:]) if start < len(data) else b""
            if chunks.ended and not chunks.trailers:
                self._release(bool(chunks.rest))
                exchange.response(head, True, body, True)
                return
            self._chunks = chunks
            self._reading = _CHUNKS
            exchange.response(head, True, body, False)
            if chunks.ended and self.exchange is not None:  # a hedge has given the connection to its exchange
                self._end_chunks(self.exchange)
            return
        self._keep = False
        self._reading = _CLOSE
        exchange.response(head, True, data[start:], False)

    def _read_length(self, exchange: Exchange, data: bytes) -> None:
        remaining = self._remaining - len(data)
        if remaining > 0:
            self._remaining = remaining
            exchange.response_data(data)
            return
        exchange.response_data(data if remaining == 0 else data[:remaining])
        if self.exchange is exchange:
            self._release(remaining < 0)
            exchange.response_ended(b"")

    def _read_chunks(self, exchange: Exchange, data: bytes) -> None:
        assert self._chunks is not None
        body = self._chunks.receive_data(data)
        if body:
            exchange.response_data(body)
        if self._chunks is not None and self._chunks.ended and self.exchange is exchange:
            self._end_chunks(exchange)

    def _end_chunks(self, exchange: Exchange) -> None:
        assert self._chunks is not None
        chunks, self._chunks = self._chunks, None
        self._release(bool(chunks.rest))
        exchange.response_ended(chunks.trailers)

    def _switch(self, exchange: Exchange, head: ResponseHead, rest: bytes) -> None:
        asked = exchange.head.upgrade
        if not asked or head.upgrade != asked:
            raise RemoteProtocolError("101 that was not asked for", reason="UnexpectedUpgrade")
        self._buffer = b""
        self._keep = False
        self._reading = _TUNNEL
        exchange.switch_protocols(head)
        if rest and self.exchange is exchange:
            exchange.response_data(rest)

    def _release(self, surplus: bool) -> None:
        """The answer is whole: keep the connection for another request, or close it.

        It is kept only if nothing is left on it that could pass for the next answer, and nothing of this request
        that the target could take for the next one.
        """
        self.exchange = None
        self._reading = _HEAD
        unread = self._last_read >= _FULL_READ
        if self._paused:
            # the end of the answer was more than the client took at once; that is no longer our concern
            self.resume_response()
            unread = True
        if unread and not surplus:
            surplus = not self.is_quiet()
        if self._in_pieces and not surplus:
            surplus = self._transport.untaken() > 0
        if surplus or self._full or not self._request_ended:
            self.abort()
        elif not self._keep or not self._pool.put(self):
            self.close()

    def _fail(self, fault: Fault, reused: bool) -> None:
        exchange, self.exchange = self.exchange, None
        self._transport.unregisterProducer()
        self._transport.abortConnection()
        if exchange is not None:
            exchange.upstream_failed(fault, reused)

    def connectionLost(self, reason: Failure) -> None:
        exchange, self.exchange = self.exchange, None
        self._pool.lost(self)
        self.deadline = NEVER
        if exchange is None:
            return
        clean = reason.check(ConnectionDone) is not None
        if clean and self._reading == _CLOSE:
            exchange.response_ended(b"")
        elif clean and self._reading == _TUNNEL:
            exchange.upstream_closed_tunnel()
        else:
            fault = Fault.TARGET_CLOSED if clean else Fault.TARGET_RESET
            exchange.upstream_failed(fault, self.reused and not self._seen)


classImplements(TargetConnection, IProtocol, IPushProducer)
