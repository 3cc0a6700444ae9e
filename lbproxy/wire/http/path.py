"""One path for the rules and the target (RFC 3986 section 6.2.2).

Where a balancer matches ``/x/../admin`` and the target serves ``/admin``, a rule for ``/admin`` is no protection. So
what every reader may do to a path, because it means the same, is done here once, before the rules see it; and what
only some readers do, and would make another path of it, is refused.
"""

from __future__ import annotations

import re
from typing import Protocol

from lbproxy.wire.errors import RemoteProtocolError


class HasPath(Protocol):
    """A request's head."""

    target: bytes
    path: bytes


_UNRESERVED = re.compile(rb"%(2[dDeE]|3[0-9]|4[1-9a-fA-F]|5[0-9aA]|5[fF]|6[1-9a-fA-F]|7[0-9aA]|7[eE])")
"""Letters, digits, ``-``, ``.``, ``_`` and ``~``, which mean the same encoded or not (RFC 3986 section 2.3)."""
_ODD_SEPARATOR = re.compile(rb"\\|%2[fF]|%5[cC]")
_DOT_SEGMENT = re.compile(rb"/\.\.?(?=/|\Z)").search
_DOT_SEGMENT_WITH_PARAMETER = re.compile(rb"/\.\.?;").search
_ENCODES_NOTHING = re.compile(rb"%(?![0-9A-Fa-f]{2})").search
_STRICTLY_REFUSED = re.compile(rb"\\|//|%(?:2[fF]|5[cC]|00)|%(?![0-9A-Fa-f]{2})").search


def normalize_path(path: bytes, *, strict: bool) -> bytes:
    """The path with encoded letters decoded and dot segments resolved.

    Raises `RemoteProtocolError` (``BadPath``) for a dot segment that only some readers would find: next to a
    backslash, to an encoded slash or before a ``;``; and for a ``%`` that encodes nothing beside an encoded letter.
    With ``strict`` for each of these signs, for an empty segment, for ``%00`` and for a ``%`` that encodes nothing.
    """
    decoded = _UNRESERVED.sub(_decoded, path)
    if decoded != path and (found := _ENCODES_NOTHING(path)) is not None:
        # what is decoded behind it could make an encoding of it: %2%65 becomes %2e
        raise RemoteProtocolError(f"a percent sign that encodes nothing in {path[:80]!r}", reason="BadPath")
    path = decoded
    if strict and (found := _STRICTLY_REFUSED(path)) is not None:
        raise RemoteProtocolError(f"{found[0]!r} in the path {path[:80]!r}", reason="BadPath")
    plain = _ODD_SEPARATOR.sub(b"/", path)
    if _DOT_SEGMENT_WITH_PARAMETER(plain) is not None:
        raise RemoteProtocolError(f"a dot segment with a parameter in {path[:80]!r}", reason="BadPath")
    if _DOT_SEGMENT(plain) is None:
        return path
    if plain != path:
        raise RemoteProtocolError(f"a hidden dot segment in {path[:80]!r}", reason="BadPath")
    return _without_dot_segments(path)


def normalize_target(target: bytes, *, strict: bool) -> bytes:
    """The same for a path with its query."""
    path, mark, query = target.partition(b"?")
    return normalize_path(path, strict=strict) + mark + query


def use_normalized_path(head: HasPath, *, strict: bool) -> bool:
    """Give a head its normalised path; tell whether that is another one. Raises as `normalize_path`."""
    before = head.path
    path = normalize_path(before, strict=strict)
    if path == before:
        return False
    head.path = path
    head.target = path + head.target[len(before) :]
    return True


def _decoded(encoded: re.Match[bytes]) -> bytes:
    return bytes([int(encoded[1], 16)])


def _without_dot_segments(path: bytes) -> bytes:
    """RFC 3986 section 5.2.4, for a path that begins with a slash."""
    kept: list[bytes] = []
    segments = path.split(b"/")[1:]
    for segment in segments:
        if segment == b"..":
            if kept:
                kept.pop()
        elif segment != b".":
            kept.append(segment)
    if segments[-1] in (b".", b".."):
        kept.append(b"")  # a directory stays one
    return b"/" + b"/".join(kept)
