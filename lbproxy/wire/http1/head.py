"""Read the head of a request or a response (RFC 9112 sections 2 to 6).

`scan_request` and `scan_response` look at bytes that may not be whole yet, and hold no state: call them again with all
bytes of the head when more have come. One call takes time linear in the bytes it looks at, at most about 80 KiB.

A usual request line is matched by one regular expression. Clients repeat themselves, so what was read from a block of
field lines is kept and shared by the heads that have the very same block, unless it holds cookies or credentials.

Where it was built, `lbproxy.native._http1` reads the usual heads and leaves the others to the scanners here.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, TypeVar

from lbproxy.native.choice import available
from lbproxy.wire.errors import RemoteProtocolError
from lbproxy.wire.http.desync import (
    GET_HEAD_ZERO_CONTENT_LENGTH,
    NON_COMPLIANT_VERSION,
    UNDEFINED_CONTENT_LENGTH_SEMANTICS,
    UNDEFINED_TRANSFER_ENCODING_SEMANTICS,
)
from lbproxy.wire.http.fields import (
    MAX_FIELD_BYTES,
    MAX_FIELDS,
    MAX_FIELDS_BYTES,
    MAX_RESPONSE_FIELDS,
    MAX_RESPONSE_FIELDS_BYTES,
    MAX_TARGET_BYTES,
    host_of,
    is_token,
)
from lbproxy.wire.http.message import RequestFields, ResponseFields
from lbproxy.wire.http1.lines import CRLF, Limits, check_octets, check_partial, read_fields

MAX_REQUEST_LINE_BYTES = MAX_TARGET_BYTES
"""Without its CRLF."""
MAX_RESPONSE_HEAD_BYTES = MAX_RESPONSE_FIELDS_BYTES
"""Status line and fields."""
MAX_EMPTY_LINES = 2
"""Before a request line: old clients end a body with one too many (RFC 9112 section 2.2)."""

_REQUEST_LIMITS = Limits(MAX_FIELDS_BYTES, MAX_FIELDS, MAX_FIELD_BYTES)
_RESPONSE_LIMITS = Limits(MAX_RESPONSE_HEAD_BYTES, MAX_RESPONSE_FIELDS, MAX_RESPONSE_HEAD_BYTES)

_MAX_REMEMBERED = 512
"""Blocks of each kind. All are forgotten when one more comes, which costs less than to know the oldest."""
_MAX_REMEMBERED_BYTES = 2048
_MAX_REMEMBERED_FIELDS = 40
"""Of one block: it takes up to 14 KB with what was read from it, so all together stay below 8 MB for each kind."""

_Fields = TypeVar("_Fields", RequestFields, ResponseFields)

_request_blocks: dict[bytes, RequestFields] = {}
_response_blocks: dict[bytes, ResponseFields] = {}

_USUAL_REQUEST_LINE = re.compile(
    rb"(?!CONNECT |TRACE )([!#$%&'*+\-.^_`|~0-9A-Za-z]+) "
    rb"((/[\x21\x22\x24-\x3e\x40-\x7e]*)(?:\?([\x21\x22\x24-\x7e]*))?) "
    rb"(HTTP/1\.[0-9])\r\n"
).match
"""Method, origin-form target, its path and query, version."""

_LINE_OCTETS = bytes(range(0x20, 0x7F))
_TARGET = re.compile(rb"[\x21\x22\x24-\x7e]+").fullmatch
_ODD_PATH = re.compile(rb"%|\\|/[/.]").search
"""What a path has that a target could normalise."""
_ABSOLUTE_FORM = re.compile(rb"[Hh][Tt][Tt][Pp][Ss]?://([^/?]*)([^?]*)(?:\?(.*))?").fullmatch
_VERSION = re.compile(rb"HTTP/([0-9])\.[0-9]").fullmatch
_STATUS_LINE = re.compile(rb"HTTP/1\.([0-9]) ([1-5][0-9][0-9])(?: ([\t\x20-\x7e\x80-\xff]*))?\r\n").match


class RequestHead:
    """A request's head, read and ready to be sent on."""

    __slots__ = (
        "_fields",
        "authority",
        "chunked",
        "content_length",
        "desync",
        "end",
        "expect_continue",
        "forwarded",
        "host",
        "keep_alive",
        "method",
        "minor",
        "odd_names",
        "odd_path",
        "path",
        "query",
        "referer",
        "target",
        "te_trailers",
        "trace_id",
        "upgrade",
        "user_agent",
        "version",
        "x_forwarded_for",
    )

    end: int
    """Index in the scanned bytes just after the head."""
    method: bytes
    target: bytes
    """As it is sent on: path and query (origin-form), or ``*``."""
    path: bytes
    query: bytes
    """Without the question mark."""
    version: bytes
    """As received, for the log."""
    minor: int
    """0, or 1 for HTTP/1.1 and whatever 1.x may follow."""
    authority: bytes
    """Host as it is sent on, an absolute-form target's before the field's; ``b""`` without either."""
    host: bytes
    """The authority in lower case and without port; an IPv6 address keeps its brackets."""
    content_length: int
    """-1 when the request has none."""
    chunked: bool
    keep_alive: bool
    """Whether the client wants to go on with this connection."""
    expect_continue: bool
    """The request has an expectation, as a rule that of a 100 (Continue) before the client sends the body."""
    upgrade: bytes
    """``b"websocket"`` for a request to become one, else ``b""``. No other protocol is passed on."""
    te_trailers: bool
    """The client says that it takes trailers."""
    forwarded: bytes
    """Field lines to send on as they are. Host, framing, hop-by-hop fields and what the balancer sets are not in it."""
    x_forwarded_for: bytes | None
    """All X-Forwarded-For lines in one."""
    trace_id: bytes | None
    """The first X-Amzn-Trace-Id."""
    user_agent: bytes
    referer: bytes
    desync: int
    """What is doubtful about it: a number of `wire.http.desync`."""
    odd_names: bool
    """A field's name has something else than letters, digits and hyphens."""
    odd_path: bool
    """The path has something that could be normalised: see `wire.http.path`."""
    _fields: RequestFields

    @property
    def has_body(self) -> bool:
        """Whether content follows."""
        return self.chunked or self.content_length > 0

    def field_values(self, name: bytes) -> list[bytes]:
        """The values of all fields received with this name (in lower case), in order."""
        return self._fields.values(name)


