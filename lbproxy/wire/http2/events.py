"""What a connection tells whoever uses it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lbproxy.wire.http2.stream import Stream

NOTHING = 0
"""An event that was overtaken: the request was reset by what came right behind it."""
REQUEST = 1
"""A client asks: ``head`` is a `RequestHead`, ``data`` what is there of its content, ``ended`` whether that is all,
``trailers`` what came at the end."""
REFUSED = 2
"""A client asks for what no version of HTTP takes: ``error`` has the status to answer with,
``content_types`` what the request is about."""
RESPONSE = 3
"""A server answers: ``head`` is a `ResponseHead`, else as `REQUEST`."""
INFORMATIONAL = 4
"""A server's 1xx: ``head``."""
DATA = 5
"""More content: ``data``, ``ended``, ``trailers``."""
RESET = 6
"""The stream is over before its time: ``code``, an error code of RFC 9113 section 7.  ``error`` says why if it was the
codec that ended it, for a fault of the peer; None if the peer did."""
WRITABLE = 7
"""What waited to be sent on the stream has been sent."""
GOAWAY = 8
"""The peer takes no more streams: ``code``, ``last_id``."""
PONG = 9
"""The answer to a ping: ``data``."""


class Event:
    """One thing that happened; which attributes count, the kind says."""

    __slots__ = (
        "code",
        "content_types",
        "data",
        "ended",
        "error",
        "head",
        "head_bytes",
        "kind",
        "last_id",
        "pieces",
        "stream",
        "trailers",
    )

    def __init__(self, kind: int, stream: Stream | None) -> None:
        self.kind = kind
        self.stream = stream
        self.head: Any = None
        self.head_bytes = 0
        """Of a request's head as it came, compressed."""
        self.data = b""
        self.pieces: list[bytes] | None = None
        """Content that is not in ``data`` yet; the codec's own."""
        self.ended = False
        self.trailers = b""
        self.code = 0
        self.last_id = 0
        self.error: Any = None
        self.content_types: tuple[bytes, ...] = ()
        """Of a request that is refused."""
