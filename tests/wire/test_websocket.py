"""Where WebSocket's frames end: tables at every split, properties."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbproxy.testing.splits import prefixes, splits
from lbproxy.wire.websocket import GOING_AWAY, FrameTracker, close_frame

TEXT, BINARY, CLOSE, PING = 1, 2, 8, 9


def frame(payload: bytes, opcode: int = BINARY, mask: bytes = b"", final: bool = True) -> bytes:
    """RFC 6455 section 5.2; what is masked need not make sense here."""
    size = len(payload)
    masked = 0x80 if mask else 0
    first = opcode | (0x80 if final else 0)
    if size < 126:
        head = struct.pack("!BB", first, masked | size)
    elif size < 65536:
        head = struct.pack("!BBH", first, masked | 126, size)
    else:
        head = struct.pack("!BBQ", first, masked | 127, size)
    return head + mask + payload


def after(*pieces: bytes) -> tuple[bool, bool]:
    tracker = FrameTracker()
    for piece in pieces:
        tracker.receive_data(piece)
    return tracker.between_frames, tracker.closed


FRAMES = {
    "empty": frame(b""),
    "short": frame(b"hello", TEXT),
    "masked": frame(b"hello", TEXT, b"\x81\x82\x83\x88"),
    "longest of the shortest": frame(bytes(125), mask=b"mask"),
    "with 16 bits of length": frame(b"\x88" * 126),
    "with 16 bits of length, masked": frame(b"\x88" * 300, mask=b"\xff\xff\xff\xff"),
    "with 64 bits of length that 7 would do": b"\x82\x7f" + struct.pack("!Q", 3) + b"abc",
    "the same, masked": b"\x82\xff" + struct.pack("!Q", 3) + b"mask" + b"abc",
    "first of a message": frame(b"part", final=False),
    "ping": frame(b"?", PING, b"mask"),
}


@pytest.mark.parametrize("data", FRAMES.values(), ids=FRAMES)
def test_a_frame_at_every_split(data: bytes) -> None:
    for pieces in splits(data + data):
        assert after(*pieces) == (True, False), pieces
    for part in prefixes(data):
        assert after(part) == (not part, False), part
        assert after(data, part) == (not part, False), part


@pytest.mark.parametrize("mask", [b"", b"\x00\x80\xff\x7f"])
def test_a_close_frame_is_seen_at_every_split(mask: bytes) -> None:
    for pieces in splits(frame(b"\x88\x00", mask=mask) + close_frame(GOING_AWAY, mask)):
        assert after(*pieces) == (True, True), pieces
    assert after(frame(b"\x88\x00", mask=mask)) == (True, False), "what looks like one inside of another frame"


@pytest.mark.parametrize("size", [65535, 65536, 200_000])
def test_large_frames(size: int) -> None:
    data = frame(bytes(size), mask=b"mask")
    assert after(data) == (True, False)
    assert after(data[:-1]) == (False, False)
    assert after(data[:70], data[70:-1], data[-1:] + data) == (True, False)


@pytest.mark.parametrize("size", [1 << 62, (1 << 63) - 1, 1 << 63, (1 << 64) - 1])
def test_a_length_that_never_comes_is_waited_for(size: int) -> None:
    """Of the 64 bits the highest must not be set (RFC 6455 section 5.2); such bytes pass as they came."""
    head = b"\x82\x7f" + struct.pack("!Q", size)
    for pieces in splits(head):
        assert after(*pieces, bytes(1000), head) == (False, False)


def test_close_frames() -> None:
    """RFC 6455 sections 5.5.1 and 7.4.1."""
    assert close_frame(GOING_AWAY) == b"\x88\x02\x03\xe9"
    assert close_frame(GOING_AWAY, b"\x10\x20\x30\x40") == b"\x88\x82\x10\x20\x30\x40\x13\xc9"


frames = st.builds(
    frame,
    st.one_of(st.binary(max_size=140), st.integers(65530, 65540).map(bytes)),
    st.sampled_from([0, TEXT, BINARY, PING]),
    st.one_of(st.just(b""), st.binary(min_size=4, max_size=4)),
    st.booleans(),
)


@given(st.lists(frames, min_size=1, max_size=6), st.data())
def test_any_frames_in_any_pieces(some: list[bytes], data: st.DataObject) -> None:
    whole = b"".join(some)
    ends = {0}
    for one in some:
        ends.add(max(ends) + len(one))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=8)))
    tracker = FrameTracker()
    for begin, end in zip([0, *cuts], [*cuts, len(whole)], strict=True):
        tracker.receive_data(whole[begin:end])
        assert tracker.between_frames == (end in ends)
    assert not tracker.closed


@given(st.lists(st.binary(max_size=40)))
def test_any_bytes_are_taken(pieces: list[bytes]) -> None:
    assert after(*pieces) == after(b"".join(pieces))
