"""Whatever comes, the HTTP/2 codec raises `RemoteProtocolError` or goes on, holds little, and reads any split alike."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from lbproxy.wire.errors import RemoteProtocolError
from lbproxy.wire.http2 import events
from lbproxy.wire.http2.connection import Connection
from lbproxy.wire.http2.frames import PREFACE
from tests.wire.http2.raw import GET, POST, block, data, frame, headers, reset, window_update
from tests.wire.http2.raw import settings as settings_frame

blocks = st.one_of(
    st.sampled_from(
        [
            block(GET),
            block(POST),
            block([(":status", "200")]),
            block([(":status", "200"), ("content-length", "3")]),
            block([*POST, ("content-length", "3")]),
            b"\x82\x87\x84\x41\x01a",
            b"\xbe" * 30,
            b"\x20",
        ]
    ),
    st.binary(max_size=60),
)
numbers = st.sampled_from([0, 1, 1, 1, 3, 3, 5, 2, 7, 2**31 - 1])
whole = st.one_of(
    st.builds(frame, st.integers(0, 11), st.integers(0, 255), numbers, st.binary(max_size=40)),
    st.builds(frame, st.just(1), st.sampled_from([1, 4, 5, 0, 0x24, 0x0C]), numbers, blocks),
    st.builds(frame, st.just(9), st.sampled_from([0, 4]), numbers, blocks),
    st.builds(data, numbers, st.binary(max_size=40), st.sampled_from([0, 1, 8])),
    st.builds(reset, numbers),
    st.builds(window_update, numbers, st.integers(0, 2**32 - 1)),
    st.builds(settings_frame, st.tuples(st.integers(0, 9), st.integers(0, 2**32 - 1))),
)
inputs = st.lists(st.one_of(whole, whole, whole, st.binary(max_size=12)), max_size=25).map(b"".join)


def feed(connection: Connection, pieces: list[bytes]) -> list[tuple[int, int, bytes, bool]]:
    """What was told: content is joined, for how it is cut depends on the reads."""
    told: list[tuple[int, int, bytes, bool]] = []
    try:
        for piece in pieces:
            for event in connection.receive_data(piece, 0.0):
                if event.kind == events.REQUEST and not event.ended:
                    connection.send_response(event.stream, 200, b"", -1, False)
                    connection.send_data(event.stream, b"answer", False)
                told.append((event.kind, event.stream.id if event.stream else 0, event.data, event.ended))
    except RemoteProtocolError:
        told.append((-1, 0, b"", False))
    return told


@settings(max_examples=400, deadline=None)
@given(inputs)
def test_a_server_withstands_any_frames(received: bytes) -> None:
    connection = Connection(False, max_streams=4)
    feed(connection, [PREFACE + settings_frame(), received, headers(9, GET)])
    assert len(connection.streams) <= 4
    assert connection.pending_bytes() < 20000


@settings(max_examples=400, deadline=None)
@given(inputs)
def test_a_client_withstands_any_frames(received: bytes) -> None:
    connection = Connection(True)
    connection.receive_data(settings_frame(), 0.0)
    connection.send_request(b"GET", b"https", b"a", b"/", b"", -1, True)
    connection.send_request(b"POST", b"https", b"a", b"/", b"", -1, False)
    connection.send_request(b"HEAD", b"https", b"a", b"/", b"", -1, True)
    feed(connection, [received])


@settings(max_examples=200, deadline=None)
@given(inputs, st.integers())
def test_any_split_is_read_alike(received: bytes, seed: int) -> None:
    cuts = random.Random(seed)
    received = PREFACE + settings_frame() + received
    pieces = []
    at = 0
    while at < len(received):
        size = cuts.choice((1, 2, 5, 9, 30))
        pieces.append(received[at : at + size])
        at += size

    def summary(pieces: list[bytes]) -> tuple[bytes, int]:
        connection = Connection(False, max_streams=4)
        fault = 0
        content = b""
        try:
            for piece in pieces:
                for event in connection.receive_data(piece, 0.0):
                    if event.kind != events.RESET and event.stream in connection.streams.values():
                        content += event.data
        except RemoteProtocolError as error:
            fault = hash(error.reason)
        return (content if not fault else b""), fault

    assert summary([received])[1] == summary(pieces)[1]


@given(st.binary(max_size=100))
def test_any_octets_are_refused_or_awaited(received: bytes) -> None:
    feed(Connection(False), [received])
    feed(Connection(False), [PREFACE + received])
    feed(Connection(True), [received])
