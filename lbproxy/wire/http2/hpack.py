"""Header compression (RFC 7541): the decoder, and what both directions share.

A few octets may refer to a large field again and again, so what a block decodes to is bounded in bytes and in fields,
however small it is on the wire.  What is beyond is read, for both ends' tables must stay alike, but not kept.
"""

from __future__ import annotations

from lbproxy.wire.http.fields import MAX_FIELDS, MAX_FIELDS_BYTES
from lbproxy.wire.http2.errors import COMPRESSION_ERROR, ConnectionFault
from lbproxy.wire.http2.fieldline import FieldLine
from lbproxy.wire.http2.huffman import decode as huffman_decode

DEFAULT_TABLE_BYTES = 4096
"""Of a dynamic table, as long as no setting says otherwise (RFC 9113 section 6.5.2)."""

_MAX_FIELDS = MAX_FIELDS  # compiled, numbers in C
_MAX_FIELDS_BYTES = MAX_FIELDS_BYTES

_MAX_SIZE_UPDATES = 2
"""At the beginning of a block: the smallest and the last (RFC 7541 section 4.2)."""

# fmt: off
STATIC_TABLE = (
    (b":authority", b""),
    (b":method", b"GET"),
    (b":method", b"POST"),
    (b":path", b"/"),
    (b":path", b"/index.html"),
    (b":scheme", b"http"),
    (b":scheme", b"https"),
    (b":status", b"200"),
    (b":status", b"204"),
    (b":status", b"206"),
    (b":status", b"304"),
    (b":status", b"400"),
    (b":status", b"404"),
    (b":status", b"500"),
    (b"accept-charset", b""),
    (b"accept-encoding", b"gzip, deflate"),
    (b"accept-language", b""),
    (b"accept-ranges", b""),
    (b"accept", b""),
    (b"access-control-allow-origin", b""),
    (b"age", b""),
    (b"allow", b""),
    (b"authorization", b""),
    (b"cache-control", b""),
    (b"content-disposition", b""),
    (b"content-encoding", b""),
    (b"content-language", b""),
    (b"content-length", b""),
    (b"content-location", b""),
    (b"content-range", b""),
    (b"content-type", b""),
    (b"cookie", b""),
    (b"date", b""),
    (b"etag", b""),
    (b"expect", b""),
    (b"expires", b""),
    (b"from", b""),
    (b"host", b""),
    (b"if-match", b""),
    (b"if-modified-since", b""),
    (b"if-none-match", b""),
    (b"if-range", b""),
    (b"if-unmodified-since", b""),
    (b"last-modified", b""),
    (b"link", b""),
    (b"location", b""),
    (b"max-forwards", b""),
    (b"proxy-authenticate", b""),
    (b"proxy-authorization", b""),
    (b"range", b""),
    (b"referer", b""),
    (b"refresh", b""),
    (b"retry-after", b""),
    (b"server", b""),
    (b"set-cookie", b""),
    (b"strict-transport-security", b""),
    (b"transfer-encoding", b""),
    (b"user-agent", b""),
    (b"vary", b""),
    (b"via", b""),
    (b"www-authenticate", b""),
)
# fmt: on
"""RFC 7541 appendix A; the first one has index 1."""

STATIC_ENTRIES = len(STATIC_TABLE)
_STATIC_ENTRIES = STATIC_ENTRIES  # compiled, a number in C

_STATIC = tuple(FieldLine(name, value) for name, value in STATIC_TABLE)

_SECRETS = frozenset((b"authorization", b"cookie", b"proxy-authorization", b"set-cookie"))
_MAX_KNOWN = 512
"""Literals whose field is kept.  Peers that send none to be remembered repeat most of what they send."""
_MAX_KNOWN_BYTES = 128
"""Of one of them."""
_known: dict[bytes, FieldLine] = {}
"""What literals decode to that depend on no table and hold no secret that we know of: by their octets, of all
connections."""


