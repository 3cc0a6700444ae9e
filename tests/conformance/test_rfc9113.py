"""RFC 9113, one section after the other: what a server does with frames, in any split of its input."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lbproxy.wire.errors import RemoteProtocolError
from lbproxy.wire.http2 import errors, events
from lbproxy.wire.http2.connection import CONNECTION_WINDOW, STREAM_WINDOW, Connection
from lbproxy.wire.http2.errors import (
    COMPRESSION_ERROR,
    ENHANCE_YOUR_CALM,
    FLOW_CONTROL_ERROR,
    FRAME_SIZE_ERROR,
    PROTOCOL_ERROR,
    REFUSED_STREAM,
    STREAM_CLOSED,
    ConnectionFault,
)
from lbproxy.wire.http2.frames import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    MAX_WINDOW,
    PADDED,
    PING,
    PREFACE,
    PRIORITY,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    WITH_PRIORITY,
)
from tests.wire.http2.raw import (
    GET,
    POST,
    Frame,
    Server,
    block,
    continuation,
    data,
    frame,
    frames,
    headers,
    reset,
    settings,
    window_update,
)

pytestmark = pytest.mark.conformance

OPEN = END_HEADERS  # a request that goes on
PRIORITY_5 = b"\0\0\0\0\xff"


def cuts(whole: bytes) -> Iterator[list[bytes]]:
    """The whole; every cut in two, or for long inputs some; octet by octet."""
    yield [whole]
    for cut in range(1, len(whole), max(1, len(whole) // 200)):
        yield [whole[:cut], whole[cut:]]
    yield [whole[at : at + 1] for at in range(len(whole))]


def outcome(pieces: list[bytes]) -> tuple[str, int | None]:
    """``("connection", code)``, ``("stream", code)`` or ``("fine", None)``."""
    server = Server()
    fault = None
    try:
        for piece in pieces:
            server.receive(piece)
    except ConnectionFault as error:
        fault = error
    sent = server.sent()
    goaways = [f for f in sent if f.kind == GOAWAY]
    resets = [f for f in sent if f.kind == RST_STREAM]
    if fault is not None:
        [goaway] = goaways
        assert int.from_bytes(goaway.payload[4:8], "big") == fault.code
        assert sent[-1] is goaway
        return "connection", fault.code
    assert not goaways
    if resets:
        return "stream", int.from_bytes(resets[0].payload, "big")
    return "fine", None


def connection(code: int) -> tuple[str, int]:
    return "connection", code


def stream(code: int) -> tuple[str, int]:
    return "stream", code


FINE = ("fine", None)

CASES: dict[str, tuple[bytes, tuple[str, int | None]]] = {
    # 4.1 frame format
    "4.1: an unknown type is ignored": (frame(0x16, 0, 0, b"x" * 8), FINE),
    "4.1: unknown flags are ignored": (frame(PING, 0x16, 0, b"x" * 8), FINE),
    "4.1: the reserved bit is ignored": (frame(PING, 0, 1 << 31, b"x" * 8), FINE),
    # 4.2 frame size
    "4.2: a frame of the largest size": (headers(1, POST, OPEN) + data(1, bytes(16384)), FINE),
    "4.2: DATA beyond it": (headers(1, POST, OPEN) + data(1, bytes(16385)), connection(FRAME_SIZE_ERROR)),
    "4.2: HEADERS beyond it": (frame(HEADERS, 5, 1, bytes(16385)), connection(FRAME_SIZE_ERROR)),
    # 4.3 header compression
    "4.3: a block that cannot be decoded": (frame(HEADERS, 5, 1, b"\x80"), connection(COMPRESSION_ERROR)),
    "4.3: PRIORITY within a block": (
        frame(HEADERS, 1, 1, block(GET)) + frame(PRIORITY, 0, 1, PRIORITY_5),
        connection(PROTOCOL_ERROR),
    ),
    "4.3: a block of another stream within": (
        frame(HEADERS, 1, 1, block(GET)) + headers(3, GET),
        connection(PROTOCOL_ERROR),
    ),
    # 5.1 stream states
    "5.1 idle: DATA": (data(1, b"x"), connection(PROTOCOL_ERROR)),
    "5.1 idle: RST_STREAM": (reset(1), connection(PROTOCOL_ERROR)),
    "5.1 idle: WINDOW_UPDATE": (window_update(1, 1), connection(PROTOCOL_ERROR)),
    "5.1 idle: CONTINUATION": (continuation(1, block(GET)), connection(PROTOCOL_ERROR)),
    "5.1 idle: PRIORITY": (frame(PRIORITY, 0, 1, PRIORITY_5), FINE),
    "5.1 half-closed (remote): DATA": (headers(1, GET) + data(1, b"x"), stream(STREAM_CLOSED)),
    "5.1 half-closed (remote): HEADERS": (headers(1, GET) + headers(1, GET), stream(STREAM_CLOSED)),
    "5.1 half-closed (remote): CONTINUATION": (headers(1, GET) + continuation(1, b""), connection(PROTOCOL_ERROR)),
    "5.1 half-closed (remote): WINDOW_UPDATE, PRIORITY, RST_STREAM": (
        headers(1, GET) + window_update(1, 1) + frame(PRIORITY, 0, 1, PRIORITY_5) + reset(1),
        FINE,
    ),
    "5.1 closed by its reset: DATA": (headers(1, POST, OPEN) + reset(1) + data(1, b"x"), connection(STREAM_CLOSED)),
    "5.1 closed by its reset: HEADERS": (
        headers(1, POST, OPEN) + reset(1) + headers(1, GET),
        connection(STREAM_CLOSED),
    ),
    "5.1 closed: WINDOW_UPDATE, PRIORITY, RST_STREAM": (
        headers(1, GET) + reset(1) + window_update(1, 1) + frame(PRIORITY, 0, 1, PRIORITY_5) + reset(1),
        FINE,
    ),
    # 5.1.1 stream identifiers
    "5.1.1: an even number": (headers(2, GET), connection(PROTOCOL_ERROR)),
    "5.1.1: a number below the last": (headers(5, GET) + headers(3, GET), connection(PROTOCOL_ERROR)),
    # 5.3 priority; what RFC 7540 section 5.3.1 said of it
    "5.3.1: HEADERS that depend on themselves": (
        frame(HEADERS, 5 | WITH_PRIORITY, 1, b"\0\0\0\1\xff" + block(GET)),
        connection(PROTOCOL_ERROR),
    ),
    "5.3.1: PRIORITY that depends on itself": (frame(PRIORITY, 0, 1, b"\0\0\0\1\xff"), connection(PROTOCOL_ERROR)),
    "5.3.2: HEADERS with a priority": (frame(HEADERS, 5 | WITH_PRIORITY, 1, PRIORITY_5 + block(GET)), FINE),
    # 6.1 DATA
    "6.1: DATA of no stream": (data(0, b"x"), connection(PROTOCOL_ERROR)),
    "6.1: padding": (headers(1, POST, OPEN) + data(1, b"\2x\0\0", PADDED), FINE),
    "6.1: padding of the whole payload": (headers(1, POST, OPEN) + data(1, b"\3\0\0\0", PADDED), FINE),
    "6.1: padding beyond the payload": (
        headers(1, POST, OPEN) + data(1, b"\4x\0\0", PADDED),
        connection(PROTOCOL_ERROR),
    ),
    "6.1: padded and empty": (headers(1, POST, OPEN) + data(1, b"", PADDED), connection(PROTOCOL_ERROR)),
    # 6.2 HEADERS
    "6.2: HEADERS of no stream": (headers(0, GET), connection(PROTOCOL_ERROR)),
    "6.2: padding": (frame(HEADERS, 5 | PADDED, 1, b"\2" + block(GET) + b"\0\0"), FINE),
    "6.2: padding beyond the payload": (
        frame(HEADERS, 5 | PADDED, 1, b"\x09" + b"\x82\x86"),
        connection(PROTOCOL_ERROR),
    ),
    "6.2: a priority cut short": (frame(HEADERS, 5 | WITH_PRIORITY, 1, b"\0\0\0"), connection(FRAME_SIZE_ERROR)),
    # 6.3 PRIORITY
    "6.3: PRIORITY of no stream": (frame(PRIORITY, 0, 0, PRIORITY_5), connection(PROTOCOL_ERROR)),
    "6.3: PRIORITY of a wrong size": (frame(PRIORITY, 0, 1, b"\0\0\0\0"), connection(FRAME_SIZE_ERROR)),
    # 6.4 RST_STREAM
    "6.4: RST_STREAM of no stream": (reset(0), connection(PROTOCOL_ERROR)),
    "6.4: RST_STREAM of a wrong size": (
        headers(1, GET) + frame(RST_STREAM, 0, 1, b"\0\0\0"),
        connection(FRAME_SIZE_ERROR),
    ),
    # 6.5 SETTINGS
    "6.5: an acknowledgement": (frame(SETTINGS, ACK), FINE),
    "6.5: an acknowledgement with content": (frame(SETTINGS, ACK, 0, b"x"), connection(FRAME_SIZE_ERROR)),
    "6.5: SETTINGS of a stream": (frame(SETTINGS, 0, 1), connection(PROTOCOL_ERROR)),
    "6.5: SETTINGS of a wrong size": (frame(SETTINGS, 0, 0, b"\0\3\0"), connection(FRAME_SIZE_ERROR)),
    "6.5.2: ENABLE_PUSH of 2": (settings((2, 2)), connection(PROTOCOL_ERROR)),
    "6.5.2: INITIAL_WINDOW_SIZE too large": (settings((4, 1 << 31)), connection(FLOW_CONTROL_ERROR)),
    "6.5.2: MAX_FRAME_SIZE too small": (settings((5, 16383)), connection(PROTOCOL_ERROR)),
    "6.5.2: MAX_FRAME_SIZE too large": (settings((5, 1 << 24)), connection(PROTOCOL_ERROR)),
    "6.5.2: an unknown setting": (settings((0xFF, 1)), FINE),
    "RFC 8441 3: ENABLE_CONNECT_PROTOCOL of 2": (settings((8, 2)), connection(PROTOCOL_ERROR)),
    # 6.6 PUSH_PROMISE
    "6.6, 8.4: PUSH_PROMISE": (
        headers(1, GET) + frame(PUSH_PROMISE, 4, 1, b"\0\0\0\2" + block(GET)),
        connection(PROTOCOL_ERROR),
    ),
    # 6.7 PING
    "6.7: PING of a stream": (frame(PING, 0, 1, b"x" * 8), connection(PROTOCOL_ERROR)),
    "6.7: PING of a wrong size": (frame(PING, 0, 0, b"x" * 7), connection(FRAME_SIZE_ERROR)),
    # 6.8 GOAWAY
    "6.8: GOAWAY of a stream": (frame(GOAWAY, 0, 1, bytes(8)), connection(PROTOCOL_ERROR)),
    "6.8: GOAWAY of a wrong size": (frame(GOAWAY, 0, 0, bytes(7)), connection(FRAME_SIZE_ERROR)),
    "6.8: GOAWAY with words": (frame(GOAWAY, 0, 0, bytes(8) + b"words"), FINE),
    # 6.9 WINDOW_UPDATE
    "6.9: by nothing": (window_update(0, 0), connection(PROTOCOL_ERROR)),
    "6.9: by nothing, of a stream": (headers(1, POST, OPEN) + window_update(1, 0), stream(PROTOCOL_ERROR)),
    "6.9: of a wrong size": (frame(WINDOW_UPDATE, 0, 0, b"\0\0\1"), connection(FRAME_SIZE_ERROR)),
    "6.9.1: a window too large": (window_update(0, MAX_WINDOW), connection(FLOW_CONTROL_ERROR)),
    "6.9.1: a window too large, of a stream": (
        headers(1, POST, OPEN) + window_update(1, MAX_WINDOW),
        stream(FLOW_CONTROL_ERROR),
    ),
    "6.9.2: an initial window that makes one too large": (
        headers(1, POST, OPEN) + window_update(1, 1000) + settings((4, MAX_WINDOW)),
        connection(FLOW_CONTROL_ERROR),
    ),
    # 6.10 CONTINUATION
    "6.10: several": (
        frame(HEADERS, 1, 1, block(GET)[:3]) + continuation(1, block(GET)[3:9], 0) + continuation(1, block(GET)[9:]),
        FINE,
    ),
    "6.10: of no stream": (frame(HEADERS, 1, 1, block(GET)) + continuation(0, b""), connection(PROTOCOL_ERROR)),
    "6.10: after END_HEADERS": (headers(1, POST, OPEN) + continuation(1, b""), connection(PROTOCOL_ERROR)),
    "6.10: after one with END_HEADERS": (
        frame(HEADERS, 1, 1, block(GET)) + continuation(1, b"") + continuation(1, b""),
        connection(PROTOCOL_ERROR),
    ),
    "6.10: after DATA": (headers(1, POST, OPEN) + data(1, b"x") + continuation(1, b""), connection(PROTOCOL_ERROR)),
    "6.10: of another stream": (frame(HEADERS, 1, 1, block(GET)) + continuation(3, b""), connection(PROTOCOL_ERROR)),
    # 8.1 messages
    "8.1: trailers": (headers(1, POST, OPEN) + data(1, b"x") + headers(1, [("x-sum", "1")]), FINE),
    "8.1: a second header block that does not end the stream": (
        headers(1, POST, OPEN) + headers(1, [("x-sum", "1")], OPEN),
        stream(PROTOCOL_ERROR),
    ),
    "8.1: a pseudo-header in trailers": (
        headers(1, POST, OPEN) + headers(1, [(":method", "GET")]),
        stream(PROTOCOL_ERROR),
    ),
    "8.1.1: less content than content-length": (
        headers(1, [*POST, ("content-length", "2")], OPEN) + data(1, b"x", END_STREAM),
        stream(PROTOCOL_ERROR),
    ),
    "8.1.1: more content than content-length": (
        headers(1, [*POST, ("content-length", "1")], OPEN) + data(1, b"xx"),
        stream(PROTOCOL_ERROR),
    ),
    "8.1.1: trailers before all of content-length came": (
        headers(1, [*POST, ("content-length", "2")], OPEN) + data(1, b"x") + headers(1, [("x-sum", "1")]),
        stream(PROTOCOL_ERROR),
    ),
    "8.1.1: as much as content-length": (
        headers(1, [*POST, ("content-length", "2")], OPEN) + data(1, b"x") + data(1, b"x", END_STREAM),
        FINE,
    ),
    "8.2.1: a name in capitals": (headers(1, [*GET, ("Accept", "x")]), stream(PROTOCOL_ERROR)),
    "8.2.2: connection": (headers(1, [*GET, ("connection", "close")]), stream(PROTOCOL_ERROR)),
    "8.3.1: no :path": (headers(1, GET[:3]), stream(PROTOCOL_ERROR)),
}


@pytest.mark.parametrize("name", CASES)
def test_a_case_in_any_split(name: str) -> None:
    received, expected = CASES[name]
    for pieces in cuts(received):
        assert outcome(pieces) == expected, [len(piece) for piece in pieces]


# 3.4 the preface


@pytest.mark.parametrize(
    "first",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        PREFACE[:-1] + b"x",
        PREFACE + frame(PING, 0, 0, b"x" * 8),
        PREFACE + frame(SETTINGS, ACK),
    ],
)
def test_another_beginning_is_refused(first: bytes) -> None:
    for pieces in cuts(first):
        server = Connection(False)
        with pytest.raises(RemoteProtocolError) as caught:
            for piece in pieces:
                server.receive_data(piece, 0.0)
        assert caught.value.reason == "BadPreface"


def test_both_ends_begin_with_settings() -> None:
    [first, update] = frames(Connection(False).data_to_send())
    assert (first.kind, first.flags, first.stream) == (SETTINGS, 0, 0)
    assert update == Frame(WINDOW_UPDATE, 0, 0, (CONNECTION_WINDOW - 65535).to_bytes(4, "big"))
    client = Connection(True).data_to_send()
    assert client.startswith(PREFACE)
    assert frames(client[len(PREFACE) :])[0].kind == SETTINGS


# 5.1.2 concurrency


def test_more_streams_than_allowed_are_refused() -> None:
    server = Server(max_streams=2)
    received = server.receive(headers(1, GET), headers(3, GET), headers(5, GET))
    assert [event.stream.id for event in received] == [1, 3]
    assert server.resets() == [(5, REFUSED_STREAM)]
    server.receive(reset(1))
    assert [event.stream.id for event in server.receive(headers(7, GET))] == [7]


# 5.4, 6.8 the end


def test_after_a_fault_nothing_more_is_read() -> None:
    server = Server()
    server.receive(headers(1, GET))
    with pytest.raises(ConnectionFault):
        server.receive(headers(3, GET), data(0, b"x"))
    assert server.goaway() == (1, PROTOCOL_ERROR), "the second request was not handed on"
    assert server.receive(headers(5, GET)) == []
    assert server.sent() == []


def test_goaway_is_sent_twice() -> None:
    server = Server()
    server.receive(headers(1, GET))
    server.connection.send_goaway(errors.NO_ERROR, False)
    assert server.goaway() == (2**31 - 1, 0)
    assert len(server.receive(headers(3, GET))) == 1
    server.connection.send_goaway()
    assert server.goaway() == (3, 0)
    assert server.receive(headers(5, POST, OPEN), data(5, b"late")) == []
    assert server.sent() == [], "what came too late is ignored"


def test_a_goaway_is_told() -> None:
    [event] = Server().receive(frame(GOAWAY, 0, 0, bytes(7) + b"\2"))
    assert (event.kind, event.code) == (events.GOAWAY, 2)


# 6.5.3, 6.7 acknowledgements


def test_settings_and_pings_are_acknowledged_in_order() -> None:
    server = Server()
    server.receive(settings((1, 0)), frame(PING, 0, 0, b"12345678"), settings())
    assert server.sent() == [
        Frame(SETTINGS, ACK, 0, b""),
        Frame(PING, ACK, 0, b"12345678"),
        Frame(SETTINGS, ACK, 0, b""),
    ]


# 6.9 flow control, sending


def answer(server: Server, size: int, number: int = 1) -> bool:
    stream = server.connection.streams[number]
    server.connection.send_response(stream, 200, b"", -1, False)
    whole = server.connection.send_data(stream, bytes(size), False)
    if whole:
        assert not stream.queued
    return whole


def sizes(server: Server) -> list[int]:
    return [len(f.payload) for f in server.sent() if f.kind == DATA]


def test_a_window_of_one_octet() -> None:
    """Section 6.9.1; h2spec's case."""
    server = Server((4, 1))
    server.receive(headers(1, GET))
    assert not answer(server, 5)
    assert sizes(server) == [1]
    assert server.receive(window_update(1, 1)) == []
    assert sizes(server) == [1]
    [event] = server.receive(window_update(1, 100))
    assert (event.kind, event.stream.id) == (events.WRITABLE, 1)
    assert sizes(server) == [3]


