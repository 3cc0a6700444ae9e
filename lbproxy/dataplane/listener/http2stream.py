"""One request of a client's connection of HTTP/2: the `Downstream` of its exchange."""

from __future__ import annotations

import base64
import hashlib
import os
import time
from typing import TYPE_CHECKING

from lbproxy.dataplane.deadlines import NEVER
from lbproxy.dataplane.proxy.ends import Downstream
from lbproxy.dataplane.proxy.exchange import Exchange
from lbproxy.dataplane.proxy.faults import Fault
from lbproxy.native.clock import Clock
from lbproxy.wire.http2.errors import CANCEL, INTERNAL_ERROR
from lbproxy.wire.http2.stream import CLOSED, HALF_CLOSED_LOCAL, Stream

if TYPE_CHECKING:
    from lbproxy.dataplane.listener.http2 import Http2Connection
    from lbproxy.wire.http1.head import RequestHead
    from lbproxy.wire.http2.events import Event

_WALL = Clock(time.time)

_WEBSOCKET_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
"""RFC 6455 section 1.3."""


class ClientStream(Downstream):
    """One request of a connection; the `Downstream` of its exchange."""

    __slots__ = (
        "_codec",
        "_connection",
        "_early",
        "_key",
        "exchange",
        "paused",
        "seen_sent",
        "stream",
        "tunnel",
    )

    def __init__(self, connection: Http2Connection, stream: Stream) -> None:
        self._connection = connection
        self._codec = self._connection.codec
        self.stream = stream
        # compiled, this way they are read in C
        self.host = self._connection.host
        self.port = self._connection.port
        self.scheme = self._connection.scheme
        self.listener_port = self._connection.listener_port
        self.clock = self._connection.clock
        self.exchange: Exchange | None = None
        self.deadline = NEVER
        self.seen_sent = 0
        """What had left of the answer when the deadline was last looked at."""
        self.paused = False
        """Whether the exchange was told that the client takes nothing."""
        self.tunnel = False
        self._key = b""
        self._early: list[bytes] | None = None
        """What comes through a tunnel before it stands; None otherwise."""

    # The connection calls

    def ask_for_tunnel(self, head: RequestHead) -> None:
        """RFC 8441 has no key, but a target of HTTP/1.1 wants one (RFC 6455 section 4.1)."""
        received = head.field_values(b"sec-websocket-key")
        if received:
            self._key = received[0]
        else:
            self._key = base64.b64encode(os.urandom(16))
            head.forwarded += b"Sec-WebSocket-Key: %b\r\n" % self._key
        self._early = []
        self._codec.hold(self.stream)  # nobody takes more than its window of that

    def received(self, event: Event) -> None:
        """More of the request, or of what goes through its tunnel."""
        exchange = self.exchange
        if exchange is None:
            return
        early = self._early
        if early is not None:
            early.append(event.data)
            if event.ended:
                exchange.client_lost()
            return
        if event.data:
            exchange.request_data(event.data)
        if event.ended and self.exchange is exchange:
            if self.tunnel:
                exchange.client_closed_tunnel()
            else:
                self._connection.no_longer_giving(self)
                exchange.end_request(event.trailers)

    def was_reset(self, faulty: bool) -> None:
        """The stream is over; by a fault of the client, or because it wished so."""
        exchange = self.exchange
        if exchange is None:
            return
        if faulty:
            exchange.client_failed(Fault.BAD_REQUEST)
        else:
            exchange.client_lost()

    def writable(self) -> None:
        """What waited has been sent."""
        self._connection.no_longer_taking(self)
        exchange = self.exchange
        if self.paused and exchange is not None:
            self.paused = False
            exchange.resume_response()

    def timed_out(self) -> None:
        """The deadline has come and nothing has moved."""
        exchange = self.exchange
        if exchange is not None:
            exchange.timed_out()
        else:
            self._reset(CANCEL)

    def await_end(self) -> None:
        """The end of the answer waits for the client, or that of the request is still to come."""
        self.deadline = at = self.clock.now() + self._connection.idle_timeout()
        self.seen_sent = self.stream.sent
        self._connection.look_by(at)

    # The exchange calls

    def wall_time(self) -> float:
        return _WALL.now()

    def local_address(self) -> tuple[str, int]:
        """The address that the client connected to."""
        return self._connection.local_address()

    def forwarded_fields(self, received: bytes | None) -> bytes:
        return self._connection.forwarded_fields(received)

    def expect_progress(self, seconds: float) -> None:
        self.deadline = at = self.clock.now() + seconds
        self._connection.look_by(at)

    def pause_request(self) -> None:
        stream = self.stream
        if not stream.held:
            self._codec.hold(stream)
            self._connection.no_longer_giving(self)

    def resume_request(self) -> None:
        stream = self.stream
        if stream.held:
            self._codec.release(stream)
            self._connection.send_soon()
            exchange = self.exchange
            if exchange is not None and not exchange.request_ended:
                self._connection.giving(self)

    def send_informational(self, status: int, reason: bytes, fields: bytes) -> None:
        if self.stream.state != CLOSED:
            exchange = self.exchange
            assert exchange is not None
            exchange.sent_bytes += self._codec.send_response(self.stream, status, fields, -1, False)
            self._connection.send_soon()

    def send_response(
        self, status: int, reason: bytes, fields: bytes, content_length: int, has_body: bool, data: bytes, ended: bool
    ) -> None:
        if self.stream.state == CLOSED:
            return
        exchange = self.exchange
        assert exchange is not None
        length = -1 if status == 204 else content_length
        alone = ended and not data
        size = self._codec.send_response(self.stream, status, fields, length, alone)
        exchange.sent_bytes += size + len(data)
        if not alone:
            self._send(data, ended)
        self._connection.send_soon()

    def send_data(self, data: bytes) -> None:
        if self.stream.state == CLOSED:
            return
        exchange = self.exchange
        assert exchange is not None
        exchange.sent_bytes += len(data)
        self._send(data, False)
        self._connection.send_soon()

    def _send(self, data: bytes, ended: bool) -> None:
        if not self._codec.send_data(self.stream, data, ended):
            self._connection.taking(self)
            exchange = self.exchange
            if not ended and not self.paused and exchange is not None:
                self.paused = True
                exchange.pause_response()

    def send_end(self, trailers: bytes) -> None:
        if self.stream.state != CLOSED:
            self._codec.send_end(self.stream, trailers)
            self._connection.send_soon()

    def cut(self) -> None:
        self._reset(CANCEL if self.tunnel else INTERNAL_ERROR)  # RFC 8441 section 5: what a TCP reset would say

    def _reset(self, code: int) -> None:
        self._codec.reset(self.stream, code)
        self._connection.send_soon()

    def start_tunnel(self, reason: bytes, fields: bytes, protocol: bytes) -> None:
        exchange = self.exchange
        assert exchange is not None
        accepted, fields = _take_accept(fields)
        if accepted != base64.b64encode(hashlib.sha1(self._key + _WEBSOCKET_GUID).digest()):
            # RFC 6455 section 4.1: no WebSocket stands
            exchange.fail(Fault.BAD_RESPONSE)
            return
        self.tunnel = True
        # RFC 8441 section 5: what is 101 in HTTP/1.1 is 200 here
        exchange.sent_bytes += self._codec.send_response(self.stream, 200, fields, -1, False)
        self._connection.send_soon()
        self.resume_request()  # first, for what is there already may be more than the target takes at once
        early, self._early = self._early, None
        if early:
            exchange.request_data(b"".join(early))

    def end_tunnel(self) -> None:
        self.send_end(b"")

    def leave_tunnel(self, data: bytes) -> None:
        if self.stream.state != CLOSED:
            exchange = self.exchange
            assert exchange is not None
            exchange.sent_bytes += len(data)
            self._send(data, True)
            self._connection.send_soon()

    def exchange_done(self) -> None:
        self.exchange = None
        self._early = None
        connection = self._connection
        connection.no_longer_giving(self)
        stream = self.stream
        if stream.end_queued or stream.state == HALF_CLOSED_LOCAL:
            self.await_end()
            return
        if stream.state != CLOSED:
            self._reset(CANCEL)
        stream.owner = None  # a circle of references would wait for the garbage collector
        connection.request_done()


def _take_accept(fields: bytes) -> tuple[bytes, bytes]:
    """The Sec-WebSocket-Accept among these field lines, and the others."""
    accepted = b""
    kept = []
    for line in fields.splitlines(keepends=True):
        if line[:22].lower() == b"sec-websocket-accept: ":
            accepted = line[22:].strip()
        else:
            kept.append(line)
    return accepted, b"".join(kept)
