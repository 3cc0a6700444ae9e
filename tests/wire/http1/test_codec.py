"""Heads are written alike by both codecs, and so that our own scanners read them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbproxy.wire.http1.codec import (
    CHUNKED,
    CONNECTION_CLOSE,
    CONNECTION_KEEP_ALIVE,
    CONNECTION_UNSAID,
    NO_BODY,
    Codec,
    PureCodec,
    codec,
)
from lbproxy.wire.http1.head import scan_request, scan_response

BOTH = list(dict.fromkeys((Codec, PureCodec)))
pieces = st.binary(max_size=40)


@pytest.mark.parametrize("kind", BOTH)
def test_a_request(kind: Any) -> None:
    block = kind().request_block(
        b"GET",
        b"/a?b",
        b"example.com",
        b"Accept: */*\r\n",
        b"X-Forwarded-For: ::1\r\n",
        b"Root=1-2-3",
        b"A: b\r\n",
    )
    assert block == (
        b"GET /a?b HTTP/1.1\r\nHost: example.com\r\nAccept: */*\r\nX-Forwarded-For: ::1\r\n"
        b"X-Amzn-Trace-Id: Root=1-2-3\r\nA: b\r\n"
    )
    head = scan_request(block + b"\r\n")
    assert head is not None
    assert (head.method, head.target, head.host, head.trace_id) == (b"GET", b"/a?b", b"example.com", b"Root=1-2-3")


@pytest.mark.parametrize("kind", BOTH)
def test_the_rest_of_a_request(kind: Any) -> None:
    block = b"GET / HTTP/1.1\r\nHost: a\r\n"
    assert kind().request(block, NO_BODY, b"") == block + b"\r\n"
    assert kind().request(block, 0, b"") == block + b"Content-Length: 0\r\n\r\n"
    assert kind().request(block, 10**17, b"piece") == block + b"Content-Length: 100000000000000000\r\n\r\npiece"
    for missing in ((None, 0, b""), (block, 0, None)):
        with pytest.raises(TypeError):
            kind().request(*missing)


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize(
    ("framing", "connection", "expected"),
    [
        (0, CONNECTION_UNSAID, b"Content-Length: 0\r\n"),
        (10**17, CONNECTION_CLOSE, b"Content-Length: 100000000000000000\r\nConnection: close\r\n"),
        (NO_BODY, CONNECTION_KEEP_ALIVE, b"Connection: keep-alive\r\n"),
        (CHUNKED, CONNECTION_UNSAID, b"Transfer-Encoding: chunked\r\n"),
    ],
)
def test_a_response(kind: Any, framing: int, connection: int, expected: bytes) -> None:
    message = kind().response(200, b"OK", b"A: b\r\n", framing, connection, b"body")
    assert message == b"HTTP/1.1 200 OK\r\nA: b\r\n" + expected + b"\r\nbody"
    head = scan_response(message)
    assert head is not None
    assert (head.status, head.end) == (200, len(message) - 4)


@given(st.lists(pieces, min_size=7, max_size=7))
def test_both_write_the_same_request(parts: list[bytes]) -> None:
    assert codec.request_block(*parts) == PureCodec.request_block(*parts)


@given(
    st.integers(100, 999),
    pieces,
    pieces,
    st.integers(-2, 2**63 - 1),
    st.sampled_from([CONNECTION_UNSAID, CONNECTION_CLOSE, CONNECTION_KEEP_ALIVE]),
    pieces,
)
def test_both_write_the_same_response(
    status: int, reason: bytes, fields: bytes, framing: int, connection: int, data: bytes
) -> None:
    arguments = (status, reason, fields, framing, connection, data)
    assert codec.response(*arguments) == PureCodec.response(*arguments)


@pytest.mark.parametrize("kind", BOTH)
def test_nothing_is_written_of_what_is_not_there(kind: Any) -> None:
    """None where bytes belong is an error, not a crash."""
    for missing in range(7):
        parts: list[Any] = [b""] * 7
        parts[missing] = None
        with pytest.raises(TypeError):
            kind().request_block(*parts)
    with pytest.raises((TypeError, ValueError)):
        kind().response(200, None, b"", 0, 0, b"")


@pytest.mark.parametrize("kind", BOTH)
def test_a_piece_of_the_data(kind: Any) -> None:
    assert kind().piece(b"head body", 5, 9) == b"body"
    assert kind().piece(b"head", 4, 4) == b""


@pytest.mark.skipif(Codec is PureCodec, reason="the compiled codec was not built")
@pytest.mark.parametrize(("start", "end"), [(-1, 2), (3, 2), (0, 5), (5, 6)])
def test_no_piece_reaches_beyond_the_data(start: int, end: int) -> None:
    with pytest.raises(ValueError):
        codec.piece(b"head", start, end)
