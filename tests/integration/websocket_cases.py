"""What a WebSocket server may be sent, right and wrong (RFC 6455): the writes of a client, case by case.

The cases cover what the sections 1 to 7, 9 and 10 of the Autobahn test suite do: framing, pings and pongs, reserved
bits, opcodes, fragmentation, UTF-8, closing, sizes and rates, automatic fragmentation.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterable

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
MASK = b"\x37\xfa\x21\x3d"

Writes = list[bytes]


def masked(payload: bytes) -> bytes:
    key = (MASK * (len(payload) // 4 + 1))[: len(payload)]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")).to_bytes(len(payload), "big")


def frame(opcode: int, payload: bytes = b"", final: bool = True, reserved: int = 0) -> bytes:
    """A client's frame (section 5.2)."""
    size = len(payload)
    first = (0x80 if final else 0) | reserved << 4 | opcode
    if size < 126:
        head = struct.pack("!BB", first, 0x80 | size)
    elif size < 65536:
        head = struct.pack("!BBH", first, 0xFE, size)
    else:
        head = struct.pack("!BBQ", first, 0xFF, size)
    return head + MASK + masked(payload)


def close(code: int = 1000, reason: bytes = b"") -> bytes:
    return frame(CLOSE, struct.pack("!H", code) + reason)


def fragments(opcode: int, payload: bytes, size: int) -> Writes:
    """A message in frames of that size, each of them a write."""
    parts = [payload[at : at + size] for at in range(0, len(payload), size)] or [b""]
    opcodes = itertools.chain([opcode], itertools.repeat(CONTINUATION))
    return [frame(code, part, index == len(parts) - 1) for index, (part, code) in enumerate(zip(parts, opcodes))]  # noqa: B905


def chopped(data: bytes, size: int) -> Writes:
    """Writes of so many octets."""
    return [data[at : at + size] for at in range(0, len(data), size)]


def text(size: int) -> bytes:
    return b"*" * size


