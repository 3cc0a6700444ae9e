"""Header compression (RFC 7541)."""

from __future__ import annotations

import hpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbproxy.wire.errors import RemoteProtocolError
from lbproxy.wire.http2.encoder import Encoder
from lbproxy.wire.http2.hpack import DEFAULT_TABLE_BYTES, STATIC_TABLE, Decoder, encode_integer

Pairs = list[tuple[bytes, bytes]]


def decoded(decoder: Decoder, block: bytes) -> Pairs:
    return [(field.name, field.value) for field in decoder.decode(block)]


# Appendix C: the blocks of one connection, in turn.

REQUEST_1 = [(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/"), (b":authority", b"www.example.com")]
REQUEST_2 = [*REQUEST_1, (b"cache-control", b"no-cache")]
REQUEST_3 = [
    (b":method", b"GET"),
    (b":scheme", b"https"),
    (b":path", b"/index.html"),
    (b":authority", b"www.example.com"),
    (b"custom-key", b"custom-value"),
]
RESPONSE_1 = [
    (b":status", b"302"),
    (b"cache-control", b"private"),
    (b"date", b"Mon, 21 Oct 2013 20:13:21 GMT"),
    (b"location", b"https://www.example.com"),
]
RESPONSE_2 = [(b":status", b"307"), *RESPONSE_1[1:]]
RESPONSE_3 = [
    (b":status", b"200"),
    (b"cache-control", b"private"),
    (b"date", b"Mon, 21 Oct 2013 20:13:22 GMT"),
    (b"location", b"https://www.example.com"),
    (b"content-encoding", b"gzip"),
    (b"set-cookie", b"foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1"),
]

EXAMPLES: dict[str, tuple[int, list[tuple[str, Pairs]]]] = {
    "C.3": (
        4096,
        [
            ("828684410f7777772e6578616d706c652e636f6d", REQUEST_1),
            ("828684be58086e6f2d6361636865", REQUEST_2),
            ("828785bf400a637573746f6d2d6b65790c637573746f6d2d76616c7565", REQUEST_3),
        ],
    ),
    "C.4": (
        4096,
        [
            ("828684418cf1e3c2e5f23a6ba0ab90f4ff", REQUEST_1),
            ("828684be5886a8eb10649cbf", REQUEST_2),
            ("828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf", REQUEST_3),
        ],
    ),
    "C.6": (
        256,
        [
            (
                "488264025885aec3771a4b6196d07abe941054d444a8200595040b8166e082a62d1bff6e919d29ad171863c78f0b97c8e9ae82ae43d3",
                RESPONSE_1,
            ),
            ("4883640effc1c0bf", RESPONSE_2),
            (
                "88c16196d07abe941054d444a8200595040b8166e084a62d1bffc05a839bd9ab77ad94e7821dd7f2e6c7b335dfdfcd5b3960d5af270"
                "87f3672c1ab270fb5291f9587316065c003ed4ee5b1063d5007",
                RESPONSE_3,
            ),
        ],
    ),
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_examples_of_the_standard(name: str) -> None:
    size, blocks = EXAMPLES[name]
    decoder = Decoder(size)
    for coded, fields in blocks:
        assert decoded(decoder, bytes.fromhex(coded)) == fields


@pytest.mark.parametrize(("value", "mask", "coded"), [(10, 31, "0a"), (1337, 31, "1f9a0a"), (42, 255, "2a")])
def test_integers_are_those_of_appendix_c_1(value: int, mask: int, coded: str) -> None:
    assert encode_integer(value, mask, 0).hex() == coded


def test_the_static_table_is_that_of_another_implementation() -> None:
    assert list(STATIC_TABLE) == list(hpack.table.HeaderTable.STATIC_TABLE)


REFUSED = {
    "index 0 (6.1)": "80",
    "beyond both tables (2.3.3)": "be",
    "name beyond both tables": "7e0161",
    "an integer without end (5.1)": "ff",
    "an integer of too many octets (5.1)": "ffffffffffff0f",
    "a string without length": "00",
    "a string longer than the block": "000561",
    "a value missing": "000161",
    "a table larger than the setting (4.2)": "3fe21f",
    "a size update after a field (4.2)": "8220",
    "three size updates": "202020",
    "Huffman with EOS (5.2)": "0084fffffffc0161",
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_breaks_the_rules_is_refused(name: str) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        Decoder().decode(bytes.fromhex(REFUSED[name]))
    assert caught.value.reason == "BadHpack"


def test_an_entry_larger_than_the_table_empties_it() -> None:
    decoder = Decoder(64)
    decoder.decode(b"\x40\x01a\x01b")
    assert decoded(decoder, b"\xbe") == [(b"a", b"b")]
    decoder.decode(b"\x40\x01a\x40" + b"b" * 64)
    with pytest.raises(RemoteProtocolError):
        decoder.decode(b"\xbe")


def test_a_smaller_table_evicts_the_oldest() -> None:
    decoder = Decoder()
    decoder.decode(b"\x40\x01a\x01b" + b"\x40\x01c\x01d")
    assert decoded(decoder, b"\x3f\x0f" + b"\xbe") == [(b"c", b"d")]  # 46 octets: one entry of 34
    with pytest.raises(RemoteProtocolError):
        decoder.decode(b"\xbf")


def test_a_bomb_is_read_but_not_kept() -> None:
    """One octet a field, each a reference to four kilobytes."""
    decoder = Decoder()
    decoder.decode(b"\x40\x01a\x7f\x81\x1e" + b"b" * 3968)
    fields = decoder.decode(b"\xbe" * 10000)
    assert decoder.too_large
    assert len(fields) * 4000 <= 65536
    fields = decoder.decode(b"\x82" * 10000)
    assert decoder.too_large
    assert len(fields) == 200
    decoder.decode(b"\x82")
    assert not decoder.too_large


names = st.sampled_from([b"server", b"date", b"x-own", b"set-cookie", b"cache-control", b":authority", b"etag"])
values = st.text("abc; 1~", max_size=60).map(str.encode)
blocks = st.lists(st.lists(st.tuples(names, values), max_size=8), max_size=12)


@given(blocks, st.lists(st.integers(0, 5000), max_size=12))
def test_what_is_encoded_everybody_decodes(messages: list[Pairs], sizes: list[int]) -> None:
    encoder, ours, theirs = Encoder(), Decoder(), hpack.Decoder()
    theirs.max_allowed_table_size = DEFAULT_TABLE_BYTES
    for number, fields in enumerate(messages):
        if number < len(sizes):
            encoder.set_max_table_bytes(sizes[number])
        for _ in range(2):  # the second time from what was remembered
            lines = b"".join(b"%b: %b\r\n" % (name.title(), value) for name, value in fields)
            block = encoder.begin() + encoder.lines(lines)
            expected = [(name, value) for name, value in fields]
            assert decoded(ours, block) == expected
            assert theirs.decode(block, raw=True) == expected


@given(blocks)
def test_what_others_encode_we_decode(messages: list[Pairs]) -> None:
    encoder, decoder = hpack.Encoder(), Decoder()
    for fields in messages:
        assert decoded(decoder, encoder.encode(fields)) == fields


def test_a_repeated_block_is_short() -> None:
    encoder = Encoder()
    lines = b"Server: nginx\r\nContent-Type: text/html\r\n"
    assert len(encoder.lines(lines)) > 10
    assert len(encoder.lines(lines)) == 2


def test_secrets_are_not_remembered() -> None:
    encoder = Encoder()
    coded = encoder.lines(b"Set-Cookie: a=b\r\n")
    assert coded[0] & 0xF0 == 0x10
    assert encoder.lines(b"Set-Cookie: a=b\r\n") == coded


def test_a_size_that_went_down_and_up_is_told_in_both_steps() -> None:
    encoder = Encoder()
    encoder.set_max_table_bytes(0)
    encoder.set_max_table_bytes(100)
    assert encoder.begin().hex() == "203f45"
    assert encoder.begin() == b""


@given(st.binary(max_size=200))
def test_random_octets_are_decoded_or_refused(block: bytes) -> None:
    decoder = Decoder()
    try:
        decoder.decode(block)
        decoder.decode(block)
    except RemoteProtocolError:
        pass


@given(st.lists(st.integers(0, 1 << 40), min_size=1, max_size=50))
def test_content_lengths(lengths: list[int]) -> None:
    encoder, decoder = Encoder(), Decoder()
    for length in [*lengths, *lengths]:
        assert decoded(decoder, encoder.content_length(length)) == [(b"content-length", b"%d" % length)]


def test_a_repeated_literal_gives_the_same_field_unless_it_may_be_secret() -> None:
    decoder, other = Decoder(), Decoder()
    for name, first_octet, shared in (
        (b"x-a", 0x00, True),
        (b"x-a", 0x40, True),
        (b"x-a", 0x10, False),
        (b"cookie", 0, False),
    ):
        block = bytes([first_octet, len(name)]) + name + b"\x03abc"
        one, same = decoder.decode(block)[0], other.decode(block)[0]
        assert (one.name, one.value) == (same.name, same.value) == (name, b"abc")
        assert (one is same) is shared
