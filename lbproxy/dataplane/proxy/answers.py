"""What the balancer answers by itself: error pages, redirects and fixed responses."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from email.utils import formatdate
from http import HTTPStatus
from urllib.parse import quote

from lbproxy.dataplane.router.request import RoutableRequest
from lbproxy.model.transform import ErrorPage

_OWN_REASONS = {
    460: b"Client Closed Request",
    463: b"Too Many Forwarded Addresses",
    464: b"Incompatible Protocols",
    561: b"Unauthorized",
}


@functools.lru_cache(maxsize=1000)
def reason_phrase(status: int) -> bytes:
    """The reason phrase that goes with a status code (RFC 9110 section 15; ALB's own codes too)."""
    own = _OWN_REASONS.get(status)
    if own is not None:
        return own
    try:
        return HTTPStatus(status).phrase.encode("ascii")
    except ValueError:
        return b"Unknown"


_GRPC_STATUSES = {
    400: 13,
    401: 16,
    403: 7,
    404: 12,
    408: 4,
    413: 8,
    421: 14,
    429: 8,
    431: 8,
    500: 13,
    501: 12,
    502: 14,
    503: 14,
    504: 4,
}
"""As gRPC maps the statuses of HTTP ("HTTP to gRPC Status Code Mapping"), but a timeout is a deadline that was not met,
a failure of ours is internal, what is too large or over a rate limit exhausts something (of UNAVAILABLE, clients would
try again at once), and 421 asks for another connection."""

_GRPC_UNKNOWN = 2
_IN_GRPC_MESSAGES = "".join(chr(octet) for octet in range(0x20, 0x7F) if octet != 0x25)

_MAX_GRPC_MESSAGE = 1000
"""Characters; the message is a header field."""


def is_grpc(content_types: Sequence[bytes]) -> bool:
    """Tell whether this is the Content-Type of a gRPC request, whose answers have a status of their own."""
    if len(content_types) != 1:
        return False
    essence = content_types[0].partition(b";")[0].strip().lower()
    return essence == b"application/grpc" or essence.startswith(b"application/grpc+")


def is_grpc_call(request: RoutableRequest) -> bool:
    """Tell whether this request is a call of gRPC."""
    return request.method == b"POST" and is_grpc(request.field_values(b"content-type"))


def grpc_fields(status: int, text: str) -> bytes:
    """The fields that make a head a whole gRPC answer: this HTTP status as gRPC says it, with a message for people."""
    code = _GRPC_STATUSES.get(status, _GRPC_UNKNOWN)
    phrase = f"{status} {reason_phrase(status).decode('ascii')}"
    text = text[:_MAX_GRPC_MESSAGE].strip()
    # "gRPC over HTTP2": percent-encoded but for visible ASCII and spaces
    message = quote(f"{text} ({phrase})" if text else phrase, safe=_IN_GRPC_MESSAGES)
    return b"grpc-status: %d\r\ngrpc-message: %b\r\n" % (code, message.encode("ascii"))


ALLOW = b"Allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS\r\n"
"""What a 405 must tell (RFC 9110 section 15.5.6): the usual methods, of which a target may know fewer, or others."""


@functools.lru_cache(maxsize=4)
def _date_line(second: int) -> bytes:
    return b"Date: %b\r\n" % formatdate(second, usegmt=True).encode("ascii")


def date_line(now: float) -> bytes:
    """A Date field; ``now`` is the time since the epoch."""
    return _date_line(int(now))


def own_fields(now: float, content_type: bytes) -> bytes:
    """The fields of an answer that no target made; ``now`` is the time since the epoch."""
    return b"Server: lbproxy\r\n%bContent-Type: %b\r\n" % (date_line(now), content_type)


def error_body(status: int, trace_id: bytes) -> bytes:
    """A small page in plain text; with the trace id, by which the operator finds the log line."""
    body = b"%d %b\n" % (status, reason_phrase(status))
    if trace_id:
        body += b"\nTrace: %b\n" % trace_id
    return body


class ErrorPages:
    """What stands in the answers of a listener to requests that failed: its own pages, else a line of text."""

    __slots__ = ("_pages",)

    def __init__(self, pages: Sequence[ErrorPage]) -> None:
        self._pages: dict[int, tuple[bytes, bytes]] = {}
        for page in reversed(pages):
            for status in range(page.first_status, page.last_status + 1):
                self._pages[status] = page.content_type.encode("latin-1"), page.body.encode()

    def page(self, status: int, trace_id: bytes) -> tuple[bytes, bytes]:
        """Content type and body."""
        found = self._pages.get(status)
        if found is None:
            return b"text/plain; charset=utf-8", error_body(status, trace_id)
        content_type, body = found
        for name, value in ((b"status", b"%d" % status), (b"reason", reason_phrase(status)), (b"trace-id", trace_id)):
            body = body.replace(b"#{%b}" % name, value)
        return content_type, body
