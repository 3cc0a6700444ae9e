"""Exchanges over connections of HTTP/2 to targets, whose end the codec plays."""

from __future__ import annotations

from typing import Any

import pytest

from lbproxy.dataplane.balancer.observation import Observation
from lbproxy.dataplane.proxy.faults import Fault
from lbproxy.dataplane.upstream.http2 import PING_SECONDS
from lbproxy.model.retry import RetryPolicy
from lbproxy.model.target_group import ProtocolVersion, TargetProtocol
from lbproxy.wire.http2 import events as kinds
from lbproxy.wire.http2.connection import STREAM_WINDOW, Connection
from lbproxy.wire.http2.errors import CANCEL, INTERNAL_ERROR, REFUSED_STREAM, SETTINGS_TIMEOUT
from lbproxy.wire.http2.events import Event
from lbproxy.wire.http2.frames import HEADERS, MAX_HEADER_LIST_SIZE, PREFACE
from lbproxy.wire.http2.hpack import Decoder
from tests.dataplane.doubles import CHUNKED_REQUEST, FakeConnecting, FakeTransport, World, request
from tests.wire.http2.raw import frames, settings

POST = request(method="POST", body=b"12345678")


def world(targets: int = 1, version: ProtocolVersion = ProtocolVersion.HTTP2, **group: Any) -> World:
    return World(targets=targets, group={"protocol_version": version, **group})


class Server:
    """A target's end of a connection."""

    def __init__(self, here: World, number: int = -1, max_streams: int = 128) -> None:
        self.attempt: FakeConnecting = here.connector.attempts[number]
        self.codec = Connection(client=False, max_streams=max_streams)
        self.events: list[Event] = []
        self.transport: FakeTransport = self.attempt.succeed()
        self.exchange_bytes()

    def exchange_bytes(self) -> None:
        """Let everything that was written arrive."""
        while True:
            sent = self.transport.take()
            self.events += self.codec.receive_data(sent, 1.0) if sent else []
            answer = self.codec.data_to_send()
            if answer and self.transport.connected:
                self.transport.deliver(answer)
            elif not sent:
                return

    def take(self, kind: int = kinds.REQUEST) -> Event:
        """The next event, which must be of this kind."""
        self.exchange_bytes()
        event = self.events.pop(0)
        assert event.kind == kind, event.kind
        return event

    def answer(self, stream: Any, body: bytes = b"hello", lines: bytes = b"", trailers: bytes = b"") -> None:
        self.codec.send_response(stream, 200, lines, len(body) if not trailers else -1, not body and not trailers)
        if body:
            self.codec.send_data(stream, body, not trailers)
        if trailers:
            self.codec.send_end(stream, trailers)
        self.exchange_bytes()


def connected(here: World, data: bytes = request(), **options: Any) -> tuple[FakeTransport, Server]:
    client = here.client()
    client.deliver(data)
    return client, Server(here, **options)


# The usual way


def test_a_request_and_its_answer() -> None:
    here = world()
    client, server = connected(here, request("/a?b", "X-One: 1", "Connection: keep-alive", "TE: gzip"))
    event = server.take()
    assert (event.head.method, event.head.target, event.head.authority) == (b"GET", b"/a?b", b"example.com")
    assert b"x-one: 1\r\n" in event.head.forwarded.lower()
    assert b"connection" not in event.head.forwarded.lower()
    assert event.head.x_forwarded_for == b"192.0.2.7"
    assert event.ended
    server.answer(event.stream, lines=b"X-Two: 2\r\n")
    answer = client.take()
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"x-two: 2\r\n" in answer.lower()
    assert answer.endswith(b"Content-Length: 5\r\n\r\nhello")
    assert (here.in_flight, server.codec.streams) == (0, {})
    assert here.log.records[0].target_status == 200


def test_a_body_with_its_length() -> None:
    here = world()
    client, server = connected(here, POST)
    event = server.take()
    assert (event.head.content_length, event.data, event.ended) == (8, b"12345678", True)
    server.answer(event.stream)
    assert client.take().endswith(b"hello")


