"""A client of HTTP/2 in memory: our codec's other end on a transport that the test moves."""

from __future__ import annotations

from lbproxy.wire.http2 import events as kinds
from lbproxy.wire.http2.connection import Connection
from lbproxy.wire.http2.errors import CANCEL
from lbproxy.wire.http2.events import Event
from lbproxy.wire.http2.stream import Stream
from tests.dataplane.doubles import FakeTransport, World


class Got:
    """What has come back on one stream."""

    def __init__(self) -> None:
        self.status = 0
        self.interim: list[int] = []
        self.fields = b""
        self.length = -1
        self.body = b""
        self.trailers = b""
        self.ended = False
        self.reset: int | None = None


class Http2Client:
    """Connects with prior knowledge."""

    def __init__(self, world: World, transport: FakeTransport | None = None) -> None:
        self.world = world
        self.transport = transport or world.client()
        self.codec = Connection(True)
        self.got: dict[int, Got] = {}
        self.goaways: list[tuple[int, int]] = []
        self.move()

    def send_raw(self, data: bytes) -> None:
        self.transport.deliver(data)

    def take_raw(self) -> bytes:
        return self.transport.take()

    def move(self) -> None:
        """Carry bytes both ways until there are none."""
        while True:
            sent = self.codec.data_to_send()
            if sent:
                self.send_raw(sent)
            received = self.take_raw()
            for event in self.codec.receive_data(received, 0.0) if received else ():
                self._note(event)
            if not sent and not received:
                return

    def _note(self, event: Event) -> None:
        if event.kind == kinds.GOAWAY:
            self.goaways.append((event.last_id, event.code))
            return
        if event.stream is None:
            return
        got = self.got.setdefault(event.stream.id, Got())
        if event.kind == kinds.INFORMATIONAL:
            got.interim.append(event.head.status)
        elif event.kind == kinds.RESPONSE:
            got.status = event.head.status
            got.fields = event.head.forwarded
            got.length = event.head.content_length
        elif event.kind == kinds.RESET:
            got.reset = event.code
        got.body += event.data
        got.trailers += event.trailers
        got.ended = got.ended or event.ended

    def request(
        self,
        path: str = "/",
        *fields: str,
        method: str = "GET",
        body: bytes = b"",
        ended: bool = True,
        length: int | None = None,
        protocol: bytes = b"",
        authority: bytes = b"example.com",
    ) -> Stream:
        """Send a request; its content's length is announced unless ``length`` is -1."""
        lines = "".join(f"{field}\r\n" for field in fields).encode()
        size = (len(body) if body else -1) if length is None else length
        stream = self.codec.send_request(
            method.encode(), b"http", authority, path.encode(), lines, size, ended and not body, protocol
        )
        if body:
            self.codec.send_data(stream, body, ended)
        self.move()
        return stream

    def websocket(self, *fields: str) -> Stream:
        """Ask for a WebSocket at ``/chat`` (RFC 8441)."""
        return self.request("/chat", *fields, method="CONNECT", protocol=b"websocket", ended=False)

    def send(self, stream: Stream, data: bytes, ended: bool = False) -> None:
        self.codec.send_data(stream, data, ended)
        self.move()

    def cancel(self, stream: Stream) -> None:
        self.codec.reset(stream, CANCEL)
        self.move()

    def answer_to(self, stream: Stream) -> Got:
        self.move()
        return self.got.setdefault(stream.id, Got())
