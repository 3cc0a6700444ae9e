"""A client's connection of HTTP/2: what becomes of requests, answers, windows, resets and ends."""

from __future__ import annotations

import base64
import hashlib
import re
from typing import Any

import pytest
from twisted.internet.interfaces import IHalfCloseableProtocol, IProtocol, IPushProducer
from zope.interface.verify import verifyObject

from lbproxy.dataplane.listener.http1 import DRAIN_GRACE_SECONDS
from lbproxy.dataplane.listener.http2 import Http2Connection
from lbproxy.model.listener import DesyncMitigationMode, PathNormalization
from lbproxy.wire.http2.connection import STREAM_WINDOW
from lbproxy.wire.http2.errors import (
    CANCEL,
    ENHANCE_YOUR_CALM,
    INTERNAL_ERROR,
    NO_ERROR,
    PROTOCOL_ERROR,
    SETTINGS_TIMEOUT,
)
from lbproxy.wire.http2.frames import ACK, GOAWAY, PING, PREFACE, SETTINGS
from tests.dataplane.doubles import CHUNKED_ANSWER, FakeTransport, World, answer, request
from tests.dataplane.listener.http2_client import Http2Client
from tests.wire.http2.raw import CLIENT_PREFACE, GET, POST, frame, frames, headers, reset, settings

TRACE = re.compile(rb"X-Amzn-Trace-Id: [^\r]*\r\n")
SLOW: dict[str, Any] = {"min_request_rate": 10, "min_response_rate": 10, "slow_client_grace_seconds": 10.0}


def new_world(**options: Any) -> World:
    return World(**{"http2": True, **options})


def connect(**options: Any) -> tuple[World, Http2Client]:
    world = new_world(**options)
    return world, Http2Client(world)


def sent_to(target: FakeTransport) -> bytes:
    return TRACE.sub(b"", target.take())


def test_the_interfaces() -> None:
    world = new_world()
    connection = Http2Connection(world.front, "192.0.2.7", 1, None, 0.0)
    for interface in (IProtocol, IPushProducer, IHalfCloseableProtocol):
        assert verifyObject(interface, connection)


# Beginning


def test_a_client_that_begins_with_http2_is_served() -> None:
    world, client = connect()
    stream = client.request("/fixed")
    assert client.answer_to(stream).body == b"fixed\n"
    assert world.counters.connections == 1
    assert world.counters.active == 1
    client.transport.reset()
    assert world.counters.active == 0
    assert not world.front.connections


def test_the_preface_in_any_split() -> None:
    for size in (1, 5, 16, 17, 23):
        world = new_world()
        transport = world.client()
        whole = CLIENT_PREFACE + headers(1, [*GET[:3], (":path", "/fixed")])
        for at in range(0, len(whole), size):
            transport.deliver(whole[at : at + size])
        assert b"fixed\n" in transport.sent


def test_a_listener_that_does_not_want_it_refuses_it() -> None:
    world = World()
    transport = world.client()
    transport.deliver(CLIENT_PREFACE)
    assert transport.sent.startswith(b"HTTP/1.1 505 ")


def test_http1_goes_on_beside_it_and_does_not_become_http2() -> None:
    world = new_world()
    transport = world.client()
    transport.deliver(request("/fixed"))
    assert transport.take().startswith(b"HTTP/1.1 200 ")
    transport.deliver(CLIENT_PREFACE)
    assert transport.take().startswith(b"HTTP/1.1 505 ")


def test_what_is_neither_gets_no_answer() -> None:
    world = new_world()
    transport = world.client()
    transport.deliver(b"INVALID CONNECTION PREFACE\r\n\r\n")
    world.turn()
    assert (transport.sent, transport.write_closed) == (b"", True)
    assert [record.error_reason for record in world.log.records] == ["BadVersion"]