class Decoder:
    """The receiving end of one direction of a connection."""

    __slots__ = ("_at", "_block", "_entries", "_limit", "_max_table_bytes", "_size", "generation", "too_large")

    def __init__(self, max_table_bytes: int = DEFAULT_TABLE_BYTES) -> None:
        """``max_table_bytes`` is what our SETTINGS allow."""
        self._limit = max_table_bytes
        self._max_table_bytes = max_table_bytes
        self._entries: list[FieldLine] = []
        self._size = 0
        self._block = b""
        self._at = 0
        self.too_large = False
        """Whether the last block held more than is kept of it."""
        self.generation = 0
        """Changes with the table."""

    def decode(self, block: bytes) -> list[FieldLine]:
        """The fields of a whole header block; raises `ConnectionFault`, after which nothing can be decoded any more."""
        fields: list[FieldLine] = []
        self._block = block
        self._at = 0
        self.too_large = False
        end = len(block)
        total = 0
        count = 0
        updates = 0
        while self._at < end:
            octet = block[self._at]
            if octet >= 0x80:
                # section 6.1: indexed
                field = self._entry(self._integer(0x7F))
            elif octet >= 0x40:
                # section 6.2.1: literal, to be remembered
                field = self._literal(0x3F)
                self._insert(field)
            elif octet >= 0x20:
                # section 6.3: only at the beginning of a block
                updates += 1
                if count or updates > _MAX_SIZE_UPDATES:
                    raise _fault("a table size update out of place")
                self._resize(self._integer(0x1F))
                continue
            else:
                # sections 6.2.2 and 6.2.3: literal
                field = self._literal(0x0F)
            count += 1
            total += field.size
            if count > _MAX_FIELDS or total > _MAX_FIELDS_BYTES:
                self.too_large = True
            else:
                fields.append(field)
        self._block = b""
        return fields

    def _integer(self, mask: int) -> int:
        """Section 5.1; more than four octets after the prefix are refused, for nothing that we read is so large."""
        block = self._block
        at = self._at
        value = block[at] & mask
        at += 1
        if value == mask:
            end = len(block)
            shift = 0
            while True:
                if at >= end or shift > 21:
                    raise _fault("an integer without end" if at >= end else "an integer too large")
                octet = block[at]
                at += 1
                value += (octet & 0x7F) << shift
                if octet < 0x80:
                    break
                shift += 7
        self._at = at
        return value

    def _string(self) -> bytes:
        """Section 5.2."""
        huffman = self._at < len(self._block) and self._block[self._at] >= 0x80
        length = self._skip_string()
        text = self._block[self._at - length : self._at]
        return huffman_decode(text) if huffman else text

    def _skip_string(self) -> int:
        """Go behind a string; returns its length."""
        if self._at >= len(self._block):
            raise _fault("a field without a string")
        length = self._integer(0x7F)
        if length > len(self._block) - self._at:
            raise _fault("a string longer than its block")
        self._at += length
        return length

    def _literal(self, mask: int) -> FieldLine:
        start = self._at
        index = self._integer(mask)
        if index > _STATIC_ENTRIES:
            return FieldLine(self._entry(index).name, self._string())
        if not index:
            self._skip_string()
        self._skip_string()
        octets = self._block[start : self._at]
        field = _known.get(octets)
        if field is None:
            self._at = start
            field = self._read_literal(mask)
            # one that is never to be remembered may be secret (section 6.2.3)
            if len(octets) <= _MAX_KNOWN_BYTES and octets[0] & 0xF0 != 0x10 and field.name not in _SECRETS:
                if len(_known) >= _MAX_KNOWN:
                    _known.clear()
                _known[octets] = field
        return field

    def _read_literal(self, mask: int) -> FieldLine:
        index = self._integer(mask)
        name = self._entry(index).name if index else self._string()
        return FieldLine(name, self._string())

    def _entry(self, index: int) -> FieldLine:
        """Section 2.3.3."""
        if 0 < index <= _STATIC_ENTRIES:
            return _STATIC[index - 1]
        entries = self._entries
        back = index - _STATIC_ENTRIES
        if not 0 < back <= len(entries):
            raise _fault(f"no entry {index}")
        return entries[len(entries) - back]

    def _insert(self, field: FieldLine) -> None:
        """Section 4.4: what is larger than the table empties it."""
        self.generation += 1
        if self._size + field.size > self._max_table_bytes:
            self._evict(self._max_table_bytes - field.size)
        if field.size <= self._max_table_bytes:
            self._entries.append(field)
            self._size += field.size

    def _evict(self, size: int) -> None:
        """Make the table at most so large."""
        entries = self._entries
        gone = 0
        while gone < len(entries) and self._size > size:
            oldest = entries[gone]
            self._size -= oldest.size
            gone += 1
        del entries[:gone]

    def _resize(self, size: int) -> None:
        if size > self._limit:
            raise _fault(f"a table of {size} bytes")
        self.generation += 1
        self._max_table_bytes = size
        self._evict(size)


def _fault(message: str) -> ConnectionFault:
    return ConnectionFault(message, COMPRESSION_ERROR, "BadHpack")


_OCTETS = [bytes((octet,)) for octet in range(256)]


def encode_integer(value: int, mask: int, flags: int) -> bytes:
    """Section 5.1; ``flags`` are the bits before the prefix."""
    if value < mask:
        return _OCTETS[flags | value]
    value -= mask
    if value < 0x80:
        return _OCTETS[flags | mask] + _OCTETS[value]
    coded = bytearray((flags | mask,))
    while value >= 0x80:
        coded.append(value & 0x7F | 0x80)
        value >>= 7
    coded.append(value)
    return bytes(coded)
