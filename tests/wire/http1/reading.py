"""What our readers make of bytes, and all that a head tells."""

from __future__ import annotations

from lbproxy.wire.errors import RemoteProtocolError
from lbproxy.wire.http1.body import ChunkedReader
from lbproxy.wire.http1.head import RequestHead, ResponseHead, scan_request, scan_response

REQUEST_ATTRIBUTES = [
    "end",
    "method",
    "target",
    "path",
    "query",
    "version",
    "minor",
    "authority",
    "host",
    "content_length",
    "chunked",
    "keep_alive",
    "expect_continue",
    "upgrade",
    "te_trailers",
    "forwarded",
    "x_forwarded_for",
    "trace_id",
    "user_agent",
    "referer",
    "has_body",
    "desync",
    "odd_names",
    "odd_path",
]
RESPONSE_ATTRIBUTES = [
    "end",
    "status",
    "reason",
    "minor",
    "content_length",
    "chunked",
    "keep_alive",
    "upgrade",
    "forwarded",
    "has_date",
]


def request(data: bytes) -> RequestHead:
    """The whole head that this is."""
    head = scan_request(data)
    assert head is not None
    return head


def response(data: bytes) -> ResponseHead:
    head = scan_response(data)
    assert head is not None
    return head


def read_body(parts: list[bytes]) -> tuple[bytes, bytes, bytes, bool] | None:
    """Payload, trailers, what followed, and whether it ended; ``None`` if refused."""
    reader = ChunkedReader()
    payload = rest = b""
    try:
        for part in parts:
            if reader.ended:
                rest += part
            else:
                payload += reader.receive_data(part)
    except RemoteProtocolError:
        return None
    return payload, reader.trailers, reader.rest + rest, reader.ended
