"""What reaches a target is one request with one meaning, whatever the client sent; and odd but legal requests pass.

The target reads as strictly as RFC 9112 allows and keeps what it read; each ambiguous request is followed by another
on the same connection, as an attacker would do who wants the two to be mixed up.
"""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.harness import (
    Balancer,
    connection,
    free_port,
    listener,
    read_all,
    read_answer,
    talk,
    target_group,
    wait_until,
)
from tests.integration.recording import RecordingTarget

pytestmark = pytest.mark.integration

HIDDEN = b"GET /hidden HTTP/1.1\r\nHost: h\r\n\r\n"
NEXT = b"GET /next HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
CHUNKED = b"0\r\n\r\n" + HIDDEN


class World:
    def __init__(self, folder: Path) -> None:
        self.target = RecordingTarget()
        self.port = free_port()
        self.monitor = free_port()
        self.strictest = free_port()
        strictest = {"desync_mitigation_mode": "strictest", "drop_invalid_header_fields": "on"}
        self.balancer = Balancer(
            folder,
            listener("web", self.port, "forward app", idle_timeout="2s")
            + listener("monitor", self.monitor, "forward app", idle_timeout="2s", desync_mitigation_mode="monitor")
            + listener("strictest", self.strictest, "forward app", idle_timeout="2s", **strictest)
            + target_group("app", self.target.port),
            "workers = 1",
        )

    def lines(self, reason: str) -> list[dict[str, Any]]:
        """Of the access log, those with this classification reason."""
        return [line for line in self.balancer.access_log() if line.get("classification_reason") == reason]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    world = World(tmp_path_factory.mktemp("smuggling"))
    with world.balancer:
        yield world
    world.target.close()


def framed(*fields: bytes, line: bytes = b"POST /first HTTP/1.1") -> bytes:
    return b"\r\n".join([line, b"Host: h", *fields, b"", b""])