def test_bodies_in_pieces_with_trailers() -> None:
    here = world()
    client, server = connected(here, CHUNKED_REQUEST[:-5])
    event = server.take()
    assert (event.data, event.ended) == (b"abc", False)
    client.deliver(b"0\r\nX-Sum: 3\r\n\r\n")
    end = server.take(kinds.DATA)
    assert (end.ended, end.trailers.lower()) == (True, b"x-sum: 3\r\n")
    server.answer(event.stream, trailers=b"X-Sum: 5\r\n")
    assert client.take().lower().endswith(b"5\r\nhello\r\n0\r\nx-sum: 5\r\n\r\n")


@pytest.mark.parametrize(
    ("method", "status", "framing"), [("GET", 200, b"Content-Length: 0"), ("HEAD", 200, b""), ("GET", 304, b"")]
)
def test_answers_without_content(method: str, status: int, framing: bytes) -> None:
    here = world()
    client, server = connected(here, request(method=method))
    server.codec.send_response(server.take().stream, status, b"", -1, True)
    server.exchange_bytes()
    answer = client.take()
    assert framing in answer
    assert b"chunked" not in answer
    client.deliver(request("/fixed"))
    assert client.take().endswith(b"fixed\n")


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 204), ("GET", 304)])
@pytest.mark.parametrize("at_once", [True, False])
def test_content_of_an_answer_that_has_none_is_not_passed_on(method: str, status: int, at_once: bool) -> None:
    """RFC 9113 section 8.1.1; a client of HTTP/1.1 would take it for the beginning of the next answer."""
    here = world()
    client, server = connected(here, request(method=method))
    stream = server.take().stream
    server.codec.send_response(stream, status, b"", -1, False)
    if not at_once:
        server.exchange_bytes()
    server.codec.send_data(stream, b"HTTP/1.1 200 OK\r\n\r\n", True)
    server.exchange_bytes()
    answer = client.take()
    assert answer.startswith(b"HTTP/1.1 502 " if at_once else b"HTTP/1.1 %d " % status)
    assert b"HTTP/1.1 200 OK\r\n\r\n" not in answer
    assert client.ended == ("" if at_once else "aborted")
    assert here.log.records[0].error_reason == "BadResponse"


def test_interim_answers_are_passed_on() -> None:
    here = world()
    client, server = connected(here, request(method="PUT", body=b"1234")[:-4])
    event = server.take()
    server.codec.send_response(event.stream, 100, b"", -1, False)
    server.exchange_bytes()
    assert client.take().startswith(b"HTTP/1.1 100 ")
    client.deliver(b"1234")
    assert server.take(kinds.DATA).data == b"1234"
    server.answer(event.stream)
    assert client.take().endswith(b"hello")


def test_an_upgrade_is_an_ordinary_request() -> None:
    """Targets behind HTTP/2 are not asked for tunnels."""
    here = world()
    _, server = connected(here, request("/", "Connection: upgrade", "Upgrade: websocket"))
    assert server.take().head.upgrade == b""


# Many at a time


def test_requests_share_a_connection() -> None:
    here = world()
    clients = [here.client() for _ in range(5)]
    for number, client in enumerate(clients):
        client.deliver(request(f"/{number}"))
    assert len(here.connector.attempts) == 1, "they wait for the same one"
    server = Server(here)
    events = [server.take() for _ in clients]
    assert here.in_flight == 5
    for event in reversed(events):
        server.answer(event.stream, event.head.target)
    assert [client.take()[-2:] for client in clients] == [f"/{number}".encode() for number in range(5)]
    clients[0].deliver(request("/again"))
    assert server.take().head.target == b"/again"
    assert here.pool.counters.reused == 1
    assert len(here.connector.attempts) == 1


def test_no_more_than_the_target_takes() -> None:
    here = world()
    _, server = connected(here, max_streams=2)
    clients = [here.client() for _ in range(3)]
    for client in clients:
        client.deliver(request())
    assert len(here.connector.attempts) == 2, "the third one needs another connection"
    second = Server(here)
    assert len(server.codec.streams) + len(second.codec.streams) <= 4
    server.exchange_bytes()
    second.exchange_bytes()
    assert [e.kind for e in server.events + second.events] == [kinds.REQUEST] * 4


