"""The encoder of header compression (RFC 7541).

It takes field lines as HTTP/1.1 has them and remembers in the dynamic table what comes again and again, by a list of
names: not what is another one in each message, which would only push the rest out, and never cookies or credentials,
which one client could otherwise guess on a connection that it shares with others (section 7.1).

Whole blocks repeat as well, and lines of blocks that do not.  What they were encoded to stays right as long as the
table is as it was then.  Only what is remembered is Huffman-coded: what is written each time would cost more time on
both sides than its octets are worth.
"""

from __future__ import annotations

from collections import deque

from lbproxy.wire.http2.fieldline import ENTRY_OVERHEAD
from lbproxy.wire.http2.hpack import DEFAULT_TABLE_BYTES, STATIC_ENTRIES, STATIC_TABLE, encode_integer
from lbproxy.wire.http2.huffman import encode as huffman_encode

_REMEMBERED = frozenset(
    [
        b":authority",
        b":scheme",
        b"accept",
        b"accept-encoding",
        b"accept-language",
        b"accept-ranges",
        b"access-control-allow-credentials",
        b"access-control-allow-headers",
        b"access-control-allow-methods",
        b"access-control-allow-origin",
        b"alt-svc",
        b"cache-control",
        b"content-encoding",
        b"content-language",
        b"content-security-policy",
        b"content-type",
        b"date",
        b"expires",
        b"grpc-accept-encoding",
        b"grpc-encoding",
        b"grpc-status",
        b"pragma",
        b"referrer-policy",
        b"server",
        b"strict-transport-security",
        b"te",
        b"user-agent",
        b"vary",
        b"via",
        b"x-content-type-options",
        b"x-forwarded-port",
        b"x-forwarded-proto",
        b"x-frame-options",
        b"x-powered-by",
        b"x-xss-protection",
    ]
)
"""What else there is may be a secret: it is sent as never to be remembered, by no other hop either, for a client that
has sent it so counts on that (section 6.2.3)."""

_MAX_REMEMBERED_BYTES = 1024
"""Of one field: a quarter of the table."""
_MAX_KNOWN = 64
"""Lines and blocks whose code is kept, by each connection."""
_MAX_KNOWN_BYTES = 1024
"""Of one of them."""

_MAX_LENGTHS = 1024
_lengths: dict[int, bytes] = {}
"""Content lengths as they are encoded."""

_STATIC_FIELDS: dict[tuple[bytes, bytes], int] = {}
_STATIC_NAMES: dict[bytes, int] = {}
for _index, _field in enumerate(STATIC_TABLE, 1):
    _STATIC_FIELDS.setdefault(_field, _index)
    _STATIC_NAMES.setdefault(_field[0], _index)


class Encoder:
    """The sending end of one direction of a connection."""

    __slots__ = (
        "_entries",
        "_fields",
        "_inserted",
        "_known",
        "_max_table_bytes",
        "_size",
        "_smallest",
        "_table_changed",
    )

    def __init__(self) -> None:
        self._max_table_bytes = DEFAULT_TABLE_BYTES
        self._smallest = DEFAULT_TABLE_BYTES
        self._table_changed = False
        self._fields: dict[tuple[bytes, bytes], int] = {}
        """The number of each entry, counted from the first that ever was."""
        self._entries: deque[tuple[bytes, bytes]] = deque()
        self._inserted = 0
        self._size = 0
        self._known: dict[bytes, bytes] = {}
        """Lines and blocks as they are encoded while the table is as it is."""

    def set_max_table_bytes(self, size: int) -> None:
        """The peer's SETTINGS_HEADER_TABLE_SIZE; more than the default is not made use of."""
        size = min(size, DEFAULT_TABLE_BYTES)
        if size != self._max_table_bytes:
            self._smallest = min(size, self._smallest) if self._table_changed else size
            self._table_changed = True
            self._max_table_bytes = size
            self._known.clear()
            self._evict(size)

    def begin(self) -> bytes:
        """What each header block has to begin with: the table's new size, if it has one (section 4.2)."""
        if not self._table_changed:
            return b""
        self._table_changed = False
        update = encode_integer(self._max_table_bytes, 0x1F, 0x20)
        if self._smallest < self._max_table_bytes:
            update = encode_integer(self._smallest, 0x1F, 0x20) + update
        return update

    def lines(self, lines: bytes) -> bytes:
        """Encode field lines ``Name: value``, each with its CRLF."""
        coded = self._known.get(lines)
        if coded is None:
            coded = self._encode_lines(lines)
        return coded

    def _encode_lines(self, lines: bytes) -> bytes:
        known = self._known
        block = []
        all_known = True
        for line in lines.split(b"\r\n"):
            if line:
                coded = known.get(line)
                if coded is None:
                    all_known = False
                    coded = self._encode_line(line)
                block.append(coded)
        joined = b"".join(block)
        if all_known:  # a block with a line that is new each time would only be in the way
            self._keep(lines, joined)
        return joined

    def _encode_line(self, line: bytes) -> bytes:
        before = self._inserted
        name, _, value = line.partition(b": ")
        coded = self.field(name.lower(), value)
        if self._inserted == before:
            self._keep(line, coded)
        return coded

    def _keep(self, text: bytes, coded: bytes) -> None:
        if len(text) <= _MAX_KNOWN_BYTES:
            if len(self._known) >= _MAX_KNOWN:
                self._known.clear()
            self._known[text] = coded

    def field(self, name: bytes, value: bytes) -> bytes:
        """Encode one field; the name is in lower case."""
        key = (name, value)
        number = self._fields.get(key, -1)
        if number >= 0:
            return encode_integer(STATIC_ENTRIES + self._inserted - number, 0x7F, 0x80)
        index = _STATIC_FIELDS.get(key, 0)
        if index:
            return encode_integer(index, 0x7F, 0x80)
        index = _STATIC_NAMES.get(name, 0)
        if name in _REMEMBERED and len(value) <= _MAX_REMEMBERED_BYTES:
            size = len(name) + len(value) + ENTRY_OVERHEAD
            if size <= self._max_table_bytes:
                self._insert(key, size)
                return encode_integer(index, 0x3F, 0x40) + (b"" if index else _shortest(name)) + _shortest(value)
            first = encode_integer(index, 0x0F, 0x00)
        else:
            first = encode_integer(index, 0x0F, 0x10)
        return first + (b"" if index else _plain(name)) + _plain(value)

    def content_length(self, length: int) -> bytes:
        """Encode this field; it is never in the table, so what it was encoded to stays right."""
        coded = _lengths.get(length)
        if coded is None:
            coded = self.field(b"content-length", b"%d" % length)
            if len(_lengths) >= _MAX_LENGTHS:
                _lengths.clear()
            _lengths[length] = coded
        return coded

    def _insert(self, key: tuple[bytes, bytes], size: int) -> None:
        self._evict(self._max_table_bytes - size)
        self._entries.append(key)
        self._fields[key] = self._inserted
        self._inserted += 1
        self._size += size
        self._known.clear()

    def _evict(self, size: int) -> None:
        while self._size > size:
            name, value = key = self._entries.popleft()
            del self._fields[key]
            self._size -= len(name) + len(value) + ENTRY_OVERHEAD


def _shortest(text: bytes) -> bytes:
    coded = huffman_encode(text)
    if len(coded) < len(text):
        return encode_integer(len(coded), 0x7F, 0x80) + coded
    return _plain(text)


def _plain(text: bytes) -> bytes:
    return encode_integer(len(text), 0x7F, 0x00) + text
