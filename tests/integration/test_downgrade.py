"""Requests that are worse in HTTP/1.1 than they look in HTTP/2: what reaches a target is one request with one meaning.

Each is followed by an innocent one on another stream, as an attacker would do who wants the target to mix them up.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from lbproxy.wire.http2 import events as kinds
from lbproxy.wire.http2.connection import Connection
from lbproxy.wire.http2.errors import INTERNAL_ERROR, PROTOCOL_ERROR
from lbproxy.wire.http2.frames import END_HEADERS, END_STREAM
from tests.integration.harness import HOST, Balancer, RawTarget, free_port, listener, read_head, target_group
from tests.integration.recording import RecordingTarget
from tests.integration.test_smuggling import CHUNKED, HIDDEN
from tests.wire.http2.raw import CLIENT_PREFACE, GET, POST, Fields, data, headers

pytestmark = pytest.mark.integration

LENGTH = str(len(HIDDEN))
INNOCENT = [*GET[:3], (":path", "/next")]


class World:
    def __init__(self, folder: Path) -> None:
        self.target = RecordingTarget()
        self.odd = RawTarget(self._answer)
        self.answer = b""
        self.port, self.second = free_port(), free_port()
        self.balancer = Balancer(
            folder,
            listener("web", self.port, "forward app", http2="on", idle_timeout="5s")
            + listener("odd", self.second, "forward odd", http2="on")
            + target_group("app", self.target.port)
            + target_group("odd", self.odd.port),
            "workers = 1",
        )

    def _answer(self, skt: socket.socket) -> None:
        if read_head(skt):
            skt.sendall(self.answer)

    def ask(self, port: int, *pieces: bytes, streams: int) -> dict[int, str]:
        """Send these frames; tell how each stream ended: a status, or a status and how it broke off."""
        codec = Connection(True)
        codec.data_to_send()
        told: dict[int, str] = {}
        over: set[int] = set()
        # numbers of our own, so that the codec knows the streams
        for _ in range(streams):
            codec.send_request(b"GET", b"https", b"x", b"/", b"", -1, True)
        codec.data_to_send()
        with socket.create_connection((HOST, port), timeout=10) as skt:
            skt.sendall(CLIENT_PREFACE + b"".join(pieces))
            while len(over) < streams:
                received = skt.recv(65536)
                if not received:
                    break
                for event in codec.receive_data(received, 0.0):
                    if event.stream is None:
                        continue
                    number = event.stream.id
                    if event.kind == kinds.RESPONSE:
                        told[number] = str(event.head.status)
                    if event.kind == kinds.RESET:
                        told[number] = f"{told.get(number, '')} reset {event.code}".strip()
                    if event.ended or event.kind == kinds.RESET:
                        over.add(number)
                skt.sendall(codec.data_to_send())
        return told


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    world = World(tmp_path_factory.mktemp("downgrade"))
    with world.balancer:
        yield world
    world.target.close()
    world.odd.close()


def replaced(name: str, value: str, base: Fields = GET) -> Fields:
    return [(each, value if each == name else old) for each, old in base]


SMUGGLED = f"\r\n\r\n{HIDDEN.decode()}"

MALFORMED: dict[str, list[bytes]] = {
    **{
        f"{what} in {where}": [headers(1, fields)]
        for what, text in (
            ("CRLF", "a\r\nTransfer-Encoding: chunked"),
            ("LF", "a\nx: y"),
            ("CR", "a\rb"),
            ("NUL", "a\0b"),
            ("a request", "a" + SMUGGLED),
            ("DEL", "a\x7fb"),
        )
        for where, fields in (
            ("a value", [*GET, ("x", text)]),
            ("a name", [*GET, (text, "x")]),
            (":path", replaced(":path", "/" + text)),
            (":authority", replaced(":authority", text)),
            (":method", replaced(":method", text)),
            (":scheme", replaced(":scheme", text)),
            ("host", [*GET[:2], GET[3], ("host", text)]),
            ("a cookie", [*GET, ("cookie", text)]),
        )
    },
    **{
        f"{name}: {value}": [
            headers(1, [*POST, (name, value)], END_HEADERS),
            data(1, CHUNKED, END_STREAM),
        ]
        for name, value in (
            ("transfer-encoding", "chunked"),
            ("transfer-encoding", "identity"),
            ("connection", "close"),
            ("connection", "content-length"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("upgrade", "h2c"),
            ("te", "chunked"),
            ("te", "trailers, chunked"),
            ("host", "other.example"),
            ("Transfer-Encoding", "chunked"),
            ("transfer-encoding ", "chunked"),
            (" transfer-encoding", "chunked"),
            ("transfer-encoding: chunked\r\nx", "y"),
            ("content-length", "0"),
            ("content-length", "5"),
            ("content-length", str(len(HIDDEN) + 6)),
            (":path", "/other"),
        )
    },
    "a length and no content": [headers(1, [*POST, ("content-length", "5")])],
    "an end before the length": [
        headers(1, [*POST, ("content-length", LENGTH)], END_HEADERS),
        data(1, HIDDEN[:-1], END_STREAM),
    ],
    **{
        f"{name} as a trailer": [
            headers(1, POST, END_HEADERS),
            data(1, b"abc"),
            headers(1, [(name, value)]),
        ]
        for name, value in (
            ("transfer-encoding", "chunked"),
            ("content-length", LENGTH),
            ("host", "other.example"),
            ("connection", "close"),
            ("authorization", "x"),
            ("x-forwarded-for", "1.2.3.4"),
            (":path", "/hidden"),
            ("x", "a\r\n\r\n"),
        )
    },
    "trailers that do not end": [headers(1, POST, END_HEADERS), headers(1, [("x", "y")], END_HEADERS)],
}


@pytest.mark.parametrize("name", MALFORMED)
def test_what_is_malformed_never_reaches_a_target(world: World, name: str) -> None:
    """RFC 9113 section 8.1.1; a body in pieces may have begun, but never ends."""
    told = world.ask(world.port, *MALFORMED[name], headers(3, INNOCENT), streams=2)
    assert told == {1: f"reset {PROTOCOL_ERROR}", 3: "200"}, told
    assert [line for line, _, _ in world.target.seen()] == [b"GET /next HTTP/1.1"]


REFUSED: dict[str, tuple[list[bytes], str]] = {
    "CONNECT": ([headers(1, [(":method", "CONNECT"), (":authority", "inside:22")], END_HEADERS)], "405"),
    "extended CONNECT to something else": (
        [headers(1, [*replaced(":method", "CONNECT"), (":protocol", "connect-udp")], END_HEADERS)],
        "501",
    ),
    "TRACE": ([headers(1, replaced(":method", "TRACE"))], "405"),
    "a space in :path": ([headers(1, replaced(":path", "/ HTTP/1.1"))], "400"),
    "a tab in :path": ([headers(1, replaced(":path", "/\tx"))], "400"),
    "a fragment": ([headers(1, replaced(":path", "/a#b"))], "400"),
    "octets from 0x80 in :path": ([headers(1, replaced(":path", "/\xe4"))], "400"),
    "a method with a space": ([headers(1, replaced(":method", "GET /hidden"))], "400"),
    "an authority with a user": ([headers(1, replaced(":authority", "a@b"))], "400"),
    "an authority with a path": ([headers(1, replaced(":authority", "a/b"))], "400"),
    "an authority with a list": ([headers(1, replaced(":authority", "a,b"))], "400"),
    "two lengths": (
        [headers(1, [*POST, ("content-length", "0"), ("content-length", LENGTH)], END_HEADERS)],
        "400",
    ),
    "a list of lengths": ([headers(1, [*POST, ("content-length", "0, 0")])], "400"),
    "a length with a sign": ([headers(1, [*POST, ("content-length", "+0")])], "400"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_no_version_takes_is_answered_and_goes_no_further(world: World, name: str) -> None:
    pieces, outcome = REFUSED[name]
    assert world.ask(world.port, *pieces, headers(3, INNOCENT), streams=2) == {1: outcome, 3: "200"}
    assert [line for line, _, _ in world.target.seen()] == [b"GET /next HTTP/1.1"]


CGI = ["content_length", "transfer_encoding", "x_forwarded_for"]

PASSED: dict[str, tuple[list[bytes], bytes, list[bytes]]] = {
    # frames, the body that the target gets, fields that it must not get
    "a body that looks like a request": ([headers(1, POST, END_HEADERS), data(1, HIDDEN, END_STREAM)], HIDDEN, []),
    "the same with its length": (
        [headers(1, [*POST, ("content-length", LENGTH)], END_HEADERS), data(1, HIDDEN, END_STREAM)],
        HIDDEN,
        [],
    ),
    "a body that looks like chunks": (
        [headers(1, POST, END_HEADERS), data(1, CHUNKED, END_STREAM)],
        CHUNKED,
        [],
    ),
    "content in a GET": ([headers(1, GET, END_HEADERS), data(1, HIDDEN, END_STREAM)], HIDDEN, []),
    "names that CGI takes for others": (
        [
            headers(
                1, [*POST, ("content_length", "0"), ("transfer_encoding", "chunked"), ("x_forwarded_for", "1.2.3.4")], 4
            ),
            data(1, HIDDEN, END_STREAM),
        ],
        HIDDEN,
        [name.encode() for name in CGI],
    ),
    "trailers": (
        [headers(1, POST, END_HEADERS), data(1, b"abc"), headers(1, [("x-end", "yes")])],
        b"abc",
        [b"x-end"],
    ),
    "empty frames": ([headers(1, POST, END_HEADERS), data(1, b""), data(1, b"a"), data(1, b"", END_STREAM)], b"a", []),
}


@pytest.mark.parametrize("name", PASSED)
def test_what_is_right_reaches_the_target_as_what_it_is(world: World, name: str) -> None:
    pieces, body, never = PASSED[name]
    assert world.ask(world.port, *pieces, headers(3, INNOCENT), streams=2) == {1: "200", 3: "200"}
    seen = world.target.seen()
    [(_, fields, got)] = [each for each in seen if b"/next" not in each[0]]
    assert got == body
    names = [field.partition(b":")[0].lower() for field in fields]
    assert not set(names) & set(never)
    assert len(seen) == 2


CHUNKS = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
CUT = f"(200 )?reset {INTERNAL_ERROR}"
BAD = f"502|{CUT}"

ANSWERS: dict[str, tuple[bytes, str]] = {
    "whole": (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "200"),
    "up to the close": (b"HTTP/1.1 200 OK\r\n\r\nok", "200"),
    "cut short of its length": (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nok", CUT),
    "cut before its last chunk": (CHUNKS + b"2\r\nok\r\n", CUT),
    "cut within a chunk": (CHUNKS + b"5\r\nok", CUT),
    "cut within the last chunk": (
        CHUNKS + b"2\r\nok\r\n0\r\n",
        CUT,
    ),
    "cut within its trailers": (
        CHUNKS + b"2\r\nok\r\n0\r\nx: y\r\n",
        CUT,
    ),
    "cut within its head": (b"HTTP/1.1 200 OK\r\nContent-Le", "502"),
    "nothing": (b"", "502"),
    "an interim answer only": (b"HTTP/1.1 103 Early Hints\r\n\r\n", "502"),
    "two framings": (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "502"),
    "101 that was not asked for": (
        b"HTTP/1.1 101 Yes\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n",
        "502",
    ),
    "a bad chunk": (CHUNKS + b"zz\r\n", BAD),
    "LF in a chunk line": (
        CHUNKS + b"2\nok\r\n0\r\n\r\n",
        BAD,
    ),
    "a field that frames, as a trailer": (
        CHUNKS + b"2\r\nok\r\n0\r\nContent-Length: 5\r\n\r\n",
        BAD,
    ),
    "NUL in a field": (b"HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 2\r\n\r\nok", "502"),
    "a folded field": (b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 2\r\n\r\nok", "502"),
    "fields of the connection": (
        b"HTTP/1.1 200 OK\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: 5\r\nContent-Length: 2\r\n\r\nok",
        "200",
    ),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_a_target_of_http1_answers_a_client_of_http2(world: World, name: str) -> None:
    """A cut answer looks cut, and what is not HTTP never becomes some."""
    world.answer, outcome = ANSWERS[name]
    told = world.ask(world.second, headers(1, GET), streams=1)
    assert re.fullmatch(outcome, told.get(1, "")), told
