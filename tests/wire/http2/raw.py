"""Frames and header blocks put together by hand, so that tests can send what our own writer never would."""

from __future__ import annotations

from typing import NamedTuple

from lbproxy.wire.http2.connection import Connection
from lbproxy.wire.http2.events import Event
from lbproxy.wire.http2.frames import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PREFACE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
)
from lbproxy.wire.http2.hpack import Decoder

GET = [(":method", "GET"), (":scheme", "https"), (":authority", "example.com"), (":path", "/")]
POST = [(":method", "POST"), (":scheme", "https"), (":authority", "example.com"), (":path", "/")]

Fields = list[tuple[str, str]]


class Frame(NamedTuple):
    """A frame taken apart."""

    kind: int
    flags: int
    stream: int
    payload: bytes


def frame(kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"") -> bytes:
    """A frame with whatever is in it."""
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def frames(data: bytes) -> list[Frame]:
    """All whole frames in these bytes."""
    found = []
    while data:
        length = int.from_bytes(data[:3], "big")
        found.append(Frame(data[3], data[4], int.from_bytes(data[5:9], "big"), data[9 : 9 + length]))
        data = data[9 + length :]
    return found


def block(fields: Fields) -> bytes:
    """A header block of literals that nobody remembers."""
    return b"".join(b"\x00" + _string(name) + _string(value) for name, value in fields)


def _string(text: str) -> bytes:
    octets = text.encode("latin-1")
    size = len(octets)
    if size < 127:
        return bytes((size,)) + octets
    prefix = bytearray((127,))
    size -= 127
    while size >= 128:
        prefix.append(size & 127 | 128)
        size >>= 7
    prefix.append(size)
    return bytes(prefix) + octets


def headers(stream: int, fields: Fields, flags: int = END_HEADERS | END_STREAM) -> bytes:
    return frame(HEADERS, flags, stream, block(fields))


def data(stream: int, payload: bytes, flags: int = 0) -> bytes:
    return frame(DATA, flags, stream, payload)


def continuation(stream: int, payload: bytes, flags: int = END_HEADERS) -> bytes:
    return frame(CONTINUATION, flags, stream, payload)


def settings(*pairs: tuple[int, int]) -> bytes:
    return frame(SETTINGS, 0, 0, b"".join(name.to_bytes(2, "big") + value.to_bytes(4, "big") for name, value in pairs))


def window_update(stream: int, size: int) -> bytes:
    return frame(WINDOW_UPDATE, 0, stream, size.to_bytes(4, "big"))


def reset(stream: int, code: int = 8) -> bytes:
    return frame(RST_STREAM, 0, stream, code.to_bytes(4, "big"))


CLIENT_PREFACE = PREFACE + settings()


class Server:
    """A server's end after the prefaces, and what it has said since."""

    def __init__(self, *pairs: tuple[int, int], max_streams: int = 128) -> None:
        self.connection = Connection(False, max_streams)
        self.now = 100.0
        self.decoder = Decoder()
        self.receive(PREFACE + settings(*pairs))
        self.connection.data_to_send()

    def receive(self, *pieces: bytes) -> list[Event]:
        return self.connection.receive_data(b"".join(pieces), self.now)

    def sent(self) -> list[Frame]:
        return frames(self.connection.data_to_send())

    def resets(self) -> list[tuple[int, int]]:
        """(stream, code) of what was reset since the last look."""
        return [(f.stream, int.from_bytes(f.payload, "big")) for f in self.sent() if f.kind == RST_STREAM]

    def goaway(self) -> tuple[int, int]:
        """Last stream and code of the only GOAWAY."""
        [payload] = [f.payload for f in self.sent() if f.kind == GOAWAY]
        return int.from_bytes(payload[:4], "big"), int.from_bytes(payload[4:8], "big")
