"""RFC 7541 (HPACK), section by section: header blocks in HEADERS and CONTINUATION frames cut at every place.

Each case is the blocks of one connection, as hexadecimal digits, and the fields that each must give.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lbproxy.testing.splits import splits
from lbproxy.wire.http2.encoder import Encoder
from lbproxy.wire.http2.errors import COMPRESSION_ERROR, ConnectionFault
from lbproxy.wire.http2.frames import END_HEADERS, END_STREAM, HEADERS
from lbproxy.wire.http2.hpack import Decoder
from tests.wire.http2.raw import Server, continuation, frame

pytestmark = pytest.mark.conformance

REQUEST = "828784" + "0101" + b"a".hex()
"""GET https://a/, by the static table but for the authority, which is not remembered."""
BROKEN = "broken"

X_A = "40" + "01" + b"x".hex() + "01" + b"a".hex()
Y_B = "40" + "01" + b"y".hex() + "01" + b"b".hex()
LARGE = "40" + "01" + b"z".hex() + "7fe11e" + "62" * 4064
"""With its 32 octets of overhead one more than the table takes."""

CASES: dict[str, list[tuple[str, str]]] = {
    # 2.3 indexing tables
    "2.3.1: the static table's last entry": [("bd", "www-authenticate: ")],
    "2.3.2: the latest entry comes first": [(X_A + Y_B, "x: a|y: b"), ("bebf", "y: b|x: a")],
    "2.3.2: one value twice is two entries": [(X_A + X_A + Y_B, "x: a|x: a|y: b"), ("bebfc0", "y: b|x: a|x: a")],
    "2.3.3: beyond both tables": [("be", BROKEN)],
    "2.3.3: within the block that adds it": [(X_A + "be", "x: a|x: a")],
    # 4 the dynamic table
    "4.2: a size of nothing and back": [(X_A, "x: a"), ("203fe11f" + Y_B, "y: b"), ("be", "y: b"), ("bf", BROKEN)],
    "4.2: three updates": [("202020", BROKEN)],
    "4.2: an update after a field": [("8220", BROKEN)],
    "4.3: a smaller size evicts the oldest": [(X_A + Y_B, "x: a|y: b"), ("3f03" + "be", "y: b"), ("bf", BROKEN)],
    "4.4: an entry that is too large empties the table": [(X_A, "x: a"), (LARGE, "z: " + "b" * 4064), ("be", BROKEN)],
    "4.4: a name from the entry that it evicts": [
        ("3f03" + X_A, "x: a"),
        ("7e01" + b"c".hex(), "x: c"),
        ("be", "x: c"),
        ("bf", BROKEN),
    ],
    # 5.1 integers
    "5.1: a length with octets to spare": [("00" + "01" + b"x".hex() + "7f8000" + "61" * 127, "x: " + "a" * 127)],
    "5.1: 2^32": [("00" + "7f81ffffff0f", BROKEN)],
    "5.1: without end": [("ffffffffffffffff", BROKEN)],
    "5.1: cut": [("ff", BROKEN)],
    # 5.2 strings
    "5.2: Huffman": [("00" + "81f3" + "811f", "x: a")],
    "5.2: empty": [("00" + "01" + b"x".hex() + "00", "x: ")],
    "5.2: empty in Huffman": [("00" + "01" + b"x".hex() + "80", "x: ")],
    "5.2: padded with zeros": [("00" + "01" + b"x".hex() + "8118", BROKEN)],
    "5.2: padded with eight bits": [("00" + "01" + b"x".hex() + "821fff", BROKEN)],
    "5.2: EOS": [("00" + "01" + b"x".hex() + "843fffffff", BROKEN)],
    "5.2: longer than the block": [("00" + "01" + b"x".hex() + "05" + "61", BROKEN)],
    # 6 representations
    "6.1: index 0": [("80", BROKEN)],
    "6.2.1: a literal is remembered": [(X_A, "x: a"), ("be", "x: a")],
    "6.2.1: with a name of the static table": [("7a01" + b"v".hex(), "user-agent: v"), ("be", "user-agent: v")],
    "6.2.2: a literal is not remembered": [("00" + X_A[2:], "x: a"), ("be", BROKEN)],
    "6.2.2: with a name of the static table": [("0f2b01" + b"v".hex(), "user-agent: v"), ("be", BROKEN)],
    "6.2.2: with a name beyond the tables": [("0f2f01" + b"v".hex(), BROKEN)],
    "6.2.3: a literal is never remembered": [("10" + X_A[2:], "x: a"), ("be", BROKEN)],
    "6.3: a size beyond what we allow": [("3fe21f", BROKEN)],
    "6.3: that size": [("3fe11f" + X_A, "x: a"), ("be", "x: a")],
}