def test_upgrade_h2c_has_no_effect() -> None:
    """RFC 9113 section 3.1: it was never used much, and proxies that passed it on opened a blind tunnel."""
    world = new_world()
    transport = world.client()
    transport.deliver(request("/", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk"))
    sent = world.target().take()
    assert b"pgrade" not in sent
    assert b"ettings" not in sent


# Requests and answers


def test_a_request_reaches_a_target_of_http1_and_its_answer_the_client() -> None:
    world, client = connect()
    stream = client.request("/a?b=c", "User-Agent: x", "Cookie: a=1", "TE: trailers")
    target = world.target()
    assert sent_to(target) == (
        b"GET /a?b=c HTTP/1.1\r\nHost: example.com\r\nuser-agent: x\r\ncookie: a=1\r\nX-Forwarded-For: 192.0.2.7\r\n"
        b"X-Forwarded-Proto: http\r\nX-Forwarded-Port: 8080\r\nConnection: te\r\nTE: trailers\r\n\r\n"
    )
    target.deliver(answer(b"hello", "Server: y", "Connection: keep-alive"))
    got = client.answer_to(stream)
    assert (got.status, got.length, got.body, got.ended) == (200, 5, b"hello", True)
    assert re.fullmatch(rb"server: y\r\ndate: [^\r]*\r\n", got.fields)
    [record] = world.log.records
    assert (record.version, record.status, record.target_status, record.method) == (b"HTTP/2.0", 200, 200, b"GET")
    assert record.received_bytes > 0
    assert record.sent_bytes > 5
    assert world.in_flight == 0


def test_requests_run_side_by_side_each_with_its_target_connection() -> None:
    world, client = connect()
    streams = [client.request(f"/{number}") for number in range(3)]
    targets = [attempt.succeed() for attempt in world.connector.attempts]
    assert len(targets) == 3
    for number in (2, 0, 1):
        targets[number].deliver(answer(b"%d" % number))
    assert [client.answer_to(stream).body for stream in streams] == [b"0", b"1", b"2"]


def test_an_answer_in_chunks_with_trailers() -> None:
    world, client = connect()
    stream = client.request("/", "TE: trailers")
    world.target().deliver(CHUNKED_ANSWER.replace(b"0\r\n\r\n", b"0\r\nX-Sum: 7\r\n\r\n"))
    got = client.answer_to(stream)
    assert (got.body, got.trailers, got.ended) == (b"hello", b"x-sum: 7\r\n", True)


@pytest.mark.parametrize(
    ("response", "status", "length", "body"),
    [
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204, -1, b""),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n", 304, 7, b""),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 200, 0, b""),
        (CHUNKED_ANSWER, 200, -1, b"hello"),
    ],
)
def test_answers_with_and_without_content(response: bytes, status: int, length: int, body: bytes) -> None:
    world, client = connect()
    stream = client.request()
    world.target().deliver(response)
    got = client.answer_to(stream)
    assert (got.status, got.length, got.body, got.ended) == (status, length, body, True)


def test_an_answer_to_head() -> None:
    world, client = connect()
    stream = client.request(method="HEAD")
    world.target().deliver(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n")
    got = client.answer_to(stream)
    assert (got.length, got.body, got.ended) == (7, b"", True)


def test_an_answer_that_ends_with_its_connection() -> None:
    world, client = connect()
    stream = client.request()
    target = world.target()
    target.deliver(b"HTTP/1.0 200 OK\r\n\r\nabc")
    assert not client.answer_to(stream).ended
    target.deliver_eof()
    got = client.answer_to(stream)
    assert (got.body, got.ended) == (b"abc", True)


def test_interim_answers_pass() -> None:
    world, client = connect()
    stream = client.request(method="POST", ended=False, length=3)
    target = world.target()
    target.deliver(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
    assert client.answer_to(stream).interim == [100, 103]
    client.send(stream, b"abc", True)
    target.deliver(answer())
    assert client.answer_to(stream).status == 200


def test_a_request_with_its_content_in_one_read_is_one_write() -> None:
    world, client = connect()
    client.request(method="POST", body=b"abc")
    target = world.target()
    assert target.writes == 1
    assert sent_to(target).endswith(b"Content-Length: 3\r\n\r\nabc")


def test_the_length_of_content_that_is_all_there_is_told() -> None:
    """A target of HTTP/1.1 gets no chunks where none are needed."""
    world = new_world()
    transport = world.client()
    transport.deliver(CLIENT_PREFACE + headers(1, POST, 4) + frame(0, 1, 1, b"abc"))
    assert sent_to(world.target()).endswith(b"Content-Length: 3\r\n\r\nabc")


def test_content_without_a_length_goes_in_chunks_with_trailers() -> None:
    world, client = connect()
    stream = client.request(method="POST", ended=False)
    target = world.target()
    client.send(stream, b"abc")
    client.codec.send_end(stream, b"X-Sum: 1\r\n")
    client.move()
    assert sent_to(target).endswith(b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nx-sum: 1\r\n\r\n")


def test_answers_of_one_turn_go_in_one_write() -> None:
    _, client = connect()
    before = client.transport.writes
    whole = b"".join(headers(number, [*GET[:3], (":path", "/fixed")]) for number in range(1, 21, 2))
    client.transport.deliver(whole)
    assert client.transport.writes == before + 1


def test_a_cut_answer_looks_cut() -> None:
    world, client = connect()
    stream = client.request()
    target = world.target()
    target.deliver(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")
    client.move()
    target.reset()
    got = client.answer_to(stream)
    assert (got.body, got.ended, got.reset) == (b"abc", False, INTERNAL_ERROR)
    assert client.transport.connected
    assert client.answer_to(client.request("/fixed")).status == 200, "the other streams are not concerned"


def test_an_early_answer_ends_the_request() -> None:
    world, client = connect()
    stream = client.request(method="POST", ended=False, length=100)
    target = world.target()
    target.deliver(answer(b"no", status="413 Content Too Large"))
    got = client.answer_to(stream)
    assert (got.status, got.ended, got.reset) == (413, True, NO_ERROR)
    assert target.ended == "aborted"


# What is refused


def test_an_answer_to_all_of_the_content_is_not_early() -> None:
    """Also where the request's end comes after it in a frame of its own, as httpx and others write it."""
    world, client = connect(idle_timeout_seconds=5.0)
    stream = client.request(method="POST", body=b"abc", ended=False, length=3)
    world.target().deliver(answer())
    got = client.answer_to(stream)
    assert (got.status, got.ended, got.reset) == (200, True, None)
    client.send(stream, b"", True)
    assert client.answer_to(stream).reset is None
    assert not world.front.connections.copy().pop().codec.streams

    stream = client.request(method="POST", body=b"abc", ended=False, length=3)
    world.target().deliver(answer())
    world.wait(5.2)
    assert client.answer_to(stream).reset == CANCEL
    world.wait(8)
    assert not client.transport.connected


def test_what_http1_refuses_is_answered_alike() -> None:
    world, client = connect()
    stream = client.request(method="TRACE")
    got = client.answer_to(stream)
    assert (got.status, got.ended) == (405, True)
    assert b"server: lbproxy" in got.fields
    [record] = world.log.records
    assert (record.status, record.error_reason, record.version) == (405, "MethodNotAllowed", b"HTTP/2.0")
    assert world.counters.faults == {"MethodNotAllowed": 1}


@pytest.mark.parametrize(
    ("path", "field", "told", "reason"),
    [
        ("/fixed", "X: y", [b"grpc-status: 2", b"grpc-message: fixed (200 OK)"], ""),
        ("/old", "X: y", [b"grpc-status: 2", b"grpc-message: http://example.com:8080/new (301 "], ""),
        ("/", f"X: {'y' * 66000}", [b"grpc-status: 13", b"message: HeadersTooLarge (400 "], "HeadersTooLarge"),
        ("/%ff%", "X: y", [b"grpc-status: 13", b"message: BadPath (400 "], "BadPath"),
        ("/", "X: é", [b"grpc-status: 13", b"message: NonCompliantHeader (400 "], "NonCompliantHeader"),
    ],
)
def test_a_call_of_grpc_gets_answers_of_grpc(path: str, field: str, told: list[bytes], reason: str) -> None:
    """Whatever we say by ourselves: a head that is all of the answer."""
    world, client = connect(
        desync_mitigation_mode=DesyncMitigationMode.STRICTEST, path_normalization=PathNormalization.STRICT
    )
    stream = client.request(path, "Content-Type: application/grpc", field, method="POST", ended=False)
    got = client.answer_to(stream)
    assert (got.status, got.ended, got.body) == (200, True, b"")
    for each in [b"content-type: application/grpc", *told]:
        assert each in got.fields
    [record] = world.log.records
    assert (record.status, record.error_reason) == (200, reason)


def test_what_is_malformed_is_reset_and_logged() -> None:
    world = new_world()
    transport = world.client()
    transport.deliver(CLIENT_PREFACE + headers(1, [*GET, ("connection", "close")]))
    assert (3, 0, 1, PROTOCOL_ERROR.to_bytes(4, "big")) in frames(transport.take())
    [record] = world.log.records
    assert (record.status, record.error_reason, record.sent_bytes) == (400, "BadHeader", 0)


def test_content_that_contradicts_its_length_fails_the_request() -> None:
    world, client = connect()
    client.transport.deliver(headers(1, [*POST, ("content-length", "5")], 4))
    target = world.target()
    client.transport.deliver(frame(0, 1, 1, b"abc"))
    assert target.ended == "aborted"
    [record] = world.log.records
    assert (record.status, record.error_reason) == (400, "BadRequest")


def test_a_broken_connection_loses_its_requests_and_says_why() -> None:
    world, client = connect()
    client.request()
    target = world.target()
    client.transport.deliver(frame(0, 0, 0, b"x"))
    sent = frames(client.transport.take())
    assert sent[-1].kind == GOAWAY
    assert sent[-1].payload[:8] == (1).to_bytes(4, "big") + PROTOCOL_ERROR.to_bytes(4, "big")
    assert target.ended == "aborted"
    world.wait(4)
    assert not client.transport.connected
    assert world.counters.faults == {"BadFrame": 1, "ClientClosed": 1}
    assert world.in_flight == 0


def test_a_request_that_ends_in_the_read_that_breaks_the_connection_is_not_forgotten() -> None:
    for end in (reset(1), frame(8, 0, 1, bytes(4))):
        world, client = connect()
        client.transport.deliver(headers(1, GET))
        target = world.target()
        client.transport.deliver(end + frame(6, 0, 1, bytes(8)))
        assert target.ended == "aborted"
        assert world.in_flight == 0
        assert len(world.log.records) == 1


def test_abuse_is_counted_by_its_cause() -> None:
    world, client = connect()
    for number in range(1, 1000, 2):
        if not client.transport.connected or client.transport.write_closed:
            break
        client.transport.deliver(headers(number, POST, 4) + reset(number))
        world.turn()
    last = frames(client.transport.take())[-1]
    assert int.from_bytes(last.payload[4:8], "big") == ENHANCE_YOUR_CALM
    assert world.counters.faults == {"Http2RapidReset": 1}
    assert not world.connector.attempts, "what is reset in the read that brings it goes nowhere"


# Resets


def test_a_cancelled_request_lets_go_of_its_target() -> None:
    world, client = connect()
    stream = client.request()
    target = world.target()
    client.cancel(stream)
    assert target.ended == "aborted"
    [record] = world.log.records
    assert (record.status, record.error_reason) == (460, "ClientClosed")
    assert client.transport.connected
    assert world.in_flight == 0


def test_a_request_cancelled_while_its_target_is_connected() -> None:
    world, client = connect()
    client.cancel(client.request())
    assert world.connector.attempts[0].cancelled
    assert world.in_flight == 0


# Back-pressure


def test_a_target_that_reads_slowly_holds_up_its_stream_only() -> None:
    world, client = connect()
    slow = client.request(method="POST", ended=False)
    target = world.target()
    target.full = True
    client.send(slow, bytes(3 * STREAM_WINDOW))
    assert slow.queued >= STREAM_WINDOW, "no more than its window was asked for"
    assert client.answer_to(client.request("/fixed")).status == 200
    target.drain()
    client.move()
    assert slow.queued == 0


def test_a_client_that_reads_slowly_holds_up_its_target() -> None:
    world, client = connect()
    client.transport.deliver(settings((4, 10)) + headers(101, GET))
    target = world.target()
    target.deliver(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n" + bytes(50))
    assert not target.reading
    sent = [f for f in frames(client.transport.take()) if f.kind == 0]
    assert sum(len(f.payload) for f in sent) == 10
    client.transport.deliver(frame(8, 0, 101, (90).to_bytes(4, "big")))
    assert target.reading
    target.deliver(bytes(50))
    sent = [f for f in frames(client.transport.take()) if f.kind == 0]
    assert (sum(len(f.payload) for f in sent), sent[-1].flags) == (90, 1)


def test_a_transport_that_is_full_holds_up_all() -> None:
    world, client = connect()
    stream = client.request()
    target = world.target()
    client.transport.full = True
    target.deliver(b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n" + bytes(5))
    target.deliver(bytes(5))
    target.deliver(bytes(5))
    assert not target.reading
    client.transport.drain()
    world.turn()
    assert target.reading
    target.deliver(bytes(5))
    assert client.answer_to(stream).ended


def test_a_client_that_does_not_read_its_acknowledgements_is_not_read() -> None:
    world = new_world()
    transport = world.client()
    transport.deliver(CLIENT_PREFACE + frame(SETTINGS, ACK))
    transport.full = True
    for _ in range(5000):
        if not transport.reading:
            break
        transport.deliver(frame(PING, 0, 0, bytes(8)))
        world.clock.advance(0.01)
    assert not transport.reading
    transport.drain()
    world.turn()
    assert transport.reading


# Time


def test_an_idle_connection_is_closed_with_goaway() -> None:
    world, client = connect(idle_timeout_seconds=5.0)
    client.request("/fixed")
    world.wait(4.8)
    assert client.transport.connected
    assert client.goaways == []
    world.wait(0.4)
    client.move()
    assert client.goaways == [(1, NO_ERROR)]
    assert world.counters.closed == {"IdleTimeout": 1}
    world.wait(2.5)
    assert not client.transport.connected


def test_a_connection_is_idle_whatever_pings_it_sends() -> None:
    world, client = connect(idle_timeout_seconds=5.0)
    client.request("/fixed")
    for _ in range(4):
        world.wait(1.2)
        client.transport.deliver(frame(PING, 0, 0, bytes(8)) + frame(8, 0, 0, (5).to_bytes(4, "big")))
    world.wait(0.4)
    client.move()
    assert client.goaways == [(1, NO_ERROR)]
    assert world.counters.closed == {"IdleTimeout": 1}


def test_requests_that_are_answered_at_once_keep_a_connection_busy() -> None:
    world, client = connect(idle_timeout_seconds=5.0)
    for _ in range(4):
        client.request("/fixed")
        world.wait(4)
        client.transport.deliver(frame(PING, 0, 0, bytes(8)))
    assert client.transport.connected


def test_each_head_has_its_own_time() -> None:
    """Where the end of one and the beginning of the next come together; but not each frame of one."""
    fixed = [*GET[:3], (":path", "/fixed")]
    world, client = connect(request_header_timeout_seconds=3.0)
    client.transport.deliver(headers(1, fixed)[:12])
    for number in range(3, 13, 2):
        world.wait(2)
        client.transport.deliver(headers(number - 2, fixed)[12:] + headers(number, fixed)[:12])
    assert client.transport.connected
    world.wait(3.2)
    assert client.transport.write_closed

    world, client = connect(request_header_timeout_seconds=3.0)
    client.transport.deliver(headers(1, fixed, 1))
    for _ in range(3):
        assert client.transport.connected
        world.wait(1.1)
        client.transport.deliver(frame(9, 0, 1, b""))
    assert client.transport.write_closed


def test_a_head_must_come_in_time() -> None:
    world, client = connect(request_header_timeout_seconds=3.0)
    client.transport.deliver(headers(1, GET)[:20])
    world.wait(3.2)
    assert client.transport.write_closed
    assert world.counters.faults == {"ClientTimeout": 1}


def test_the_preface_must_come_in_time() -> None:
    world = new_world(request_header_timeout_seconds=3.0)
    transport = world.client()
    transport.deliver(PREFACE)
    world.wait(3.2)
    assert transport.write_closed


def test_settings_must_be_acknowledged_in_time() -> None:
    """RFC 9113 section 6.5.3; also beside a request that takes longer."""
    world = new_world(request_header_timeout_seconds=5.0)
    transport = world.client()
    transport.deliver(CLIENT_PREFACE + headers(1, GET))
    transport.take()
    world.wait(4)
    assert not transport.take()
    world.wait(2)
    assert frames(transport.take())[-1].payload[4:8] == SETTINGS_TIMEOUT.to_bytes(4, "big")
    world.wait(4)
    assert not transport.connected
    assert world.counters.faults == {"Http2SettingsTimeout": 1, "ClientClosed": 1}
    assert world.in_flight == 0


def test_settings_that_are_acknowledged_are_not_asked_about_again() -> None:
    world, client = connect(request_header_timeout_seconds=5.0)
    client.request()
    world.target()
    world.wait(50)
    assert client.transport.connected


def test_content_in_a_large_frame_may_take_longer_than_a_head() -> None:
    world, client = connect(request_header_timeout_seconds=3.0)
    client.transport.deliver(headers(1, POST, 4) + frame(0, 0, 1, bytes(1000))[:500])
    world.target()
    world.wait(10)
    assert client.transport.connected


def test_a_target_that_does_not_answer() -> None:
    world, client = connect(group={"response_timeout_seconds": 2.0})
    stream = client.request()
    world.target()
    world.wait(2.2)
    assert client.answer_to(stream).status == 504


def test_a_window_that_stays_shut_ends_the_stream() -> None:
    """Whether the target still has more, or all of the answer is here."""
    for length in (50, 100):
        world, client = connect(idle_timeout_seconds=5.0)
        client.transport.deliver(settings((4, 0)) + headers(1, GET))
        target = world.target()
        target.deliver(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % length + bytes(50))
        client.transport.take()
        world.wait(5.3)
        assert 3 in {f.kind for f in frames(client.transport.take())}, length
        assert world.in_flight == 0


def test_a_window_that_stays_shut_for_a_refusal_ends_the_stream_too() -> None:
    world, client = connect(idle_timeout_seconds=5.0)
    client.transport.deliver(settings((4, 0)) + headers(1, [*GET[:2], (":authority", "a b"), GET[3]]))
    world.turn()
    client.transport.take()
    world.wait(5.3)
    assert 3 in {f.kind for f in frames(client.transport.take())}
    world.wait(8)
    assert not client.transport.connected


def test_a_window_that_opens_now_and_then_is_waited_for() -> None:
    world, client = connect(idle_timeout_seconds=5.0)
    client.transport.deliver(settings((4, 0)) + headers(1, GET))
    world.target().deliver(answer(bytes(50)))
    for _ in range(10):
        world.wait(4)
        client.transport.deliver(frame(8, 0, 1, (5).to_bytes(4, "big")))
    assert [f.flags for f in frames(client.transport.take()) if f.kind == 0][-1] == 1


def test_content_that_trickles_is_answered_with_408() -> None:
    world, client = connect(**SLOW)
    stream = client.request(method="POST", ended=False, length=1000)
    target = world.target()
    for _ in range(11):
        client.send(stream, b"x" * 5)
        world.wait(1)
    got = client.answer_to(stream)
    assert (got.status, got.reset) == (408, NO_ERROR)
    assert target.ended == "aborted"
    assert world.counters.faults == {"ClientTooSlow": 1}


def test_content_that_comes_steadily_may_take_long() -> None:
    world, client = connect(**SLOW)
    stream = client.request(method="POST", ended=False, length=1000)
    world.target()
    for _ in range(60):
        client.send(stream, b"x" * 12)
        world.wait(1)
    assert client.answer_to(stream).status == 0


def test_a_client_that_has_taken_the_end_of_an_answer_is_not_waited_for() -> None:
    """Nor one whose answer was cut; other requests of the connection may take as long as they want."""
    for length in (50, 100):
        world, client = connect(**SLOW)
        client.transport.deliver(settings((4, 10)) + headers(1, GET))
        target = world.target()
        target.deliver(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % length + bytes(50))
        if length == 50:
            client.transport.deliver(frame(8, 0, 1, (40).to_bytes(4, "big")) + headers(3, GET) + settings((4, 1000)))
        else:
            target.reset()
            client.transport.deliver(headers(3, GET) + settings((4, 1000)))
            target = world.target()
        world.wait(25)
        assert client.transport.connected, length
        client.transport.take()
        target.deliver(answer(b"late"))
        world.turn()
        assert frames(client.transport.take())[-1].payload == b"late"


def test_a_client_that_sips_is_cut_off() -> None:
    world, client = connect(**SLOW)
    client.transport.deliver(settings((4, 10)) + headers(1, GET))
    world.target().deliver(answer(bytes(5000)))
    for _ in range(12):
        client.transport.deliver(frame(8, 0, 1, (3).to_bytes(4, "big")))
        world.wait(1)
    assert client.transport.ended == "aborted"
    assert world.counters.faults == {"ClientTooSlow": 1}


# Ends


def test_a_drain_says_goaway_twice_and_lets_requests_end() -> None:
    world, client = connect()
    stream = client.request()
    target = world.target()
    world.front.drain("Drain")
    client.move()
    assert client.goaways == [(2**31 - 1, NO_ERROR)]
    late = headers(3, [*GET[:3], (":path", "/fixed")])
    client.transport.deliver(late)
    assert b"fixed\n" in client.transport.sent, "it crossed with the first GOAWAY"
    client.transport.take()
    world.wait(DRAIN_GRACE_SECONDS + 0.2)
    [goaway] = [f for f in frames(client.transport.take()) if f.kind == GOAWAY]
    assert int.from_bytes(goaway.payload[:4], "big") == 3
    client.transport.deliver(headers(5, GET))
    assert len(world.connector.attempts) == 1, "it is too late"
    target.deliver(answer(b"hello", "Date: now"))  # the table has a date that this client was not shown
    world.turn()
    assert client.answer_to(stream).status == 200
    assert client.transport.write_closed


def test_an_idle_connection_drains_in_a_moment() -> None:
    world, client = connect()
    world.front.drain("Drain")
    world.wait(DRAIN_GRACE_SECONDS + 0.2)
    client.move()
    assert client.goaways == [(2**31 - 1, NO_ERROR), (0, NO_ERROR)]
    assert world.counters.closed == {"Drain": 1}
    assert client.transport.write_closed


def test_the_end_cuts_what_is_in_flight() -> None:
    world, client = connect()
    client.request()
    world.target()
    assert world.front.end() == 1
    assert client.transport.ended == "aborted"
    assert world.counters.faults == {"DrainDeadline": 1}


def test_an_old_connection_takes_no_more_requests() -> None:
    world, client = connect(client_keep_alive_seconds=10.0)
    client.request("/fixed")
    world.wait(10.5)
    assert client.goaways == []
    stream = client.request("/fixed")
    assert client.answer_to(stream).status == 200
    assert client.goaways == [(stream.id, NO_ERROR)]
    world.turn()
    assert client.transport.write_closed


def test_so_many_requests_and_no_more() -> None:
    world, client = connect(max_requests_per_connection=2)
    client.request("/fixed")
    assert client.goaways == []
    assert client.answer_to(client.request("/fixed")).status == 200
    world.turn()
    assert client.transport.write_closed


def test_a_client_that_says_goodbye_gets_its_answers() -> None:
    world, client = connect()
    stream = client.request()
    target = world.target()
    client.transport.deliver(frame(GOAWAY, 0, 0, bytes(8)))
    assert client.transport.connected
    target.deliver(answer())
    assert client.answer_to(stream).status == 200
    world.turn()
    assert client.transport.write_closed


def test_a_client_that_has_sent_all_gets_its_answers() -> None:
    world, client = connect()
    stream = client.request()
    half = client.request(method="POST", ended=False)
    first, second = (attempt.succeed() for attempt in world.connector.attempts)
    client.transport.deliver_eof()
    assert second.ended == "aborted"
    assert client.answer_to(half).status == 400
    first.deliver(answer())
    assert client.answer_to(stream).status == 200
    world.turn()
    assert client.transport.ended == "closed"


@pytest.mark.parametrize("length", [50, 100])
def test_a_client_that_has_sent_all_opens_no_window_any_more(length: int) -> None:
    """Whether the target still has more, or all of the answer is here; whichever comes first."""
    for answer_first in (True, False):
        world, client = connect()
        client.transport.deliver(settings((4, 10)) + headers(1, GET))
        target = world.target()
        ends = [target.deliver, client.transport.deliver]
        for deliver in ends if answer_first else reversed(ends):
            if deliver == target.deliver:
                deliver(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % length + bytes(50))
            else:
                client.transport.deliver_eof()
            world.turn()
        world.wait(0.2)
        assert 3 in {f.kind for f in frames(client.transport.take())}
        assert client.transport.ended == "closed"
        assert world.in_flight == 0


def test_streams_beyond_the_option_are_refused() -> None:
    world, client = connect(http2_max_concurrent_streams=2)
    assert client.codec.peer_max_streams == 2
    client.transport.deliver(b"".join(headers(number, GET) for number in (1, 3, 5)))
    assert (3, 0, 5, (7).to_bytes(4, "big")) in frames(client.transport.take())
    assert len(world.connector.attempts) == 2


# WebSocket (RFC 8441)


def accept_of(sent: bytes) -> bytes:
    match = re.search(rb"Sec-WebSocket-Key: ([^\r]*)\r\n", sent)
    assert match is not None
    return base64.b64encode(hashlib.sha1(match[1] + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())


SWITCH = (
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Accept: %b\r\nX: y\r\n\r\n"
)


def test_a_websocket() -> None:
    world, client = connect()
    stream = client.websocket("Sec-WebSocket-Version: 13")
    client.send(stream, b"early ")
    target = world.target()
    sent = target.take()
    assert sent.startswith(b"GET /chat HTTP/1.1\r\n")
    assert b"Connection: upgrade\r\nUpgrade: websocket\r\n" in sent
    assert b"Transfer-Encoding" not in sent
    target.deliver(SWITCH % accept_of(sent) + b"hello")
    got = client.answer_to(stream)
    assert (got.status, got.fields, got.body, got.ended) == (200, b"x: y\r\n", b"hello", False)
    client.send(stream, b"ping")
    assert target.take() == b"early ping"
    target.deliver(b"pong")
    assert client.answer_to(stream).body == b"hellopong"
    client.send(stream, b"", True)
    world.turn()
    assert target.write_closed
    assert client.answer_to(stream).ended
    [record] = world.log.records
    assert (record.kind, record.status, record.version) == ("ws", 101, b"HTTP/2.0")
    assert world.in_flight == 0


def test_a_websocket_that_the_target_ends() -> None:
    world, client = connect()
    stream = client.websocket()
    target = world.target()
    target.deliver(SWITCH % accept_of(target.take()))
    target.deliver_eof()
    got = client.answer_to(stream)
    assert (got.ended, got.reset) == (True, NO_ERROR)


def test_a_drain_takes_leave_of_both_ends_of_a_websocket() -> None:
    world, client = connect()
    stream = client.websocket()
    target = world.target()
    target.deliver(SWITCH % accept_of(target.take()) + b"\x81\x02hi")
    client.move()
    busy = client.request()
    assert world.front.end() == 2
    got = client.answer_to(stream)
    assert (got.body, got.ended, got.reset) == (b"\x81\x02hi\x88\x02\x03\xe9", True, NO_ERROR)
    assert client.answer_to(busy).status == 503
    assert client.goaways[-1] == (busy.id, NO_ERROR)
    world.turn()
    assert (len(target.take()), target.write_closed) == (8, True)
    assert client.transport.write_closed
    assert not client.transport.ended, "it may still be sending"
    assert world.front.end() == 0
    assert client.transport.ended == "aborted"


def test_a_drain_cuts_a_websocket_within_a_frame() -> None:
    world, client = connect()
    stream = client.websocket()
    target = world.target()
    target.deliver(SWITCH % accept_of(target.take()) + b"\x81\x02h")
    client.move()
    assert world.front.end() == 1
    got = client.answer_to(stream)
    assert (got.body, got.ended, got.reset) == (b"\x81\x02h", False, CANCEL)
    assert client.transport.ended == "aborted"


def test_a_websocket_that_is_refused() -> None:
    world, client = connect()
    stream = client.websocket()
    world.target().deliver(answer(b"no", status="403 Forbidden"))
    got = client.answer_to(stream)
    assert (got.status, got.body, got.ended, got.reset) == (403, b"no", True, NO_ERROR)


def test_a_target_that_does_not_know_websockets_opens_no_tunnel() -> None:
    world, client = connect()
    stream = client.websocket()
    world.target().deliver(SWITCH % b"AAAA")
    assert client.answer_to(stream).status == 0
    assert client.answer_to(stream).reset == INTERNAL_ERROR


def test_a_client_that_gives_up_before_its_websocket_stands() -> None:
    world, client = connect()
    stream = client.websocket()
    target = world.target()
    client.send(stream, b"x", True)
    assert target.ended == "aborted"
    assert client.answer_to(stream).reset == CANCEL


def test_what_comes_before_a_websocket_stands_is_bounded() -> None:
    world, client = connect()
    stream = client.request("/chat", method="CONNECT", protocol=b"websocket", ended=False)
    client.send(stream, bytes(3 * STREAM_WINDOW))
    assert stream.queued == 2 * STREAM_WINDOW, "no more than its window was asked for"
    target = world.target()
    target.full = True
    target.deliver(SWITCH % accept_of(target.take()))
    client.move()
    assert stream.queued >= STREAM_WINDOW
    target.drain()
    client.move()
    assert stream.queued == 0
    assert target.take().count(b"\0") == 3 * STREAM_WINDOW


def test_a_quiet_websocket_ends() -> None:
    world, client = connect(idle_timeout_seconds=5.0)
    stream = client.websocket()
    target = world.target()
    target.deliver(SWITCH % accept_of(target.take()))
    world.wait(5.3)
    assert client.answer_to(stream).ended
    assert target.ended == "aborted"