def test_a_connection_that_cannot_be_made() -> None:
    here = world(2)
    client = here.client()
    client.deliver(POST)
    here.connector.attempts[0].fail()
    server = Server(here)
    server.answer(server.take().stream)
    assert client.take().endswith(b"hello")
    assert here.in_flight == 0


def test_a_client_that_leaves_while_connecting() -> None:
    here = world()
    first, second = here.client(), here.client()
    first.deliver(request("/first"))
    second.deliver(request("/second"))
    first.reset()
    server = Server(here)
    assert server.take().head.target == b"/second"
    assert here.in_flight == 1


def test_tls_needs_alpn() -> None:
    here = world(protocol=TargetProtocol.HTTPS)
    client = here.client()
    client.deliver(request())
    attempt: Any = here.connector.attempts[0]
    transport = FakeTransport(here.clock, attempt._protocol)
    transport.negotiatedProtocol = b"http/1.1"  # type: ignore[attr-defined]
    attempt._protocol.makeConnection(transport)
    assert client.take().startswith(b"HTTP/1.1 502 ")
    assert here.log.records[0].error_reason == Fault.TLS_FAILED.reason
    assert transport.ended == "aborted"


# Back-pressure


def test_a_slow_client_holds_back_the_target() -> None:
    here = world()
    client, server = connected(here)
    client.full = True
    event = server.take()
    server.codec.send_response(event.stream, 200, b"", -1, False)
    for _ in range(100):
        if not server.codec.send_data(event.stream, bytes(65536), False):
            break
        server.exchange_bytes()
    assert event.stream.sent <= 2 * STREAM_WINDOW
    before = event.stream.sent
    client.drain()
    server.exchange_bytes()
    assert event.stream.sent > before
    assert server.events.pop(0).kind == kinds.WRITABLE


def test_a_slow_target_holds_back_the_client() -> None:
    here = world()
    client, server = connected(here, request("/", f"Content-Length: {10 << 20}", method="POST"))
    event = server.take()
    server.codec.hold(event.stream)
    for _ in range(100):
        if not client.reading:
            break
        client.deliver(bytes(65536))
        server.exchange_bytes()
    assert not client.reading
    assert sum(len(each.data) for each in server.events) <= STREAM_WINDOW
    server.codec.release(event.stream)
    server.exchange_bytes()
    assert client.reading


def test_a_transport_that_is_full_holds_back_the_client() -> None:
    here = world()
    client, server = connected(here, request("/", f"Content-Length: {1 << 20}", method="POST"))
    server.take()
    server.transport.full = True
    client.deliver(bytes(1000))
    client.deliver(bytes(1000))
    assert not client.reading
    server.transport.drain()
    assert client.reading
    server.exchange_bytes()
    assert sum(len(each.data) for each in server.events) == 2000


# What goes wrong


def test_a_client_that_leaves_ends_its_stream_only() -> None:
    here = world()
    client, server = connected(here)
    other = here.client()
    other.deliver(request("/other"))
    server.take()
    second = server.take()
    client.reset()
    assert server.take(kinds.RESET).code == CANCEL
    server.answer(second.stream)
    assert other.take().endswith(b"hello")
    assert here.in_flight == 0


def test_a_reset_stream_is_a_bad_gateway() -> None:
    here = world()
    client, server = connected(here)
    server.codec.reset(server.take().stream, INTERNAL_ERROR)
    server.exchange_bytes()
    assert client.take().startswith(b"HTTP/1.1 502 ")
    assert here.log.records[0].error_reason == "TargetReset"
    assert server.transport.connected


def test_an_answer_cut_by_a_reset_looks_cut() -> None:
    here = world()
    client, server = connected(here)
    event = server.take()
    server.codec.send_response(event.stream, 200, b"", -1, False)
    server.codec.send_data(event.stream, b"he", False)
    server.exchange_bytes()
    server.codec.reset(event.stream, INTERNAL_ERROR)
    server.exchange_bytes()
    assert client.ended == "aborted"


def test_an_early_answer_ends_the_request() -> None:
    here = world()
    client, server = connected(here, request("/", "Content-Length: 1000", method="POST"))
    event = server.take()
    server.answer(event.stream)
    assert client.take().endswith(b"hello")
    assert here.in_flight == 0
    assert server.codec.streams == {}
    assert server.transport.connected


