"""A client's connection: requests in, answers out, in any split and order, and when it ends."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.interfaces import IHalfCloseableProtocol, IHandshakeListener, IProtocol, IPushProducer
from zope.interface.verify import verifyObject

from lbproxy.dataplane.listener.http1 import DRAIN_GRACE_SECONDS, ClientConnection, SecureClientConnection
from lbproxy.model.listener import PathNormalization
from lbproxy.model.rule import Forward, PathCondition, Pattern, Rule, WeightedGroup
from lbproxy.model.transform import ChangeKind, ErrorPage, FieldChange, Rewrite, Transform
from lbproxy.testing.splits import splits
from tests.dataplane.doubles import (
    CHUNKED_ANSWER,
    CHUNKED_REQUEST,
    FakeTransport,
    World,
    answer,
    request,
    undated,
)

OWN_DATE = re.compile(rb"Server: lbproxy\r\nDate: [^\r]*\r\n")


def statuses(data: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", data)]


def test_the_interfaces() -> None:
    world = World()
    plain, secure = ClientConnection(world.front, "192.0.2.7", 1), SecureClientConnection(world.front, "192.0.2.7", 1)
    for connection in (plain, secure):
        for interface in (IProtocol, IPushProducer, IHalfCloseableProtocol):
            assert verifyObject(interface, connection)
    assert verifyObject(IHandshakeListener, secure)


# Requests and answers


@pytest.mark.parametrize(
    ("mode", "path", "forwarded"),
    [
        ("safe", "/x/..%2Ffixed", None),
        ("safe", "/a/%2e%2e/%62//c?d=/../", b"/b//c?d=/../"),
        ("strict", "/a//b", None),
        ("off", "/x/..%2Ffixed/%62", b"/x/..%2Ffixed/%62"),
    ],
)
def test_a_path_is_normalised_before_rules_and_target_see_it(mode: str, path: str, forwarded: bytes | None) -> None:
    world = World(path_normalization=PathNormalization(mode))
    client = world.client()
    client.deliver(request(path))
    if forwarded is None:
        assert statuses(client.take()) == [400]
    else:
        target = world.target()
        assert target.take().startswith(b"GET %b HTTP/1.1\r\n" % forwarded)
        target.deliver(answer())
    [record] = world.log.records
    assert record.request_target == path.encode(), "the log has what came"
    assert record.error_reason == ("" if forwarded else "BadPath")


def test_a_rule_is_not_passed_by_with_dots() -> None:
    world = World()
    client = world.client()
    for path in ("/fixed", "/x/../fixed", "/%66ixed", "/x/%2e%2e/fixed"):
        client.deliver(request(path))
        assert world.log.records[-1].action == "fixed-response", path


def changes(request: str = "", response: str = "", **rewrites: Rewrite) -> Transform:
    """Fields to set, and one to remove: ``Name: value``, ``-Name``."""

    def fields(text: str) -> tuple[FieldChange, ...]:
        found = []
        for line in filter(None, text.split(", ")):
            name, _, value = line.partition(": ")
            remove = name.startswith("-")
            found.append(FieldChange(ChangeKind.REMOVE if remove else ChangeKind.SET, name.lstrip("-"), value))
        return tuple(found)

    return Transform(request=fields(request), response=fields(response), **rewrites)


def test_fields_are_changed_on_their_way() -> None:
    world = World(
        transform=changes("-X-Secret, X-Real: #{client-ip}:#{client-port} #{host}#{path}", "-server, X-Own: 1")
    )
    client = world.client()
    client.deliver(request("/a?b", "X-Secret: 1", "X-Real: 2"))
    target = world.target()
    sent = target.take()
    assert b"X-Secret" not in sent
    assert [line for line in sent.split(b"\r\n") if line.startswith(b"X-Real")] == [
        b"X-Real: 192.0.2.7:%d example.com/a" % client.getPeer().port
    ]
    target.deliver(answer(b"hello", "Server: secret", "X-Own: 2"))
    assert undated(client.take()) == b"HTTP/1.1 200 OK\r\nX-Own: 1\r\nContent-Length: 5\r\n\r\nhello"


def test_own_answers_are_changed_as_well() -> None:
    world = World(transform=changes(response="-Server, X-Own: 1"))
    for data, status in (
        (request("/fixed"), 200),
        (request("/a/..;/b"), 400),
        (b"GET / HTTP/9.9\r\n\r\n", 505),
    ):
        client = world.client()
        client.deliver(data)
        received = client.take()
        assert statuses(received) == [status]
        assert b"\r\nX-Own: 1\r\n" in received
        assert b"Server" not in received


def test_a_rule_rewrites_what_the_target_sees_and_nothing_else() -> None:
    rule = Rule(
        name="api",
        priority=1,
        conditions=(PathCondition((Pattern("/api/*"),)),),
        action=Forward((WeightedGroup("app"),)),
        transform=changes(url=Rewrite("^/api/([^?]*)[?]?(.*)$", "/$1?v=2&$2"), host=Rewrite("^example", "internal")),
    )
    world = World(rules=(rule,))
    client = world.client()
    client.deliver(request("/api/%61?b=c"))
    target = world.target()
    assert target.take().startswith(b"GET /a?v=2&b=c HTTP/1.1\r\nHost: internal.com\r\n")
    target.deliver(answer())
    [record] = world.log.records
    assert (record.rule, record.request_target, record.authority) == ("api", b"/api/%61?b=c", b"example.com")
    assert (record.transformed_uri, record.transformed_host) == (b"/a?v=2&b=c", b"internal.com")


def test_a_rewriting_that_fails_is_our_fault() -> None:
    world = World(transform=changes(url=Rewrite("^/bad.*", "")))
    client = world.client()
    client.deliver(request("/bad"))
    assert statuses(client.take()) == [500]
    assert world.log.records[0].error_reason == "TransformFailed"
    client.deliver(request("/fixed"))
    assert statuses(client.take()) == [200]


def test_a_rewritten_path_hides_nothing_either() -> None:
    world = World(transform=changes(url=Rewrite("^/a/(.*)$", "/b/.$1")))
    client = world.client()
    client.deliver(request("/a/%2Fx"))
    assert statuses(client.take()) == [500]
    client.deliver(request("/a//x"))
    assert world.target().take().startswith(b"GET /b/x HTTP/1.1\r\n")


def test_questions_ahead_of_a_request_are_answered_without_a_target() -> None:
    world = World(cors_preflight=True, transform=changes(response="Access-Control-Allow-Origin: https://a"))
    client = world.client()
    ask = ("Origin: https://a", "Access-Control-Request-Method: PUT")
    client.deliver(request("/x", *ask, method="OPTIONS"))
    received = client.take()
    assert received.startswith(b"HTTP/1.1 204 No Content\r\n")
    assert b"\r\nAccess-Control-Allow-Origin: https://a\r\n" in received
    assert b"Content-Length" not in received
    assert world.log.records[0].action == "cors-preflight"
    client.deliver(request("/x", ask[0], method="OPTIONS"))
    assert world.target().take().startswith(b"OPTIONS /x ")


def test_error_pages() -> None:
    page = ErrorPage(
        first_status=400, last_status=499, content_type="text/html", body="<b>#{status} #{reason}</b>#{trace-id}"
    )
    world = World(error_pages=(page,))
    for data, status in (
        (request("/a/..;/b"), b"400 Bad Request"),
        (b"TRACE / HTTP/1.1\r\n", b"405 Method Not Allowed"),
    ):
        client = world.client()
        client.deliver(data)
        received = client.take()
        assert b"\r\nContent-Type: text/html\r\n" in received
        assert b"<b>%b</b>" % status in received
    assert b"Root=1-" in world.log.records[0].trace_id


def test_a_request_reaches_the_target_and_its_answer_the_client() -> None:
    world = World()
    client = world.client()
    client.deliver(request("/path?q=1", "X-Own: 1", "Connection: keep-alive, X-Own-Secret", "X-Own-Secret: 1"))
    target = world.target()
    assert world.in_flight == 1
    sent = target.take()
    target.deliver(answer(b"hello", "X-Theirs: 2", "Keep-Alive: timeout=5"))
    assert undated(client.take()) == b"HTTP/1.1 200 OK\r\nX-Theirs: 2\r\nContent-Length: 5\r\n\r\nhello"
    [record] = world.log.records
    assert sent == (
        b"GET /path?q=1 HTTP/1.1\r\nHost: example.com\r\nX-Own: 1\r\nX-Forwarded-For: 192.0.2.7\r\n"
        b"X-Forwarded-Proto: http\r\nX-Forwarded-Port: 8080\r\nX-Amzn-Trace-Id: %b\r\n\r\n" % record.trace_id
    )
    assert world.in_flight == 0
    assert (record.status, record.target_status, record.rule, record.target) == (200, 200, "default", "10.0.0.1:80")


def test_the_next_request_reuses_both_connections() -> None:
    world = World()
    client = world.client()
    client.deliver(request())
    target = world.target()
    target.deliver(answer())
    for _ in range(3):
        target.take()
        client.take()
        client.deliver(request())
        assert target.sent.startswith(b"GET / HTTP/1.1\r\n")
        target.deliver(answer())
        assert client.sent.endswith(b"hello")
    assert len(world.connector.attempts) == 1
    assert world.pool.counters.reused == 3


REQUESTS = {
    "get": request("/a"),
    "length": request("/a", method="POST", body=b"0123456789"),
    "chunked": CHUNKED_REQUEST,
    "trailers": CHUNKED_REQUEST.replace(b"0\r\n\r\n", b"0\r\nX-Sum: 7\r\n\r\n"),
}


def relay(pieces: list[bytes]) -> tuple[bytes, bytes]:
    """What the target gets of these pieces, without the trace, and the client after a plain answer."""
    world = World()
    client = world.client()
    for piece in pieces:
        client.deliver(piece)
        for attempt in world.connector.attempts[:1]:
            if attempt.transport is None:
                attempt.succeed()
        world.turn()
    target = world.connector.attempts[0].transport
    assert target is not None
    sent = target.take()
    target.deliver(answer(b"1"))
    return re.sub(rb"X-Amzn-Trace-Id: [^\r]*\r\n", b"", sent), undated(client.sent)


def decoded_body(sent: bytes) -> bytes:
    """A chunked message with its body in one chunk, however many it came in."""
    head, _, body = sent.partition(b"\r\n\r\n")
    if b"chunked" not in head:
        return sent
    payload = b""
    while True:
        size, _, body = body.partition(b"\r\n")
        if size == b"0":
            return head + b"|" + payload + b"|" + body
        payload += body[: int(size, 16)]
        body = body[int(size, 16) + 2 :]


@pytest.mark.parametrize("name", REQUESTS)
def test_a_request_in_any_split_is_the_same_to_the_target(name: str) -> None:
    whole = relay([REQUESTS[name]])
    for pieces in splits(REQUESTS[name]):
        got = relay(pieces)
        assert (decoded_body(got[0]), got[1]) == (decoded_body(whole[0]), whole[1]), pieces


@pytest.mark.parametrize("name", REQUESTS)
def test_pipelined_requests_in_any_split_are_answered_in_order(name: str) -> None:
    stream = REQUESTS[name] + request("/fixed") + request("/old") + request("/b")
    for pieces in splits(stream):
        world = World()
        client = world.client()
        target: FakeTransport | None = None
        for piece in pieces:
            client.deliver(piece)
            world.turn()
            if world.connector.attempts and target is None:
                target = world.target()
        assert target is not None
        for _ in range(2):
            world.turn()
            if target.take():
                target.deliver(answer(b"target"))
        expected = [200, 200, 301, 200]
        assert statuses(client.sent) == expected, pieces
        assert client.sent.endswith(b"\r\n\r\ntarget")
        assert world.in_flight == 0
        assert not client.ended


def test_a_thousand_pipelined_requests_neither_recurse_nor_get_lost() -> None:
    world = World()
    client = world.client()
    client.deliver(request("/fixed") * 3000)
    assert statuses(client.take()) == [200] * 3000
    client.deliver(request("/") * 1000)
    target = world.target()
    for _ in range(1000):
        assert target.take().count(b"HTTP/1.1") == 1
        target.deliver(answer())
    assert statuses(client.sent) == [200] * 1000
    assert len(world.log.records) == 4000


def test_the_next_request_waits_for_the_answer_before_it() -> None:
    world = World()
    client = world.client()
    client.deliver(request("/1") + request("/fixed"))
    client.deliver(request("/fixed2"))
    target = world.target()
    assert target.sent.count(b"HTTP/1.1") == 1
    assert client.sent == b""
    target.deliver(answer(b"first"))
    assert statuses(client.sent) == [200, 200, 200]
    assert client.sent.index(b"first") < client.sent.index(b"fixed\n")


def test_what_is_read_ahead_is_bounded() -> None:
    world = World()
    client = world.client()
    client.deliver(request())
    sent = 0
    while client.reading and sent < 10_000:
        client.deliver(request("/fixed") * 100)
        sent += 100
    assert sent < 3_000
    world.target().deliver(answer())
    world.turn()
    assert client.reading
    assert statuses(client.sent) == [200] * (1 + sent)


def test_pipelined_requests_of_a_client_that_does_not_read_wait_and_are_bounded() -> None:
    world = World()
    client = world.client()
    client.full = True
    sent = 0
    while client.reading and sent < 10_000:
        client.deliver(request("/fixed") * 100)
        sent += 100
    assert sent < 3_000
    assert len(world.log.records) == 1, "its answer is not taken, so the next is not made"
    client.drain()
    world.turn()
    assert client.reading
    assert statuses(client.sent) == [200] * sent


def test_a_client_that_pipelines_and_never_reads_is_cut() -> None:
    world = World(idle_timeout_seconds=20.0)
    client = world.client()
    client.full = True
    client.deliver(request("/fixed") * 3)
    world.wait(15)
    assert not client.ended
    world.wait(30)
    assert client.ended == "aborted"
    assert [record.status for record in world.log.records] == [200]


# Bodies


def test_a_body_waits_for_the_connection_and_then_flows() -> None:
    world = World()
    client = world.client()
    client.deliver(request(method="POST", body=b"x" * 10)[:-4])
    assert not client.reading, "what is read now would only be kept"
    target = world.target()
    assert target.take().endswith(b"Content-Length: 10\r\n\r\n" + b"x" * 6)
    world.turn()
    assert client.reading
    client.deliver(b"x")
    assert target.take() == b"x"
    client.deliver(b"xxx")
    target.deliver(answer())
    assert client.sent.endswith(b"hello")


def test_a_target_that_does_not_read_stops_the_client() -> None:
    world = World()
    client = world.client()
    client.deliver(request(method="POST", body=b"x" * 100)[:-90])
    target = world.target()
    world.turn()
    target.full = True
    client.deliver(b"y" * 10)
    assert not client.reading
    target.drain()
    world.turn()
    assert client.reading
    assert target.sent.endswith(b"x" * 10 + b"y" * 10)


def test_a_client_that_does_not_read_stops_the_target() -> None:
    world = World()
    client = world.client()
    client.deliver(request())
    target = world.target()
    client.full = True
    target.deliver(answer(b"z" * 100)[:-50])
    assert not target.reading
    client.drain()
    world.turn()
    assert target.reading
    target.deliver(b"z" * 50)
    assert client.sent.endswith(b"z" * 100)


@pytest.mark.parametrize("theirs", [answer(b"z" * 100), CHUNKED_ANSWER], ids=["length", "chunked"])
def test_a_target_connection_stopped_at_the_answers_end_serves_the_next_request(theirs: bytes) -> None:
    """The last piece may be the one that fills the client's transport."""
    world = World()
    slow, other = world.client(), world.client()
    slow.deliver(request())
    target = world.target()
    target.deliver(theirs[:-8])
    slow.full = True
    target.deliver(theirs[-8:])
    assert list(world.pool.idle)
    other.deliver(request())
    world.turn()
    assert target.reading
    target.deliver(answer())
    assert other.sent.endswith(b"hello")


