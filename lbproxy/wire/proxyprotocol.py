"""The PROXY protocol, versions 1 and 2 (proxy-protocol.txt by W. Tarreau, 2020).

A header ahead of a connection's first byte tells who the client really is: a listener
reads it from the load balancers in front of it, and a target group may have one sent to its targets.
"""

from __future__ import annotations

import ipaddress
import re
import struct
from collections.abc import Iterable

import attrs

from lbproxy.wire.errors import LocalProtocolError, RemoteProtocolError

Endpoint = tuple[str, int]
"""IP literal (IPv6 without brackets) and port."""

Tlv = tuple[int, bytes]
"""Type and value of a version 2 extension (section 2.2.7)."""

MAX_V1_BYTES = 107
"""The longest line, its CRLF included (section 2.1)."""

MAX_V2_PAYLOAD_BYTES = 4096
"""Of the 65535 that the length field allows; addresses and what known senders add take a few hundred."""

TLV_CRC32C = 0x03

_V1_PREFIX = b"PROXY "
_V2_SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
_V2_FIXED_BYTES = 16

_LOCAL = 0x20
_PROXY = 0x21
_COMMANDS = {_LOCAL: "LOCAL", _PROXY: "PROXY"}

# Section 2.2: high nibble of the 14th byte, with the size of the address block.
_UNSPEC, _INET, _INET6, _UNIX = 0x0, 0x1, 0x2, 0x3
_ADDRESS_BYTES = {_UNSPEC: 0, _INET: 12, _INET6: 36, _UNIX: 216}
_MAX_TRANSPORT = 0x2

_PORT = re.compile(rb"0|[1-9][0-9]{0,4}")


@attrs.frozen(kw_only=True)
class ProxyHeader:
    """What a PROXY header said."""

    command: str
    """``PROXY``, or ``LOCAL`` when the sender speaks for itself (its health checks)."""

    source: Endpoint | None
    """The client.  None (LOCAL, UNKNOWN, a UNIX socket): use the connection's own addresses."""

    destination: Endpoint | None
    """What the client connected to; None whenever ``source`` is."""

    tlvs: tuple[Tlv, ...] = ()
    """Extensions in the order sent, unknown ones included."""


class ProxyHeaderReader:
    """Read one PROXY header of either version from the start of a connection.

    Holds back at most `MAX_V1_BYTES`, or 16 and `MAX_V2_PAYLOAD_BYTES`.
    """

    __slots__ = ("_buffer", "_done", "rest")

    def __init__(self) -> None:
        self._buffer = b""
        self._done = False
        self.rest = b""
        """What followed the header in the data received; empty until the header is whole."""

    def receive_data(self, data: bytes) -> ProxyHeader | None:
        """Take bytes as they arrived, in any split; give the header once it is whole.

        Raises `RemoteProtocolError` as soon as the bytes cannot be the start of a header any more.
        """
        if self._done:
            raise LocalProtocolError("the PROXY header has been read already")
        self._buffer += data
        buffer = self._buffer
        if buffer.startswith(_V2_SIGNATURE):
            size = _v2_size(buffer)
            if size is None or len(buffer) < size:
                return None
            header = _parse_v2(buffer[:size])
        elif buffer.startswith(_V1_PREFIX):
            end = buffer.find(b"\r\n", 0, MAX_V1_BYTES)
            if end < 0:
                if len(buffer) >= MAX_V1_BYTES:
                    raise _bad(f"no end of line within {MAX_V1_BYTES} bytes")
                return None
            size = end + 2
            header = _parse_v1(buffer[:end])
        elif _V2_SIGNATURE.startswith(buffer) or _V1_PREFIX.startswith(buffer):
            return None
        else:
            raise _bad("the connection does not begin with a PROXY header")
        self.rest = buffer[size:]
        self._buffer = b""
        self._done = True
        return header


def encode_v1(source: Endpoint, destination: Endpoint) -> bytes:
    """Write a version 1 line; where the families differ, IPv4 goes as an IPv4-mapped IPv6 address."""
    a, b = _addresses(source, destination)
    family = "TCP4" if a.version == 4 else "TCP6"
    return f"PROXY {family} {_text(a)} {_text(b)} {source[1]} {destination[1]}\r\n".encode("ascii")


def encode_v2(source: Endpoint, destination: Endpoint, tlvs: Iterable[Tlv] = ()) -> bytes:
    """Write a version 2 header for TCP; a TLV of type `TLV_CRC32C` gets its value filled in."""
    a, b = _addresses(source, destination)
    family = _INET if a.version == 4 else _INET6
    payload = bytearray(a.packed + b.packed + struct.pack("!HH", source[1], destination[1]))
    checksum_at = None
    for kind, value in tlvs:
        if kind == TLV_CRC32C:
            value = bytes(4)
            checksum_at = _V2_FIXED_BYTES + len(payload) + 3
        payload += struct.pack("!BH", kind, len(value)) + value
    if len(payload) > 0xFFFF:
        raise LocalProtocolError(f"a PROXY header of {len(payload)} bytes")
    header = bytearray(_V2_SIGNATURE + struct.pack("!BBH", _PROXY, family << 4 | 0x1, len(payload)) + payload)
    if checksum_at is not None:
        struct.pack_into("!I", header, checksum_at, crc32c(header))
    return bytes(header)


def encode_v2_local() -> bytes:
    """Write the version 2 header of a connection that is the sender's own."""
    return _V2_SIGNATURE + struct.pack("!BBH", _LOCAL, 0, 0)