def octets(size: int) -> bytes:
    return (bytes(range(256)) * (size // 256 + 1))[:size]


def framing() -> Iterable[tuple[str, Writes]]:
    for kind, opcode, content in (("text", TEXT, text), ("binary", BINARY, octets)):
        for size in (0, 125, 126, 127, 128, 65535, 65536):
            yield f"1 {kind} of {size}", [frame(opcode, content(size))]
        yield f"1 {kind} of 65536, 997 octets at a time", chopped(frame(opcode, content(65536)), 997)


def pings() -> Iterable[tuple[str, Writes]]:
    yield "2 ping without payload", [frame(PING)]
    yield "2 ping with text", [frame(PING, b"Hello, world!")]
    yield "2 ping with octets", [frame(PING, b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff")]
    yield "2 ping of 125", [frame(PING, b"\xfe" * 125)]
    yield "2 ping of 126", [frame(PING, b"\xfe" * 126)]
    yield "2 ping of 125, octet by octet", chopped(frame(PING, b"\xfe" * 125), 1)
    yield "2 pong that nobody asked for", [frame(PONG)]
    yield "2 pong with payload that nobody asked for", [frame(PONG, b"unsolicited")]
    yield "2 pong, then ping", [frame(PONG, b"unsolicited"), frame(PING, b"ping")]
    ten = [frame(PING, b"payload-%d" % number) for number in range(10)]
    yield "2 ten pings", ten
    yield "2 ten pings, octet by octet", chopped(b"".join(ten), 1)


def reserved_bits() -> Iterable[tuple[str, Writes]]:
    small = frame(TEXT, b"Hello, world!")
    yield "3 RSV 1", [frame(TEXT, b"Hello, world!", reserved=1)]
    yield "3 RSV 2 after a message, before a ping", [small, frame(TEXT, b"x", reserved=2), frame(PING)]
    yield "3 RSV 3, all in one write", [b"".join([small, frame(TEXT, b"x", reserved=3), frame(PING)])]
    yield "3 RSV 4, octet by octet", chopped(b"".join([small, frame(TEXT, b"x", reserved=4), frame(PING)]), 1)
    yield "3 RSV 5 of binary", [frame(BINARY, b"\x00\xff\xfe\xfd", reserved=5)]
    yield "3 RSV 6 of a ping", [frame(PING, b"Hello, world!", reserved=6)]
    yield "3 RSV 7 of a close", [frame(CLOSE, reserved=7)]


def opcodes() -> Iterable[tuple[str, Writes]]:
    small = frame(TEXT, b"Hello, world!")
    for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15):
        yield f"4 opcode {opcode}", [frame(opcode)]
        yield f"4 opcode {opcode} with payload", [frame(opcode, b"reserved")]
        yield f"4 opcode {opcode} after a message, before a ping", [small, frame(opcode, b"x"), frame(PING)]
        yield f"4 opcode {opcode}, octet by octet", chopped(small + frame(opcode) + frame(PING), 1)


def fragmentation() -> Iterable[tuple[str, Writes]]:
    first, last = frame(TEXT, b"fragment1", False), frame(CONTINUATION, b"fragment2")
    middle = frame(CONTINUATION, b"fragment2", False)
    ping = frame(PING, b"ping")
    yield "5 ping in fragments", [frame(PING, b"fragment1", False), last]
    yield "5 pong in fragments", [frame(PONG, b"fragment1", False), last]
    for name, sequence in {
        "text in two": [first, last],
        "a ping within": [first, ping, last],
        "nothing to continue": [last, frame(TEXT, b"Hello, world!")],
        "nothing to continue, not final": [middle, frame(TEXT, b"Hello, world!")],
        "one too many": [first, last, middle, frame(TEXT, b"Hello, world!")],
        "twice nothing to continue": [middle, frame(TEXT, b"x"), last] * 2,
        "a text within": [first, frame(TEXT, b"fragment2")],
        "five and pings": [
            first,
            middle,
            frame(PING, b"pongme 1!"),
            middle,
            middle,
            frame(PING, b"pongme 2!"),
            frame(CONTINUATION, b"fragment5"),
        ],
    }.items():
        yield f"5 {name}", sequence
        yield f"5 {name}, in one write", [b"".join(sequence)]
        yield f"5 {name}, octet by octet", chopped(b"".join(sequence), 1)


VALID_UTF8 = {
    "kosme": b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5",
    "the first of each length": b"\x00\xc2\x80\xe0\xa0\x80\xf0\x90\x80\x80",
    "the last of each length": b"\x7f\xdf\xbf\xef\xbf\xbf\xf4\x8f\xbf\xbf",
    "around the surrogates": b"\xed\x9f\xbf\xee\x80\x80\xef\xbf\xbd",
    "no characters": b"\xef\xbf\xbe\xef\xbf\xbf\xf0\x9f\xbf\xbe\xf4\x8f\xbf\xbf",
    "a byte order mark": b"\xef\xbb\xbfx",
}
INVALID_UTF8 = {
    "a surrogate": b"\xce\xba\xed\xa0\x80edited",
    "beyond the last": b"\xce\xba\xf4\x90\x80\x80edited",
    "five octets": b"\xf8\x88\x80\x80\x80",
    "six octets": b"\xfc\x84\x80\x80\x80\x80",
    "a continuation octet": b"\x80",
    "all continuation octets": bytes(range(0x80, 0xC0)),
    "lonely starts of two": b"\xc0 \xc1 \xdf ",
    "lonely starts of three": b"\xe0 \xef ",
    "lonely starts of four": b"\xf0 \xf7 ",
    "the last octet missing of two": b"\xdf",
    "the last octet missing of three": b"\xef\xbf",
    "the last octet missing of four": b"\xf7\xbf\xbf",
    "impossible octets": b"\xfe\xff",
    "overlong slash of two": b"\xc0\xaf",
    "overlong slash of three": b"\xe0\x80\xaf",
    "overlong slash of four": b"\xf0\x80\x80\xaf",
    "overlong maximum": b"\xc1\xbf\xe0\x9f\xbf\xf0\x8f\xbf\xbf",
    "overlong zero": b"\xc0\x80",
    "pairs of surrogates": b"\xed\xa0\x80\xed\xb0\x80",
}


def utf8() -> Iterable[tuple[str, Writes]]:
    yield "6 empty", [frame(TEXT)]
    yield "6 three empty fragments", [frame(TEXT, b"", False), frame(0, b"", False), frame(0)]
    yield "6 empty around some", [frame(TEXT, b"", False), frame(0, b"middle", False), frame(0)]
    for name, content in {**VALID_UTF8, **INVALID_UTF8}.items():
        yield f"6 {name}", [frame(TEXT, content)]
        yield f"6 {name}, a fragment for each octet", fragments(TEXT, content, 1)
        yield f"6 {name}, octet by octet", chopped(frame(TEXT, b"Hello-" + content), 1)
    bad = VALID_UTF8["kosme"] + b"\xf4\x90\x80\x80" + b"edited"
    yield "6 wrong in the second of three fragments", fragments(TEXT, bad, 12)
    yield "6 binary need not be UTF-8", [frame(BINARY, INVALID_UTF8["impossible octets"])]


def closing() -> Iterable[tuple[str, Writes]]:
    small = frame(TEXT, b"Hello World!")
    yield "7 message, then close", [small, close()]
    yield "7 two closes", [close(), close()]
    yield "7 ping after close", [close(), frame(PING)]
    yield "7 message after close", [close(), small]
    yield "7 close within a message", [frame(TEXT, b"fragment1", False), close(), frame(0, b"fragment2")]
    yield "7 256 KiB, close, ping, all at once", [frame(TEXT, text(1 << 18)) + close() + frame(PING)]
    yield "7 close without code", [frame(CLOSE)]
    yield "7 close with half a code", [frame(CLOSE, b"a")]
    yield "7 close with code", [close()]
    yield "7 close with reason", [close(1000, b"Hello World!")]
    yield "7 close with the longest reason", [close(1000, b"*" * 123)]
    yield "7 close with a longer reason", [close(1000, b"*" * 124)]
    yield "7 reason that is not UTF-8", [close(1000, INVALID_UTF8["a surrogate"])]
    valid = (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999)
    for code in (*valid, 0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999, 5000, 65535):
        yield f"7 code {code}", [close(code)]
    yield "7 close in fragments", [frame(CLOSE, b"\x03\xe8", False), frame(0)]
    yield "7 close, octet by octet", chopped(close(1000, b"bye"), 1)


def sizes() -> Iterable[tuple[str, Writes]]:
    for kind, opcode, content in (("text", TEXT, text), ("binary", BINARY, octets)):
        for size in (1 << 16, 1 << 18, 1 << 20, 1 << 24):
            yield f"9 {kind} of {size}", [frame(opcode, content(size))]
        for size in (64, 1024, 1 << 16, 1 << 20):
            payload = content(1 << 22 if size >= 1024 else 1 << 18)
            yield f"9 {kind} in fragments of {size}", fragments(opcode, payload, size)
        for size in (64, 1024, 8192):
            payload = content(1 << 20 if size >= 1024 else 1 << 16)
            yield f"9 {kind}, {size} octets at a time", chopped(frame(opcode, payload), size)
        for size in (0, 16, 64, 256, 1024, 4096):
            yield f"9 a thousand of {kind} of {size}", [frame(opcode, content(size))] * 1000
    yield "10 text in automatic fragments", fragments(TEXT, text(65536), 1300)


def cases() -> dict[str, Writes]:
    """All cases by their names; each ends with a close, should the server still be there."""
    groups = (framing, pings, reserved_bits, opcodes, fragmentation, utf8, closing, sizes)
    return {name: [*writes, close()] for group in groups for name, writes in group()}
