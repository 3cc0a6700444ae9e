"""What a probe says and hears over HTTP/2: one request, its answer, and for gRPC what the answer means."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

from lbproxy.controlplane.health.status import PASSED, ProbeResult, failed, wrong_status
from lbproxy.model.health import GRPC_HEALTH_PATH, HealthCheck
from lbproxy.wire.errors import RemoteProtocolError
from lbproxy.wire.http2 import events as kinds
from lbproxy.wire.http2.connection import Connection
from lbproxy.wire.http2.events import Event

_MAX_MESSAGE_BYTES = 65536
_EMPTY_MESSAGE = bytes(5)
"""Not compressed, no octets: every field of a ``HealthCheckRequest`` has its default, so the whole server is meant."""
_SERVING = b"\x08\x01"
"""A ``HealthCheckResponse``: field 1, a varint, is 1."""
_MESSAGE_HEAD_BYTES = 5
"""A byte for compression, four for the length."""


class Http2Probe(Protocol):
    """Asks once; ``done`` fires with the `ProbeResult`."""

    def __init__(
        self, check: HealthCheck, scheme: bytes, host: bytes, path: bytes, is_grpc: bool, agent: bytes
    ) -> None:
        self.done: Deferred[ProbeResult] = Deferred()
        self._check = check
        self._is_grpc = is_grpc
        self._asked = (b"POST" if is_grpc else b"GET", scheme, host, path)
        self._agent = agent
        self._codec = Connection(client=True)
        self._status = 0
        self._grpc_status: int | None = None
        self._message = b""
        self._offered = scheme == b"https"

    transport: Any

    def connectionMade(self) -> None:
        lines = b"user-agent: %b\r\n" % self._agent
        if self._is_grpc:
            lines += b"content-type: application/grpc\r\nte: trailers\r\n"
        stream = self._codec.send_request(*self._asked, lines, -1, not self._is_grpc)
        if self._is_grpc:
            self._codec.send_data(stream, _EMPTY_MESSAGE, True)
        self.transport.write(self._codec.data_to_send())

    def dataReceived(self, data: bytes) -> None:
        if self.done.called:
            return
        if self._offered and self.transport.negotiatedProtocol != b"h2":
            self._finish(failed("the target does not speak HTTP/2 (ALPN)"))
            return
        try:
            events = self._codec.receive_data(data, 0.0)
        except RemoteProtocolError:
            self._finish(failed("malformed answer"))
            return
        for event in events:
            self._receive(event)
        answer = self._codec.data_to_send()
        if answer:
            self.transport.write(answer)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if not self.done.called:
            self.done.errback(reason)

    def _receive(self, event: Event) -> None:
        if self.done.called:
            return
        if event.kind == kinds.RESET:
            self._finish(failed("malformed answer" if event.error is not None else "the request was reset"))
            return
        if event.kind == kinds.RESPONSE:
            self._status = event.head.status
            self._note_grpc_status(event.head.forwarded)
        if event.kind in (kinds.RESPONSE, kinds.DATA):
            self._message = (self._message + event.data)[:_MAX_MESSAGE_BYTES]
            self._note_grpc_status(event.trailers)
            if event.ended:
                self._finish(self._judge())

    def _note_grpc_status(self, lines: bytes) -> None:
        for line in lines.split(b"\r\n"):
            name, _, value = line.partition(b":")
            if name.lower() == b"grpc-status" and value.strip().isdigit():
                self._grpc_status = int(value.strip()[:4])

    def _judge(self) -> ProbeResult:
        if not self._is_grpc:
            return PASSED if self._check.matches(self._status) else wrong_status(self._status)
        if self._grpc_status is None:
            return failed(f"no gRPC status in an answer with {self._status}")
        if not self._check.matches(self._grpc_status):
            return wrong_status(self._grpc_status)
        if self._check.path == GRPC_HEALTH_PATH and not self._message[_MESSAGE_HEAD_BYTES:].startswith(_SERVING):
            return failed("the target says that it does not serve")
        return PASSED

    def _finish(self, result: ProbeResult) -> None:
        self.done.callback(result)
