"""One field as HTTP/2 carries it, with what it means to a proxy (RFC 9113 section 8).

What a field means is found out once, when its octets are read; the field then lives in HPACK's table, and messages
that refer to it there share it.
"""

from __future__ import annotations

from lbproxy.wire.http.fields import HOP_BY_HOP, TOKEN_OCTETS, VALUE_OCTETS

ENTRY_OVERHEAD = 32
"""What a field counts for in tables and lists besides its octets (RFC 7541 section 4.1)."""

# What a field means.  Those up to LAST_PSEUDO are pseudo-header fields.
METHOD = 1
PATH = 2
SCHEME = 3
AUTHORITY = 4
PROTOCOL = 5
STATUS = 6
LAST_PSEUDO = 6
ORDINARY = 7
HOST = 8
COOKIE = 9
TE = 10
MALFORMED = 11

_MEANINGS = {
    b":method": METHOD,
    b":path": PATH,
    b":scheme": SCHEME,
    b":authority": AUTHORITY,
    b":protocol": PROTOCOL,
    b":status": STATUS,
    b"host": HOST,
    b"cookie": COOKIE,
    b"te": TE,
    # RFC 9113 section 8.2.2: they speak of one connection of HTTP/1.1
    **dict.fromkeys(HOP_BY_HOP - {b"te", b"http2-settings"}, MALFORMED),
}

_NAME_OCTETS = bytes(octet for octet in TOKEN_OCTETS if octet not in b"ABCDEFGHIJKLMNOPQRSTUVWXYZ")


class FieldLine:
    """A field.  Immutable once made."""

    __slots__ = ("line", "meaning", "name", "size", "value")

    def __init__(self, name: bytes, value: bytes) -> None:
        self.name = name
        self.value = value
        self.size = len(name) + len(value) + ENTRY_OVERHEAD
        """As HPACK counts it."""
        self.meaning = meaning = _meaning(name, value)
        self.line = b"%b: %b\r\n" % (name, value) if meaning == ORDINARY else b""
        """As it is sent on, for an ordinary field."""


def _meaning(name: bytes, value: bytes) -> int:
    # RFC 9113 section 8.2.1; what is allowed in names and values is RFC 9110's, as for HTTP/1.1
    if value.translate(None, VALUE_OCTETS) or value[:1] in (b" ", b"\t") or value[-1:] in (b" ", b"\t"):
        return MALFORMED
    meaning = _MEANINGS.get(name)
    if meaning is not None:
        return meaning
    if not name or name.translate(None, _NAME_OCTETS):
        return MALFORMED
    return ORDINARY