def test_nonsense_ends_the_connection_and_all_on_it() -> None:
    here = world()
    client, server = connected(here)
    server.take()
    server.transport.deliver(b"\x00\x00\x00\x00\x00\x00\x00\x00\x00")  # DATA of no stream
    assert client.take().startswith(b"HTTP/1.1 502 ")
    assert here.log.records[0].error_reason == "BadResponse"
    here.turn()
    assert not server.transport.connected
    client.deliver(request())
    assert len(here.connector.attempts) == 2


def test_a_lost_connection_is_told_to_each_once() -> None:
    here = world(1)
    clients = [here.client() for _ in range(3)]
    for client in clients:
        client.deliver(POST)
    server = Server(here)
    server.exchange_bytes()
    server.transport.reset()
    assert [client.take()[:13] for client in clients] == [b"HTTP/1.1 502 "] * 3
    assert here.in_flight == 0
    assert len(here.connector.attempts) == 1, "they may have been acted on"


# What the target has not looked at


@pytest.mark.parametrize("data", [request(), POST, CHUNKED_REQUEST])
def test_a_refused_request_is_sent_again(data: bytes) -> None:
    here = world()
    client, server = connected(here, data)
    first = server.take()
    server.codec.reset(first.stream, REFUSED_STREAM)
    server.exchange_bytes()
    again = Server(here)
    event = again.take()
    assert (event.head.method, event.data, event.ended) == (first.head.method, first.data, True)
    again.answer(event.stream)
    assert client.take().endswith(b"hello")
    assert here.log.records[0].retry_reason == "TargetRefused"


def test_one_on_its_way_too() -> None:
    here = world()
    client, server = connected(here, POST[:-6])
    first = server.take()
    client.deliver(b"34")
    server.codec.reset(first.stream, REFUSED_STREAM)
    server.exchange_bytes()
    client.deliver(b"5678")
    again = Server(here)
    event = again.take()
    assert (event.data, event.ended) == (b"1234", False)
    here.turn()
    event = again.take(kinds.DATA)
    assert (event.data, event.ended) == (b"5678", True)
    again.answer(event.stream)
    assert client.take().endswith(b"hello")


def test_then_at_another_target() -> None:
    here = world(2)
    client, server = connected(here, POST)
    server.codec.reset(server.take().stream, REFUSED_STREAM)
    server.exchange_bytes()
    again = Server(here)
    assert again.attempt.target is server.attempt.target
    again.codec.reset(again.take().stream, REFUSED_STREAM)
    again.exchange_bytes()
    other = Server(here)
    assert other.attempt.target is not server.attempt.target
    other.codec.reset(other.take().stream, REFUSED_STREAM)
    other.exchange_bytes()
    last = Server(here)
    last.codec.reset(last.take().stream, REFUSED_STREAM)
    last.exchange_bytes()
    assert client.take().startswith(b"HTTP/1.1 503 ")
    assert here.in_flight == 0


def test_goaway_moves_what_it_does_not_cover() -> None:
    here = world()
    client, server = connected(here, POST)
    late = here.client()
    event = server.take()
    server.codec.send_goaway()  # covers what was handed on
    goaway = server.codec.data_to_send()
    late.deliver(POST)
    server.transport.take()
    server.transport.deliver(goaway)
    again = Server(here)
    assert again.take().data == b"12345678", "above the last stream of GOAWAY: not looked at"
    server.answer(event.stream)
    assert client.take().endswith(b"hello"), "below: it is answered"
    here.turn()
    assert not server.transport.connected, "nothing is under way any more"


def test_an_idle_connection_that_is_about_to_close_gets_no_post() -> None:
    here = world()
    client, server = connected(here)
    server.answer(server.take().stream)
    client.take()
    server.transport.reading = False  # GOAWAY has come, but was not read yet
    server.transport.deliver(b"\x00")
    client.deliver(POST)
    assert len(here.connector.attempts) == 2


# Time and leaving


def test_an_unused_connection_is_closed_in_the_end() -> None:
    here = world(keep_alive_seconds=5.0)
    _, server = connected(here)
    server.answer(server.take().stream)
    here.wait(4)
    assert server.transport.connected
    here.wait(2)
    assert not server.transport.connected
    assert here.pool.connections == {}