def _ambiguous() -> Iterator[bytes]:
    length = b"Content-Length: %d" % len(HIDDEN)
    for coding in (b"xchunked", b"chunked, identity", b"identity", b"chunked, chunked", b'"chunked"', b"chunked;q=1",
                   b"", b"chunked,", b",chunked", b"\x0bchunked", b"chunked\x0b", b"chunked\0", b"chunked\n",
                   b"\r\n chunked", b"chun\r\n ked", b"gzip, chunked", b"Chunked ,\tCHUNKED"):  # fmt: skip
        yield framed(b"Transfer-Encoding: " + coding) + CHUNKED
        yield framed(b"Transfer-Encoding: " + coding, b"Content-Length: 5") + CHUNKED
    for name in (b"Transfer-Encoding ", b" Transfer-Encoding", b"\tTransfer-Encoding", b"X: y\nTransfer-Encoding",
                 b"X: y\rTransfer-Encoding", b"Transfer-Encoding\0", b"X:\r\n\tTransfer-Encoding"):  # fmt: skip
        yield framed(name + b": chunked") + CHUNKED
        yield framed(b"Content-Length: 5", name + b": chunked") + CHUNKED
    yield framed(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked") + CHUNKED
    yield framed(b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity") + CHUNKED
    yield framed(b"Transfer-Encoding: chunked", line=b"POST /first HTTP/1.0") + CHUNKED
    for value in (b"+%d", b"-%d", b"0x%x", b"%d, %d", b"%d,%d", b'"%d"', b"%d.0", b"%d_0", b"%d 5", b"%d\r\n ",
                  b"1844674407370955161%d", b"%d\0", b"\x0b%d", b"1e1", b""):  # fmt: skip
        count = value.count(b"%")
        yield framed(b"Content-Length: " + (value % ((len(HIDDEN),) * count) if count else value)) + HIDDEN
    for name in (b"Content-Length ", b" Content-Length", b"X: y\nContent-Length", b"Content-Length\0"):
        yield framed(name + b": %d" % len(HIDDEN)) + HIDDEN
    yield framed(length, length, b"Content-Length: 0") + HIDDEN
    yield framed(length, b"Content-Length: 0") + HIDDEN
    yield framed(b"Content-Length: 0", length) + HIDDEN
    for chunks in (b"0\n\r\n", b"0\r\n\n", b"0\r\r\n\r\n", b"0 \r\n\r\n", b" 0\r\n\r\n", b"0x0\r\n\r\n", b"-0\r\n\r\n",
                   b"1\r\nAA\r\n0\r\n\r\n", b"1\nA\r\n0\r\n\r\n", b"1;\nA\r\n0\r\n\r\n", b"2\r\nA\r\n0\r\n\r\n",
                   b"10000000000000001\r\nA\r\n0\r\n\r\n", b"0\r\nContent-Length: 40\r\n\r\n", b"0\r\nX\r\n\r\n",
                   b"0\r\n X: y\r\n\r\n", b"\r\n0\r\n\r\n", b"1;a\nb\r\nA\r\n0\r\n\r\n", b"1_0\r\n" + b"A" * 16,
                   b'0;a="\r\n\r\n', b"0\r\nX: y\nZ: w\r\n\r\n"):  # fmt: skip
        yield framed(b"Transfer-Encoding: chunked") + chunks + HIDDEN
    for field in (b"Host: two", b"host: two", b"X: a\nGET /hidden HTTP/1.1", b"X: a\rGET /hidden HTTP/1.1", b"X : a",
                  b": a", b"X", b"X: a\0b", b" folded", b"X\xa0: a"):  # fmt: skip
        yield framed(field)
    for line in (b"POST  /first HTTP/1.1", b"POST /first  HTTP/1.1", b"POST\t/first HTTP/1.1", b"POST /first HTTP/1.1 ",
                 b"POST /fi rst HTTP/1.1", b"POST /first", b"POST /first http/1.1", b"POST /first HTTP/1.1\rX",
                 b"POST first HTTP/1.1", b"POST http://a@b/ HTTP/1.1", b"\nGET /first HTTP/1.1"):  # fmt: skip
        yield framed(line=line)


@pytest.mark.parametrize("split", ["at-once", "in-two", "in-halves"])
def test_ambiguous_requests_are_refused_and_nothing_of_them_becomes_a_request(world: World, split: str) -> None:
    for message in _ambiguous():
        with connection(world.port) as skt:
            skt.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            middle = {"at-once": len(message + NEXT), "in-two": len(message), "in-halves": len(message) // 2}[split]
            skt.sendall((message + NEXT)[:middle])
            if split != "at-once":
                time.sleep(0.002)
                try:
                    skt.sendall((message + NEXT)[middle:])
                except OSError:
                    pass  # refused already
            answer = b""
            try:
                while more := skt.recv(65536):
                    answer += more
            except OSError:
                pass
        assert re.findall(rb"HTTP/1\.1 (\d+)", answer) in ([b"400"], [b"501"]), (message, answer)
        for line, _, body in world.target.seen():
            # the beginning of a body in pieces may have been on its way
            assert line == b"POST /first HTTP/1.1", (message, line)
            assert b"hidden" not in body, message


@pytest.mark.parametrize(
    "message",
    [
        framed(b"Content-Length: 60") + HIDDEN,
        framed(b"Transfer-Encoding: chunked") + b"5\r\nab",
        framed(b"Transfer-Encoding: chunked") + b"2\r\nab\r\n",
        framed(b"Transfer-Encoding: chunked") + b"2\r\nab\r\n0\r\n",
        framed(b"Transfer-Encoding: chunked") + b"2\r\nab\r\n0\r\nX: y\r\n",
        b"POST /first HTTP/1.1\r\nHost: h\r\n",
    ],
)
def test_a_request_that_breaks_off_never_becomes_a_whole_one(world: World, message: bytes) -> None:
    answer = talk(world.port, message, half_close=True)
    assert re.findall(rb"HTTP/1\.1 (\d+)", answer) in ([b"400"], []), answer
    assert talk(world.port, NEXT).endswith(b"/next")
    seen = [(line, body) for line, _, body in world.target.seen()]
    assert (b"GET /next HTTP/1.1", b"") in seen
    # the target, a simple one, takes a cut body for a short one; it must not get more than came
    assert all(line == b"GET /next HTTP/1.1" or body in (HIDDEN, b"ab") for line, body in seen)


@pytest.mark.parametrize("expectation", [b"100-continue", b"y 100-continue", b"100-continue, 100-continue", b"x"])
def test_an_answer_that_did_not_wait_for_the_body_ends_the_targets_connection(world: World, expectation: bytes) -> None:
    """The body may be what the target reads next."""
    before = world.target.connections
    for _ in range(3):
        message = framed(b"Expect: " + expectation, b"Content-Length: %d" % len(HIDDEN), b"Connection: close") + HIDDEN
        assert talk(world.port, message).endswith(b"/first")
    assert {body for _, _, body in world.target.seen()} == {HIDDEN}
    assert world.target.connections - before >= 2


DOUBTFUL = [
    ("BothTeClPresent", framed(b"Transfer-Encoding: chunked", b"Content-Length: 5") + CHUNKED, b""),
    ("BothTeClPresent", framed(b"Content-Length: 5", b"transfer-encoding: chunked") + CHUNKED, b""),
    ("DuplicateContentLength", framed(b"Content-Length: 1", b"Content-Length: 1") + b"x" + HIDDEN, b"x"),
    ("SuspiciousHeader", framed(b"Transfer.Encoding: chunked", b"Content-Length: 1") + b"x" + HIDDEN, b"x"),
    ("SuspiciousHeader", framed(b"Transfer_Encoding: chunked", b"Content-Length: 1") + b"x" + HIDDEN, b"x"),
    ("SuspiciousHeader", framed(b"Content.Length: 40") + HIDDEN, b""),
    (
        "UndefinedContentLengthSemantics",
        framed(b"Content-Length: 1", line=b"GET /first HTTP/1.1") + b"x" + HIDDEN,
        b"x",
    ),
    (
        "UndefinedTransferEncodingSemantics",
        framed(b"Transfer-Encoding: chunked", line=b"GET /first HTTP/1.1") + CHUNKED,
        b"",
    ),
]


@pytest.mark.parametrize(("reason", "message", "body"), DOUBTFUL)
@pytest.mark.parametrize("split", [False, True])
def test_an_ambiguous_request_is_the_last_one_on_both_connections(
    world: World, reason: str, message: bytes, body: bytes, split: bool
) -> None:
    before = world.target.connections
    with connection(world.port) as skt:
        middle = message.index(b"\r\n\r\n") + 4 if split else len(message)
        skt.sendall(message[:middle])
        time.sleep(0.002 * split)
        skt.sendall(message[middle:])
        answer = read_all(skt)
    assert re.findall(rb"HTTP/1\.1 (\d+)", answer) == [b"200"]
    assert b"\r\nConnection: close\r\n" in answer
    [(line, fields, content)] = world.target.seen()
    assert (line.split()[1], content) == (b"/first", body)
    assert not [field for field in fields if re.match(rb"(?i)(content|transfer)[^a-z-]", field)]
    wait_until(lambda: world.lines(reason), what=f"a line with {reason}")
    assert {line["classification"] for line in world.lines(reason)} == {"Ambiguous"}
    for _ in range(2):
        assert talk(world.port, NEXT).endswith(b"/next")
    world.target.seen()
    assert world.target.connections > before, "the target's connection is not used again"


def test_a_request_that_is_refused_is_classified(world: World) -> None:
    for message, classification, reason in (
        (framed(b"Content-Length: x"), "Severe", "BadContentLength"),
        (framed(b"A: b\nC: d"), "Severe", "BadHeader"),
        (framed(line=b"POST /fi rst HTTP/1.1"), "Acceptable", "SpaceInUri"),
        (framed(b": a"), "Ambiguous", "EmptyHeader"),
    ):
        assert talk(world.port, message).startswith(b"HTTP/1.1 400 ")
        lines = wait_until(lambda reason=reason: world.lines(reason), what=f"a line with {reason}")
        assert {line["classification"] for line in lines} == {classification}
    text = world.balancer.get("/metrics")[1].decode()
    assert 'lbproxy_listener_desync_requests_total{classification="Severe",listener="web",reason="BadHeader"}' in text


def test_monitor_only_tells_and_strictest_refuses_all_that_is_not_compliant(world: World) -> None:
    twice = framed(b"Content-Length: 1", b"Content-Length: 1") + b"x" + NEXT
    both = framed(b"Transfer-Encoding: chunked", b"Content-Length: 5") + CHUNKED
    odd = framed(b"X: \xe9", line=b"GET /odd HTTP/1.1") + NEXT
    zero = framed(b"Content-Length: 0", line=b"GET /zero HTTP/1.1") + NEXT
    for message, monitor, strictest in (
        (twice, [b"200", b"200"], [b"400"]),
        (both, [b"200"], [b"400"]),  # RFC 9112 section 6.3: the connection must end
        (odd, [b"200", b"200"], [b"400"]),
        (zero, [b"200", b"200"], [b"400"]),
        (framed() + NEXT, [b"200", b"200"], [b"200", b"200"]),
    ):
        for port, statuses in ((world.monitor, monitor), (world.strictest, strictest)):
            assert re.findall(rb"HTTP/1\.1 (\d+)", talk(port, message)) == statuses, (port, message)
        assert b"/hidden" not in b"".join(line for line, _, _ in world.target.seen())


def test_invalid_header_fields_are_dropped_where_that_is_configured(world: World) -> None:
    message = framed(b"X_Odd: a", b"X.Odd: b", b"X-Fine: c", line=b"GET /a HTTP/1.0")
    for port, kept in ((world.port, 3), (world.strictest, 1)):
        assert talk(port, message).startswith(b"HTTP/1.1 200 ")
        [(_, fields, _)] = world.target.seen()
        assert len([field for field in fields if field.startswith((b"X_Odd", b"X.Odd", b"X-Fine"))]) == kept


def test_a_body_that_looks_like_a_request_stays_a_body(world: World) -> None:
    with connection(world.port) as skt:
        skt.sendall(framed(b"content-length:%d" % len(HIDDEN)) + HIDDEN)
        assert read_answer(skt).endswith(b"/first")
        chunks = b"%X;x=y\r\n%b\r\n0;z\r\n\r\n" % (len(HIDDEN), HIDDEN)
        skt.sendall(framed(b"transfer-encoding:\tChunked") + chunks)
        assert read_answer(skt).endswith(b"/first")
        skt.sendall(framed(b"Transfer_Encoding: chunked", b"Content_Length: 3", b"Content-Length: 1") + b"x")
        assert read_answer(skt).endswith(b"/first")
    assert [(line, body) for line, _, body in world.target.seen()] == [
        (b"POST /first HTTP/1.1", HIDDEN),
        (b"POST /first HTTP/1.1", HIDDEN),
        (b"POST /first HTTP/1.1", b"x"),
    ]


@pytest.mark.parametrize(
    ("line", "forwarded"),
    [
        (line, line)
        for line in (
            b"PROPFIND / HTTP/1.1",
            b"get / HTTP/1.1",
            b"!#$%&'*+-.^_`|~ / HTTP/1.1",
            b"GET /%2F%zz% HTTP/1.1",
            b"GET // HTTP/1.1",
            b"GET //a/b HTTP/1.1",
            b"GET /? HTTP/1.1",
            b"GET /??a=b?c HTTP/1.1",
            b"GET /;a=b@c:d HTTP/1.1",
            b'GET /"<>\\^`{|}[] HTTP/1.1',
            b"OPTIONS * HTTP/1.1",
            b"GET /" + b"a" * 16000 + b" HTTP/1.1",
        )
    ]
    + [
        (b"GET http://h HTTP/1.1", b"GET / HTTP/1.1"),
        (b"GET http://h/a/../%62?../%62 HTTP/1.1", b"GET /b?../%62 HTTP/1.1"),
        (b"GET HTTP://h?q HTTP/1.1", b"GET /?q HTTP/1.1"),
        (b"OPTIONS http://h HTTP/1.1", b"OPTIONS * HTTP/1.1"),
        (b"GET / HTTP/1.0", b"GET / HTTP/1.1"),
        (b"\r\nGET / HTTP/1.1", b"GET / HTTP/1.1"),
    ],
    ids=lambda line: line[:24].decode(),
)
def test_odd_but_legal_request_lines_pass(world: World, line: bytes, forwarded: bytes) -> None:
    assert talk(world.port, framed(b"Connection: close", line=line)).startswith(b"HTTP/1.1 200 ")
    [(seen, fields, _)] = world.target.seen()
    assert seen == forwarded
    assert b"Host: h" in fields


def test_odd_but_legal_fields_pass(world: World) -> None:
    odd = [b"X-Empty: ", b"X-Obs: \xff\xe9", b"X-Tab: a\tb", b"x-lower: 1", b"X-UPPER: 2", b"Cookie: a", b"Cookie: b"]
    many = [b"X-%d: y" % number for number in range(150)]
    close = [b"CONNECTION: close , foo", b"Connection:", b"Foo: x", b"Keep-Alive: 5", b"TE: trailers"]
    assert talk(world.port, framed(*odd, *many, *close, b"X-Long: " + b"y" * 16000)).startswith(b"HTTP/1.1 200 ")
    [(_, fields, _)] = world.target.seen()
    assert [field for field in odd if field.strip() not in fields] == []
    assert [field for field in many if field not in fields] == []
    assert not [field for field in fields if field.lower().startswith((b"foo", b"keep-alive"))]
