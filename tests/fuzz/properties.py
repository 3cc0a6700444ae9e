"""What must hold for any bytes, one function for each codec; used by the corpus and by the coverage-guided runs.

Each takes bytes and raises whatever is not allowed. Where the compiled head scanner was built it is compared with the
pure one also under ``LBPROXY_NATIVE=off``, in which the coverage of the pure one can be seen.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterator
from typing import Any

from lbproxy.native.choice import available
from lbproxy.telemetry import formats
from lbproxy.telemetry.formats import FORMATS, pure_http_json, pure_tcp_json
from lbproxy.telemetry.records import HttpRecord, TcpRecord
from lbproxy.wire.errors import RemoteProtocolError
from lbproxy.wire.http.path import normalize_path
from lbproxy.wire.http1 import head
from lbproxy.wire.http1.body import encode_chunk, last_chunk
from lbproxy.wire.http1.codec import CHUNKED, NO_BODY, PureCodec
from lbproxy.wire.http1.head import pure_scan_request, pure_scan_response
from lbproxy.wire.http2.connection import Connection
from lbproxy.wire.http2.errors import ConnectionFault
from lbproxy.wire.http2.hpack import Decoder
from lbproxy.wire.proxyprotocol import ProxyHeader, ProxyHeaderReader, encode_v1, encode_v2
from lbproxy.wire.websocket import FrameTracker
from tests.wire.http1.reading import REQUEST_ATTRIBUTES, RESPONSE_ATTRIBUTES, read_body

compiled: Any = None
compiled_codec: Any = None
compiled_lines: Any = None
if available:
    from lbproxy.native._http1 import Codec as compiled_codec

    compiled, compiled_lines = head, formats  # the latter go with compiled records only
else:
    with contextlib.suppress(ImportError):
        from lbproxy.native import _http1

        compiled, compiled_codec = _http1, _http1.Codec
        compiled.fall_back_to(lambda data, start: None, lambda data, start: None)  # it cannot return the pure heads

_STATUSES = (400, 405, 414, 501, 505)

Scan = Callable[[bytes], Any]


def told(scan: Scan, data: bytes, attributes: list[str]) -> object:
    """What a scanner says: its head's attributes, why it refuses, or None."""
    try:
        found = scan(data)
    except RemoteProtocolError as error:
        return str(error), error.reason, error.status
    if found is None:
        return None
    return {name: getattr(found, name) for name in attributes}