def test_the_initial_window_changes_for_open_streams() -> None:
    """Section 6.9.2: it may become negative."""
    server = Server((4, 3))
    server.receive(headers(1, GET))
    assert not answer(server, 10)
    assert sizes(server) == [3]
    server.receive(settings((4, 1)))
    server.receive(window_update(1, 2))
    assert sizes(server) == []
    server.receive(window_update(1, 1))
    assert sizes(server) == [1]
    server.receive(settings((4, 7)))
    assert sizes(server) == [6]


def test_the_connections_window_is_shared_in_turns() -> None:
    server = Server((4, 1 << 20))
    server.receive(headers(1, GET), headers(3, GET))
    answer(server, 100000, 1)
    answer(server, 100000, 3)
    assert sum(sizes(server)) == 65535
    server.receive(window_update(0, 70000))
    sent = [(f.stream, len(f.payload)) for f in server.sent() if f.kind == DATA]
    assert sum(size for _, size in sent) == 70000
    assert {number for number, _ in sent} == {1, 3}


def test_the_end_waits_behind_what_waits() -> None:
    server = Server((4, 2))
    server.receive(headers(1, GET), headers(3, GET))
    one, two = (server.connection.streams[number] for number in (1, 3))
    answer(server, 3, 1)
    answer(server, 3, 3)
    server.connection.send_end(one, b"")
    server.connection.send_end(two, b"X-Sum: 1\r\n")
    server.sent()
    assert server.receive(settings((4, 10))) == []
    sent = [(f.kind, f.flags, f.stream) for f in server.sent() if f.kind != SETTINGS]
    assert sent == [(DATA, END_STREAM, 1), (DATA, 0, 3), (HEADERS, END_STREAM | END_HEADERS, 3)]
    assert not server.connection.streams


