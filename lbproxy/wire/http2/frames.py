"""Frames, as they are written (RFC 9113 sections 4 and 6)."""

from __future__ import annotations

from lbproxy.wire.http2.encoder import Encoder

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
"""What a client says first (section 3.4)."""

DATA = 0x0
HEADERS = 0x1
PRIORITY = 0x2
RST_STREAM = 0x3
SETTINGS = 0x4
PUSH_PROMISE = 0x5
PING = 0x6
GOAWAY = 0x7
WINDOW_UPDATE = 0x8
CONTINUATION = 0x9

END_STREAM = 0x1
ACK = 0x1
END_HEADERS = 0x4
PADDED = 0x8
WITH_PRIORITY = 0x20

HEADER_TABLE_SIZE = 0x1
ENABLE_PUSH = 0x2
MAX_CONCURRENT_STREAMS = 0x3
INITIAL_WINDOW_SIZE = 0x4
MAX_FRAME_SIZE = 0x5
MAX_HEADER_LIST_SIZE = 0x6
ENABLE_CONNECT_PROTOCOL = 0x8

FRAME_HEAD_BYTES = 9
MAX_FRAME_BYTES = 16384
"""What every peer takes (section 4.2), and all that we take."""
MAX_DATA_BYTES = 65536
"""Content that we put into one frame where the peer takes so much; larger ones of a stream would hold up others."""
DEFAULT_WINDOW = 65535
MAX_WINDOW = 2**31 - 1
MAX_STREAM_ID = 2**31 - 1

_NO_HEAD = bytes(FRAME_HEAD_BYTES)


class FrameWriter:
    """Gathers frames until they are asked for, so that all of a turn go into one write."""

    __slots__ = ("_encoder", "_max_data", "_out")

    def __init__(self) -> None:
        self._out = bytearray()
        self._encoder = Encoder()
        self._max_data = MAX_FRAME_BYTES

    def pending_bytes(self) -> int:
        """How much `data_to_send` would return."""
        return len(self._out)

    def data_to_send(self) -> bytes:
        """All frames that were not fetched yet."""
        data = bytes(self._out)
        self._out.clear()
        return data

    def _frame(self, length: int, kind: int, flags: int, number: int) -> None:
        """The head of a frame; its payload is to follow."""
        out = self._out
        at = len(out)
        out += _NO_HEAD
        out[at] = length >> 16 & 255
        out[at + 1] = length >> 8 & 255
        out[at + 2] = length & 255
        out[at + 3] = kind
        out[at + 4] = flags
        out[at + 5] = number >> 24 & 255
        out[at + 6] = number >> 16 & 255
        out[at + 7] = number >> 8 & 255
        out[at + 8] = number & 255

    def _word(self, value: int) -> None:
        out = self._out
        out.append(value >> 24 & 255)
        out.append(value >> 16 & 255)
        out.append(value >> 8 & 255)
        out.append(value & 255)

    def _write_settings(self, settings: dict[int, int]) -> None:
        self._frame(6 * len(settings), SETTINGS, 0, 0)
        for name, value in settings.items():
            self._out += name.to_bytes(2, "big")
            self._word(value)

    def _write_block(self, number: int, block: bytes, ended: bool) -> None:
        """A header block in as many frames as it takes."""
        size = len(block)
        flags = END_STREAM if ended else 0
        if size <= MAX_FRAME_BYTES:
            self._frame(size, HEADERS, flags | END_HEADERS, number)
            self._out += block
            return
        self._frame(MAX_FRAME_BYTES, HEADERS, flags, number)
        self._out += block[:MAX_FRAME_BYTES]
        at = MAX_FRAME_BYTES
        while at < size:
            piece = block[at : at + MAX_FRAME_BYTES]
            at += len(piece)
            self._frame(len(piece), CONTINUATION, END_HEADERS if at >= size else 0, number)
            self._out += piece

    def _write_data(self, number: int, data: bytes, ended: bool) -> None:
        """Content in as many frames as it takes; the windows were looked at."""
        size = len(data)
        at = 0
        most = self._max_data
        while size - at > most:
            self._frame(most, DATA, 0, number)
            self._out += data[at : at + most]
            at += most
        self._frame(size - at, DATA, END_STREAM if ended else 0, number)
        self._out += data[at:] if at else data

    def _write_word_frame(self, kind: int, number: int, value: int) -> None:
        """RST_STREAM or WINDOW_UPDATE."""
        self._frame(4, kind, 0, number)
        self._word(value)

    def _write_goaway(self, last_id: int, code: int) -> None:
        self._frame(8, GOAWAY, 0, 0)
        self._word(last_id)
        self._word(code)