def crc32c(data: bytes | bytearray) -> int:
    """Give the CRC32c (RFC 9260 appendix A) of the data."""
    value = 0xFFFFFFFF
    for byte in data:
        value = _CRC_TABLE[(value ^ byte) & 0xFF] ^ value >> 8
    return value ^ 0xFFFFFFFF


def _crc_table() -> tuple[int, ...]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return tuple(table)


_CRC_TABLE = _crc_table()


def _bad(message: str) -> RemoteProtocolError:
    return RemoteProtocolError(f"PROXY header: {message}", reason="BadProxyHeader")


def _parse_v1(line: bytes) -> ProxyHeader:
    """Parse a line without its CRLF (section 2.1)."""
    fields = line.split(b" ")
    family = fields[1]
    if family == b"UNKNOWN":
        # The receiver must ignore anything up to the CRLF.
        return ProxyHeader(command="PROXY", source=None, destination=None)
    if family not in (b"TCP4", b"TCP6") or len(fields) != 6:
        raise _bad(f"malformed line {line!r}")
    version = 4 if family == b"TCP4" else 6
    return ProxyHeader(
        command="PROXY",
        source=(_parse_address(fields[2], version), _parse_port(fields[4])),
        destination=(_parse_address(fields[3], version), _parse_port(fields[5])),
    )


def _parse_address(text: bytes, version: int) -> str:
    try:
        # A scope ("%eth0") means nothing on another machine.
        if b"%" in text:
            raise ValueError("scoped address")
        address = ipaddress.ip_address(text.decode("ascii"))
    except ValueError as error:
        raise _bad(f"{text!r} is no IP address") from error
    if address.version != version:
        raise _bad(f"{text!r} is no IPv{version} address")
    return _unmapped(address)


def _parse_port(text: bytes) -> int:
    if not _PORT.fullmatch(text) or int(text) > 0xFFFF:
        raise _bad(f"{text!r} is no port")
    return int(text)


def _v2_size(buffer: bytes) -> int | None:
    """Tell the size of the whole header once its fixed part is there; refuse what can be refused by then."""
    if len(buffer) < _V2_FIXED_BYTES:
        return None
    command, family, length = struct.unpack_from("!BBH", buffer, len(_V2_SIGNATURE))
    if command not in _COMMANDS:
        raise _bad(f"version and command {command:#04x}")
    if length > MAX_V2_PAYLOAD_BYTES:
        raise _bad(f"{length} bytes of payload, more than {MAX_V2_PAYLOAD_BYTES}")
    if command == _PROXY:
        # "Other values ... must be rejected as invalid by receivers."
        if family >> 4 not in _ADDRESS_BYTES or family & 0xF > _MAX_TRANSPORT:
            raise _bad(f"address family and transport {family:#04x}")
        if length < _ADDRESS_BYTES[family >> 4]:
            raise _bad(f"{length} bytes hold no address of family {family >> 4}")
    return _V2_FIXED_BYTES + int(length)


def _parse_v2(header: bytes) -> ProxyHeader:
    """Parse a whole header whose fixed part `_v2_size` has accepted (section 2.2)."""
    command, family = header[12], header[13] >> 4
    if command == _LOCAL:
        # The receiver must discard the protocol block including the family.
        return ProxyHeader(command="LOCAL", source=None, destination=None)
    tlvs = _parse_tlvs(header, _V2_FIXED_BYTES + _ADDRESS_BYTES[family])
    source = destination = None
    if family in (_INET, _INET6):
        size = 4 if family == _INET else 16
        first = header[_V2_FIXED_BYTES : _V2_FIXED_BYTES + size]
        second = header[_V2_FIXED_BYTES + size : _V2_FIXED_BYTES + 2 * size]
        ports = struct.unpack_from("!HH", header, _V2_FIXED_BYTES + 2 * size)
        source = (_unmapped(ipaddress.ip_address(first)), ports[0])
        destination = (_unmapped(ipaddress.ip_address(second)), ports[1])
    return ProxyHeader(command="PROXY", source=source, destination=destination, tlvs=tlvs)


def _parse_tlvs(header: bytes, start: int) -> tuple[Tlv, ...]:
    """Collect the extensions; what is cut short at the end is left out, for nothing depends on it."""
    tlvs = []
    while start + 3 <= len(header):
        kind, length = struct.unpack_from("!BH", header, start)
        start += 3
        if start + length > len(header):
            break
        value = header[start : start + length]
        if kind == TLV_CRC32C:
            _check_crc(header, start, value)
        tlvs.append((kind, value))
        start += length
    return tuple(tlvs)


def _check_crc(header: bytes, start: int, value: bytes) -> None:
    """Section 2.2.3: the checksum of the whole header with these four bytes zero."""
    zeroed = header[:start] + bytes(len(value)) + header[start + len(value) :]
    if value != struct.pack("!I", crc32c(zeroed)):
        raise _bad("wrong CRC32c")


_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def _unmapped(address: _Address) -> str:
    """Give the address as text; an IPv4-mapped one as the IPv4 address that it is."""
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(address)


def _text(address: _Address) -> str:
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return f"::ffff:{address.ipv4_mapped}"
    return str(address)


def _addresses(source: Endpoint, destination: Endpoint) -> tuple[_Address, _Address]:
    """Turn both into addresses of one family."""
    a = ipaddress.ip_address(source[0].partition("%")[0])
    b = ipaddress.ip_address(destination[0].partition("%")[0])
    if a.version == b.version:
        return a, b
    return _mapped(a), _mapped(b)


def _mapped(address: _Address) -> ipaddress.IPv6Address:
    if isinstance(address, ipaddress.IPv6Address):
        return address
    return ipaddress.IPv6Address(f"::ffff:{address}")
