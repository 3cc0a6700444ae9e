"""Chunked bodies (RFC 9112 section 7.1): read them in any split, write them.

Chunk extensions are dropped, as every recipient must do with those that it does not know (section 7.1.1). Trailers are
kept apart from the fields of the head, and those that would have frame, route or authenticate the message are refused.
"""

from __future__ import annotations

import enum
import re

from lbproxy.wire.errors import LocalProtocolError, RemoteProtocolError
from lbproxy.wire.http.fields import (
    MAX_TRAILERS,
    MAX_TRAILERS_BYTES,
    check_trailer,
)
from lbproxy.wire.http1.lines import CRLF, Limits, check_partial, read_fields

MAX_CHUNK_LINE_BYTES = 4096
"""The size and its extensions, without CRLF. Nobody is known to send longer ones on purpose."""
MAX_EXTENSIONS_BYTES = 16384
"""All extensions of a body: they are dropped, so they must not be a way to make us work for nothing."""
LAST_CHUNK = b"0\r\n\r\n"

_MAX_CHUNK_BYTES = 2**60 - 1
_TRAILER_LIMITS = Limits(MAX_TRAILERS_BYTES, MAX_TRAILERS, MAX_TRAILERS_BYTES)

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_QUOTED = rb'"(?:[\t\x20\x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t\x20-\x7e\x80-\xff])*"'
_CHUNK_LINE = re.compile(
    rb"([0-9A-Fa-f]{1,16})((?:;" + _TOKEN + rb"(?:=(?:" + _TOKEN + rb"|" + _QUOTED + rb"))?)*)\r\n"
).match
"""Size and extensions. No white space anywhere but in quoted strings: RFC 9112 allows some around the signs of an
extension only for the sake of what once was sent, and parsers that skipped it differently have been exploited."""

_CHUNK_LINE_BEGINNING = re.compile(rb"[0-9A-Fa-f]{1,16}(?:;[\t\x20-\x7e\x80-\xff]*)?\r?").fullmatch


class _Part(enum.Enum):
    SIZE = "size"
    DATA = "data"
    DATA_END = "data-end"
    TRAILERS = "trailers"
    ENDED = "ended"


class ChunkedReader:
    """Decode one chunked body.

    Holds no data, only an incomplete chunk line (4 KiB) or trailer section (16 KiB). Raises `RemoteProtocolError` for
    a body that breaks the rules; the connection must then be closed, since its framing is lost.
    """

    __slots__ = ("_extensions_bytes", "_held", "_left", "_part", "rest", "trailers")

    def __init__(self) -> None:
        self._part = _Part.SIZE
        self._held = b""
        self._left = 0
        self._extensions_bytes = 0
        self.trailers = b""
        """Field lines of the trailer section, ready to be sent on."""
        self.rest = b""
        """What came after the body's end."""

    @property
    def ended(self) -> bool:
        """The body is whole."""
        return self._part is _Part.ENDED

    def receive_data(self, data: bytes) -> bytes:
        """Take bytes as they arrived, in any split; returns the payload among them, which may be none."""
        if self._part is _Part.DATA and len(data) <= self._left:
            # the usual piece of a large chunk
            self._left -= len(data)
            if not self._left:
                self._part = _Part.DATA_END
            return data
        if self._part is _Part.ENDED:
            raise LocalProtocolError("data for a body that has ended")

        if self._held:
            data = self._held + data
            self._held = b""
            if self._part is _Part.SIZE and b"\n" not in data:
                # so that a line that trickles in is not parsed with every byte
                self._held = _incomplete_chunk_line(data)
                return b""
        payload = []
        at = 0
        while at < len(data):
            if self._part is _Part.SIZE:
                line = _CHUNK_LINE(data, at, at + MAX_CHUNK_LINE_BYTES + 2)
                if line is None:
                    self._held = _incomplete_chunk_line(data[at : at + MAX_CHUNK_LINE_BYTES + 2])
                    break
                at = line.end()
                size = self._start_chunk(line[1], line[2])
                if size and data.startswith(CRLF, at + size):
                    # the whole chunk is here, so the steps below are not needed
                    payload.append(data[at : at + size])
                    at += size + 2
                    self._part = _Part.SIZE
            elif self._part is _Part.DATA:
                piece = data[at : at + self._left]
                payload.append(piece)
                at += len(piece)
                self._left -= len(piece)
                if not self._left:
                    self._part = _Part.DATA_END
            elif self._part is _Part.DATA_END:
                if not data.startswith(CRLF, at):
                    self._held = _incomplete_chunk_end(data[at:])
                    break
                at += 2
                self._part = _Part.SIZE
            else:
                self._receive_trailers(data[at:])
                break
        return payload[0] if len(payload) == 1 else b"".join(payload)

    def _start_chunk(self, digits: bytes, extensions: bytes) -> int:
        size = int(digits, 16)
        if size > _MAX_CHUNK_BYTES:
            raise RemoteProtocolError(f"a chunk of {size} bytes", reason="BadChunk")
        if extensions:
            self._extensions_bytes += len(extensions)
            if self._extensions_bytes > MAX_EXTENSIONS_BYTES:
                raise RemoteProtocolError(f"more than {MAX_EXTENSIONS_BYTES} bytes of extensions", reason="BadChunk")
        self._left = size
        self._part = _Part.DATA if size else _Part.TRAILERS
        return size

    def _receive_trailers(self, section: bytes) -> None:
        """The trailer section and the empty line, or their beginning (RFC 9112 section 7.1.2)."""
        if section.startswith(CRLF):
            self.rest = section[2:]
            self._part = _Part.ENDED
            return
        end = section.find(b"\r\n\r\n")
        if end < 0:
            check_partial(section, _TRAILER_LIMITS)
            self._held = section
            return
        fields = read_fields(section[: end + 2], _TRAILER_LIMITS)
        for name, _, _ in fields:
            check_trailer(name)
        self.trailers = b"".join([line + CRLF for _, _, line in fields])
        self.rest = section[end + 4 :]
        self._part = _Part.ENDED


def _incomplete_chunk_line(line: bytes) -> bytes:
    """The line, if it may still become one."""
    if not _CHUNK_LINE_BEGINNING(line) or len(line) > MAX_CHUNK_LINE_BYTES + line.endswith(b"\r"):
        raise RemoteProtocolError(f"chunk line {line[:40]!r}", reason="BadChunk")
    return line


def _incomplete_chunk_end(data: bytes) -> bytes:
    """A CR, if it may still become the CRLF after a chunk's data."""
    if data != b"\r":
        raise RemoteProtocolError(f"{data[:2]!r} after a chunk's data", reason="BadChunk")
    return data


def encode_chunk(data: bytes) -> bytes:
    """One chunk; ``b""`` for no data, for an empty chunk would end the body."""
    return b"%x\r\n%b\r\n" % (len(data), data) if data else b""


def last_chunk(trailers: bytes) -> bytes:
    """The end of a chunked body, with field lines as `ChunkedReader.trailers` has them."""
    return b"0\r\n%b\r\n" % trailers
