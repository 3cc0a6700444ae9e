"""The Huffman code (RFC 7541 section 5.2, appendix B)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbproxy.wire.errors import RemoteProtocolError
from lbproxy.wire.http2.huffman import decode, encode

# RFC 7541 appendices C.4 and C.6
EXAMPLES = {
    b"www.example.com": "f1e3c2e5f23a6ba0ab90f4ff",
    b"no-cache": "a8eb10649cbf",
    b"custom-key": "25a849e95ba97d7f",
    b"custom-value": "25a849e95bb8e8b4bf",
    b"302": "6402",
    b"private": "aec3771a4b",
    b"Mon, 21 Oct 2013 20:13:21 GMT": "d07abe941054d444a8200595040b8166e082a62d1bff",
    b"https://www.example.com": "9d29ad171863c78f0b97c8e9ae82ae43d3",
    b"foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1": (
        "94e7821dd7f2e6c7b335dfdfcd5b3960d5af27087f3672c1ab270fb5291f9587316065c003ed4ee5b1063d5007"
    ),
}


@pytest.mark.parametrize("text", EXAMPLES)
def test_the_examples_of_the_standard(text: bytes) -> None:
    assert encode(text).hex() == EXAMPLES[text]
    assert decode(bytes.fromhex(EXAMPLES[text])) == text


@given(st.binary(max_size=300))
def test_what_is_encoded_is_decoded(text: bytes) -> None:
    assert decode(encode(text)) == text


@given(st.binary(max_size=40))
def test_any_octets_decode_to_what_encodes_to_them_or_are_refused(coded: bytes) -> None:
    try:
        text = decode(coded)
    except RemoteProtocolError:
        return
    assert encode(text) == coded


@pytest.mark.parametrize(
    "coded",
    [
        "ff",  # eight bits of padding
        "1fff",  # "a" with eleven
        "00",  # "0", padded with zeros
        "fffffffc",  # EOS
        "f1e3c2e5f23a6ba0ab90f4ff" + "fffffffc",
        "fe",  # the beginning of another code
    ],
)
def test_bad_padding_and_eos_are_refused(coded: str) -> None:
    with pytest.raises(RemoteProtocolError):
        decode(bytes.fromhex(coded))
