"""Heads and chunked bodies that are accepted or refused, each with the section that decides it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from lbproxy.wire.errors import RemoteProtocolError


class Refused(NamedTuple):
    data: bytes
    reason: str
    status: int = 400
    section: str = ""


def outcome(scan: Callable[[bytes], object], data: bytes) -> object:
    """What a scanner returns, or the refusal's reason and status."""
    try:
        return scan(data)
    except RemoteProtocolError as error:
        return error.reason, error.status


def get(fields: bytes, version: bytes = b"HTTP/1.1", method: bytes = b"GET") -> bytes:
    """A request with these field lines, and a Host field before them."""
    return b"%b / %b\r\nHost: example.com\r\n%b\r\n" % (method, version, fields)


def to_host(host: bytes) -> bytes:
    return b"GET / HTTP/1.1\r\nHost: %b\r\n\r\n" % host


ACCEPTED_REQUESTS = [
    b"GET / HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n\r\n",
    b"GET / HTTP/1.0\r\n\r\n",
    b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
    b'GET //a/../b?c?d/%00|{}\\^`"<> HTTP/1.1\r\nHost:a\r\n\r\n',
    b"OPTIONS * HTTP/1.1\r\nHost: \t a.example:80 \t\r\n\r\n",
    b"OPTIONS http://a.example HTTP/1.1\r\nHost: b\r\n\r\n",
    b"GET HTTPS://A.example:443?q HTTP/1.1\r\nHost: b\r\n\r\n",
    b"GET http://[::1]:80/x HTTP/1.0\r\n\r\n",
    b"!#$%&'*+-.^_`|~ / HTTP/1.9\r\nHost: [2001:db8::192.0.2.1]:8080\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost:\r\nContent-Length: 000000000000000005\r\n\r\n",
    b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding:CHUNKED\r\n\r\n",
    get(b"X: \x80\xff\t\"\r\nEmpty:\r\nEmpty2: \r\n!#$%&'*+-.^_`|~: x\r\n"),
    get(b"Connection: , close ,, x-a,\r\nX-A: 1\r\nConnection: keep-alive\r\n"),
    get(b"Transfer-Encoding_: chunked\r\nContent_Length: 5\r\n"),
    get(b"Content-Length: 5\r\nContent-Length: 5\r\n"),
    get(b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"),
    get(b"Transfer-Encoding: chunked\r\nContent-Length: 0\r\n"),
]

REFUSED_REQUESTS = [
    # line endings: RFC 9112 section 2.2
    Refused(b"GET / HTTP/1.1\nHost: x\n\n", "BadLineEnding", section="9112 2.2"),
    Refused(b"GET / HTTP/1.1\r\nHost: x\n\r\n\r\n", "BadLineEnding", section="9112 2.2"),
    Refused(b"GET / HTTP/1.1\r\nHost: x\r\nA: b\nTransfer-Encoding: chunked\r\n\r\n", "BadLineEnding"),
    Refused(get(b"A: b\rContent-Length: 5\r\n"), "BadLineEnding", section="9112 2.2"),
    Refused(get(b"A: b\r\rC: d\r\n"), "BadLineEnding"),
    Refused(get(b"A: b\n\rC: d\r\n"), "BadLineEnding"),
    Refused(b"GET / HTTP/1.1\r\r\nHost: x\r\n\r\n", "BadLineEnding"),
    Refused(b"GET / HTTP/1.1\rHost: x\r\n\r\n", "BadLineEnding"),
    Refused(b"\nGET / HTTP/1.1\r\nHost: x\r\n\r\n", "BadLineEnding"),
    Refused(b"\rGET / HTTP/1.1\r\nHost: x\r\n\r\n", "BadLineEnding"),
    Refused(b"\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n", "BadMethod"),
    # request line: RFC 9112 section 3
    Refused(b" GET / HTTP/1.1\r\nHost: x\r\n\r\n", "BadMethod", section="9112 3.1"),
    Refused(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "BadMethod", section="9112 3.1"),
    Refused(b"G@T / HTTP/1.1\r\nHost: x\r\n\r\n", "BadMethod", section="9112 3.1"),
    Refused(b"G\x00T / HTTP/1.1\r\nHost: x\r\n\r\n", "BadMethod"),
    Refused(b"GET\t/ HTTP/1.1\r\nHost: x\r\n\r\n", "BadMethod", section="9112 3"),
    Refused(b"GET\r\n\r\n", "BadUri"),
    Refused(b"GET /a b HTTP/1.1\r\nHost: x\r\n\r\n", "SpaceInUri", section="9112 3.2"),
    Refused(b"GET  / HTTP/1.1\r\nHost: x\r\n\r\n", "BadUri", section="9112 3"),
    Refused(b"GET /  HTTP/1.1\r\nHost: x\r\n\r\n", "BadUri", section="9112 3"),
    Refused(b"GET /\x00 HTTP/1.1\r\nHost: x\r\n\r\n", "BadUri"),
    Refused(b"GET /\xc3\xa4 HTTP/1.1\r\nHost: x\r\n\r\n", "AmbiguousUri", section="3986 2"),
    Refused(b"GET /\x7f HTTP/1.1\r\nHost: x\r\n\r\n", "AmbiguousUri", section="9112 3.2"),
    Refused(b"GET /#fragment HTTP/1.1\r\nHost: x\r\n\r\n", "BadUri", section="9112 3.2"),
    Refused(b"GET /?a#b HTTP/1.1\r\nHost: x\r\n\r\n", "BadUri", section="9112 3.2"),
    Refused(b"GET a/b HTTP/1.1\r\nHost: x\r\n\r\n", "BadUri", section="9112 3.2"),
    Refused(b"GET ?a HTTP/1.1\r\nHost: x\r\n\r\n", "BadUri", section="9112 3.2.1"),
    Refused(b"GET * HTTP/1.1\r\nHost: x\r\n\r\n", "BadUri", section="9112 3.2.4"),
    Refused(b"OPTIONS *a HTTP/1.1\r\nHost: x\r\n\r\n", "BadUri", section="9112 3.2.4"),
    Refused(b"GET example.com:80 HTTP/1.1\r\nHost: x\r\n\r\n", "BadUri", section="9112 3.2.3"),
    Refused(b"GET ftp://example.com/ HTTP/1.1\r\nHost: x\r\n\r\n", "BadUri"),
    Refused(b"GET http:///a HTTP/1.1\r\nHost: x\r\n\r\n", "BadUri", section="9110 4.2.1"),
    Refused(b"GET http://a:b@c/ HTTP/1.1\r\nHost: c\r\n\r\n", "BadUri", section="9110 4.2.4"),
    Refused(b"GET http://a,b/ HTTP/1.1\r\nHost: c\r\n\r\n", "BadHost"),
    Refused(b"GET http://a\\b/ HTTP/1.1\r\nHost: c\r\n\r\n", "BadHost"),
    Refused(b"CONNECT example.com:443 HTTP/1.1\r\nHost: x\r\n\r\n", "MethodNotAllowed", 405),
    Refused(b"CONNECT / HTTP/1.1\r\nHost: x\r\n\r\n", "MethodNotAllowed", 405),
    Refused(b"TRACE / HTTP/1.1\r\nHost: x\r\n\r\n", "MethodNotAllowed", 405),
    Refused(b"GET /\r\n\r\n", "BadVersion", section="9112 3"),
    Refused(b"GET / \r\nHost: x\r\n\r\n", "BadVersion"),
    Refused(b"GET / HTTP/1.1 \r\nHost: x\r\n\r\n", "BadVersion", section="9112 3"),
    Refused(b"GET / HTTP/1.10\r\nHost: x\r\n\r\n", "BadVersion", section="9112 2.3"),
    Refused(b"GET / http/1.1\r\nHost: x\r\n\r\n", "BadVersion", section="9112 2.3"),
    Refused(b"GET / HTTP/11\r\nHost: x\r\n\r\n", "BadVersion", section="9112 2.3"),
    Refused(b"GET / HTTP/1.\xb2\r\nHost: x\r\n\r\n", "BadVersion"),
    Refused(b"GET / HTTP/1.1\x0b\r\nHost: x\r\n\r\n", "BadVersion"),
    Refused(b"GET / HTTP/2.0\r\nHost: x\r\n\r\n", "BadVersion", 505, "9110 15.6.6"),
    Refused(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "BadVersion", 505, "9113 3.4"),
    Refused(b"GET / HTTP/0.9\r\nHost: x\r\n\r\n", "BadVersion", 505),
    # fields: RFC 9112 section 5
    Refused(get(b"A : b\r\n"), "BadHeader", section="9112 5.1"),
    Refused(get(b"Transfer-Encoding : chunked\r\n"), "SuspiciousHeader", section="9112 5.1"),
    Refused(get(b"Transfer-Encoding\t: chunked\r\n"), "SuspiciousHeader", section="9112 5.1"),
    Refused(get(b"Transfer-Encoding\x0b: chunked\r\n"), "BadHeader", section="9112 5.1"),
    Refused(get(b"\x00Transfer-Encoding: chunked\r\n"), "BadHeader"),
    Refused(get(b"Transfer-Encod\xe4ng: chunked\r\n"), "BadHeader", section="9110 5.1"),
    Refused(get(b"Transfer Encoding: chunked\r\n"), "SuspiciousHeader", section="9110 5.1"),
    Refused(get(b"A\x80: b\r\n"), "BadHeader", section="9110 5.1"),
    Refused(get(b"A\"B: c\r\n"), "BadHeader", section="9110 5.1"),
    Refused(get(b"A\r\n"), "BadHeader", section="9112 5"),
    Refused(get(b"Content-Length\xa0: 5\r\n"), "SuspiciousHeader", section="9110 5.1"),
    Refused(get(b": b\r\n"), "EmptyHeader", section="9112 5"),
    Refused(get(b"A: b\r\n c\r\n"), "BadHeader", section="9112 5.2"),
    Refused(get(b"A: b\r\n\tc: d\r\n"), "BadHeader", section="9112 5.2"),
    Refused(b"GET / HTTP/1.1\r\n Host: x\r\n\r\n", "BadHeader", section="9112 2.2"),
    Refused(get(b"A: \x00\r\n"), "BadHeader", section="9110 5.5"),
    Refused(get(b"A: \x0b\r\n"), "BadHeader", section="9110 5.5"),
    Refused(get(b"A: \x7f\r\n"), "BadHeader", section="9110 5.5"),
    Refused(get(b"A: \x1b[31m\r\n"), "BadHeader", section="9110 5.5"),
    Refused(get(b"Connection: a b\r\n"), "BadHeader", section="9110 7.6.1"),
    Refused(get(b"Connection: \"close\"\r\n"), "BadHeader", section="9110 7.6.1"),
    # Host: RFC 9112 section 3.2
    Refused(b"GET / HTTP/1.1\r\n\r\n", "BadHost", section="9112 3.2"),
    Refused(b"GET http://a/ HTTP/1.1\r\n\r\n", "BadHost", section="9112 3.2.2"),
    Refused(get(b"Host: example.com\r\n"), "BadHost", section="9112 3.2"),
    Refused(get(b"hOST:\r\n"), "BadHost", section="9112 3.2"),
    Refused(get(b"Host: b\r\n", b"HTTP/1.0"), "BadHost", section="9112 3.2"),
    *(
        Refused(to_host(host), "BadHost", section="9112 3.2")
        for host in (
            b"a/b", b"a b", b"a,b", b"u@a", b"u:p@a", b":80", b"a:b", b"a:80:80", b"a:-1", b"a:65536", b"a:000080",
            b"a?b", b"a#b", b"a\\b", b"a%2fb", b"a%", b"[::1", b"::1", b"[]", b"[:::1]", b"[1.2.3.4]", b"[v1.a]",
            b"[fe80::1%25eth0]", b"[::1]x", b"<a>", b"a\xe4", b"\"a\"", b"a|b",
        )
    ),
    # framing: RFC 9112 section 6
    *(
        Refused(get(b"Content-Length: %b\r\n" % length, method=b"POST"), "BadContentLength", section="9110 8.6")
        for length in (
            b"", b"+5", b"-5", b"-0", b"0x5", b"5.0", b"5 5", b"5;", b"1e3", b"1_0", b"\xb2", b"\"5\"", b"abc",
            b"1000000000000000000", b"9" * 400,
        )
    ),
    Refused(get(b"Content-Length: 5, 5\r\n"), "MultipleContentLength", section="9110 8.6"),
    Refused(get(b"Content-Length: 5,6\r\n"), "MultipleContentLength", section="9110 8.6"),
    Refused(get(b"Content-Length: ,\r\n"), "MultipleContentLength", section="9110 8.6"),
    Refused(get(b"Content-Length: 5\r\nContent-Length: 05\r\nContent-Length: 6\r\n"), "MultipleContentLength"),
    Refused(get(b"Content-Length: 5\r\nContent-Length: 5, 5\r\n"), "MultipleContentLength", section="9112 6.3"),
    Refused(get(b"Content-Length: 0\r\ncontent-length: 44\r\n"), "MultipleContentLength", section="9112 6.3"),
    Refused(get(b"Content-Length: 5\r\nTransfer-Encoding: xchunked\r\n"), "BadTransferEncoding", 501, "9112 6.1"),
    Refused(get(b"Content-Length: x\r\nTransfer-Encoding: chunked\r\n"), "BadContentLength", section="9110 8.6"),
    Refused(get(b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n"), "MultipleContentLength"),
    *(
        Refused(get(b"Transfer-Encoding: %b\r\n" % coding), "BadTransferEncoding", status, "9112 6.1")
        for coding, status in (
            (b"", 400), (b",", 400), (b"chunked, identity", 400), (b"chunked,gzip", 400),
            (b"\"chunked\"", 400), (b"chunked;a=b", 400), (b"chun ked", 400), (b"\xffchunked", 400), (b"{}", 400),
            (b"xchunked", 501), (b"identity", 501), (b"gzip", 501), (b"gzip, chunked", 501), (b"cow", 501),
            (b"identity, chunked", 501), (b"chunked1", 501),
            (b"chunked,", 501), (b", chunked", 501),
        )
    ),
    Refused(get(b"Transfer-Encoding: \x0bchunked\r\n"), "BadHeader"),
    Refused(get(b"Transfer-Encoding: chunked\x00\r\n"), "BadHeader"),
    Refused(get(b"Transfer-Encoding:\n chunked\r\n"), "BadLineEnding"),
    Refused(get(b"Transfer-Encoding:\r\n chunked\r\n"), "BadHeader", section="9112 5.2"),
    Refused(get(b"Transfer-Encoding: chunked, chunked\r\n"), "MultipleTransferEncodingChunked", section="9112 6.1"),
    Refused(get(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"), "MultipleTransferEncodingChunked"),
    Refused(get(b"Transfer-Encoding: chunked\r\nTransfer-encoding: cow\r\n"), "MultipleTransferEncodingChunked"),
    Refused(get(b"Transfer-Encoding: cow\r\nTransfer-encoding: chunked\r\n"), "BadTransferEncoding", 501),
    Refused(get(b"Transfer-Encoding: chunked\r\n", b"HTTP/1.0"), "UndefinedTransferEncodingSemantics", 400, "9112 6.1"),
    Refused(
        get(b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", b"HTTP/1.0"), "UndefinedTransferEncodingSemantics"
    ),
]  # fmt: skip


ACCEPTED_RESPONSES = [
    b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200\r\n\r\n",
    b"HTTP/1.1 200 \r\n\r\n",
    b"HTTP/1.0 404 Nicht gefunden \xe4\t!\r\nServer:x\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"HTTP/1.1 599 \r\nTransfer-Encoding: chunked\r\n\r\n",
    b"HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: WebSocket\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 204 x\r\nTransfer-Encoding: chunked\r\n\r\n",
]

REFUSED_RESPONSES = [
    Refused(b"HTTP/1.1 200 OK\nServer: x\n\n", "BadLineEnding", 502, "9112 2.2"),
    Refused(b"HTTP/1.1 200 OK\r\nServer: x\n\r\n\r\n", "BadLineEnding", 502, "9112 2.2"),
    Refused(b"HTTP/1.1 200 O\rK\r\n\r\n", "BadLineEnding", 502, "9112 2.2"),
    Refused(b"HTTP/1.1 200 OK\r\r\n\r\n", "BadLineEnding", 502, "9112 2.2"),
    Refused(b"\r\nHTTP/1.1 200 OK\r\n\r\n", "BadVersion", 502, "9112 4"),
    Refused(b"SSH-2.0-OpenSSH_9.2\r\n", "BadVersion", 502, "9112 4"),
    Refused(b"HTTP/2.0 200 OK\r\n\r\n", "BadVersion", 502, "9112 2.3"),
    Refused(b"HTTP/1.10 200 OK\r\n\r\n", "BadStatusLine", 502, "9112 2.3"),
    Refused(b"HTTP/1.1  200 OK\r\n\r\n", "BadStatusLine", 502, "9112 4"),
    Refused(b"HTTP/1.1 20 OK\r\n\r\n", "BadStatusLine", 502, "9112 4"),
    Refused(b"HTTP/1.1 2000 OK\r\n\r\n", "BadStatusLine", 502, "9112 4"),
    Refused(b"HTTP/1.1 099 OK\r\n\r\n", "BadStatusLine", 502, "9110 15"),
    Refused(b"HTTP/1.1 600 OK\r\n\r\n", "BadStatusLine", 502, "9110 15"),
    Refused(b"HTTP/1.1 200\tOK\r\n\r\n", "BadStatusLine", 502, "9112 4"),
    Refused(b"HTTP/1.1 200 \x00\r\n\r\n", "BadHeader", 502, "9112 4"),
    Refused(b"HTTP/1.1 200 OK\r\nA : b\r\n\r\n", "BadHeader", 502, "9112 5.1"),
    Refused(b"HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n", "BadHeader", 502, "9112 5.2"),
    Refused(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", "BothTeClPresent", 502),
    Refused(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n", "MultipleContentLength", 502),
    Refused(b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "BadContentLength", 502),
    Refused(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", "BadTransferEncoding", 502),
    Refused(b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "BadTransferEncoding", 502, "9112 6.1"),
    Refused(b"HTTP/1.1 100 Continue\r\nContent-Length: 5\r\n\r\n", "BadHeader", 502, "9110 8.6"),
    Refused(b"HTTP/1.1 103 Early Hints\r\nTransfer-Encoding: chunked\r\n\r\n", "BadHeader", 502, "9112 6.1"),
]


class Chunked(NamedTuple):
    data: bytes
    payload: bytes
    trailers: bytes = b""
    rest: bytes = b""


ACCEPTED_BODIES = [
    Chunked(b"0\r\n\r\n", b""),
    Chunked(b"5\r\nhello\r\n0\r\n\r\n", b"hello"),
    Chunked(b"5\r\nhello\r\n0001\r\n!\r\n000\r\n\r\nGET ", b"hello!", rest=b"GET "),
    Chunked(b"a\r\n0123456789\r\nA\r\n\r\n\r\n\r\n\r\n\r\n\r\n0\r\n\r\n", b"0123456789\r\n\r\n\r\n\r\n\r\n"),
    Chunked(b"5;a;b=c;d=\"e; \\\"\\\\\t\xe4\"\r\nhello\r\n0;last\r\n\r\n", b"hello"),
    Chunked(b"1\r\nx\r\n0\r\nA: b\r\n\r\n", b"x", b"A: b\r\n"),
    Chunked(b"0\r\nGrpc-Status:0\r\nx: \t\r\n\r\n\r\n", b"", b"Grpc-Status: 0\r\nx: \r\n", b"\r\n"),
]  # fmt: skip

REFUSED_BODIES = [
    *(
        Refused(line + b"hello\r\n0\r\n\r\n", "BadChunk", section="9112 7.1")
        for line in (
            b"\r\n", b"5\n", b"5\r", b"5 \r\n", b" 5\r\n", b"5\t\r\n", b"+5\r\n", b"-5\r\n", b"0x5\r\n", b"5_0\r\n",
            b"g\r\n", b"5h\r\n", b"5.\r\n", b"5,\r\n", b"\x005\r\n", b"5\x00\r\n", b"00000000000000005\r\n",
            b"ffffffffffffffff\r\n", b"1000000000000000\r\n", b"\xb5\r\n",
            b"5 ;a\r\n", b"5; a\r\n", b"5;\r\n", b"5;a \r\n", b"5;a=\r\n", b"5;a =b\r\n", b"5;a=\"b\r\n", b"5;=b\r\n",
            b"5;a\n", b"5;a\rb\r\n", b"5;a=\"\n\"\r\n", b"5;a=\"\x00\"\r\n", b"5;\x7f\r\n", b"5;a=b,c\r\n",
            b"5;" + b"a" * 4096 + b"\r\n",
        )
    ),
    Refused(b"5\r\nhello0\r\n\r\n", "BadChunk", section="9112 7.1"),
    Refused(b"5\r\nhello\n0\r\n\r\n", "BadChunk", section="9112 7.1"),
    Refused(b"5\r\nhello\r0\r\n\r\n", "BadChunk", section="9112 7.1"),
    Refused(b"5\r\nhello!\r\n0\r\n\r\n", "BadChunk", section="9112 7.1"),
    Refused(b"6\r\nhello\r\n0\r\n\r\n", "BadChunk", section="9112 7.1"),
    Refused(b"0\r\n\n", "BadLineEnding", section="9112 7.1.2"),
    Refused(b"0\r\n\rA", "BadLineEnding", section="9112 7.1.2"),
    Refused(b"0\r\nA: b\n\r\n", "BadLineEnding", section="9112 7.1.2"),
    Refused(b"0\r\nA : b\r\n\r\n", "BadHeader", section="9112 7.1.2"),
    Refused(b"0\r\nGET / HTTP/1.1\r\n\r\n", "BadHeader", section="9112 7.1.2"),
    Refused(b"0\r\nA: b\r\n c\r\n\r\n", "BadHeader", section="9112 7.1.2"),
    *(
        Refused(b"0\r\nA: b\r\n%b: x\r\n\r\n" % name, "BadTrailer", section="9110 6.5.1")
        for name in (
            b"Transfer-Encoding", b"Content-Length", b"HOST", b"connection", b"X-Forwarded-For", b"X-Forwarded-Host",
            b"X_Forwarded_For", b"Content_Length", b"X-Amzn-Trace-Id", b"Trailer", b"TE", b"Upgrade", b"Expect",
            b"Authorization", b"Cookie", b"Set-Cookie", b"Content-Encoding", b"Content-Type", b"Content-Range",
            b"Cache-Control", b"Keep-Alive", b"Proxy-Authorization",
        )
    ),
]  # fmt: skip
