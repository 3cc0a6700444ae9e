"""Our client joined to our server, and each to another implementation."""

from __future__ import annotations

import random

import h2.config
import h2.connection
import h2.events
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from lbproxy.wire.errors import LocalProtocolError
from lbproxy.wire.http2 import events
from lbproxy.wire.http2.connection import Connection
from lbproxy.wire.http2.errors import CANCEL, REFUSED_STREAM
from lbproxy.wire.http2.events import Event
from lbproxy.wire.http2.frames import DATA, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE
from lbproxy.wire.http2.stream import CLOSED, NOT_ALLOWED, RESET, TRANSITIONS, Stream, next_state
from tests.wire.http2.raw import GET, Server, headers, window_update


class Pair:
    """A client and a server, and what each was told."""

    def __init__(self, max_streams: int = 128) -> None:
        self.client = Connection(True)
        self.server = Connection(False, max_streams)
        self.move()

    def move(self, sizes: random.Random | None = None) -> tuple[list[Event], list[Event]]:
        """Carry what was written to the other end, until nothing is; returns the client's and the server's events."""
        told: tuple[list[Event], list[Event]] = ([], [])
        while True:
            moved = False
            for sender, receiver, events_of in (
                (self.client, self.server, told[1]),
                (self.server, self.client, told[0]),
            ):
                data = sender.data_to_send()
                moved = moved or bool(data)
                while data:
                    size = len(data) if sizes is None else sizes.randrange(1, 50)
                    events_of += receiver.receive_data(data[:size], 0.0)
                    data = data[size:]
            if not moved:
                return told

    def request(self, method: bytes = b"GET", lines: bytes = b"", length: int = -1, ended: bool = True) -> Stream:
        return self.client.send_request(method, b"https", b"example.com", b"/a?b", lines, length, ended)


def test_a_request_and_its_answer() -> None:
    pair = Pair()
    asked = pair.request(lines=b"User-Agent: x\r\nCookie: a=b\r\n")
    _, [request] = pair.move()
    assert (request.kind, request.ended, request.head.target) == (events.REQUEST, True, b"/a?b")
    assert request.head.forwarded == b"user-agent: x\r\ncookie: a=b\r\n"
    pair.server.send_response(request.stream, 103, b"Link: </x>\r\n", -1, False)
    pair.server.send_response(request.stream, 200, b"Server: y\r\n", 5, False)
    assert pair.server.send_data(request.stream, b"hello", True)
    [early, response], _ = pair.move()
    assert (early.kind, early.head.status, early.head.forwarded) == (events.INFORMATIONAL, 103, b"link: </x>\r\n")
    assert (response.kind, response.head.status, response.data, response.ended) == (
        events.RESPONSE,
        200,
        b"hello",
        True,
    )
    assert response.stream is asked
    assert not pair.client.streams
    assert not pair.server.streams


def test_an_upload_with_trailers_both_ways() -> None:
    pair = Pair()
    asked = pair.request(b"POST", ended=False)
    pair.client.send_data(asked, bytes(100000), False)
    pair.client.send_end(asked, b"X-Sum: 1\r\n")
    _, received = pair.move(random.Random(1))
    assert sum(len(event.data) for event in received) == 100000
    assert (received[-1].ended, received[-1].trailers) == (True, b"x-sum: 1\r\n")
    stream = received[0].stream
    pair.server.send_response(stream, 200, b"", -1, False)
    pair.server.send_end(stream, b"grpc-status: 0\r\n")
    answered, _ = pair.move()
    assert [(event.kind, event.ended, event.trailers) for event in answered if event.kind == events.RESPONSE] == [
        (events.RESPONSE, True, b"grpc-status: 0\r\n")
    ]


def test_more_than_the_windows_goes_as_they_open() -> None:
    pair = Pair()
    pair.request()
    _, [request] = pair.move()
    pair.server.send_response(request.stream, 200, b"", 3_000_000, False)
    assert not pair.server.send_data(request.stream, bytes(3_000_000), True)
    answered, _ = pair.move()
    assert sum(len(event.data) for event in answered) == 3_000_000
    assert answered[-1].ended