# Framing of answers


FRAMINGS = {
    # method and version of the request; the target's answer; what the client gets after the status line
    "length": ("GET", "1.1", answer(b"hello"), b"Content-Length: 5\r\n\r\nhello"),
    "empty": ("GET", "1.1", answer(b""), b"Content-Length: 0\r\n\r\n"),
    "chunked": ("GET", "1.1", CHUNKED_ANSWER, b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
    "trailers": (
        "GET",
        "1.1",
        CHUNKED_ANSWER.replace(b"0\r\n\r\n", b"0\r\nX-Sum: 7\r\n\r\n"),
        b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 7\r\n\r\n",
    ),
    "head": ("HEAD", "1.1", answer(b"")[:-4] + b"\r\n\r\n", b"Content-Length: 0\r\n\r\n"),
    "head-length": (
        "HEAD",
        "1.1",
        b"HTTP/1.1 200 OK\r\nContent-Length: 77\r\n\r\n",
        b"Content-Length: 77\r\n\r\n",
    ),
    "head-chunked": ("HEAD", "1.1", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"\r\n"),
    "204": ("GET", "1.1", b"HTTP/1.1 204 No Content\r\n\r\n", b"\r\n"),
    "304-length": (
        "GET",
        "1.1",
        b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n",
        b"Content-Length: 9\r\n\r\n",
    ),
    "304": ("GET", "1.1", b"HTTP/1.1 304 Not Modified\r\n\r\n", b"\r\n"),
    "1.0-length": ("GET", "1.0", answer(b"hello"), b"Content-Length: 5\r\nConnection: close\r\n\r\nhello"),
    "1.0-chunked": ("GET", "1.0", CHUNKED_ANSWER, b"Connection: close\r\n\r\nhello"),
}


@pytest.mark.parametrize("name", FRAMINGS)
def test_framing_of_answers(name: str) -> None:
    method, version, theirs, expected = FRAMINGS[name]
    world = World()
    client = world.client()
    client.deliver(request(method=method, version=version))
    target = world.target()
    target.deliver(theirs)
    world.turn()
    assert undated(client.sent).partition(b"\r\n")[2] == expected
    assert client.ended == ("closed" if version == "1.0" else "")
    assert target.ended == ""
    assert world.in_flight == 0


def test_an_answer_up_to_the_targets_close_is_chunked_for_http11() -> None:
    world = World()
    client = world.client()
    client.deliver(request())
    target = world.target()
    target.deliver(b"HTTP/1.0 200 OK\r\n\r\nhel")
    target.deliver(b"lo")
    target.deliver_eof()
    assert (
        undated(client.sent) == b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n"
    )
    assert not client.ended


def test_an_answer_up_to_the_targets_close_ends_with_ours_for_http10() -> None:
    world = World()
    client = world.client()
    client.deliver(request("/", "Connection: keep-alive", version="1.0"))
    target = world.target()
    target.deliver(b"HTTP/1.0 200 OK\r\n\r\nhello")
    assert undated(client.sent) == b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello"
    target.deliver_eof()
    world.turn()
    assert client.ended == "closed"


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize(
    "part",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\npart",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n",
    ],
    ids=["length", "chunked"],
)
def test_an_answer_that_breaks_off_is_cut_by_a_reset(part: bytes, version: str) -> None:
    world = World()
    client = world.client()
    client.deliver(request(version=version))
    target = world.target()
    target.deliver(part)
    target.deliver_eof()
    assert client.ended == "aborted"
    assert not client.sent.endswith(b"0\r\n\r\n")
    world.turn()
    [record] = world.log.records
    assert (record.status, record.error_reason) == (200, "TargetClosed")
    assert world.in_flight == 0


