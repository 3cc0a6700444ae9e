"""The fields that tell a target about the client: X-Forwarded-* and X-Amzn-Trace-Id.

AWS, "HTTP headers and Application Load Balancers" and "Request tracing for your Application
Load Balancer".
"""

from __future__ import annotations

import random
from collections.abc import Callable

from lbproxy.model.listener import Listener, XffMode
from lbproxy.native.clock import Clock
from lbproxy.native.ids import Identifiers

MAX_FORWARDED_ADDRESSES = 30
"""More addresses than this in X-Forwarded-For are refused with 463 (ALB)."""


class ForwardedStyle:
    """What is the same for all connections of a listener at one of its ports."""

    __slots__ = ("appends", "listener", "mode", "origin", "with_port")

    def __init__(self, listener: Listener, listener_port: int) -> None:
        self.listener = listener
        self.mode = listener.xff_mode
        self.appends = listener.xff_mode is XffMode.APPEND
        self.with_port = self.appends and listener.xff_client_port
        scheme = b"https" if listener.protocol.is_encrypted else b"http"
        self.origin = b"X-Forwarded-Proto: %b\r\nX-Forwarded-Port: %d\r\n" % (scheme, listener_port)


class ForwardedFields:
    """What every request of one client connection gets, made once for the connection."""

    __slots__ = ("_client", "_mode", "_origin", "_plain")

    def __init__(self, style: ForwardedStyle, host: str, port: int) -> None:
        self._mode = style.mode
        self._origin = style.origin
        client = host
        if style.with_port:
            client = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self._client = client.encode("ascii")
        if style.appends:
            self._plain = b"".join((b"X-Forwarded-For: ", self._client, b"\r\n", self._origin))
        else:
            self._plain = self._origin

    def fields(self, received: bytes | None) -> bytes:
        """Field lines for a request that came with this X-Forwarded-For (None: without one)."""
        if received is None or self._mode is XffMode.REMOVE:
            return self._plain
        if self._mode is XffMode.PRESERVE:
            return b"X-Forwarded-For: %b\r\n%b" % (received, self._origin)
        if not received:
            return self._plain
        return b"X-Forwarded-For: %b, %b\r\n%b" % (received, self._client, self._origin)


def too_many_addresses(received: bytes) -> bool:
    """Tell whether X-Forwarded-For names more addresses than ALB accepts."""
    return received.count(b",") >= MAX_FORWARDED_ADDRESSES


class TraceIds:
    """Makes the value of X-Amzn-Trace-Id.

    ``seconds`` is the time since the epoch; ``source`` need not be secret, only unlikely to repeat.
    """

    __slots__ = ("_ids", "_prefix", "_second", "_wall")

    def __init__(self, source: random.Random, seconds: Callable[[], float]) -> None:
        self._ids = Identifiers(source.getrandbits)
        self._wall = Clock(seconds)
        self._second = -1
        self._prefix = b""

    def value(self, received: bytes | None) -> bytes:
        """The value to send: a new Root, or the received one with ``Self`` put before its Root."""
        second = int(self._wall.now())
        if second != self._second:
            self._second = second
            self._prefix = b"Root=1-%08x-" % second
        root = self._ids.next(self._prefix)
        return root if received is None else _continue_trace(root, received)


def _continue_trace(root: bytes, received: bytes) -> bytes:
    fields = [field for field in (f.strip() for f in received.split(b";")) if field]
    if any(field.startswith(b"Root=") for field in fields):
        kept = [field for field in fields if not field.startswith(b"Self=")]
        return b";".join([b"Self=" + root.removeprefix(b"Root="), *kept])
    return b";".join([root, *fields])