@pytest.mark.parametrize(("taken", "size"), [(None, 16384), (20000, 20000), (1 << 20, 65536)])
def test_content_goes_in_frames_as_large_as_the_peer_takes(taken: int | None, size: int) -> None:
    """RFC 9113 section 4.2; but not so large that a stream holds up the others."""
    server = Server(*([] if taken is None else [(MAX_FRAME_SIZE, taken)]), (INITIAL_WINDOW_SIZE, 1 << 20))
    server.receive(window_update(0, 1 << 20))
    [request] = server.receive(headers(1, GET))
    server.connection.send_response(request.stream, 200, b"", -1, False)
    server.connection.send_data(request.stream, bytes(150000), False)
    for _ in range(2):
        sizes = [len(each.payload) for each in server.sent() if each.kind == DATA]
        assert sum(sizes) == 150000
        assert set(sizes[:-1]) == {size}
        server.connection.blocked = True
        server.connection.send_data(request.stream, bytes(150000), False)
        server.connection.unblock()


def test_an_answer_to_head_has_a_length_and_no_content() -> None:
    pair = Pair()
    pair.request(b"HEAD")
    _, [request] = pair.move()
    pair.server.send_response(request.stream, 200, b"", 5, True)
    [response], _ = pair.move()
    assert (response.head.content_length, response.ended) == (5, True)


def test_a_short_answer_is_reset() -> None:
    pair = Pair()
    pair.request()
    _, [request] = pair.move()
    pair.server.send_response(request.stream, 200, b"", 5, False)
    pair.server.send_data(request.stream, b"abc", True)
    [event], _ = pair.move()
    assert (event.kind, event.error.reason) == (events.RESET, "BadContentLength")


def test_an_early_answer_stays_whole_for_the_client() -> None:
    """The server answers and resets with NO_ERROR; both may come in one read."""
    pair = Pair()
    asked = pair.request(b"POST", ended=False)
    _, [request] = pair.move()
    pair.server.send_response(request.stream, 413, b"", 0, True)
    [response, end], _ = pair.move()
    assert (response.kind, response.head.status, response.ended) == (events.RESPONSE, 413, True)
    assert (end.kind, end.code, end.stream) == (events.RESET, 0, asked)


def test_a_goaway_refuses_what_came_too_late() -> None:
    pair = Pair()
    pair.request()
    pair.move()
    pair.server.send_goaway()
    late = pair.request()
    told, received = pair.move()
    assert received == []
    assert [(event.kind, event.code) for event in told] == [(events.GOAWAY, 0), (events.RESET, REFUSED_STREAM)]
    assert told[1].stream is late
    assert not pair.client.can_open
    with pytest.raises(LocalProtocolError):
        pair.request()


def test_a_ping_comes_back() -> None:
    pair = Pair()
    pair.client.send_ping(b"12345678")
    [event], _ = pair.move()
    assert (event.kind, event.data) == (events.PONG, b"12345678")


def test_the_server_says_how_many_streams_it_takes() -> None:
    pair = Pair(max_streams=2)
    assert pair.client.peer_max_streams == 2
    assert pair.client.peer_connect_protocol
    pair.request()
    pair.request()
    assert not pair.client.can_open


def test_a_tunnel() -> None:
    """RFC 8441."""
    pair = Pair()
    asked = pair.client.send_request(b"CONNECT", b"https", b"a", b"/chat", b"", -1, False, b"websocket")
    _, [request] = pair.move()
    assert (request.head.upgrade, request.head.target, request.ended) == (b"websocket", b"/chat", False)
    pair.server.send_response(request.stream, 200, b"", -1, False)
    pair.client.send_data(asked, b"ping", False)
    pair.server.send_data(request.stream, b"pong", False)
    [response], [data] = pair.move()
    assert (response.data, response.ended, data.data) == (b"pong", False, b"ping")


def test_what_was_ended_takes_no_more() -> None:
    pair = Pair()
    asked = pair.request()
    for act in (
        lambda: pair.client.send_data(asked, b"x", False),
        lambda: pair.client.send_end(asked, b""),
        lambda: pair.client.send_end(asked, b"X: y\r\n"),
    ):
        with pytest.raises(LocalProtocolError):
            act()


def test_every_step_from_every_state() -> None:
    """Section 5.1; a stream that is closed stays so."""
    for state, steps in TRANSITIONS.items():
        for step in range(RESET + 1):
            assert next_state(state, step) == steps.get(step, NOT_ALLOWED)
    assert set(TRANSITIONS[CLOSED].values()) == {CLOSED}


# Against another implementation