def test_a_silent_target_is_asked_for_a_sign_of_life() -> None:
    here = world(response_timeout_seconds=10000.0)
    client, server = connected(here)
    server.take()
    here.wait(PING_SECONDS + 1)
    server.exchange_bytes()  # answers
    here.wait(30)
    assert server.transport.connected
    here.wait(PING_SECONDS + 25)  # and now it does not
    assert not server.transport.connected
    assert client.take().startswith(b"HTTP/1.1 502 ")


def test_a_target_must_acknowledge_our_settings() -> None:
    here = world()
    client = here.client()
    client.deliver(request())
    target = here.connector.attempts[-1].succeed()
    target.deliver(settings())
    target.take()
    here.wait(19)
    assert not target.ended
    here.wait(2)
    assert frames(target.take())[-1].payload[4:8] == SETTINGS_TIMEOUT.to_bytes(4, "big")
    assert target.ended == "aborted"
    assert client.take().startswith(b"HTTP/1.1 502 ")
    assert here.in_flight == 0


@pytest.mark.parametrize("version", [ProtocolVersion.HTTP2, ProtocolVersion.GRPC])
def test_a_head_that_is_too_large_for_the_target_is_not_sent(version: ProtocolVersion) -> None:
    """RFC 9113 section 10.5.1; the target is not to blame, and the connection goes on."""
    here = world(version=version)
    here.pool.observation = observation = Observation()
    failures: list[int] = []
    observation.limit = 1
    observation.alarm = failures.append
    client, server = connected(here)
    server.answer(server.take().stream)
    client.take()
    server.transport.deliver(settings((MAX_HEADER_LIST_SIZE, 1000)))
    client.deliver(request("/", f"X: {'y' * 1000}"))
    assert client.take().startswith(b"HTTP/1.1 431 ")
    assert here.log.records[-1].error_reason == "HeadersTooLargeForTarget"
    assert here.in_flight == 0
    assert here.pool.counters.faults == {"HeadersTooLargeForTarget": 1}
    assert failures == []
    client.deliver(request("/", f"X: {'y' * 200}"))
    server.answer(server.take().stream)
    assert client.take().endswith(b"hello")
    assert len(here.connector.attempts) == 1


@pytest.mark.parametrize(
    "data", [request("/a?b", "X-One: 1", "Cookie: a=b"), request("/" + "x" * 500, method="POST", body=b"12345")]
)
def test_a_head_is_measured_as_the_target_does(data: bytes) -> None:
    here = world()
    client = here.client()
    client.deliver(data)
    target = here.target()
    [block] = [each.payload for each in frames(target.take()[len(PREFACE) :]) if each.kind == HEADERS]
    size = sum(field.size for field in Decoder().decode(block))
    for limit, sent in ((size + 100, True), (size - 1, False)):
        target.deliver(settings((MAX_HEADER_LIST_SIZE, limit)))
        target.take()
        other = here.client()
        other.deliver(data)
        assert [each.kind == HEADERS for each in frames(target.take())][:1] == [True][:sent], limit
        assert (b" 431 " in other.take()) != sent


def test_a_target_that_leaves_keeps_what_it_has() -> None:
    here = world()
    client, server = connected(here)
    event = server.take()
    here.pool.retire()
    server.answer(event.stream)
    assert client.take().endswith(b"hello")
    here.turn()
    assert not server.transport.connected


def test_until_its_time_is_over() -> None:
    here = world()
    client, server = connected(here)
    server.take()
    here.pool.end_all()
    assert client.take().startswith(b"HTTP/1.1 502 ")
    here.turn()
    assert not server.transport.connected


def test_a_hedge_over_http2() -> None:
    here = world(2, retry=RetryPolicy(hedge_delay_seconds=0.5))
    client, first = connected(here)
    here.wait(0.6)
    second = Server(here)
    event = second.take()
    second.answer(event.stream, trailers=b"X: 1\r\n")
    assert b"hello" in client.take()
    first.take()
    assert first.take(kinds.RESET).code == CANCEL
    assert first.transport.connected
    assert here.in_flight == 0
