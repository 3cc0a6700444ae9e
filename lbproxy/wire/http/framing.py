"""Where a message ends (RFC 9112 section 6, RFC 9110 section 8.6).

Two parties that disagree here can be made to see different requests in the same bytes (request smuggling), so what is
ambiguous is refused and never repaired.
"""

from __future__ import annotations

from lbproxy.wire.errors import RemoteProtocolError
from lbproxy.wire.http.fields import is_token, list_elements

_MAX_LENGTH_DIGITS = 18
"""Just below 2**60: nobody counts in wider numbers, and it fits everyone's signed 64 bits."""


def parse_content_length(value: bytes) -> int:
    """The length in bytes; ``1*DIGIT`` and nothing else.

    RFC 9110 section 8.6 lets a recipient accept a list of equal numbers; we refuse it.
    """
    if value.isdigit() and len(value) <= _MAX_LENGTH_DIGITS:
        return int(value)
    if b"," in value:
        raise RemoteProtocolError(f"several lengths: {value[:40]!r}", reason="MultipleContentLength")
    raise RemoteProtocolError(f"content-length {value[:40]!r}", reason="BadContentLength")


def check_transfer_encoding(value: bytes) -> None:
    """Accept exactly ``chunked`` (RFC 9112 section 6.1).

    Other codings that are properly written get a 501; what is no list of codings, or does not end with the one
    ``chunked``, gets a 400.
    """
    if value.lower() == b"chunked":
        return
    codings = list_elements(value.lower())
    if codings.count(b"chunked") > 1:
        raise RemoteProtocolError(f"transfer-encoding {value[:40]!r}", reason="MultipleTransferEncodingChunked")
    proper = bool(codings) and all(map(is_token, codings)) and b"chunked" not in codings[:-1]
    raise RemoteProtocolError(
        f"transfer-encoding {value[:40]!r}", reason="BadTransferEncoding", status=501 if proper else 400
    )


def response_has_body(method: bytes, status: int) -> bool:
    """Whether content follows the head of a final or interim response to ``method`` (RFC 9112 section 6.3)."""
    return not (method == b"HEAD" or status < 200 or status in (204, 304))