@pytest.mark.parametrize("theirs", [answer(b"hello"), CHUNKED_ANSWER], ids=["length", "chunked"])
def test_an_answer_in_one_piece_is_sent_in_one(theirs: bytes) -> None:
    """Each write is a system call."""
    world = World()
    client = world.client()
    client.deliver(request())
    target = world.target()
    target.deliver(theirs)
    assert (target.writes, client.writes) == (1, 1)
    assert undated(client.sent) == theirs
    assert world.pool.idle


def test_interim_answers_go_to_http11_clients_only() -> None:
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
    for version, expected in (("1.1", [100, 103, 103, 200]), ("1.0", [200])):
        world = World()
        client = world.client()
        client.deliver(request(version=version))
        world.target().deliver(b"HTTP/1.1 100 Continue\r\n\r\n" + hints + hints + answer())
        assert statuses(client.sent) == expected


@pytest.mark.parametrize("theirs", [answer(b"hello"), CHUNKED_ANSWER], ids=["length", "chunked"])
def test_bytes_are_counted_with_their_heads_each_once(theirs: bytes) -> None:
    world = World()
    client = world.client()
    asked = [request("/fixed"), request("/1", method="POST", body=b"x" * 9), request("/fixed")]
    client.deliver(b"".join(asked))
    target = world.target()
    for piece in (theirs[:60], theirs[60:]):
        target.deliver(piece)
    answers = client.sent.split(b"HTTP/1.1 ")[1:]
    assert [record.received_bytes for record in world.log.records] == [len(each) for each in asked]
    assert [record.sent_bytes for record in world.log.records] == [len(b"HTTP/1.1 " + each) for each in answers]
    assert world.counters.received_bytes == sum(map(len, asked))
    assert world.counters.sent_bytes == len(client.sent)