def test_an_end_without_content_needs_no_window() -> None:
    """Section 6.9.1; nor does it wait where a new initial window has made the stream's negative."""
    server = Server((4, 5))
    server.receive(headers(1, GET))
    assert answer(server, 5)
    server.receive(settings((4, 0)))
    server.sent()
    server.connection.send_end(server.connection.streams[1], b"")
    assert [(f.kind, f.flags) for f in server.sent()] == [(DATA, END_STREAM)]
    assert server.receive(window_update(1, 100)) == []


def test_nothing_leaves_while_the_transport_is_full() -> None:
    server = Server()
    server.receive(headers(1, GET))
    server.connection.blocked = True
    assert not answer(server, 5)
    assert sizes(server) == []
    [event] = server.connection.unblock()
    assert event.kind == events.WRITABLE
    assert sizes(server) == [5]


# 6.9 flow control, receiving


def updates(server: Server) -> dict[int, int]:
    return {f.stream: int.from_bytes(f.payload, "big") for f in server.sent() if f.kind == WINDOW_UPDATE}


def upload(server: Server, total: int, number: int = 1) -> None:
    while total > 0:
        server.receive(data(number, bytes(min(total, 16384))))
        total -= 16384


def test_windows_are_given_back_by_the_half() -> None:
    server = Server()
    server.receive(headers(1, POST, OPEN))
    upload(server, STREAM_WINDOW // 2 - 16384)
    assert updates(server) == {}
    upload(server, 16384)
    assert updates(server) == {1: STREAM_WINDOW // 2}
    upload(server, CONNECTION_WINDOW)
    assert 0 in updates(server)


def test_padding_is_given_back_too() -> None:
    server = Server()
    server.receive(headers(1, POST, OPEN))
    for _ in range(STREAM_WINDOW // 2 // 256):
        server.receive(data(1, b"\xfe" + bytes(255), PADDED))
    assert updates(server) == {1: STREAM_WINDOW // 2}


def test_a_held_stream_gets_no_more_than_its_window() -> None:
    server = Server()
    server.receive(headers(1, POST, OPEN))
    stream = server.connection.streams[1]
    server.connection.hold(stream)
    upload(server, STREAM_WINDOW)
    assert 1 not in updates(server)
    [event] = server.receive(data(1, b"x"))
    assert (event.kind, event.code) == (events.RESET, FLOW_CONTROL_ERROR)


def test_a_released_stream_gets_all_back() -> None:
    server = Server()
    server.receive(headers(1, POST, OPEN))
    stream = server.connection.streams[1]
    server.connection.hold(stream)
    upload(server, STREAM_WINDOW)
    server.sent()
    server.connection.release(stream)
    assert updates(server) == {1: STREAM_WINDOW}


def test_held_streams_hold_up_the_connection_at_last() -> None:
    """Else a client could send a window's worth on each of its streams for nobody."""
    server = Server()
    given = CONNECTION_WINDOW
    numbers = iter(range(1, 256, 2))
    with pytest.raises(ConnectionFault) as caught:
        for number in numbers:
            server.receive(headers(number, POST, OPEN))
            server.connection.hold(server.connection.streams[number])
            upload(server, STREAM_WINDOW, number)
            given += updates(server).get(0, 0)
    assert caught.value.code == FLOW_CONTROL_ERROR
    assert given <= 2.5 * CONNECTION_WINDOW


def test_the_window_is_given_back_when_held_streams_end() -> None:
    server = Server()
    for number in range(1, 15, 2):
        server.receive(headers(number, POST, OPEN))
        server.connection.hold(server.connection.streams[number])
        upload(server, STREAM_WINDOW, number)
    server.sent()
    for stream in list(server.connection.streams.values()):
        server.connection.reset(stream, 0)
    assert updates(server)[0] >= CONNECTION_WINDOW // 2


# 8.1 what becomes an event


def test_a_request_with_its_content_in_one_read_is_one_event() -> None:
    server = Server()
    [event] = server.receive(headers(1, POST, OPEN), data(1, b"ab"), data(1, b"cd"), data(1, b"", END_STREAM))
    assert (event.kind, event.data, event.ended) == (events.REQUEST, b"abcd", True)
    assert (event.head.content_length, event.head.chunked) == (4, False), "all is here, so its length is known"


def test_interleaved_requests_are_an_event_each() -> None:
    server = Server()
    received = server.receive(
        headers(1, POST, OPEN),
        headers(3, POST, OPEN),
        data(1, b"a"),
        data(3, b"x"),
        data(1, b"b"),
        data(3, b"y", END_STREAM),
    )
    assert [(event.stream.id, event.data, event.ended) for event in received] == [(1, b"ab", False), (3, b"xy", True)]
    [event] = server.receive(data(1, b"c"), headers(1, [("x-sum", "1")]))
    assert (event.kind, event.data, event.ended, event.trailers) == (events.DATA, b"c", True, b"x-sum: 1\r\n")


def test_a_request_that_is_reset_at_once_is_nobodys_business() -> None:
    server = Server()
    assert [event.kind for event in server.receive(headers(1, POST, OPEN), data(1, b"x"), reset(1))] == [events.NOTHING]
    server.receive(headers(3, POST, OPEN))
    [event] = server.receive(data(3, b"x"), reset(3, 8))
    assert (event.kind, event.code, event.stream.id, event.error) == (events.RESET, 8, 3, None)


def test_a_malformed_request_is_told_for_the_log() -> None:
    [event] = Server().receive(headers(1, [*GET, ("a", "b\0")]))
    assert (event.kind, event.code, event.error.reason) == (events.RESET, PROTOCOL_ERROR, "BadHeader")


def test_what_is_to_be_answered_is_refused_without_a_reset() -> None:
    server = Server()
    [event] = server.receive(headers(1, [(":method", "TRACE"), *GET[1:]]))
    assert (event.kind, event.error.status) == (events.REFUSED, 405)
    assert server.sent() == []


def test_an_answer_before_the_end_of_the_request_ends_it() -> None:
    """Section 8.1: RST_STREAM with NO_ERROR; what was on its way passes."""
    server = Server()
    server.receive(headers(1, POST, OPEN))
    server.connection.send_response(server.connection.streams[1], 403, b"", 0, True)
    assert server.resets() == [(1, 0)]
    assert server.receive(data(1, b"late"), headers(1, [("x", "y")])) == []
    assert server.sent() == []


def test_a_large_head_is_sent_in_several_frames() -> None:
    server = Server()
    server.receive(headers(1, GET))
    lines = b"".join(b"X-%d: %b\r\n" % (number, b"\xff" * 1000) for number in range(40))
    server.connection.send_response(server.connection.streams[1], 200, lines, -1, True)
    first, *others = server.sent()
    assert (first.kind, first.flags, len(first.payload)) == (HEADERS, END_STREAM, 16384)
    assert [(f.kind, f.flags) for f in others] == [(CONTINUATION, 0), (CONTINUATION, END_HEADERS)]


def test_the_bound_of_header_blocks() -> None:
    """Section 10.5.1: neither in octets nor in frames without end."""
    for pieces in ([continuation(1, b"", 0)] * 33, [continuation(1, bytes(16384), 0)] * 6):
        server = Server()
        with pytest.raises(ConnectionFault) as caught:
            server.receive(frame(HEADERS, 1, 1, block(GET)), *pieces)
        assert (caught.value.code, caught.value.reason) == (ENHANCE_YOUR_CALM, "Http2ContinuationFlood")


def test_too_many_fields_are_answered() -> None:
    server = Server()
    for fields in ([("a", "b")] * 200, [("a", "b" * 16000)] * 5):
        number = server.connection.last_id + 2 if server.connection.last_id else 1
        pieces = block([*GET, *fields])
        first = frame(HEADERS, 1, number, pieces[:16000])
        rest = [pieces[at : at + 16000] for at in range(16000, len(pieces), 16000)]
        [event] = server.receive(first, *[continuation(number, piece, 0) for piece in rest], continuation(number, b""))
        assert (event.kind, event.error.status, event.error.reason) == (events.REFUSED, 400, "HeadersTooLarge")