class ResponseHead:
    """A response's head, read and ready to be sent on."""

    __slots__ = (
        "_fields",
        "chunked",
        "content_length",
        "end",
        "forwarded",
        "has_date",
        "keep_alive",
        "minor",
        "reason",
        "status",
        "upgrade",
    )

    end: int
    """Index in the scanned bytes just after the head."""
    status: int
    reason: bytes
    minor: int
    """0, or 1 for HTTP/1.1 and whatever 1.x may follow."""
    content_length: int
    """-1 when the response has none. It frames the body only where `response_has_body` says that there is one."""
    chunked: bool
    keep_alive: bool
    """Whether the target wants to go on. A body that ends with the connection is the caller's to see:
    `response_has_body`, not chunked and no length."""
    upgrade: bytes
    """The protocol that a 101 switches to, in lower case; ``b""`` with every other status."""
    forwarded: bytes
    """Field lines to send on as they are. Framing and hop-by-hop fields are not in it."""
    has_date: bool
    _fields: ResponseFields

    def field_values(self, name: bytes) -> list[bytes]:
        """The values of all fields received with this name (in lower case), in order."""
        return self._fields.values(name)


if not TYPE_CHECKING and available:
    from lbproxy.native._http1 import RequestHead, ResponseHead


def scan_request(data: bytes, start: int = 0) -> RequestHead | None:
    """Read a request's head from ``data[start:]``; ``None`` as long as it is not whole.

    Raises `RemoteProtocolError` as soon as it can no longer become a head that we accept.
    """
    # 1. the request line
    authority = None
    line = _USUAL_REQUEST_LINE(data, start, start + MAX_REQUEST_LINE_BYTES + 2)
    if line is not None:
        method, target, path, query, version = line.groups(b"")
        fields_start = line.end()
    else:
        unusual = _read_request_line(data, start)
        if unusual is None:
            return None
        method, target, path, query, version, authority, fields_start = unusual

    # 2. the field lines; the search starts at the request line's end, for there may be none
    end = data.find(b"\r\n\r\n", fields_start - 2)
    if end < 0:
        check_partial(data[fields_start:], _REQUEST_LIMITS)
        return None
    block = data[fields_start : end + 2]
    fields = _request_blocks.get(block)
    if fields is None:
        fields = RequestFields(read_fields(block, _REQUEST_LIMITS))
        _remember(_request_blocks, block, fields)

    # 3. what both say together
    head = RequestHead()
    head.end = end + 4
    head.method = method
    head.target = target
    head.path = path
    head.query = query
    head.version = version
    head.content_length = fields.content_length
    head.chunked = fields.chunked
    head.te_trailers = fields.te_trailers
    head.x_forwarded_for = fields.x_forwarded_for
    head.trace_id = fields.trace_id
    head.user_agent = fields.user_agent
    head.referer = fields.referer
    head.odd_names = fields.odd_names
    head.odd_path = _ODD_PATH(path) is not None
    head.desync = max(fields.desync, _doubt(method, version, fields))
    head._fields = fields
    if authority is None:
        head.authority = fields.authority
        head.host = fields.host
    else:
        # RFC 9112 section 3.2.2: the target's authority replaces the field's
        head.authority = authority
        head.host = host_of(authority)
    if version != b"HTTP/1.0":
        if not fields.host_seen:
            raise RemoteProtocolError("no host field", reason="BadHost")
        head.minor = 1
        head.forwarded = fields.forwarded
        head.keep_alive = b"close" not in fields.options
        head.expect_continue = fields.expect_continue
        if fields.upgrade_websocket and method == b"GET" and not head.has_body:
            head.upgrade = b"websocket"
        else:
            head.upgrade = b""
    else:
        if fields.chunked:
            # RFC 9112 section 6.1: a sender of HTTP/1.0 does not know it, so the framing is faulty
            raise RemoteProtocolError("transfer-encoding in HTTP/1.0", reason="UndefinedTransferEncodingSemantics")
        head.minor = 0
        head.forwarded = fields.forwarded_without_expect() if fields.expect_continue else fields.forwarded
        head.keep_alive = b"keep-alive" in fields.options and b"close" not in fields.options
        head.expect_continue = False
        head.upgrade = b""
    return head


