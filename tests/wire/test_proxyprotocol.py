"""The PROXY protocol codec: tables, every split, properties."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbproxy.wire.errors import LocalProtocolError, RemoteProtocolError
from lbproxy.wire.proxyprotocol import (
    MAX_V1_BYTES,
    MAX_V2_PAYLOAD_BYTES,
    TLV_CRC32C,
    ProxyHeader,
    ProxyHeaderReader,
    crc32c,
    encode_v1,
    encode_v2,
    encode_v2_local,
)

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"

A4, B4 = ("192.0.2.1", 56324), ("198.51.100.7", 443)
A6, B6 = ("2001:db8::1", 1), ("2001:db8::2", 65535)


def v2(command: int, family: int, payload: bytes) -> bytes:
    return SIGNATURE + struct.pack("!BBH", command, family, len(payload)) + payload


def read(data: bytes) -> tuple[ProxyHeader | None, bytes]:
    reader = ProxyHeaderReader()
    return reader.receive_data(data), reader.rest


def read_all(reader: ProxyHeaderReader, *parts: bytes) -> None:
    for part in parts:
        assert reader.receive_data(part) is None


def header(source: object = None, destination: object = None, command: str = "PROXY", tlvs: object = ()) -> ProxyHeader:
    return ProxyHeader(command=command, source=source, destination=destination, tlvs=tlvs)


VALID = {
    "v1 TCP4": (b"PROXY TCP4 192.0.2.1 198.51.100.7 56324 443\r\n", header(A4, B4)),
    "v1 TCP6": (b"PROXY TCP6 2001:db8::1 2001:db8::2 1 65535\r\n", header(A6, B6)),
    "v1 longest": (
        b"PROXY TCP6 " + b"ffff:" * 7 + b"ffff " + b"ffff:" * 7 + b"ffff 65535 65535\r\n",
        header((":".join(["ffff"] * 8), 65535), (":".join(["ffff"] * 8), 65535)),
    ),
    "v1 IPv4-mapped is IPv4": (b"PROXY TCP6 ::ffff:192.0.2.1 2001:db8::2 56324 65535\r\n", header(A4, B6)),
    "v1 UNKNOWN": (b"PROXY UNKNOWN\r\n", header()),
    "v1 UNKNOWN with anything": (b"PROXY UNKNOWN \xff ffff::1  x\r\n", header()),
    "v2 TCP4": (
        v2(0x21, 0x11, bytes([192, 0, 2, 1, 198, 51, 100, 7]) + struct.pack("!HH", 56324, 443)),
        header(A4, B4),
    ),
    "v2 TCP6": (encode_v2(A6, B6), header(A6, B6)),
    "v2 UDP4": (
        v2(0x21, 0x12, bytes([192, 0, 2, 1, 198, 51, 100, 7]) + struct.pack("!HH", 56324, 443)),
        header(A4, B4),
    ),
    "v2 UNIX keeps the socket's address": (v2(0x21, 0x31, bytes(216)), header()),
    "v2 UNSPEC keeps the socket's address": (v2(0x21, 0x00, b""), header()),
    "v2 UNSPEC with a TLV": (v2(0x21, 0x00, b"\x04\x00\x02ab"), header(tlvs=((4, b"ab"),))),
    "v2 LOCAL": (encode_v2_local(), header(command="LOCAL")),
    "v2 LOCAL: the block is discarded": (v2(0x20, 0xFF, b"\x03\x00\x04abcd"), header(command="LOCAL")),
    "v2 TLVs": (
        encode_v2(A4, B4, [(1, b"h2"), (0xEA, b"\x01vpce-1"), (4, b"")]),
        header(A4, B4, tlvs=((1, b"h2"), (0xEA, b"\x01vpce-1"), (4, b""))),
    ),
    "v2 a TLV cut short is left out": (
        v2(0x21, 0x11, bytes(12) + b"\x01\x00\x02h2" + b"\x02\x00\x09abc"),
        header(("0.0.0.0", 0), ("0.0.0.0", 0), tlvs=((1, b"h2"),)),
    ),
}

INVALID = {
    "not PROXY": b"GET / HTTP/1.1\r\n",
    "lower case": b"proxy TCP4",
    "no family": b"PROXY \r\n",
    "unknown family": b"PROXY TCP5 192.0.2.1 198.51.100.7 1 2\r\n",
    "two spaces": b"PROXY TCP4  192.0.2.1 198.51.100.7 1 2\r\n",
    "trailing space": b"PROXY TCP4 192.0.2.1 198.51.100.7 1 2 \r\n",
    "field missing": b"PROXY TCP4 192.0.2.1 198.51.100.7 1\r\n",
    "bare LF": b"PROXY TCP4 192.0.2.1 198.51.100.7 1 2\n" + b"x" * 107,
    "IPv6 as TCP4": b"PROXY TCP4 ::1 ::1 1 2\r\n",
    "IPv4 as TCP6": b"PROXY TCP6 192.0.2.1 192.0.2.1 1 2\r\n",
    "leading zero in the address": b"PROXY TCP4 192.0.02.1 198.51.100.7 1 2\r\n",
    "scope": b"PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n",
    "not ASCII": b"PROXY TCP4 \xb2.0.2.1 198.51.100.7 1 2\r\n",
    "leading zero in the port": b"PROXY TCP4 192.0.2.1 198.51.100.7 01 2\r\n",
    "port too large": b"PROXY TCP4 192.0.2.1 198.51.100.7 65536 2\r\n",
    "signed port": b"PROXY TCP4 192.0.2.1 198.51.100.7 +1 2\r\n",
    "line too long": b"PROXY UNKNOWN " + b"x" * (MAX_V1_BYTES - 15) + b"\r\n",
    "v2 wrong version": v2(0x11, 0x11, bytes(12)),
    "v2 unknown command": v2(0x22, 0x11, bytes(12)),
    "v2 unknown family": v2(0x21, 0x41, bytes(216)),
    "v2 unknown transport": v2(0x21, 0x13, bytes(12)),
    "v2 short address": v2(0x21, 0x11, bytes(11)),
    "v2 short IPv6 address": v2(0x21, 0x21, bytes(35)),
    "v2 too long": SIGNATURE + struct.pack("!BBH", 0x21, 0x11, MAX_V2_PAYLOAD_BYTES + 1),
    "v2 wrong CRC": v2(0x21, 0x11, bytes(12) + b"\x03\x00\x04\x00\x00\x00\x01"),
    "v2 CRC of a wrong size": v2(0x21, 0x11, bytes(12) + b"\x03\x00\x02\x00\x00"),
}


@pytest.mark.parametrize(("data", "expected"), VALID.values(), ids=VALID.keys())
def test_valid_header_at_every_split(data: bytes, expected: ProxyHeader) -> None:
    for cut in range(len(data)):
        reader = ProxyHeaderReader()
        assert reader.receive_data(data[:cut]) is None, cut
        assert reader.receive_data(data[cut:] + b"rest") == expected, cut
        assert reader.rest == b"rest"


@pytest.mark.parametrize(("data", "expected"), VALID.values(), ids=VALID.keys())
def test_valid_header_byte_by_byte(data: bytes, expected: ProxyHeader) -> None:
    reader = ProxyHeaderReader()
    results = [reader.receive_data(data[i : i + 1]) for i in range(len(data))]
    assert results == [None] * (len(data) - 1) + [expected]
    assert reader.rest == b""


@pytest.mark.parametrize("data", INVALID.values(), ids=INVALID.keys())
def test_invalid_header_is_refused_at_every_split(data: bytes) -> None:
    for cut in range(len(data)):
        reader = ProxyHeaderReader()
        with pytest.raises(RemoteProtocolError) as caught:
            read_all(reader, data[:cut], data[cut:])
        assert caught.value.reason == "BadProxyHeader"


def test_a_second_header_is_left_to_the_protocol_above() -> None:
    line = encode_v1(A4, B4)
    assert read(line + line) == (header(A4, B4), line)


def test_reading_on_after_the_header_is_our_mistake() -> None:
    reader = ProxyHeaderReader()
    reader.receive_data(encode_v2_local())
    with pytest.raises(LocalProtocolError):
        reader.receive_data(b"x")


def test_crc32c_check_value() -> None:
    """RFC 9260 appendix A's polynomial; the usual check input."""
    assert crc32c(b"123456789") == 0xE3069283


