"""What costs us more than the client is counted, and too much of it ends the connection."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from lbproxy.wire.http2 import abuse, events
from lbproxy.wire.http2.errors import ENHANCE_YOUR_CALM, ConnectionFault
from lbproxy.wire.http2.frames import ACK, END_HEADERS, PING, PRIORITY, SETTINGS
from tests.wire.http2.raw import GET, POST, Server, block, data, frame, headers, reset, settings, window_update

OPEN = END_HEADERS
BOMB = block(GET) + b"\x82" * 250


def rapid_reset(number: int) -> bytes:
    return headers(number, GET) + reset(number)


def made_reset(number: int) -> bytes:
    return headers(number, POST, OPEN) + window_update(number, 0)


def malformed(number: int) -> bytes:
    return headers(number, [*GET, ("connection", "close")])


ABUSE: dict[str, tuple[str, Callable[[int], bytes]]] = {
    "rapid reset": (abuse.RAPID_RESET, rapid_reset),
    "made you reset by a window": (abuse.MADE_RESET, made_reset),
    "made you reset by malformed requests": (abuse.MADE_RESET, malformed),
    "made you reset by DATA after the end": (abuse.MADE_RESET, lambda n: headers(n, GET) + data(n, b"x")),
    "too many streams": (abuse.REFUSED_STREAMS, lambda n: headers(n, POST, OPEN)),
    "continuations": (
        abuse.CONTINUATION_FLOOD,
        lambda n: frame(1, 1, n, block(GET)) + frame(9, 0, n) * 31 + frame(9, 4, n) + reset(n),
    ),
    "pings": (abuse.PING_FLOOD, lambda n: frame(PING, 0, 0, bytes(8))),
    "pings acknowledged": (abuse.PING_FLOOD, lambda n: frame(PING, ACK, 0, bytes(8))),
    "settings": (abuse.SETTINGS_FLOOD, lambda n: settings()),
    "settings by the dozen": (abuse.SETTINGS_FLOOD, lambda n: settings(*[(0xFF, 0)] * 400)),
    "settings acknowledged": (abuse.STRAY_FRAMES, lambda n: frame(SETTINGS, ACK)),
    "priorities": (abuse.PRIORITY_FLOOD, lambda n: frame(PRIORITY, 0, n, bytes(5))),
    "empty frames": (abuse.EMPTY_FRAMES, lambda n: headers(1, POST, OPEN) * (n == 1) + data(1, b"")),
    "window updates": (abuse.WINDOW_FLOOD, lambda n: window_update(0, 1)),
    "frames of no type": (abuse.STRAY_FRAMES, lambda n: frame(0x99)),
    "bombs": (abuse.HEADER_BOMB, lambda n: frame(1, 5, n, BOMB) + reset(n)),
}


@pytest.mark.parametrize("name", ABUSE)
def test_abuse_ends_the_connection(name: str) -> None:
    """Within one moment, and before a thousand acts that a client may do in a second."""
    cause, act = ABUSE[name]
    server = Server()
    with pytest.raises(ConnectionFault) as caught:
        for number in range(1, 5000, 2):
            server.receive(act(number))
    assert (caught.value.code, caught.value.reason) == (ENHANCE_YOUR_CALM, cause)
    assert server.goaway()[1] == ENHANCE_YOUR_CALM


@pytest.mark.parametrize("name", ABUSE)
def test_what_is_done_now_and_then_does_not_add_up(name: str) -> None:
    if name == "too many streams":
        return  # those that are open stay so
    _, act = ABUSE[name]
    server = Server()
    for number in range(1, 1000, 2):
        server.receive(act(number))
        server.now += 2.0
        server.sent()


def test_cancelled_requests_among_good_ones_are_forgiven() -> None:
    """A client that leaves a page with every second request."""
    server = Server()
    for number in range(1, 4000, 4):
        server.receive(headers(number, GET), headers(number + 2, GET), reset(number + 2))
        server.connection.send_response(server.connection.streams[number], 200, b"", 0, True)


def test_what_one_read_resets_never_becomes_a_request() -> None:
    server = Server()
    received = server.receive(*(rapid_reset(number) for number in range(1, 400, 2)))
    assert {event.kind for event in received} == {events.NOTHING}
    assert all(event.head is None for event in received)


def test_updates_for_what_was_sent_are_no_flood() -> None:
    """A client that gives back each frame, twice: once for the stream, once for the connection."""
    server = Server((4, 2**31 - 1))
    server.receive(headers(1, GET))
    stream = server.connection.streams[1]
    server.connection.send_response(stream, 200, b"", -1, False)
    for _ in range(3000):
        server.connection.send_data(stream, bytes(16384), False)
        server.receive(window_update(0, 16384), window_update(1, 1))


def test_pings_for_small_messages_are_no_flood() -> None:
    """gRPC's clients in Go measure with a WINDOW_UPDATE and a PING for what comes, however little that is."""
    server = Server()
    server.receive(headers(1, GET))
    stream = server.connection.streams[1]
    server.connection.send_response(stream, 200, b"", -1, False)
    for _ in range(3000):
        server.connection.send_data(stream, bytes(20), False)
        server.receive(window_update(0, 20), window_update(1, 20), frame(PING, 0, 0, bytes(8)))


def test_windows_by_the_octet_are_a_flood() -> None:
    server = Server((4, 0))
    server.receive(headers(1, GET))
    stream = server.connection.streams[1]
    server.connection.send_response(stream, 200, b"", -1, False)
    server.connection.send_data(stream, bytes(100000), False)
    with pytest.raises(ConnectionFault) as caught:
        for _ in range(3000):
            server.receive(window_update(1, 1))
    assert caught.value.reason == abuse.WINDOW_FLOOD


def test_what_is_remembered_of_resets_is_bounded() -> None:
    server = Server()
    for number in range(1, 3001, 2):
        server.receive(headers(number, POST, OPEN))
        server.connection.reset(server.connection.streams[number], 8)
    assert server.receive(data(2999, b"late")) == []
    with pytest.raises(ConnectionFault):
        server.receive(data(1, b"much too late"))