# Keeping and closing


KEEPING = {
    # version, Connection field -> what ours says, whether the connection stays
    "1.1": ("1.1", [], b"", True),
    "1.1-close": ("1.1", ["Connection: close"], b"Connection: close\r\n", False),
    "1.1-close-among": ("1.1", ["Connection: x, CLOSE"], b"Connection: close\r\n", False),
    "1.0": ("1.0", [], b"Connection: close\r\n", False),
    "1.0-keep-alive": ("1.0", ["Connection: Keep-Alive"], b"Connection: keep-alive\r\n", True),
    "1.0-both": ("1.0", ["Connection: keep-alive, close"], b"Connection: close\r\n", False),
}


@pytest.mark.parametrize("path", ["/", "/fixed"], ids=["target", "own"])
@pytest.mark.parametrize("name", KEEPING)
def test_whether_the_connection_is_kept(name: str, path: str) -> None:
    version, fields, expected, kept = KEEPING[name]
    world = World()
    client = world.client()
    client.deliver(request(path, *fields, version=version))
    if path == "/":
        world.target().deliver(answer())
    world.turn()
    assert b"".join(re.findall(rb"Connection: [^\r]*\r\n", client.sent)) == expected
    assert client.ended == ("" if kept else "closed")
    if kept:
        client.deliver(request("/fixed", *fields, version=version))
        assert len(statuses(client.sent)) == 2


