from __future__ import annotations

import pytest

from lbproxy.testing.splits import prefixes, splits
from lbproxy.wire.errors import LocalProtocolError, RemoteProtocolError
from lbproxy.wire.http1.body import LAST_CHUNK, ChunkedReader, encode_chunk, last_chunk
from tests.wire.http1.cases import ACCEPTED_BODIES, REFUSED_BODIES, Chunked, Refused


def read(pieces: list[bytes]) -> tuple[bytes, ChunkedReader]:
    """The payload and the reader at the body's end; what comes after goes to ``rest``."""
    reader = ChunkedReader()
    payload = b""
    for piece in pieces:
        if reader.ended:
            reader.rest += piece
        else:
            payload += reader.receive_data(piece)
    return payload, reader


@pytest.mark.parametrize("case", ACCEPTED_BODIES)
def test_accepted_body_at_every_split(case: Chunked) -> None:
    for pieces in splits(case.data):
        payload, reader = read(pieces)
        assert reader.ended, pieces
        assert (payload, reader.trailers, reader.rest) == (case.payload, case.trailers, case.rest), pieces


@pytest.mark.parametrize("case", ACCEPTED_BODIES)
def test_body_does_not_end_before_its_end(case: Chunked) -> None:
    for prefix in prefixes(case.data.removesuffix(case.rest)):
        assert not read([prefix])[1].ended, prefix


@pytest.mark.parametrize("case", REFUSED_BODIES, ids=lambda case: repr(case.data[:40]))
def test_refused_body_at_every_split(case: Refused) -> None:
    for pieces in splits(case.data):
        with pytest.raises(RemoteProtocolError) as caught:
            read(pieces)
        assert (caught.value.reason, caught.value.status) == (case.reason, 400), pieces


@pytest.mark.parametrize(
    "data", [b"g", b"\n", b" ", b"5 ", b"5;a\n", b"5\r5", b"5\r\nhelloX", b"0\r\nA: b\n", b"0\r\n\n"]
)
def test_incomplete_body_is_refused_as_soon_as_it_cannot_become_right(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        ChunkedReader().receive_data(data)


def test_chunk_line_of_the_limit_is_accepted_and_one_byte_more_is_refused() -> None:
    line = b"5;" + b"a" * 4094
    assert read([line, b"\r\nhello\r\n"])[0] == b"hello"
    assert read([line + b"\r", b"\nhello\r\n"])[0] == b"hello"
    for pieces in ([line + b"a"], [line, b"a"], [line + b"a\r\nhello\r\n"]):
        with pytest.raises(RemoteProtocolError) as caught:
            read(pieces)
        assert caught.value.reason == "BadChunk"


def test_extensions_of_a_body_are_bounded() -> None:
    chunk = b"1;" + b"a" * 1023 + b"\r\nx\r\n"
    assert read([chunk] * 16)[0] == b"x" * 16
    with pytest.raises(RemoteProtocolError):
        read([chunk] * 17)


def test_trailers_are_bounded() -> None:
    assert read([b"0\r\n" + b"A: b\r\n" * 64 + b"\r\n"])[1].trailers == b"A: b\r\n" * 64
    for section in (
        b"A: b\r\n" * 65 + b"\r\n",
        b"A: b\r\n" * 65,
        b"A: " + b"b" * 16384,
        b"A: " + b"b" * 8192 + b"\r\n" + b"B: " + b"b" * 8192,
    ):
        with pytest.raises(RemoteProtocolError) as caught:
            read([b"0\r\n", section])
        assert caught.value.reason in ("TooManyHeaders", "HeadersTooLarge")


def test_piece_within_a_chunk_is_not_copied() -> None:
    reader = ChunkedReader()
    reader.receive_data(b"ffff\r\n")
    piece = b"x" * 1000
    assert reader.receive_data(piece) is piece


def test_reader_holds_no_payload() -> None:
    reader = ChunkedReader()
    reader.receive_data(b"fffffff\r\n" + b"x" * 100_000)
    assert reader._held == b""


def test_nothing_may_be_fed_after_the_end() -> None:
    _, reader = read([b"0\r\n\r\n"])
    with pytest.raises(LocalProtocolError):
        reader.receive_data(b"GET /")


def test_empty_piece_changes_nothing() -> None:
    assert read([b"", b"5\r\n", b"", b"hello", b"", b"\r\n0\r\n", b"", b"\r\n"])[0] == b"hello"


def test_what_is_written_is_read() -> None:
    data = encode_chunk(b"hello") + encode_chunk(b"") + encode_chunk(b" world") + last_chunk(b"A: b\r\n")
    payload, reader = read([data])
    assert (payload, reader.trailers, reader.ended) == (b"hello world", b"A: b\r\n", True)


def test_last_chunk_without_trailers() -> None:
    assert last_chunk(b"") == LAST_CHUNK == b"0\r\n\r\n"
