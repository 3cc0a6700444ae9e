"""The two ends of an exchange, as it sees them: a client's connection or stream, and a connection to a target.

Bases, not protocols, so that the compiled build calls those who implement them directly.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lbproxy.native.protocol import StreamProtocol

if TYPE_CHECKING:
    from lbproxy.dataplane.proxy.exchange import Exchange
    from lbproxy.native.clock import Clock
    from lbproxy.native.transport import StreamTransport


class Downstream(StreamProtocol):
    """The client's end, one request of it.  A base, not a protocol, so that the compiled build calls it directly.

    It is a `StreamProtocol` for those that are a connection as well; compiled, a class has one base only.
    """

    __slots__ = ("clock", "host", "listener_port", "port", "scheme")

    host: str
    port: int
    scheme: str
    listener_port: int
    clock: Clock

    def wall_time(self) -> float:
        """Seconds since the epoch."""
        raise NotImplementedError  # interface

    def local_address(self) -> tuple[str, int]:
        raise NotImplementedError  # interface

    def forwarded_fields(self, received: bytes | None) -> bytes:
        raise NotImplementedError  # interface

    def expect_progress(self, seconds: float) -> None:
        """Call the exchange's `Exchange.timed_out` when so many seconds have passed without `progress`."""
        raise NotImplementedError  # interface

    def pause_request(self) -> None:
        raise NotImplementedError  # interface

    def resume_request(self) -> None:
        raise NotImplementedError  # interface

    def send_informational(self, status: int, reason: bytes, fields: bytes) -> None:
        raise NotImplementedError  # interface

    def send_response(
        self, status: int, reason: bytes, fields: bytes, content_length: int, has_body: bool, data: bytes, ended: bool
    ) -> None:
        """Start the answer; ``content_length`` -1 when not known; ``data`` is its first piece."""
        raise NotImplementedError  # interface

    def send_data(self, data: bytes) -> None:
        raise NotImplementedError  # interface

    def send_end(self, trailers: bytes) -> None:
        raise NotImplementedError  # interface

    def cut(self) -> None:
        """End the connection so that the answer cannot pass for whole."""
        raise NotImplementedError  # interface

    def relay_sink(self) -> StreamTransport | None:
        """Where the rest of the answer's body could be written as it is, if there is such a transport."""
        return None

    def start_tunnel(self, reason: bytes, fields: bytes, protocol: bytes) -> None:
        """Answer 101 and hand all that comes to `Exchange.request_data`, unframed."""
        raise NotImplementedError  # interface

    def end_tunnel(self) -> None:
        raise NotImplementedError  # interface

    def leave_tunnel(self, data: bytes) -> None:
        """Send this as the last of the tunnel; the client has a little time to take it."""
        raise NotImplementedError  # interface

    def exchange_done(self) -> None:
        """The exchange is over; its answer, if any, is written whole."""
        raise NotImplementedError  # interface


class Upstream(StreamProtocol):
    """A target's end, while it serves one exchange; a `StreamProtocol` as a `Downstream` is."""

    __slots__ = ("exchange", "may_refuse", "reused")

    reused: bool
    may_refuse: bool
    """Whether the target can say of a request that was sent that it has not looked at it."""
    exchange: Exchange | None

    def send_request(self, block: bytes, method: bytes, framing: int, data: bytes, ended: bool) -> None:
        """Send a request head (up to its framing fields) and the first piece of its body.

        ``framing`` is a content length, `NO_BODY` or `CHUNKED`.
        """
        raise NotImplementedError  # interface

    def send_data(self, data: bytes) -> None:
        raise NotImplementedError  # interface

    def send_end(self, trailers: bytes) -> None:
        raise NotImplementedError  # interface

    def pause_response(self) -> None:
        raise NotImplementedError  # interface

    def resume_response(self) -> None:
        raise NotImplementedError  # interface

    def relay_sink(self) -> StreamTransport | None:
        """Where the rest of the request's body could be written as it is, if there is such a transport."""
        return None

    def is_taking(self) -> bool:
        """Tell whether the target, which reads slowly, has taken something since the last look."""
        raise NotImplementedError  # interface

    def abort(self) -> None:
        """Give the connection up; it will not call the exchange again."""
        raise NotImplementedError  # interface

    def close(self) -> None:
        """The same, but what was sent still reaches the target."""
        raise NotImplementedError  # interface