def test_an_old_connection_is_closed_after_its_answer() -> None:
    world = World(client_keep_alive_seconds=30.0)
    client = world.client()
    for _ in range(3):
        world.wait(14)
        assert not client.ended
        client.deliver(request("/fixed"))
    assert b"Connection: close" in client.sent
    world.turn()
    assert client.ended == "closed"


def test_a_client_that_finished_sending_gets_its_answer() -> None:
    world = World()
    client = world.client()
    client.deliver(request())
    client.deliver_eof()
    world.target().deliver(answer())
    world.turn()
    assert client.sent.endswith(b"hello")
    assert client.ended == "closed"


@pytest.mark.parametrize("whole", [request(method="POST", body=b"body"), CHUNKED_REQUEST], ids=["length", "chunked"])
def test_a_client_that_finishes_within_a_body_made_a_bad_request(whole: bytes) -> None:
    """AWS: a client that closed the connection before it sent the whole body gets a 400."""
    world = World()
    client = world.client()
    client.deliver(whole[:-2])
    target = world.target()
    world.turn()
    client.deliver_eof()
    world.turn()
    assert statuses(client.sent) == [400]
    assert (client.ended, target.ended) == ("closed", "aborted")
    assert [record.status for record in world.log.records] == [400]


def test_a_client_that_finishes_within_a_body_after_its_answer_began_is_cut() -> None:
    world = World()
    client = world.client()
    client.deliver(request(method="POST", body=b"body", version="1.0")[:-2])
    target = world.target()
    world.turn()
    target.deliver(b"HTTP/1.0 200 OK\r\n\r\nup to the close")
    client.deliver_eof()
    world.turn()
    assert (client.ended, target.ended) == ("aborted", "aborted")


@pytest.mark.parametrize("slow", [False, True])
def test_a_client_that_finished_sending_gets_all_its_answers(slow: bool) -> None:
    world = World()
    client = world.client()
    client.full = slow
    client.deliver(request() + request("/fixed") * 3 + request() + request("/fixed"))
    client.deliver_eof()
    target = world.target()
    target.deliver(answer())
    for _ in range(5):
        client.drain()
        world.turn()
    target.deliver(answer())
    client.drain()
    world.turn()
    assert statuses(client.sent) == [200] * 6
    assert client.ended == "closed"


def test_a_client_that_sends_nothing_and_closes_leaves_nothing_behind() -> None:
    world = World()
    client = world.client()
    client.deliver_eof()
    world.turn()
    assert client.ended == "closed"
    assert client.sent == b""
    assert world.counters.active == 0
    assert not world.front.connections
    assert not world.log.records


@pytest.mark.parametrize("phase", ["connect", "wait", "relay", "body"])
def test_a_client_that_vanishes_takes_its_request_along(phase: str) -> None:
    world = World()
    client = world.client()
    client.deliver(request(method="POST", body=b"body")[:-2] if phase == "body" else request())
    if phase != "connect":
        target = world.target()
        if phase == "relay":
            target.deliver(answer()[:-1])
    client.reset()
    if phase == "connect":
        assert world.connector.attempts[0].cancelled
    else:
        assert target.ended == "aborted"
    [record] = world.log.records
    assert record.error_reason == "ClientClosed"
    assert record.status == (200 if phase == "relay" else 460)
    assert world.in_flight == 0
    assert world.counters.active == 0
    world.wait(100)
    assert not world.clock.getDelayedCalls()


def test_a_connection_is_closed_at_once_when_all_that_came_was_read() -> None:
    world = World()
    client = world.client()
    whole = request("/fixed", "Connection: close")
    client.deliver(whole[:20])
    client.deliver(whole[20:])
    world.turn()
    assert client.ended == "closed"


# Lingering: an answer to a request that was not read to its end


def unfinished(path: str) -> bytes:
    """A request of whose body of 1000 bytes a tenth has come."""
    return request(path, method="POST", body=b"x" * 1000)[:-900]


