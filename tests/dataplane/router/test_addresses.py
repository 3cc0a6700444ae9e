"""Addresses as numbers, and whose they are."""

from __future__ import annotations

import pytest

from lbproxy.dataplane.router.addresses import client_key, packed_address


@pytest.mark.parametrize(
    ("host", "packed"),
    [
        ("192.0.2.7", bytes([192, 0, 2, 7])),
        ("::ffff:192.0.2.7", bytes([192, 0, 2, 7])),
        ("2001:db8::1", bytes.fromhex("20010db8") + bytes(11) + b"\1"),
        ("fe80::1%eth0", bytes.fromhex("fe80") + bytes(13) + b"\1"),
        ("::1", bytes(15) + b"\1"),
        ("", b""),
        ("/run/some.sock", b""),
        ("999.1.1.1", b""),
        ("10.1", b""),
    ],
)
def test_an_address_is_packed(host: str, packed: bytes) -> None:
    assert packed_address(host) == packed


def test_an_ipv4_address_is_a_client() -> None:
    assert client_key("192.0.2.7") != client_key("192.0.2.8")
    assert client_key("192.0.2.7") == client_key("::ffff:192.0.2.7")


def test_an_ipv6_network_of_64_bits_is_a_client() -> None:
    assert client_key("2001:db8:0:1::1") == client_key("2001:db8:0:1:ffff::2")
    assert client_key("2001:db8:0:1::1") != client_key("2001:db8:0:2::1")