def in_frames(block: bytes, stream: int) -> Iterator[bytes]:
    """The block in one frame, cut in two at each place, and octet by octet as far as so many frames are taken."""
    for pieces in splits(block) if len(block) < 400 else ([block], [block[:100], block[100:]]):
        if len(pieces) > 30:
            pieces = [block[at : at + len(block) // 20] for at in range(0, len(block), len(block) // 20)]
        first = frame(HEADERS, END_STREAM | (0 if pieces[1:] else END_HEADERS), stream, pieces[0])
        more = [continuation(stream, piece, 0) for piece in pieces[1:-1]]
        yield b"".join([first, *more, *(continuation(stream, piece) for piece in pieces[1:][-1:])])


def decoded(server: Server, data: bytes, size: int) -> str:
    """The fields of the request in these frames, which come so many octets at a time, or what became of it."""
    events = []
    try:
        for at in range(0, len(data), size):
            events += server.receive(data[at : at + size])
    except ConnectionFault as fault:
        return BROKEN if fault.code == COMPRESSION_ERROR else str(fault)
    [event] = events
    return "|".join(event.head.forwarded.decode().split("\r\n")[:-1])


@pytest.mark.parametrize("name", CASES)
def test_a_case_in_frames_cut_at_every_place(name: str) -> None:
    blocks = [(bytes.fromhex(fields), expected) for fields, expected in CASES[name]]
    request = bytes.fromhex(REQUEST)
    *before, (last, expected) = [
        (fields[: updates_end(fields)] + request + fields[updates_end(fields) :], expected)
        for fields, expected in blocks
    ]
    count = sum(1 for _ in in_frames(last, 1))
    for number in range(count):
        server = Server()
        stream = 1
        for block, fields in before:
            ways = list(in_frames(block, stream))
            assert decoded(server, ways[number % len(ways)], 1000) == fields
            stream += 2
        whole = list(in_frames(last, stream))[number]
        assert decoded(server, whole, 1 if number % 2 else 1000) == expected, whole


def updates_end(block: bytes) -> int:
    """Where the table size updates end, which come before all fields."""
    at = 0
    while at < len(block) and block[at] & 0xE0 == 0x20:
        at += 1
        if block[at - 1] == 0x3F:
            while block[at] & 0x80:
                at += 1
            at += 1
    return at


# What we send


def test_4_2_a_smaller_table_of_the_peer_is_acknowledged_in_the_next_block() -> None:
    encoder = Encoder()
    encoder.set_max_table_bytes(0)
    encoder.set_max_table_bytes(100)
    assert encoder.begin() == b"\x20\x3f\x45"
    assert encoder.begin() == b""


def test_4_2_what_the_peer_does_not_keep_is_not_referred_to() -> None:
    encoder, decoder = Encoder(), Decoder()
    decoder.decode(encoder.lines(b"Server: x\r\n"))
    encoder.set_max_table_bytes(0)
    [field] = decoder.decode(encoder.begin() + encoder.lines(b"Server: x\r\n"))
    assert (field.name, field.value) == (b"server", b"x")


@pytest.mark.parametrize("line", [b"X-Token: 1\r\n", b"Authorization: Basic x\r\n", b"Cookie: a=1\r\n"])
def test_6_2_3_what_may_be_a_secret_is_never_to_be_remembered(line: bytes) -> None:
    """A client may have sent it so, and we must not make less of that."""
    encoder = Encoder()
    for _ in range(2):
        assert encoder.lines(line)[0] & 0xF0 == 0x10