def test_after_an_early_answer_the_rest_of_the_body_is_taken_in_for_a_while() -> None:
    """Closing at once would reset the connection and could take our answer with it (RFC 9112 section 9.6)."""
    world = World()
    client = world.client()
    client.deliver(unfinished("/fixed"))
    assert statuses(client.sent) == [200]
    assert b"Connection: close" in client.sent
    world.turn()
    assert client.write_closed
    assert not client.ended
    client.deliver(b"x" * 500)
    assert statuses(client.sent) == [200]
    client.deliver_eof()
    assert client.ended == "closed"


def test_lingering_ends_in_order() -> None:
    """A reset would take along what the kernel has yet to send."""
    world = World()
    client = world.client()
    client.deliver(unfinished("/fixed"))
    world.wait(3)
    assert client.ended == "closed"


def test_lingering_begins_when_all_is_sent() -> None:
    world = World(idle_timeout_seconds=20.0)
    client = world.client()
    client.full = True
    client.deliver(unfinished("/fixed"))
    world.wait(10)
    assert not client.ended
    client.drain()
    assert client.write_closed
    assert statuses(client.sent) == [200]
    world.wait(3)
    assert client.ended == "closed"


def test_lingering_for_a_client_that_does_not_read_ends_too() -> None:
    world = World(idle_timeout_seconds=20.0)
    client = world.client()
    client.full = True
    client.deliver(unfinished("/fixed"))
    world.wait(25.2)
    assert client.ended == "aborted"


def test_an_early_answer_of_the_target_ends_both_connections() -> None:
    world = World()
    client = world.client()
    client.deliver(unfinished("/"))
    target = world.target()
    target.deliver(answer(b"no", status="413 Content Too Large"))
    assert target.ended == "aborted"
    assert b"Connection: close" in client.sent
    client.deliver_eof()
    world.turn()
    assert client.ended == "closed"
    assert not world.pool.idle


# Deadlines


def test_an_idle_connection_is_closed() -> None:
    world = World(idle_timeout_seconds=20.0)
    client = world.client()
    world.wait(19.8)
    assert not client.ended
    world.wait(0.4)
    assert client.ended == "closed"
    assert client.sent == b""


def test_an_idle_connection_between_requests_is_closed() -> None:
    world = World(idle_timeout_seconds=20.0)
    client = world.client()
    world.wait(15)
    client.deliver(request("/fixed"))
    client.take()
    world.wait(19.8)
    assert not client.ended
    world.wait(0.4)
    assert client.ended == "closed"
    assert client.sent == b""


def test_a_head_has_its_time_however_it_drips() -> None:
    world = World(request_header_timeout_seconds=5.0)
    client = world.client()
    for octet in request("/fixed", "X-Long: " + "x" * 100):
        if client.ended or client.write_closed:
            break
        client.deliver(bytes([octet]))
        world.wait(0.1)
    assert statuses(client.sent) == [408]
    [record] = world.log.records
    assert (record.status, record.error_reason, record.method) == (408, "ClientTimeout", b"-")


def test_a_body_that_stalls_is_given_up() -> None:
    world = World(idle_timeout_seconds=20.0)
    client = world.client()
    client.deliver(request(method="POST", body=b"x" * 100)[:-90])
    target = world.target()
    for _ in range(3):
        world.wait(15)
        client.deliver(b"x")
    world.wait(20.2)
    assert statuses(client.sent) == [408]
    assert target.ended == "aborted"


def test_a_target_that_does_not_answer_in_time() -> None:
    world = World(group={"response_timeout_seconds": 7.0})
    client = world.client()
    client.deliver(request())
    target = world.target()
    world.wait(6.8)
    assert client.sent == b""
    world.wait(0.4)
    assert statuses(client.sent) == [504]
    assert target.ended == "aborted"
    assert not client.ended, "the client is not to blame"
    client.deliver(request("/fixed"))
    assert statuses(client.sent) == [504, 200]


def test_a_target_that_stalls_in_its_answer() -> None:
    world = World(idle_timeout_seconds=20.0)
    client = world.client()
    client.deliver(request())
    target = world.target()
    target.deliver(answer(b"12345")[:-3])
    world.wait(15)
    target.deliver(b"3")
    world.wait(20.2)
    assert client.ended == "aborted"
    assert target.ended == "aborted"
    assert world.log.records[0].error_reason == "TargetStalled"


def test_a_client_that_stops_reading_is_cut() -> None:
    world = World(idle_timeout_seconds=20.0)
    client = world.client()
    client.deliver(request())
    target = world.target()
    client.full = True
    target.deliver(answer(b"12345")[:-3])
    world.wait(20.2)
    assert client.ended == "aborted"
    assert world.log.records[0].error_reason == "ClientTimeout"


@pytest.mark.parametrize("whole", [False, True], ids=["in-the-answer", "closing"])
def test_a_client_that_reads_slowly_is_served_as_long_as_it_reads(whole: bool) -> None:
    """The kernel tells that there is room when a third of its buffer is free, which may be a megabyte."""
    world = World(idle_timeout_seconds=20.0, min_response_rate=0)
    client = world.client()
    client.deliver(request("/", "Connection: close"))
    target = world.target()
    client.full = True
    target.deliver(answer(b"z" * 1000)[: None if whole else -500])
    for _ in range(5):
        client.drain_some(10)
        world.wait(20.2)
        assert not client.ended
    world.wait(45)
    assert client.ended == "aborted", "it has stopped"
    assert world.log.records[0].error_reason == ("" if whole else "ClientTimeout")