def _doubt(method: bytes, version: bytes, fields: RequestFields) -> int:
    """What is doubtful about a request line, together with the framing."""
    if method in (b"GET", b"HEAD"):
        if fields.chunked:
            return UNDEFINED_TRANSFER_ENCODING_SEMANTICS
        if fields.content_length > 0:
            return UNDEFINED_CONTENT_LENGTH_SEMANTICS
    if version not in (b"HTTP/1.1", b"HTTP/1.0"):
        return NON_COMPLIANT_VERSION
    if fields.content_length == 0 and method in (b"GET", b"HEAD"):
        return GET_HEAD_ZERO_CONTENT_LENGTH
    return 0


def _remember(blocks: dict[bytes, _Fields], block: bytes, fields: _Fields) -> None:
    """Keep what was read from a block, if it is small and holds no secret that we know of."""
    if (
        len(block) <= _MAX_REMEMBERED_BYTES
        and len(fields.received) <= _MAX_REMEMBERED_FIELDS
        and not fields.confidential
    ):
        if len(blocks) >= _MAX_REMEMBERED:
            blocks.clear()
        blocks[block] = fields


_RequestLine = tuple[bytes, bytes, bytes, bytes, bytes, "bytes | None", int]
"""Method, target, path, query, version, the target's authority if it has one, index after the line."""