def test_crc_tlv_is_filled_in_and_every_flipped_byte_is_noticed() -> None:
    data = encode_v2(A4, B4, [(TLV_CRC32C, b""), (4, b"pad")])
    assert read(data)[0] is not None
    for index in range(16, len(data)):
        broken = data[:index] + bytes([data[index] ^ 1]) + data[index + 1 :]
        if index in (28, 29, 30):  # type and length of the CRC itself
            continue
        with pytest.raises(RemoteProtocolError):
            read(broken)


def test_mixed_families_are_sent_as_ipv6() -> None:
    assert encode_v1(A4, B6) == b"PROXY TCP6 ::ffff:192.0.2.1 2001:db8::2 56324 65535\r\n"
    assert read(encode_v2(A4, B6))[0] == header(A4, B6)


def test_header_over_64_kib_is_our_mistake() -> None:
    with pytest.raises(LocalProtocolError):
        encode_v2(A4, B4, [(4, bytes(0xFFFF))])


ports = st.integers(0, 65535)
endpoints4 = st.tuples(st.ip_addresses(v=4).map(str), ports)
endpoints6 = st.tuples(st.ip_addresses(v=6).filter(lambda a: a.ipv4_mapped is None).map(str), ports)
pairs = st.one_of(
    st.tuples(endpoints4, endpoints4), st.tuples(endpoints6, endpoints6), st.tuples(endpoints4, endpoints6)
)


@given(pairs, st.binary(max_size=20))
def test_v1_reads_what_it_writes(pair: tuple, rest: bytes) -> None:
    line = encode_v1(*pair)
    assert len(line) <= MAX_V1_BYTES
    assert read(line + rest) == (header(*pair), rest)


tlvs = st.lists(st.tuples(st.integers(0, 255).filter(lambda kind: kind != TLV_CRC32C), st.binary(max_size=40)))


@given(pairs, tlvs, st.booleans(), st.binary(max_size=20))
def test_v2_reads_what_it_writes(pair: tuple, tlvs: list, checksum: bool, rest: bytes) -> None:
    data = encode_v2(*pair, tlvs + [(TLV_CRC32C, b"")] * checksum)
    result, remaining = read(data + rest)
    assert result is not None
    assert (result.source, result.destination, remaining) == (*pair, rest)
    assert [tlv for tlv in result.tlvs if tlv[0] != TLV_CRC32C] == tlvs


@given(
    st.one_of(
        st.binary(max_size=200),
        st.binary(max_size=200).map(b"PROXY ".__add__),
        st.binary(max_size=200).map(b"PROXY TCP4 ".__add__),
        st.binary(max_size=300).map(SIGNATURE.__add__),
        st.binary(max_size=300).map((SIGNATURE + b"\x21\x11\x00\x40").__add__),
    )
)
def test_random_bytes_raise_only_remote_protocol_error(data: bytes) -> None:
    try:
        result, _ = read(data)
    except RemoteProtocolError:
        return
    assert result is None or isinstance(result, ProxyHeader)