def test_a_target_that_reads_slowly_is_waited_for_as_long_as_it_reads() -> None:
    world = World(idle_timeout_seconds=20.0)
    client = world.client()
    client.deliver(request(method="POST", body=b"x" * 1000)[:-500])
    target = world.target()
    world.turn()
    target.full = True
    client.deliver(b"x" * 400)
    for _ in range(5):
        target.drain_some(10)
        world.wait(20.2)
        assert not client.ended
    world.wait(45)
    assert statuses(client.sent) == [504], "it has stopped"


# Draining


def test_draining_closes_idle_connections_after_a_moment() -> None:
    world = World()
    client = world.client()
    world.front.drain("Drain")
    world.turn()
    assert not client.ended
    world.wait(DRAIN_GRACE_SECONDS + 0.2)
    assert client.ended == "closed"


def test_draining_answers_with_close() -> None:
    world = World()
    waiting, idle = world.client(), world.client()
    waiting.deliver(request())
    world.front.drain("Drain")
    world.wait(DRAIN_GRACE_SECONDS - 1)
    idle.deliver(request("/fixed"))
    world.wait(5)
    world.target().deliver(answer())
    world.turn()
    for client in (waiting, idle):
        assert b"Connection: close" in client.sent
        assert client.ended == "closed"


def test_the_end_cuts_what_is_left_and_counts_it() -> None:
    world = World()
    busy, idle, early = world.client(), world.client(), world.client()
    busy.deliver(request())
    target = world.target()
    early.deliver(b"GET / HT")
    assert world.front.end() == 1
    world.turn()
    assert [each.ended for each in (busy, idle, early, target)] == ["aborted"] * 4
    assert world.counters.active == 0
    assert world.counters.faults["DrainDeadline"] == 1
    assert world.in_flight == 0


# Bad requests


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/3.0\r\nHost: x\r\n\r\n", 505),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        (b"GET /" + b"x" * 20000, 414),
    ],
)
def test_a_request_that_cannot_be_read_is_refused_and_the_connection_closed(data: bytes, status: int) -> None:
    world = World()
    client = world.client()
    client.deliver(request("/fixed") + data)
    assert statuses(client.sent) == [200, status]
    assert client.sent.count(b"Connection: close") == 1
    client.deliver(request("/fixed"))
    assert statuses(client.sent) == [200, status]
    client.deliver_eof()
    world.turn()
    assert client.ended == "closed"
    assert [record.status for record in world.log.records] == [200, status]
    assert world.counters.sent_bytes == len(client.sent)
    assert not world.connector.attempts


def test_a_body_that_goes_wrong_ends_the_request() -> None:
    world = World()
    client = world.client()
    client.deliver(CHUNKED_REQUEST[:-5])
    target = world.target()
    world.turn()
    client.deliver(b"nonsense\r\n")
    assert statuses(client.sent) == [400]
    assert target.ended == "aborted"
    assert not target.sent.endswith(b"0\r\n\r\n")
    client.deliver(request("/fixed"))
    assert statuses(client.sent) == [400]


# Tunnels


UPGRADE = request("/chat", "Connection: Upgrade", "Upgrade: websocket")
SWITCHING = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: WebSocket\r\nX: 1\r\n\r\n"


def tunnel(world: World) -> tuple[FakeTransport, FakeTransport]:
    client = world.client()
    client.deliver(UPGRADE + b"early")
    target = world.target()
    assert target.take().endswith(b"Connection: upgrade\r\nUpgrade: websocket\r\n\r\n")
    target.deliver(SWITCHING + b"hello")
    assert client.take() == (
        b"HTTP/1.1 101 Switching Protocols\r\nX: 1\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nhello"
    )
    assert target.take() == b"early"
    return client, target


def test_a_tunnel_carries_bytes_both_ways() -> None:
    world = World()
    client, target = tunnel(world)
    client.deliver(b"\x00GET / HTTP/1.1\r\n\r\n")
    assert target.take() == b"\x00GET / HTTP/1.1\r\n\r\n"
    target.deliver(b"\xff" * 10)
    assert client.take() == b"\xff" * 10
    assert world.in_flight == 1
    target.deliver_eof()
    world.turn()
    assert client.write_closed
    client.deliver(b"on its way")
    assert not client.ended, "a reset could take the last of it from the client"
    client.deliver_eof()
    world.turn()
    assert client.ended == "closed"
    [record] = world.log.records
    assert (record.status, record.kind, record.error_reason) == (101, "ws", "")
    assert world.in_flight == 0


@pytest.mark.parametrize("how", ["finishes", "vanishes"])
def test_what_a_client_sends_last_through_a_tunnel_arrives(how: str) -> None:
    world = World()
    client, target = tunnel(world)
    target.full = True
    client.deliver(b"last words")
    if how == "finishes":
        client.reading = True  # the end may be noticed in the same turn
        client.deliver_eof()
    else:
        client.reset()
    world.turn()
    assert not target.ended
    target.drain()
    assert target.sent == b"last words"
    assert target.write_closed
    target.deliver_eof()
    assert not target.connected
    assert world.in_flight == 0


def test_a_tunnels_target_that_does_not_take_the_last_of_it_is_dropped() -> None:
    world = World()
    client, target = tunnel(world)
    target.full = True
    client.deliver(b"last words")
    client.reset()
    world.wait(6)
    assert target.ended == "aborted"


