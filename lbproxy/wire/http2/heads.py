"""From the fields of HTTP/2 to the heads that the rest of the proxy knows (RFC 9113 section 8).

What only HTTP/2 has is checked here: pseudo-header fields, names in lower case, fields that speak of one connection.
Then the head is written down as HTTP/1.1 has it and read by its scanner, so that all other rules (methods, targets,
hosts, lengths, limits, what is sent on and what is not) are the same ones, in one place, and a request that came over
HTTP/2 means to a target of HTTP/1.1 what we took it for.
"""

from __future__ import annotations

from lbproxy.wire.errors import RemoteProtocolError
from lbproxy.wire.http.desync import UNDEFINED_TRANSFER_ENCODING_SEMANTICS
from lbproxy.wire.http.fields import MAX_TRAILERS, MAX_TRAILERS_BYTES, check_trailer
from lbproxy.wire.http1.codec import codec
from lbproxy.wire.http1.head import RequestHead, ResponseHead
from lbproxy.wire.http2.errors import PROTOCOL_ERROR, StreamFault
from lbproxy.wire.http2.fieldline import (
    AUTHORITY,
    COOKIE,
    HOST,
    LAST_PSEUDO,
    METHOD,
    ORDINARY,
    PATH,
    PROTOCOL,
    SCHEME,
    STATUS,
    TE,
    FieldLine,
)

_CODEC = codec
_VERSION = b"HTTP/2.0"


def request_head(fields: list[FieldLine], ended: bool) -> RequestHead:
    """The head of a request; ``ended`` when no content follows.

    Raises `StreamFault` for what is malformed as HTTP/2, `RemoteProtocolError` with the status to answer
    with for what no version of HTTP takes.
    """
    method = path = scheme = authority = protocol = host = None
    te = False
    cookies: list[bytes] | None = None
    lines: list[bytes] = []
    regular = False
    for field in fields:
        meaning = field.meaning
        if meaning == ORDINARY:
            regular = True
            lines.append(field.line)
        elif meaning <= LAST_PSEUDO:
            # section 8.3: before all others, each once
            if regular:
                raise _malformed(b"%b after a regular field" % field.name)
            if meaning == METHOD and method is None:
                method = field.value
            elif meaning == PATH and path is None:
                path = field.value
            elif meaning == SCHEME and scheme is None:
                scheme = field.value
            elif meaning == AUTHORITY and authority is None:
                authority = field.value
            elif meaning == PROTOCOL and protocol is None:
                protocol = field.value
            else:
                raise _malformed(field.name)
        else:
            regular = True
            if meaning == COOKIE:
                if cookies is None:
                    cookies = [field.value]
                else:
                    cookies.append(field.value)
            elif meaning == HOST and host is None:
                host = field.value
            elif meaning == TE and field.value == b"trailers":
                te = True
            else:
                raise _malformed(field.name + b": " + field.value[:40])

    if method is None:
        raise _malformed(b"no :method")
    websocket = False
    if method == b"CONNECT" and protocol is not None:
        # RFC 8441 section 4: a tunnel to something that HTTP/1.1 asks for with GET
        if protocol != b"websocket":
            raise RemoteProtocolError(f":protocol {protocol[:40]!r}", reason="BadProtocol", status=501)
        websocket = True
        method = b"GET"
    elif protocol is not None:
        raise _malformed(b":protocol without CONNECT")
    elif method == b"CONNECT":
        if path is not None or scheme is not None or authority is None:
            raise _malformed(b"CONNECT with :path or :scheme, or without :authority")
        raise RemoteProtocolError("method CONNECT", reason="MethodNotAllowed", status=405)
    if path is None or scheme is None:
        raise _malformed(b"no :path or no :scheme")
    if scheme != b"http" and scheme != b"https":
        raise _malformed(b":scheme " + scheme[:40])
    if not path.startswith(b"/") and not (path == b"*" and method == b"OPTIONS"):
        raise _malformed(b":path " + path[:80])
    if authority is None:
        authority = host
    elif host is not None and host.lower() != authority.lower():
        raise _malformed(b"host differs from :authority")
    if not authority:
        raise _malformed(b"no authority")

    pieces = [method, b" ", path, b" HTTP/1.1\r\nhost: ", authority, b"\r\n"]
    pieces += lines
    if cookies is not None:
        # section 8.2.3: what was split for compression's sake is one field again
        pieces += (b"cookie: ", b"; ".join(cookies), b"\r\n")
    pieces.append(b"\r\n")
    head: RequestHead | None = _CODEC.scan_request(b"".join(pieces), 0)
    if head is None:
        raise _malformed(b"the head does not end")
    head.version = _VERSION
    head.te_trailers = te
    if websocket:
        head.upgrade = b"websocket"
        if head.content_length >= 0:
            raise _malformed(b"content-length of a tunnel")
    elif ended:
        if head.content_length > 0:
            raise _malformed(b"content-length without content")
    elif head.content_length < 0:
        head.chunked = True
        if method == b"GET" or method == b"HEAD":
            head.desync = max(head.desync, UNDEFINED_TRANSFER_ENCODING_SEMANTICS)
    return head


def response_head(fields: list[FieldLine]) -> ResponseHead:
    """The head of a response; its ``keep_alive`` is true and ``chunked`` false, for the frames say where it ends."""
    status = None
    lines: list[bytes] = []
    regular = False
    for field in fields:
        meaning = field.meaning
        if meaning == ORDINARY:
            regular = True
            lines.append(field.line)
        elif meaning in (COOKIE, HOST):  # of no meaning here
            regular = True
            lines.append(b"%b: %b\r\n" % (field.name, field.value))
        elif meaning == STATUS and status is None and not regular:
            status = field.value
        else:
            raise _malformed(field.name + b": " + field.value[:40])
    if status is None or len(status) != 3 or not status.isdigit() or status == b"101":
        # section 8.6: there is no 101
        raise _malformed(b"no valid :status")
    pieces = [b"HTTP/1.1 ", status, b" \r\n", *lines, b"\r\n"]
    head: ResponseHead | None = _CODEC.scan_response(b"".join(pieces), 0)
    if head is None:
        raise _malformed(b"the head does not end")
    return head


def trailer_lines(fields: list[FieldLine]) -> bytes:
    """The fields of a trailer section, ready to be sent on (section 8.1)."""
    lines: list[bytes] = []
    size = 0
    for field in fields:
        if field.meaning != ORDINARY:
            raise _malformed(field.name + b" in the trailers")
        check_trailer(field.name)
        size += len(field.line)
        lines.append(field.line)
    if size > MAX_TRAILERS_BYTES or len(lines) > MAX_TRAILERS:
        raise RemoteProtocolError(f"{len(lines)} trailers of {size} bytes", reason="HeadersTooLarge")
    return b"".join(lines)


def _malformed(what: bytes) -> StreamFault:
    """Section 8.1.1."""
    return StreamFault(f"malformed: {what.decode('latin-1')}", PROTOCOL_ERROR, "BadHeader")
