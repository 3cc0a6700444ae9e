"""Messages to bytes and back: frames of JSON.

A frame is the length of its JSON (32 bits, big-endian), the number of descriptors that travel with
it (16 bits) and the JSON.  cattrs maps messages and the model they hold; members of a union carry
their class's name, bytes are base64.  Mappings must have strings as keys, and in a
`Report` tuples arrive as lists.
"""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Iterator
from typing import Any

from cattrs import Converter
from cattrs.strategies import configure_tagged_union

from lbproxy.ipc.messages import Message
from lbproxy.model.rule import Action, Condition

MAX_FRAME_BYTES = 256 << 20
"""More than any configuration needs; a longer frame is a fault, not a message."""

_HEADER = struct.Struct("!IH")
_TAG = "is"
_MESSAGE: Any = Message  # mypy has no type for a union as a value


class CodecError(ValueError):
    """Bytes that are no message, or a message that cannot be put in bytes."""


def encode(message: Message, fd_count: int = 0) -> bytes:
    """Give the whole frame of a message that travels with this many descriptors."""
    body = json.dumps(_CONVERTER.unstructure(message, _MESSAGE), separators=(",", ":")).encode()
    if len(body) > MAX_FRAME_BYTES:
        raise CodecError(f"{type(message).__name__} takes {len(body)} bytes, the limit is {MAX_FRAME_BYTES}")
    return _HEADER.pack(len(body), fd_count) + body


class FrameReader:
    """Read messages from a stream of frames.  Holds at most one unfinished frame."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def receive_data(self, data: bytes) -> Iterator[tuple[Message, int]]:
        """Take bytes as they arrived, in any split; yield each whole message with its number of descriptors.

        Raises `CodecError` for bytes that are no message; the stream cannot be read any further then.
        """
        buffer = self._buffer
        buffer += data
        while len(buffer) >= _HEADER.size:
            length, fd_count = _HEADER.unpack_from(buffer)
            if length > MAX_FRAME_BYTES:
                raise CodecError(f"a frame of {length} bytes, the limit is {MAX_FRAME_BYTES}")
            end = _HEADER.size + length
            if len(buffer) < end:
                return
            body = bytes(buffer[_HEADER.size : end])
            del buffer[:end]
            yield _decode(body), fd_count


def _decode(body: bytes) -> Message:
    try:
        message: Message = _CONVERTER.structure(json.loads(body), _MESSAGE)
    except Exception as error:  # cattrs lets whatever a wrong shape leads to through
        raise CodecError(f"not a message: {error!r}") from error
    return message


def _make_converter() -> Converter:
    converter = Converter(detailed_validation=False)  # a third of the time, and our peer is ourselves
    converter.register_unstructure_hook(bytes, lambda value: base64.b64encode(value).decode("ascii"))
    converter.register_structure_hook(bytes, _bytes_from_base64)
    union: Any
    for union in (Action, Condition, _MESSAGE):
        configure_tagged_union(union, converter, tag_name=_TAG)
    return converter


def _bytes_from_base64(value: str, _: type[bytes]) -> bytes:
    return base64.b64decode(value, validate=True)


_CONVERTER = _make_converter()