def test_another_client_is_served() -> None:
    client = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding="utf-8"))
    client.initiate_connection()
    server = Connection(False)
    told = []
    for number in (1, 3):
        client.send_headers(number, [(":method", "POST"), (":scheme", "https"), (":authority", "a"), (":path", "/")])
        client.send_data(number, b"hello", end_stream=True)
    for _ in range(3):
        for event in server.receive_data(client.data_to_send(), 0.0):
            server.send_response(event.stream, 200, b"Server: x\r\n", len(event.data), False)
            server.send_data(event.stream, event.data, True)
        told += client.receive_data(server.data_to_send())
    assert [event.data for event in told if isinstance(event, h2.events.DataReceived)] == [b"hello"] * 2
    assert len([event for event in told if isinstance(event, h2.events.StreamEnded)]) == 2


def test_another_server_serves_us() -> None:
    server = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
    server.initiate_connection()
    client = Connection(True)
    client.send_request(b"GET", b"https", b"a", b"/", b"", -1, True)
    told = []
    for _ in range(3):
        for event in server.receive_data(client.data_to_send()):
            if isinstance(event, h2.events.RequestReceived):
                server.send_headers(event.stream_id, [(":status", "200"), ("content-length", "2")])
                server.send_data(event.stream_id, b"ok", end_stream=True)
        told += client.receive_data(server.data_to_send(), 0.0)
    [response] = told
    assert (response.head.status, response.data, response.ended) == (200, b"ok", True)


# Any order of things


class Machine(RuleBasedStateMachine):
    """Whatever both ends do in turn, they agree on the streams, and what was sent arrives."""

    def __init__(self) -> None:
        super().__init__()
        self.pair = Pair(max_streams=4)
        self.sending: dict[int, Stream] = {}
        self.answering: dict[int, Stream] = {}
        self.sent: dict[int, bytes] = {}
        self.arrived: dict[int, bytes] = {}

    def pump(self) -> None:
        told, received = self.pair.move()
        for event in received:
            if event.kind == events.REQUEST:
                self.answering[event.stream.id] = event.stream
                self.pair.server.send_response(event.stream, 200, b"", -1, False)
            if event.kind == events.RESET:
                self.answering.pop(event.stream.id, None)
        for event in told:
            if event.kind in (events.RESPONSE, events.DATA):
                self.arrived[event.stream.id] = self.arrived.get(event.stream.id, b"") + event.data
            if event.kind == events.RESET:
                self.sending.pop(event.stream.id, None)

    @precondition(lambda self: self.pair.client.can_open)
    @rule()
    def ask(self) -> None:
        stream = self.pair.request(b"POST", ended=False)
        self.sending[stream.id] = stream
        self.pump()

    @precondition(lambda self: self.sending)
    @rule(size=st.integers(0, 70000), ended=st.booleans(), data=st.data())
    def upload(self, size: int, ended: bool, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.sending)))
        self.pair.client.send_data(self.sending[number], bytes(size), ended)
        if ended:
            del self.sending[number]
        self.pump()

    @precondition(lambda self: self.answering)
    @rule(size=st.integers(0, 70000), ended=st.booleans(), data=st.data())
    def answer(self, size: int, ended: bool, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.answering)))
        content = bytes(size)
        self.pair.server.send_data(self.answering[number], content, ended)
        self.sent[number] = self.sent.get(number, b"") + content
        if ended:
            del self.answering[number]
        self.pump()

    @precondition(lambda self: self.sending)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.sending)))
        self.pair.client.reset(self.sending.pop(number), CANCEL)
        self.pump()

    @precondition(lambda self: self.answering)
    @rule(data=st.data())
    def hold(self, data: st.DataObject) -> None:
        stream = self.answering[data.draw(st.sampled_from(sorted(self.answering)))]
        (self.pair.server.release if stream.held else self.pair.server.hold)(stream)
        self.pump()

    @rule()
    def block(self) -> None:
        if self.pair.server.blocked:
            self.pair.server.unblock()
        else:
            self.pair.server.blocked = True
        self.pump()

    @invariant()
    def agree(self) -> None:
        for number, content in self.arrived.items():
            assert self.sent.get(number, b"").startswith(content)
        assert set(self.answering) <= set(self.pair.server.streams)
        if not self.pair.server.blocked:
            assert set(self.pair.server.streams) <= set(self.pair.client.streams) | set(self.answering)

    def teardown(self) -> None:
        self.pair.server.unblock()
        self.pump()
        for number, stream in self.pair.client.streams.items():
            if number in self.sent and not stream.queued:
                assert self.arrived.get(number, b"") == self.sent[number]


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=50, stateful_step_count=30, deadline=None)
