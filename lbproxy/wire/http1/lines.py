"""Field lines as HTTP/1.1 writes them (RFC 9112 section 5), in heads and in trailer sections.

Lines end with CRLF and nothing else: RFC 9112 section 2.2 lets a recipient take a bare LF for a line's end, but where
two recipients choose differently a request is smuggled, so we refuse it as soon as it is seen.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from lbproxy.wire.errors import RemoteProtocolError
from lbproxy.wire.http.fields import VALUE_OCTETS, Field, is_token, looks_like_framing

CRLF = b"\r\n"

_USUAL_BLOCK = re.compile(
    rb"(?:[!#$%&'*+\-.^_`|~0-9A-Za-z]+: (?![\t ])[\t\x20-\x7e\x80-\xff]*\r\n(?<![\t ]\r\n))*"
).fullmatch
"""Lines of the form ``Name: value`` without other white space around the value.

Each repetition ends at an octet that it cannot contain, so matching takes linear time.
"""

_STRAY = re.compile(rb"[^\t\x20-\x7e\x80-\xff\r\n]|\r(?!\n)|(?<!\r)\n").search


class Limits(NamedTuple):
    """What field lines may amount to, in bytes without the line's end for one and with all ends for the whole."""

    max_bytes: int
    max_fields: int
    max_field_bytes: int


def read_fields(block: bytes, limits: Limits) -> list[Field]:
    """Read whole field lines, each with its CRLF.

    Raises `RemoteProtocolError` (``BadLineEnding``, ``BadHeader``, ``HeaderTooLarge``, ``TooManyHeaders``).
    """
    if len(block) > limits.max_field_bytes:
        check_octets(block)
        _check_size(block, limits)
    if _USUAL_BLOCK(block) is None:
        check_octets(block)
        block = b"".join([_usual_line(line) for line in block.split(CRLF)[:-1]])
    lines = block.split(CRLF)
    lines.pop()
    if len(lines) > limits.max_fields:
        raise RemoteProtocolError(f"{len(lines)} field lines", reason="TooManyHeaders")
    fields = []
    for line in lines:
        name, _, value = line.partition(b": ")
        fields.append((name.lower(), value, line))
    return fields


def check_partial(block: bytes, limits: Limits) -> None:
    """Refuse the beginning of field lines, and of the empty line after them, that can no longer become right."""
    check_octets(block)
    _check_size(block.removesuffix(b"\r"), limits)
    if block.count(CRLF) > limits.max_fields:
        raise RemoteProtocolError(f"more than {limits.max_fields} field lines", reason="TooManyHeaders")


def _check_size(block: bytes, limits: Limits) -> None:
    if len(block) > limits.max_bytes:
        raise RemoteProtocolError(f"more than {limits.max_bytes} bytes of fields", reason="HeadersTooLarge")
    if len(block) > limits.max_field_bytes and max(map(len, block.split(CRLF))) > limits.max_field_bytes:
        raise RemoteProtocolError(f"a field of more than {limits.max_field_bytes} bytes", reason="HeaderTooLarge")


def _usual_line(line: bytes) -> bytes:
    """The line with one space after the colon and no other white space around the value (RFC 9112 section 5.1).

    White space before the colon or at the line's start (obs-fold, section 5.2) is refused.
    """
    name, colon, value = line.partition(b":")
    if not colon or not is_token(name):
        raise RemoteProtocolError(f"field line {line[:40]!r}", reason=_why_no_name(name, colon))
    return b"%b: %b\r\n" % (name, value.strip(b" \t"))


def _why_no_name(name: bytes, colon: bytes) -> str:
    if not name.strip() and colon:
        return "EmptyHeader"
    return "SuspiciousHeader" if looks_like_framing(name.lower()) else "BadHeader"


def check_octets(block: bytes) -> None:
    """Refuse control characters, bare CR and bare LF in lines that may lack their end.

    A CR at the very end is not bare yet.
    """
    residue = block.translate(None, VALUE_OCTETS)
    if not residue:
        return
    if block.endswith(b"\r"):
        block, residue = block[:-1], residue[:-1]
    if residue == CRLF * block.count(CRLF):
        return
    match = _STRAY(block)
    if match is not None:
        octet = match[0]
        around = block[max(match.start() - 20, 0) : match.end()]
        reason = "BadLineEnding" if octet in b"\r\n" else "BadHeader"
        raise RemoteProtocolError(f"octet {octet!r} after {around!r}", reason=reason)