def _read_request_line(data: bytes, start: int) -> _RequestLine | None:
    """Read a request line that is not of the usual form, or say what is wrong with it (RFC 9112 section 3)."""
    for _ in range(MAX_EMPTY_LINES):
        if data.startswith(CRLF, start):
            start += 2
    end = data.find(CRLF, start, start + MAX_REQUEST_LINE_BYTES + 2)
    if end < 0:
        partial = data[start : start + MAX_REQUEST_LINE_BYTES + 2]
        _check_line_octets(partial.removesuffix(b"\r"))
        if len(partial) > MAX_REQUEST_LINE_BYTES + partial.endswith(b"\r"):
            raise RemoteProtocolError(
                f"a request line of more than {MAX_REQUEST_LINE_BYTES} bytes", reason="UriTooLong", status=414
            )
        return None

    line = data[start:end]
    _check_line_octets(line)
    method, *middle = line.split(b" ")
    if not is_token(method):
        raise RemoteProtocolError(f"method {method[:40]!r}", reason="BadMethod")
    if not middle:
        raise RemoteProtocolError("no request target", reason="BadUri")
    version = middle.pop()
    match = _VERSION(version)
    if match is None:
        raise RemoteProtocolError(f"version {version[:40]!r}", reason="BadVersion")
    if match[1] != b"1":
        raise RemoteProtocolError(f"version {version!r}", reason="BadVersion", status=505)
    target = b" ".join(middle)
    if method in (b"CONNECT", b"TRACE"):
        raise RemoteProtocolError(f"method {method!r}", reason="MethodNotAllowed", status=405)
    if not _TARGET(target):
        reason = "SpaceInUri" if b" " in target.strip() else "BadUri"
        raise RemoteProtocolError(f"request target {target[:80]!r}", reason=reason)
    target, path, query, authority = _read_target(method, target)
    return method, target, path, query, version, authority, end + 2


def _check_line_octets(line: bytes) -> None:
    """Refuse an octet that no request line holds; the reason names the part where it stands."""
    residue = line.translate(None, _LINE_OCTETS)
    if not residue:
        return
    octet = residue[:1]
    before = line[: line.index(octet)]
    if octet in b"\r\n":
        reason = "BadLineEnding"
    else:
        part = min(before.count(b" "), 2)
        reason = ("BadMethod", "BadUri" if octet == b"\0" else "AmbiguousUri", "BadVersion")[part]
    raise RemoteProtocolError(f"octet {octet!r} after {before[-20:]!r}", reason=reason)


def _read_target(method: bytes, target: bytes) -> tuple[bytes, bytes, bytes, bytes | None]:
    """The target as it is sent on, its path, query and authority (RFC 9112 section 3.2)."""
    if target.startswith(b"/"):
        path, _, query = target.partition(b"?")
        return target, path, query, None
    if target == b"*" and method == b"OPTIONS":
        return target, target, b"", None
    match = _ABSOLUTE_FORM(target)
    if match is None:
        raise RemoteProtocolError(f"request target {target[:80]!r}", reason="BadUri")
    authority, path, query = match[1], match[2], match[3]
    if not authority or b"@" in authority:
        raise RemoteProtocolError(f"authority {authority[:80]!r} in the request target", reason="BadUri")
    if not path and query is None and method == b"OPTIONS":
        # RFC 9112 section 3.2.4: the last proxy turns it into the asterisk form
        return b"*", b"*", b"", authority
    path = path or b"/"
    if query is None:
        return path, path, b"", authority
    return path + b"?" + query, path, query, authority


