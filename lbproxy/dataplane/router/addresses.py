"""Addresses of clients, as numbers and as what counts for one client."""

from __future__ import annotations

from socket import AF_INET, AF_INET6, inet_pton

_V4_MAPPED = bytes(10) + b"\xff\xff"


def packed_address(host: str) -> bytes:
    """An IP literal's 4 or 16 bytes; none for what is not one, such as a UNIX socket's name.

    An IPv4 client of an IPv6 socket (``::ffff:192.0.2.1``, RFC 4291 section 2.5.5.2) counts as IPv4.
    """
    try:
        if ":" not in host:
            return inet_pton(AF_INET, host)
        packed = inet_pton(AF_INET6, host.partition("%")[0])
    except OSError:
        return b""
    return packed[12:] if packed.startswith(_V4_MAPPED) else packed


def client_key(host: str) -> bytes:
    """What tells one client from another: the IPv4 address, or the /64 of an IPv6 one, all of which it can use."""
    return packed_address(host)[:8]