def test_a_tunnel_has_back_pressure_both_ways() -> None:
    world = World()
    client, target = tunnel(world)
    client.full = target.full = True
    client.deliver(b"x")
    target.deliver(b"y")
    assert not client.reading
    assert not target.reading
    client.drain()
    target.drain()
    world.turn()
    assert client.reading
    assert target.reading


def test_a_drain_takes_leave_of_both_ends_of_a_websocket() -> None:
    """RFC 6455 section 7.4.1; the client has time to read it, and may still be sending."""
    world = World()
    client = world.client()
    client.deliver(UPGRADE)
    target = world.target()
    target.deliver(SWITCHING + b"\x81\x02hi")
    assert client.take().endswith(b"\r\n\r\n\x81\x02hi")
    target.take()
    client.full = True
    assert world.front.end() == 1
    world.turn()
    assert (len(target.take()), target.write_closed) == (8, True)
    client.deliver(b"\x81\x80mask")
    assert not client.ended
    client.drain()
    assert client.take() == b"\x88\x02\x03\xe9"
    assert client.write_closed
    client.deliver_eof()
    assert client.ended == "closed"
    assert target.take() == b""
    assert world.counters.faults == {"DrainDeadline": 1}
    assert world.log.records[0].error_reason == "DrainDeadline"
    assert world.in_flight == 0


def test_a_target_that_still_sends_is_heard_out_when_its_websocket_ends() -> None:
    """To close with unread data would be a reset, which may overtake the close frame."""
    world = World()
    client = world.client()
    client.deliver(UPGRADE)
    target = world.target()
    client.full = True
    target.deliver(SWITCHING + b"\x81\x02hi")
    assert not target.reading
    world.front.end()
    world.turn()
    target.deliver(b"\x81\x05")
    target.deliver(b"hello")
    assert (target.write_closed, target.reading, target.ended) == (True, True, "")
    target.deliver_eof()
    assert target.ended == "lost"
    assert not world.pool.connections


def test_a_target_that_never_ends_its_websocket_is_cut() -> None:
    world = World()
    client = world.client()
    client.deliver(UPGRADE)
    target = world.target()
    target.deliver(SWITCHING)
    world.front.end()
    world.wait(4)
    target.deliver(b"\x81\x00")
    assert not target.ended
    world.wait(2)
    assert target.ended == "aborted"


def test_a_drain_cuts_a_client_that_does_not_take_its_leave() -> None:
    world = World()
    client = world.client()
    client.deliver(UPGRADE)
    world.target().deliver(SWITCHING)
    client.full = True
    assert world.front.end() == 1
    assert not client.ended
    assert world.front.end() == 0, "it is counted once"
    assert client.ended == "aborted"


def test_a_drain_cuts_a_tunnel_within_a_frame() -> None:
    world = World()
    client, target = tunnel(world)  # "early" and "hello" begin frames that are longer
    assert world.front.end() == 1
    assert (client.take(), client.ended) == (b"", "aborted")
    assert (target.take(), target.ended) == (b"", "aborted")


def test_an_idle_tunnel_is_ended() -> None:
    world = World(idle_timeout_seconds=20.0, group={"response_timeout_seconds": 500.0})
    client, target = tunnel(world)
    world.wait(15)
    client.deliver(b"x")
    world.wait(15)
    target.deliver(b"x")
    world.wait(19.7)
    assert not client.write_closed
    world.wait(0.6)
    assert client.write_closed
    assert target.ended
    assert world.log.records[0].error_reason == "IdleTimeout"
    world.wait(2.5)
    assert client.ended


# Everything at once


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_stream_of_requests_in_any_pieces_gets_its_answers_in_order(data: Any) -> None:
    """The target's answers tell which request they belong to."""
    world = World()
    client = world.client()
    stream, expected = b"", []
    for number in range(data.draw(st.integers(1, 6), "requests")):
        path = data.draw(st.sampled_from(["/", "/fixed", "/old"]), "path")
        body = data.draw(st.binary(max_size=30), "body") if path == "/" else b""
        stream += request(f"{path}?{number}" if path == "/" else path, method="POST", body=body)
        expected.append({"/": f"answer to {number}".encode(), "/fixed": b"fixed\n", "/old": b"301"}[path])
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8), "cuts"))
    target: FakeTransport | None = None
    asked = b""

    def answer_what_was_asked() -> None:
        nonlocal target, asked
        if target is None and world.connector.attempts:
            target = world.target()
        while target is not None:
            world.turn()
            asked += target.take()
            match = re.match(rb"POST /\?(\d+) HTTP/1\.1\r\n(.*?\r\n)\r\n", asked, re.DOTALL)
            if match is None:
                return
            length = re.search(rb"Content-Length: (\d+)\r\n", match[2])
            end = match.end() + (int(length[1]) if length else 0)
            if len(asked) < end:
                return
            asked = asked[end:]
            target.deliver(answer(b"answer to " + match[1]))

    for begin, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        if begin < end:
            client.deliver(stream[begin:end])
        answer_what_was_asked()
    parts = re.split(rb"HTTP/1\.1 (?:200 OK|301 Moved Permanently)\r\n", client.sent)
    assert [b"301" if b"Location:" in part else part.partition(b"\r\n\r\n")[2] for part in parts[1:]] == expected
    assert world.in_flight == 0
    assert len(world.log.records) == len(expected)
