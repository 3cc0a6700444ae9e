"""The compiled head scanner and the pure one say the same of everything."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest

from lbproxy.testing.splits import prefixes
from lbproxy.wire.errors import RemoteProtocolError
from lbproxy.wire.http1.head import (
    MAX_REQUEST_LINE_BYTES,
    MAX_RESPONSE_HEAD_BYTES,
    RequestHead,
    ResponseHead,
    pure_scan_request,
    pure_scan_response,
    scan_request,
    scan_response,
)
from tests.wire.http1.cases import (
    ACCEPTED_REQUESTS,
    ACCEPTED_RESPONSES,
    REFUSED_REQUESTS,
    REFUSED_RESPONSES,
    get,
)
from tests.wire.http1.reading import REQUEST_ATTRIBUTES, RESPONSE_ATTRIBUTES

pytestmark = pytest.mark.skipif(scan_request is pure_scan_request, reason="the compiled scanner was not built")

NAMES = (b"host", b"a", b"x", b"cookie", b"content-length", b"connection", b"user-agent", b"")


def told(scan: Callable[[bytes, int], Any], data: bytes, start: int = 0) -> object:
    """All that a scanner says."""
    try:
        head = scan(data, start)
    except RemoteProtocolError as error:
        return str(error), error.reason, error.status
    if head is None:
        return None
    assert isinstance(head, RequestHead | ResponseHead)
    attributes = REQUEST_ATTRIBUTES if isinstance(head, RequestHead) else RESPONSE_ATTRIBUTES
    return {name: getattr(head, name) for name in attributes}, {name: head.field_values(name) for name in NAMES}


def same_request(data: bytes, start: int = 0) -> None:
    assert told(scan_request, data, start) == told(pure_scan_request, data, start), data


def same_response(data: bytes, start: int = 0) -> None:
    assert told(scan_response, data, start) == told(pure_scan_response, data, start), data


USUAL_REQUESTS = [
    get(b"Content-Length: 0\r\n"),
    get(b"Content-Length: 0\r\n", method=b"HEAD"),
    get(b"Content-Length: 0\r\n", version=b"HTTP/1.3"),
    get(b"Content-Length: 1\r\n", version=b"HTTP/1.3"),
    get(b"Content-Length: 1\r\n"),
    get(b"Transfer-Encoding: chunked\r\n", method=b"HEAD"),
    get(b"Transfer-Encoding: chunked\r\n", method=b"HEADS"),
    *[
        b"GET %b HTTP/1.1\r\nHost: a\r\n\r\n" % path
        for path in (
            b"/%2e",
            b"//",
            b"/.",
            b"/a/.b",
            b"/a.b/c",
            b"/a\\",
            b"/?%2e//.\\",
            b"/a?",
            b"/a/",
            b"/a/?.",
            b"/a/?/",
        )
    ],
    get(b""),
    get(b"User-Agent: x y\r\nReferer: http://a/\r\nCookie: a=b\r\nAccept: */*\r\n"),
    get(b"user-agent: a\r\nUSER-AGENT: b\r\nReferer: a\r\nreferer: b\r\n"),
    get(b"Content-Length: 5\r\n", method=b"POST") + b"hello",
    get(b"Content-Length: 999999999999999999\r\n", method=b"PUT"),
    get(b"Transfer-Encoding: Chunked\r\n", method=b"PATCH"),
    get(b"X-Forwarded-For: 192.0.2.1, 192.0.2.2\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Port: 1\r\n"),
    get(b"X-Amzn-Trace-Id: Root=1\r\nProxy-Connection: x\r\nProxy-Authorization: y\r\nKeep-Alive: z\r\nA: 1\r\n"),
    get(b"Connection: close\r\n"),
    get(b"Connection: Keep-Alive\r\nX: 1\r\n", version=b"HTTP/1.0"),
    get(b"Connection: upgrade\r\n"),
    get(b"A: 1\r\nKeep-Alive: 1\r\nB: 2\r\nC: 3\r\nKeep-Alive: 2\r\nD: 4\r\n", version=b"HTTP/1.7"),
    b"HEAD /a/b%20c?d=e?f HTTP/1.1\r\nX: \x7e\t!\r\nHost: A.Example-1:8080\r\n\r\n",
    b"GET /? HTTP/1.1\r\nhOST: a:\r\n\r\n",
    b"GET / HTTP/1.0\r\nA: b\r\n\r\n",
    get(b"Keep-Alive: 1\r\nA: b\r\n" * 30),
    get(b"A: b\r\n" * 199),
]
ODD_REQUESTS = [
    get(b"Content_Length: 1\r\nTransfer--Encoding: chunked\r\nA: b\r\n"),
    get(b"A.B: c\r\nD_E: f\r\n"),
    get(b"Obs: \xe9\r\n"),
    get(b"Obs: \xe9\r\nContent-Length: 1\r\nContent-Length: 01\r\n", version=b"HTTP/1.4"),
    get(b"A: b\r\n" * 200),
    get(b"Connection: close\r\nConnection: keep-alive\r\n"),
    get(b"Connection: a, close\r\nA: b\r\n"),
    get(b"Upgrade: websocket\r\nConnection: Upgrade\r\n"),
    get(b"Expect: 100-continue\r\n"),
    get(b"TE: trailers\r\n"),
    get(b"X-Forwarded-For: a\r\nX-Forwarded-For: b\r\n"),
    get(b"X_Forwarded_For: a\r\nX-Under_Score: b\r\n"),
    get(b"Content-Length: 1000000000000000000\r\n"),
    get(b"Content-Length: +1\r\n"),
    get(b"Content-Length: 1\r\nContent-Length: 1\r\n"),
    get(b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n"),
    get(b"Transfer-Encoding: gzip, chunked\r\n"),
    get(b"Transfer-Encoding: chunked\r\n", version=b"HTTP/1.0"),
    get(b"Host: b\r\n"),
    get(b"Cr: a\rb\r\n"),
    get(b"Nul: a\x00b\r\n"),
    get(b"Space : a\r\n"),
    get(b"Trail: a \r\nLead:  a\r\nNone:a\r\nTab:\ta\r\nEmpty: \r\n"),
    b"GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a:65536\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a:123456\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a:b\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a,b\r\n\r\n",
    b"GET / HTTP/1.1\r\n\r\n",
    b"GET / HTTP/1.1\r\nA: b\r\n\r\n",
    b"GET / HTTP/2.0\r\nHost: a\r\n\r\n",
    b"CONNECT /a HTTP/1.1\r\nHost: a\r\n\r\n",
    b"TRACE / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /#a HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"\x00",
    b"",
]
RESPONSES = [
    b"HTTP/1.1 200 OK\r\nServer: a\r\nDate: b\r\nContent-Length: 128\r\nConnection: keep-alive\r\n\r\n" + b"x" * 9,
    b"HTTP/1.1 404 Not Found\r\n\r\n",
    b"HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\n\r\n",
    b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"HTTP/1.1 304 \xe4\r\nContent-Length: 5\r\nSet-Cookie: a=b\r\nX_Y: 1\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: CHUNKED\r\nProxy-Connection: x\r\nTE: y\r\nKeep-Alive: z\r\n\r\n0\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 1, 1\r\n\r\n",
    b"HTTP/1.1 200\r\nA: b\r\n\r\n",
    b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"HTTP/1.1 101 S\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nConnection: x, close\r\nX: 1\r\n\r\n",
    b"HTTP/1.1 600 No\r\n\r\n",
    b"HTTP/1.1 20x No\r\n\r\n",
    b"HTTP/2 200\r\n\r\n",
    b"HTTP/1.1 200 a\x00\r\n\r\n",
    b"",
]


@pytest.mark.parametrize("data", USUAL_REQUESTS)
def test_usual_requests_are_read_without_the_pure_scanner(data: bytes) -> None:
    assert scan_request(data)._fields is None or data.count(b"Keep-Alive") == 30


@pytest.mark.parametrize(
    "data", [*USUAL_REQUESTS, *ODD_REQUESTS, *ACCEPTED_REQUESTS, *(case.data for case in REFUSED_REQUESTS)]
)
def test_requests_are_read_alike_at_every_split_and_place(data: bytes) -> None:
    for prefix in (*prefixes(data[:4000]), data, data + b"GET ", data + b"\r\n\r\n"):
        same_request(prefix)
    same_request(b"\x00 before" + data, 8)
    same_request(data, len(data))


@pytest.mark.parametrize("data", [*RESPONSES, *ACCEPTED_RESPONSES, *(case.data for case in REFUSED_RESPONSES)])
def test_responses_are_read_alike_at_every_split_and_place(data: bytes) -> None:
    for prefix in (*prefixes(data[:4000]), data, data + b"HTTP", data + b"\r\n\r\n"):
        same_response(prefix)
    same_response(b"\x00 before" + data, 8)
    same_response(data, len(data))


@pytest.mark.parametrize("octet", range(256))
def test_every_octet_in_every_place_is_judged_alike(octet: int) -> None:
    one = bytes([octet])
    for data in (USUAL_REQUESTS[1], b"GET /a?b HTTP/1.1\r\nHost: ab:80\r\nConnection: close\r\nExpec: a\r\n\r\n"):
        for at in range(len(data)):
            same_request(data[:at] + one + data[at + 1 :])
    data = RESPONSES[0][:-9]
    for at in range(len(data)):
        same_response(data[:at] + one + data[at + 1 :])


@pytest.mark.parametrize("by", range(-2, 3))
def test_limits_are_the_same(by: int) -> None:
    same_request(b"GET /%b HTTP/1.1\r\nHost: a\r\n\r\n" % (b"a" * (MAX_REQUEST_LINE_BYTES - 14 + by)))
    for limit in (16384, 65536):
        same_request(get(b"A: %b\r\n" % (b"a" * (limit - 3 + by))))
        same_request(b"GET / HTTP/1.1\r\nHost: a\r\n%b\r\n" % (b"A: %b\r\n" % (b"a" * (limit // 4)) * 4)[-limit - by :])
    same_request(get(b"A: b\r\n" * (199 + by)))
    response = b"HTTP/1.1 200 OK\r\n\r\n"
    same_response(response[:-2] + b"A: %b\r\n\r\n" % (b"a" * (MAX_RESPONSE_HEAD_BYTES - len(response) - 5 + by)))


def test_what_is_not_bytes_or_not_there_is_no_head() -> None:
    with pytest.raises(TypeError):
        scan_request(bytearray(get(b"")))  # type: ignore[arg-type]
    assert scan_request(get(b""), 10**6) is None


def test_a_head_does_not_keep_a_large_buffer() -> None:
    data = get(b"Content-Length: 100000\r\nA: b\r\n") + b"x" * 100000
    before = sys.getrefcount(data)
    head = scan_request(data)
    assert head is not None
    assert sys.getrefcount(data) == before
    assert head.field_values(b"a") == [b"b"]