def splits(data: bytes) -> Iterator[list[bytes]]:
    """Octet by octet, and in two halves."""
    yield [data[at : at + 1] for at in range(len(data))]
    yield [data[: len(data) // 2], data[len(data) // 2 :]]


def request(data: bytes) -> None:
    """Both scanners say the same, early and late; what is sent on is read back as it is."""
    whole = told(pure_scan_request, data, REQUEST_ATTRIBUTES)
    _compare(whole, "scan_request", data, REQUEST_ATTRIBUTES)
    _early_like_late(pure_scan_request, data, REQUEST_ATTRIBUTES, whole)
    if isinstance(whole, tuple):
        assert whole[2] in _STATUSES
    if not isinstance(whole, dict):
        return
    block = b"GET %b HTTP/1.1\r\nHost: %b\r\n%b\r\n" % (whole["target"], whole["authority"], whole["forwarded"])
    if whole["target"] == b"*":
        block = b"OPTIONS" + block[3:]
    again = told(pure_scan_request, block, REQUEST_ATTRIBUTES)
    assert isinstance(again, dict), again
    for name in ("target", "forwarded", "authority"):
        assert again[name] == whole[name]
    assert (again["content_length"], again["chunked"], again["upgrade"]) == (-1, False, b"")


def response(data: bytes) -> None:
    """Both scanners say the same, early and late."""
    whole = told(pure_scan_response, data, RESPONSE_ATTRIBUTES)
    _compare(whole, "scan_response", data, RESPONSE_ATTRIBUTES)
    _early_like_late(pure_scan_response, data, RESPONSE_ATTRIBUTES, whole)
    assert not isinstance(whole, tuple) or whole[2] == 502


def _compare(whole: object, scan: str, data: bytes, attributes: list[str]) -> None:
    """The compiled scanner says the same, or (without the pure one behind it) leaves the question to that."""
    if compiled is not None:
        other = told(getattr(compiled, scan), data, attributes)
        assert other == whole or (other is None and not available)


def _early_like_late(scan: Scan, data: bytes, attributes: list[str], whole: object) -> None:
    """Once a beginning is accepted or refused, so is what begins with it."""
    for end in {len(data) // 3, len(data) // 2, len(data) - 1} - {-1}:
        early = told(scan, data[:end], attributes)
        if isinstance(early, dict):
            assert early == whole
        elif early is not None:
            assert isinstance(whole, tuple)


def chunked(data: bytes) -> None:
    """Any split is read alike, and what is read can be written."""
    whole = read_body([data])
    for parts in splits(data[:512]):
        if len(data) <= 512:
            assert read_body(parts) == whole
    if whole is not None and whole[3]:
        payload, trailers, _, _ = whole
        assert read_body([encode_chunk(payload) + last_chunk(trailers)]) == (payload, trailers, b"", True)


def written(data: bytes) -> None:
    """Both codecs write the same heads, of whatever; the pieces go in as they are."""
    if compiled_codec is None:
        return
    pieces = [*data.split(b"\n", 6), *[b""] * 6][:7]
    assert compiled_codec().request_block(*pieces) == PureCodec().request_block(*pieces)
    first, size, content = pieces[0], len(data), pieces[1]
    for framing in (NO_BODY, CHUNKED, 0, size, size * 10**9):
        response = (100 + size % 500, first, content, framing, size % 3, pieces[2])
        assert compiled_codec().response(*response) == PureCodec().response(*response)


def proxyprotocol(data: bytes) -> None:
    """Any split is read alike, or refused with what is foreseen; what is read can be written."""
    whole = _read_proxy_header([data])
    for parts in splits(data[:300]):
        if len(data) <= 300:
            assert _read_proxy_header(parts) == whole
    header = whole[0]
    if header is not None and header.source is not None and header.destination is not None:
        for encode in (encode_v1, encode_v2):
            again, rest = _read_proxy_header([encode(header.source, header.destination) + b"x"])
            assert again is not None
            assert (again.source, again.destination, rest) == (header.source, header.destination, b"x")


def _read_proxy_header(parts: list[bytes]) -> tuple[ProxyHeader | None, bytes | str]:
    reader = ProxyHeaderReader()
    header = None
    rest = b""
    try:
        for part in parts:
            if header is not None:
                rest += part
            else:
                header = reader.receive_data(part)
                rest = reader.rest if header is not None else b""
    except RemoteProtocolError:
        return None, "refused"
    return header, rest


def websocket(data: bytes) -> None:
    """Any split is followed alike, and the ends of frames are found where a walk over all of them finds them."""
    whole = _follow([data])
    for parts in splits(data[:500]):
        if len(data) <= 500:
            assert _follow(parts) == whole
    assert whole == _frames(data)


def _follow(parts: list[bytes]) -> tuple[bool, bool]:
    tracker = FrameTracker()
    for part in parts:
        tracker.receive_data(part)
    return tracker.between_frames, tracker.closed


def _frames(data: bytes) -> tuple[bool, bool]:
    """Whether these are whole frames (RFC 6455 section 5.2), and whether the head of a close frame is among them."""
    closed = False
    while len(data) >= 2:
        size, head = data[1] & 0x7F, 2
        if size > 125:
            head += 2 if size == 126 else 8
            size = int.from_bytes(data[2:head], "big")
        head += 4 if data[1] & 0x80 else 0
        if len(data) < head:
            break
        closed = closed or data[0] & 0x0F == 8
        if len(data) < head + size:
            break
        data = data[head + size :]
    return not data, closed


def logline(data: bytes) -> None:
    """Whatever a client sends makes one line with the same fields, and both formatters write the same."""
    texts = [*data.split(b"\xff", 9), *[b""] * 9][:10]
    record, connection = _records(texts)
    usual = _records([b"x"] * 10)
    for form in FORMATS.values():
        for line, other in (
            (form.http(record), form.http(usual[0])),
            (form.tcp(connection), form.tcp(usual[1])),
        ):
            assert line[:-1].isascii()
            assert line[:-1].isprintable()
            assert line[-1] == "\n"
            if form is not FORMATS["json"]:
                assert len(_WORDS.findall(line)) == len(_WORDS.findall(other))
    told = json.loads(pure_http_json(record))
    assert {*told} - {"transformed_uri", "transformed_host"} == {*json.loads(pure_http_json(_records([b""] * 10)[0]))}
    names = ("method", "host", "request_target", "version", "user_agent", "referer")
    for name, text in zip(names, texts, strict=False):
        assert told[name] == text.decode("utf-8", "backslashreplace")
    if compiled_lines is not None:
        assert compiled_lines.http_json(record) == pure_http_json(record)
        assert compiled_lines.tcp_json(connection) == pure_tcp_json(connection)


_WORDS = re.compile(r'"[^"]*"|[^" ]+')
"""The fields of a line that is not JSON."""


def _records(texts: list[bytes]) -> tuple[HttpRecord, TcpRecord]:
    record = HttpRecord()
    record.kind = record.scheme = "http"
    record.client_host, record.client_port, record.started, record.listener = "192.0.2.7", 40000, 1.5, "web"
    record.method, record.authority, record.request_target, record.version = texts[:4]
    record.user_agent, record.referer, record.trace_id, record.transformed_uri = texts[4:8]
    record.server_name, record.error_reason = (text.decode("latin-1") for text in texts[8:])
    connection = TcpRecord("web", "192.0.2.7", 40000, 1.5)
    connection.server_name, connection.error_reason = record.server_name, record.error_reason
    return record, connection


def path(data: bytes) -> None:
    """What is normal stays so and hides no dot segment."""
    received = b"/" + bytes(octet for octet in data if 0x21 <= octet <= 0x7E and octet not in b"#?")
    try:
        once = normalize_path(received, strict=False)
    except RemoteProtocolError:
        return
    assert normalize_path(once, strict=False) == once
    assert not re.search(rb"/\.\.?(?:/|;|\Z)", re.sub(rb"\\|%2[fF]|%5[cC]", b"/", once))


def hpack(data: bytes) -> None:
    """Blocks are read or refused; the table stays in its bounds."""
    decoder = Decoder()
    try:
        for block in data.split(b"\xff\xff\xff"):
            decoder.decode(block)
    except ConnectionFault:
        pass


def http2(data: bytes) -> None:
    """Both ends take what comes, in whatever pieces, or refuse it; what they answer stays in proportion."""
    for client, start in (
        (False, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0"),
        (True, b"\0\0\0\4\0\0\0\0\0"),
    ):
        for parts in ([start + data], [start, *splits(data[:200]).__next__()]):
            connection = Connection(client)
            if client:
                connection.send_request(b"GET", b"https", b"a", b"/", b"", -1, True)
            sent = 0
            with contextlib.suppress(RemoteProtocolError):
                for number, part in enumerate(parts):
                    connection.receive_data(part, float(number))
                    sent += len(connection.data_to_send())
            assert sent < 1000 + 20 * len(data)


PROPERTIES: dict[str, Callable[[bytes], None]] = {
    "request": request,
    "response": response,
    "chunked": chunked,
    "written": written,
    "proxyprotocol": proxyprotocol,
    "websocket": websocket,
    "logline": logline,
    "path": path,
    "hpack": hpack,
    "http2": http2,
}
