"""RFC 9110 (HTTP Semantics), section by section: what an intermediary does with a request and its answer.

Each case is an exchange between a client and a target, and runs at every split of what either of them sends.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from email.utils import parsedate_to_datetime
from typing import Any

import attrs
import pytest

from tests.conformance.exchanges import Outcome, Walk, message, outcomes

pytestmark = pytest.mark.conformance

HOST = "Host: example.com"
OK = message("HTTP/1.1 200 OK", "Content-Length: 2", body=b"ok")
KEPT = ("", "")
"""Both connections serve the next request."""
CLIENT_CLOSED = ("closed", "")
BOTH_CLOSED = ("closed", "closed")


@attrs.frozen(kw_only=True)
class Case:
    """An exchange: what the client sends, what the target gets of it, and so on."""

    asked: bytes
    forwarded: bytes | None = None
    """None: the target gets the same as was sent."""
    answered: bytes = OK
    received: bytes | None = None
    """None: the client gets the same as the target has sent."""
    ended: tuple[str, str] = KEPT
    target_ends: bool = False
    options: dict[str, Any] = attrs.field(factory=dict)

    @property
    def expected(self) -> Outcome:
        forwarded = self.asked if self.forwarded is None else self.forwarded
        received = self.answered if self.received is None else self.received
        return Outcome(forwarded, received, *self.ended)


def get(*fields: str, method: str = "GET", path: str = "/", version: str = "1.1", body: bytes = b"") -> bytes:
    return message(f"{method} {path} HTTP/{version}", HOST, *fields, body=body)


def passes(*fields: str, method: str = "GET") -> Case:
    """These fields of a request reach the target as they are."""
    return Case(asked=get(*fields, method=method))


def removed(*fields: str, left: Sequence[str] = (), **more: Any) -> Case:
    """Of these fields the target gets only those ``left``."""
    return Case(asked=get(*fields), forwarded=get(*left), **more)


def answer(status: str, *fields: str, body: bytes = b"", method: str = "GET", **more: Any) -> Case:
    """An answer reaches the client as it is."""
    return Case(asked=get(method=method), answered=message(f"HTTP/1.1 {status}", *fields, body=body), **more)


def own(status: str, *fields: str) -> bytes:
    """The head of an answer of our own to a request that went no further."""
    return message(f"HTTP/1.1 {status}", "Server: lbproxy", *fields)


def refused(asked: bytes, status: str, length: int, *fields: str) -> Case:
    fields = ("Content-Type: text/plain; charset=utf-8", *fields, f"Content-Length: {length}", "Connection: close")
    return Case(asked=asked, forwarded=b"", received=own(status, *fields), ended=CLIENT_CLOSED)


ALLOW = "Allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"
TEN = b"0123456789"
SUMMED = b"3\r\nabc\r\n0\r\nX-Sum: 7\r\n\r\n"

CASES: dict[str, Case] = {
    # 2.5 protocol version: ours is sent, whatever theirs is
    "2.5: a request of HTTP/1.0 is forwarded as HTTP/1.1": Case(
        asked=get(version="1.0"),
        forwarded=get(),
        received=message("HTTP/1.1 200 OK", "Content-Length: 2", "Connection: close", body=b"ok"),
        ended=CLIENT_CLOSED,
    ),
    "2.5: an answer of HTTP/1.0 is forwarded as HTTP/1.1": Case(
        asked=get(),
        answered=OK.replace(b"1.1", b"1.0"),
        received=OK,
        ended=("", "closed"),
    ),
    "2.5: a higher minor version": Case(asked=get(version="1.2"), forwarded=get()),
    # 5 fields
    "5.1: names pass in their case": passes("x-lower: 1", "X-UPPER: 2", "!#$%&'*+-.^`|~: 3"),
    "5.3: the order of fields, also of one name": passes("A: 1", "B: 2", "A: 3", "B: 4"),
    "5.3: Set-Cookie is never joined": answer("200 OK", "Set-Cookie: a=1", "Set-Cookie: b=2, c=3", "Content-Length: 0"),
    "5.5: white space around a value is not part of it": Case(asked=get("A: \t1 \t"), forwarded=get("A: 1")),
    "5.5: within a value it is": passes("A: 1 \t 2", 'B: "a \\" b"'),
    "5.5: an empty value": Case(asked=get("A:", "B: "), forwarded=get("A: ", "B: ")),
    "5.5: obs-text": passes("A: \xe4\xff"),
    "5.5: a control character": refused(get("A: \x01"), "400 Bad Request", 16),
    "5.6.6: parameters are not looked at": passes('Content-Type: text/html;Charset="utf-8";x=\'', method="GET"),
    # 6.5 trailers
    "6.5: trailers of a request": Case(
        asked=get("Transfer-Encoding: chunked", "Trailer: X-Sum", method="POST", body=SUMMED),
        forwarded=get("Trailer: X-Sum", "Transfer-Encoding: chunked", method="POST", body=SUMMED),
    ),
    "6.5: trailers of an answer": answer(
        "200 OK", "Trailer: X-Sum", "Transfer-Encoding: chunked", body=b"3\r\nabc\r\n0\r\nX-Sum: 7\r\nY: 8\r\n\r\n"
    ),
    "6.5: they are dropped where the next hop has no chunks": Case(
        asked=get(version="1.0"),
        forwarded=get(),
        answered=message("HTTP/1.1 200 OK", "Transfer-Encoding: chunked", body=SUMMED),
        received=message("HTTP/1.1 200 OK", "Connection: close", body=b"abc"),
        ended=CLIENT_CLOSED,
    ),
    # 7.2 Host
    "7.2: Host comes first": Case(
        asked=message("GET / HTTP/1.1", "A: 1", HOST), forwarded=message("GET / HTTP/1.1", HOST, "A: 1")
    ),
    "7.2: with a port": Case(asked=message("GET / HTTP/1.1", "Host: example.com:8080")),
    "7.2: an IPv6 address": Case(asked=message("GET / HTTP/1.1", "Host: [2001:db8::1]:80")),
    "7.2: absolute-form decides": Case(
        asked=message("GET http://other.example/a?b HTTP/1.1", HOST),
        forwarded=message("GET /a?b HTTP/1.1", "Host: other.example"),
    ),
    "7.2: none": refused(message("GET / HTTP/1.1", "A: 1"), "400 Bad Request", 16),
    "7.2: two": refused(get(HOST), "400 Bad Request", 16),
    "7.2: HTTP/1.0 without one": Case(
        asked=b"GET / HTTP/1.0\r\n\r\n",
        forwarded=message("GET / HTTP/1.1", "Host: 10.0.0.1:80"),
        received=message("HTTP/1.1 200 OK", "Content-Length: 2", "Connection: close", body=b"ok"),
        ended=CLIENT_CLOSED,
    ),
    # 7.6.1 Connection
    "7.6.1: Connection and what it names": removed("X: 1", "Connection: x, Y", "y: 2", "Z: 3", left=["Z: 3"]),
    "7.6.1: in several lines": removed("Connection: x", "X: 1", "Connection: ,y,, ", "Y: 2"),
    "7.6.1: names what is not there": removed("Connection: nothing", "A: 1", left=["A: 1"]),
    "7.6.1: close ends after the answer": Case(
        asked=get("Connection: close"),
        forwarded=get(),
        received=message("HTTP/1.1 200 OK", "Content-Length: 2", "Connection: close", body=b"ok"),
        ended=CLIENT_CLOSED,
    ),
    "7.6.1: it does not take end-to-end fields that frame, route or prove": removed(
        "Connection: host, content-length, x-forwarded-for, cache-control", "Cache-Control: no-store"
    ),
    "7.6.1: Keep-Alive, Proxy-Connection, TE, Upgrade, unnamed": removed(
        "Keep-Alive: timeout=5", "Proxy-Connection: keep-alive", "TE: gzip", "Upgrade: h2c", "HTTP2-Settings: AAMA"
    ),
    "7.6.1: of an answer": Case(
        asked=get(),
        answered=message(
            "HTTP/1.1 200 OK", "X: 1", "Connection: x, keep-alive", "Keep-Alive: timeout=5", "A: 2", "Content-Length: 0"
        ),
        received=message("HTTP/1.1 200 OK", "A: 2", "Content-Length: 0"),
    ),
    "7.6.1: close of an answer is the target's connection only": Case(
        asked=get(),
        answered=message("HTTP/1.1 200 OK", "Connection: close", "Content-Length: 2", body=b"ok"),
        received=OK,
        ended=("", "closed"),
    ),
    # 7.6.2 Max-Forwards
    "7.6.2: counted down in OPTIONS": Case(
        asked=get("A: 1", "max-forwards: 10", "B: 2", method="OPTIONS"),
        forwarded=get("A: 1", "max-forwards: 9", "B: 2", method="OPTIONS"),
    ),
    "7.6.2: zero: ours to answer": Case(
        asked=get("Max-Forwards: 0", method="OPTIONS"),
        forwarded=b"",
        received=own("204 No Content", "Content-Type: text/plain", ALLOW),
    ),
    "7.6.2: OPTIONS *": Case(
        asked=get("Max-Forwards: 1", method="OPTIONS", path="*"),
        forwarded=get("Max-Forwards: 0", method="OPTIONS", path="*"),
    ),
    "7.6.2: what is no number is not touched": passes("Max-Forwards: -1", method="OPTIONS"),
    "7.6.2: of other methods it may be ignored": passes("Max-Forwards: 0"),
    # 7.6.3 Via: none is added (docs/protocols.md), what came passes
    "7.6.3: Via": passes("Via: 1.0 fred, 1.1 p.example.net"),
    "7.6.3: Via of an answer": answer("200 OK", "Via: 1.1 p.example.net", "Content-Length: 0"),
    # 7.7 transformations
    "7.7: codings and no-transform": answer(
        "200 OK", "Cache-Control: no-transform", "Content-Encoding: gzip", "Content-Length: 2", body=b"\x1f\x8b"
    ),
    # 7.8 Upgrade
    "7.8: other protocols are not passed on": removed("Connection: upgrade, http2-settings", "Upgrade: h2c"),
    "7.8: without Connection it was not meant for us": removed("Upgrade: websocket"),
    "7.8: websocket": Case(
        asked=get("Connection: keep-alive, Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13"),
        forwarded=get("Sec-WebSocket-Version: 13", "Connection: upgrade", "Upgrade: websocket"),
        answered=message("HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: upgrade"),
        received=message("HTTP/1.1 101 Switching Protocols", "Connection: upgrade", "Upgrade: websocket"),
    ),
    "7.8: the target declines": Case(
        asked=get("Connection: Upgrade", "Upgrade: websocket"),
        forwarded=get("Connection: upgrade", "Upgrade: websocket"),
    ),
    "7.8: 101 that nobody asked for": Case(
        asked=get(),
        answered=message("HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: upgrade"),
        received=own("502 Bad Gateway", "Content-Type: text/plain; charset=utf-8", "Content-Length: 65"),
        ended=("", "aborted"),
    ),
    # 8 representation: nothing of it is looked at
    "8: metadata": answer(
        "200 OK",
        "Content-Type: text/html",
        "Content-Language: de, en",
        "Content-Location: /de",
        'ETag: W/"x"',
        "Last-Modified: Thu, 01 Jan 1970 00:00:00 GMT",
        "Content-Length: 0",
    ),
    # 8.6 Content-Length
    "8.6: of a request": Case(asked=get("Content-Length: 10", method="PUT", body=TEN)),
    "8.6: zero is said": Case(asked=get("Content-Length: 0", method="POST")),
    "8.6: twice the same is said once": Case(
        asked=get("Content-Length: 10", "Content-Length: 10", method="POST", body=TEN),
        forwarded=get("Content-Length: 10", method="POST", body=TEN),
        received=message("HTTP/1.1 200 OK", "Content-Length: 2", "Connection: close", body=b"ok"),
        ended=BOTH_CLOSED,
    ),
    "8.6: two that differ": refused(
        get("Content-Length: 10", "Content-Length: 1", method="POST"), "400 Bad Request", 16
    ),
    "8.6: of an answer twice": Case(
        asked=get(),
        answered=message("HTTP/1.1 200 OK", "Content-Length: 2", "Content-Length: 2", body=b"ok"),
        received=own("502 Bad Gateway", "Content-Type: text/plain; charset=utf-8", "Content-Length: 65"),
        ended=("", "aborted"),
    ),
    "8.6: 204 has none": Case(
        asked=get(),
        answered=message("HTTP/1.1 204 No Content", "Content-Length: 0"),
        received=message("HTTP/1.1 204 No Content"),
    ),
    "8.6: 304 says that of the representation": answer("304 Not Modified", 'ETag: "x"', "Content-Length: 999"),
    "8.6: HEAD says that of the representation": answer("200 OK", "Content-Length: 999", method="HEAD"),
    "8.6: an answer that is longer": Case(
        asked=get(),
        answered=OK + b"surplus",
        received=OK,
        ended=("", "aborted"),
    ),
    "8.6: an answer that is shorter looks cut": Case(
        asked=get(), answered=OK[:-1], target_ends=True, ended=("aborted", "lost")
    ),
    # 9 methods
    **{f"9.3: {method}": Case(asked=get(method=method)) for method in ("GET", "POST", "PUT", "DELETE", "OPTIONS")},
    "9.1: methods that we do not know": Case(asked=get(method="PROPFIND")),
    "9.1: in their case": Case(asked=get(method="get")),
    "9.3.1: content of a GET": Case(
        asked=get("Content-Length: 10", body=TEN),
        received=message("HTTP/1.1 200 OK", "Content-Length: 2", "Connection: close", body=b"ok"),
        ended=BOTH_CLOSED,
    ),
    "9.3.2: HEAD without a length": answer("200 OK", method="HEAD"),
    "9.3.2: HEAD of what would be chunked": Case(
        asked=get(method="HEAD"),
        answered=message("HTTP/1.1 200 OK", "Transfer-Encoding: chunked"),
        received=message("HTTP/1.1 200 OK"),
    ),
    "9.3.2: content in an answer to HEAD is none": Case(
        asked=get(method="HEAD"),
        answered=OK,
        received=OK[:-2],
        ended=("", "aborted"),
    ),
    "9.3.6: CONNECT": refused(message("CONNECT a.example:443 HTTP/1.1", HOST), "405 Method Not Allowed", 23, ALLOW),
    "9.3.8: TRACE": refused(get(method="TRACE"), "405 Method Not Allowed", 23, ALLOW),
    # 10.1.1 Expect
    "10.1.1: an expectation and its interim answer": Case(
        asked=get("Expect: 100-continue", "Content-Length: 10", method="POST", body=TEN),
        forwarded=get("Expect: 100-continue", "Content-Length: 10", method="POST", body=TEN),
        answered=message("HTTP/1.1 100 Continue") + OK,
    ),
    "10.1.1: of HTTP/1.0 it is ignored": Case(
        asked=get("Expect: 100-continue", "Content-Length: 10", method="POST", version="1.0", body=TEN),
        forwarded=get("Content-Length: 10", method="POST", body=TEN),
        answered=message("HTTP/1.1 100 Continue") + OK,
        received=message("HTTP/1.1 200 OK", "Content-Length: 2", "Connection: close", body=b"ok"),
        ended=CLIENT_CLOSED,
    ),
    "10.1.1: another one is the target's to refuse": Case(
        asked=get("Expect: miracles"),
        answered=message("HTTP/1.1 417 Expectation Failed", "Content-Length: 0"),
        ended=("", "closed"),
    ),
    # 10.1.4 TE
    "10.1.4: TE: trailers is said anew": Case(
        asked=get("TE: trailers, deflate;q=0.5", "Connection: TE"),
        forwarded=get("Connection: te", "TE: trailers"),
    ),
    # 11 authentication
    "11.6: Authorization": passes("Authorization: Basic QWxhZGRpbg=="),
    "11.7.2: Proxy-Authorization is ours to take": removed("Proxy-Authorization: Basic QWxhZGRpbg=="),
    # 13, 14 conditions and ranges are the target's business
    "13.1: conditions": passes('If-Match: "x"', "If-None-Match: *", "If-Modified-Since: Thu, 01 Jan 1970 00:00:00 GMT"),
    "14.2: Range": Case(
        asked=get("Range: bytes=0-0,-1", 'If-Range: "x"'),
        answered=message(
            "HTTP/1.1 206 Partial Content", "Content-Range: bytes 0-1/10", "Content-Length: 2", body=b"01"
        ),
    ),
    "14.3: Accept-Ranges": answer("200 OK", "Accept-Ranges: bytes", "Content-Length: 0"),
    "14.6: multipart": answer(
        "206 Partial Content",
        "Content-Type: multipart/byteranges; boundary=x",
        "Content-Length: 47",
        body=b"--x\r\nContent-Range: bytes 0-0/9\r\n\r\n0\r\n--x--\r\n\r\n",
    ),
    "15.5.17: 416": answer("416 Range Not Satisfiable", "Content-Range: bytes */10", "Content-Length: 0"),
    # 15 status codes
    "15: a code that we do not know": answer("299 Whatever", "Content-Length: 0"),
    "15: without a reason": Case(asked=get(), answered=message("HTTP/1.1 200 ", "Content-Length: 0")),
    "15.2: interim answers pass in order": Case(
        asked=get(),
        answered=message("HTTP/1.1 103 Early Hints", "Link: </a>")
        + message("HTTP/1.1 102 Processing")
        + message("HTTP/1.1 199 ")
        + OK,
    ),
    "15.2: but not to HTTP/1.0": Case(
        asked=get(version="1.0"),
        forwarded=get(),
        answered=message("HTTP/1.1 103 Early Hints", "Link: </a>") + OK,
        received=message("HTTP/1.1 200 OK", "Content-Length: 2", "Connection: close", body=b"ok"),
        ended=CLIENT_CLOSED,
    ),
    "15.2: what follows them must be an answer": Case(
        asked=get(),
        answered=message("HTTP/1.1 100 Continue", "Content-Length: 5") + b"hello" + OK,
        received=own("502 Bad Gateway", "Content-Type: text/plain; charset=utf-8", "Content-Length: 65"),
        ended=("", "aborted"),
    ),
    "15.3.6: 205 has no content": answer("205 Reset Content", "Content-Length: 0"),
    "15.4: redirections are passed on, not followed": answer(
        "301 Moved Permanently", "Location: https://other.example/", "Content-Length: 0"
    ),
    "15.5.2: a challenge": answer("401 Unauthorized", 'WWW-Authenticate: Basic realm="x"', "Content-Length: 0"),
    "15.6.6: another major version": refused(get(version="3.0"), "505 HTTP Version Not Supported", 31),
}


@pytest.mark.parametrize("name", CASES)
def test_a_case_at_every_split(name: str) -> None:
    case = CASES[name]
    expected = case.expected
    for outcome, pieces in outcomes(case.asked, case.answered, case.target_ends, **case.options):
        assert outcome == expected, pieces


# 6.6.1 Date


def dates(*fields: str, interim: bytes = b"") -> list[str]:
    walk = Walk({})
    walk.run([get()], [interim + message("HTTP/1.1 200 OK", *fields, "Content-Length: 0")], False)
    lines = walk.client.sent.decode().split("\r\n")
    return [line.partition(": ")[2] for line in lines if line.lower().startswith("date:")]


def test_6_6_1_an_answer_without_a_date_gets_that_of_its_receipt() -> None:
    [date] = dates(interim=message("HTTP/1.1 103 Early Hints"))
    assert abs(parsedate_to_datetime(date).timestamp() - time.time()) < 5


def test_6_6_1_the_date_of_an_answer_stays() -> None:
    assert dates("date: Tue, 15 Nov 1994 08:12:31 GMT") == ["Tue, 15 Nov 1994 08:12:31 GMT"]
