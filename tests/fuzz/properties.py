"""What must hold for any bytes, one function for each codec; used by the corpus and by the coverage-guided runs.

Each takes bytes and raises whatever is not allowed. Where the compiled head scanner was built it is compared with the
pure one also under ``LBPROXY_NATIVE=off``, in which the coverage of the pure one can be seen.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from typing import Any

from lbproxy.native.choice import available
from lbproxy.wire.errors import RemoteProtocolError
from lbproxy.wire.http.path import normalize_path
from lbproxy.wire.http1 import head
from lbproxy.wire.http1.body import ChunkedReader, encode_chunk, last_chunk
from lbproxy.wire.http1.head import pure_scan_request, pure_scan_response
from lbproxy.wire.http2.connection import Connection
from lbproxy.wire.http2.errors import ConnectionFault
from lbproxy.wire.http2.hpack import Decoder
from lbproxy.wire.proxyprotocol import ProxyHeaderReader

compiled: Any = None
if available:
    compiled = head
else:
    with contextlib.suppress(ImportError):
        from lbproxy.native import _http1

        compiled = _http1
        compiled.fall_back_to(lambda data, start: None, lambda data, start: None)  # it cannot return the pure heads

_REQUEST = [
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
_RESPONSE = [
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
    whole = told(pure_scan_request, data, _REQUEST)
    _compare(whole, "scan_request", data, _REQUEST)
    _early_like_late(pure_scan_request, data, _REQUEST, whole)
    if isinstance(whole, tuple):
        assert whole[2] in _STATUSES
    if not isinstance(whole, dict):
        return
    block = b"GET %b HTTP/1.1\r\nHost: %b\r\n%b\r\n" % (whole["target"], whole["authority"], whole["forwarded"])
    if whole["target"] == b"*":
        block = b"OPTIONS" + block[3:]
    again = told(pure_scan_request, block, _REQUEST)
    assert isinstance(again, dict), again
    for name in ("target", "forwarded", "authority"):
        assert again[name] == whole[name]
    assert (again["content_length"], again["chunked"], again["upgrade"]) == (-1, False, b"")


def response(data: bytes) -> None:
    """Both scanners say the same, early and late."""
    whole = told(pure_scan_response, data, _RESPONSE)
    _compare(whole, "scan_response", data, _RESPONSE)
    _early_like_late(pure_scan_response, data, _RESPONSE, whole)
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
    whole = _read_body([data])
    for parts in splits(data[:512]):
        if len(data) <= 512:
            assert _read_body(parts) == whole
    if whole is not None and whole[3]:
        payload, trailers, _, _ = whole
        assert _read_body([encode_chunk(payload) + last_chunk(trailers)]) == (payload, trailers, b"", True)


def _read_body(parts: list[bytes]) -> tuple[bytes, bytes, bytes, bool] | None:
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


def proxyprotocol(data: bytes) -> None:
    """Any split is read alike, or refused with what is foreseen."""
    whole = _read_proxy_header([data])
    for parts in splits(data[:300]):
        if len(data) <= 300:
            assert _read_proxy_header(parts) == whole


def _read_proxy_header(parts: list[bytes]) -> object:
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
        return "refused"
    return header, rest


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
    "proxyprotocol": proxyprotocol,
    "path": path,
    "hpack": hpack,
    "http2": http2,
}
