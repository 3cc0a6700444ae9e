"""What every message passes on its way in and out: heads are scanned, heads are written.

One object, so that compiled callers reach the compiled codec by a call in C.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from lbproxy.native.choice import available
from lbproxy.wire.http1.head import scan_request, scan_response

CHUNKED = -2
NO_BODY = -1
"""Instead of a content length: how a message is framed."""

CONNECTION_UNSAID = 0
CONNECTION_CLOSE = 1
CONNECTION_KEEP_ALIVE = 2
"""What a response says of its connection."""

_CONNECTION = (b"", b"Connection: close\r\n", b"Connection: keep-alive\r\n")


class Codec:
    """Reads heads (`lbproxy.wire.http1.head`) and writes them; keeps nothing."""

    __slots__ = ()

    scan_request = staticmethod(scan_request)
    scan_response = staticmethod(scan_response)

    @staticmethod
    def piece(data: bytes, start: int, end: int) -> bytes:
        """``data[start:end]``, both of which are within the data."""
        return data[start:end]

    @staticmethod
    def request_block(
        method: bytes, target: bytes, authority: bytes, forwarded: bytes, origin: bytes, trace_id: bytes, more: bytes
    ) -> bytes:
        """Write a request's head but for what frames its body and the empty line.

        ``forwarded``, ``origin`` and ``more`` are whole field lines, ``trace_id`` is the value of X-Amzn-Trace-Id.
        """
        return b"".join(
            (
                method,
                b" ",
                target,
                b" HTTP/1.1\r\nHost: ",
                authority,
                b"\r\n",
                forwarded,
                origin,
                b"X-Amzn-Trace-Id: ",
                trace_id,
                b"\r\n",
                more,
            )
        )

    @staticmethod
    def request(block: bytes, framing: int, data: bytes) -> bytes:
        """Finish a request's head and append the first piece of its body; ``framing`` is a length or `NO_BODY`."""
        if framing == NO_BODY:
            return b"%b\r\n%b" % (block, data)
        return b"%bContent-Length: %d\r\n\r\n%b" % (block, framing, data)

    @staticmethod
    def response(status: int, reason: bytes, fields: bytes, framing: int, connection: int, data: bytes) -> bytes:
        """Write a response's head and the first piece of its body, which is framed already.

        ``framing`` is a content length, `NO_BODY` (nothing is said) or `CHUNKED`.
        """
        if framing >= 0:
            framed = b"Content-Length: %d\r\n" % framing
        else:
            framed = b"Transfer-Encoding: chunked\r\n" if framing == CHUNKED else b""
        return b"".join((_status_line(status, reason), fields, framed, _CONNECTION[connection], b"\r\n", data))


@lru_cache(maxsize=256)
def _status_line(status: int, reason: bytes) -> bytes:
    return b"HTTP/1.1 %d %b\r\n" % (status, reason)


PureCodec = Codec
"""The codec of this module, whichever is in use."""

if not TYPE_CHECKING and available:
    from lbproxy.native._http1 import Codec

codec = Codec()