def scan_response(data: bytes, start: int = 0) -> ResponseHead | None:
    """Read a response's head from ``data[start:]``; ``None`` as long as it is not whole.

    Raises `RemoteProtocolError` (status 502) as soon as it can no longer become a head that we accept.
    """
    try:
        return _scan_response(data, start)
    except RemoteProtocolError as error:
        error.status = 502
        raise


def _scan_response(data: bytes, start: int) -> ResponseHead | None:
    line = _STATUS_LINE(data, start, start + MAX_RESPONSE_HEAD_BYTES)
    if line is None:
        _check_status_line(data, start)
        return None
    minor, status_text, reason = line.groups(b"")
    fields_start = line.end()
    end = data.find(b"\r\n\r\n", fields_start - 2)
    if end < 0:
        check_partial(data[fields_start:], _RESPONSE_LIMITS)
    if (end + 4 if end >= 0 else len(data) + 1) - start > MAX_RESPONSE_HEAD_BYTES:
        raise RemoteProtocolError(f"a head of more than {MAX_RESPONSE_HEAD_BYTES} bytes", reason="HeadersTooLarge")
    if end < 0:
        return None
    block = data[fields_start : end + 2]
    fields = _response_blocks.get(block)
    if fields is None:
        fields = ResponseFields(read_fields(block, _RESPONSE_LIMITS))
        _remember(_response_blocks, block, fields)

    head = ResponseHead()
    head.end = end + 4
    head.status = status = int(status_text)
    head.reason = reason
    head.content_length = fields.content_length
    head.chunked = fields.chunked
    head.forwarded = fields.forwarded
    head.has_date = fields.has_date
    head.upgrade = b""
    head._fields = fields
    if minor != b"0":
        head.minor = 1
        head.keep_alive = b"close" not in fields.options
    else:
        if fields.chunked:
            raise RemoteProtocolError("transfer-encoding in HTTP/1.0", reason="BadTransferEncoding")
        head.minor = 0
        head.keep_alive = b"keep-alive" in fields.options and b"close" not in fields.options
    if status < 200 or status == 204:
        _settle_bodiless(head)
    return head


def _settle_bodiless(head: ResponseHead) -> None:
    """A 1xx or 204 has no body, whatever its fields say (RFC 9112 section 6.3).

    A target that announces one may send it, so its connection is not used again; a 1xx that does is refused, for what
    follows it could be taken for the final response.
    """
    announced = head.chunked or head.content_length > 0
    if announced and head.status < 200:
        raise RemoteProtocolError(f"a {head.status} that announces a body", reason="BadHeader")
    head.keep_alive = head.keep_alive and not announced
    head.chunked = False
    head.content_length = -1
    if head.status == 101 and b"upgrade" in head._fields.options:
        head.upgrade = head._fields.upgrade


def _check_status_line(data: bytes, start: int) -> None:
    """Refuse what is not the beginning of a status line (RFC 9112 section 4)."""
    end = data.find(CRLF, start, start + MAX_RESPONSE_HEAD_BYTES)
    line = data[start : end if end >= 0 else start + MAX_RESPONSE_HEAD_BYTES]
    check_octets(line + CRLF if end >= 0 else line)
    if not line.startswith(b"HTTP/1." if end >= 0 else b"HTTP/1."[: len(line)]):
        raise RemoteProtocolError(f"version {line[:20]!r}", reason="BadVersion")
    if end >= 0 or len(line) >= MAX_RESPONSE_HEAD_BYTES:
        raise RemoteProtocolError(f"status line {line[:40]!r}", reason="BadStatusLine")


pure_scan_request = scan_request
pure_scan_response = scan_response
"""The scanners of this module, whichever are in use."""

if not TYPE_CHECKING and available:
    from lbproxy.native._http1 import fall_back_to, scan_request, scan_response

    fall_back_to(pure_scan_request, pure_scan_response)
