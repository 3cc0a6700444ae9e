"""Changes of messages, made ready once for each configuration (`lbproxy.model.transform`).

What comes out is checked: a rewritten URL or host that is none is a failure of the transform, and no field gets a line
break, for neither the configuration nor what a parser let pass has one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import re2

from lbproxy.dataplane.router.request import RoutableRequest
from lbproxy.model.errors import InvalidModel
from lbproxy.model.transform import PLACEHOLDERS, ChangeKind, FieldChange, Rewrite, Transform
from lbproxy.wire.errors import RemoteProtocolError
from lbproxy.wire.http.fields import MAX_TARGET_BYTES, host_of

ValueOf = Callable[[bytes], bytes]
"""Gives what a placeholder, by its name, stands for."""

_PLACEHOLDER = re.compile(rb"#\{(%b)\}" % "|".join(PLACEHOLDERS).encode())
_GROUP = re.compile(rb"\$([0-9$])")
_ORIGIN_FORM = re.compile(rb"/[\x21\x22\x24-\x7e]*").fullmatch


class FieldChanges:
    """Set, added and removed fields."""

    __slots__ = ("_changes", "_fixed", "_removed", "_template")

    def __init__(self, changes: Sequence[FieldChange]) -> None:
        self._changes = changes
        removed: set[str] = set()
        lines: list[tuple[str, str]] = []
        for change in changes:
            name = change.name.lower()
            if change.kind is not ChangeKind.ADD:
                removed.add(name)
                lines = [line for line in lines if line[0] != name]
            if change.kind is not ChangeKind.REMOVE:
                lines.append((name, f"{change.name}: {change.value}\r\n"))
        self._removed = None
        if removed:
            names = b"|".join([re.escape(name).encode() for name in sorted(removed)])
            self._removed = re.compile(rb"^(?:%b):[^\n]*\n" % names, re.IGNORECASE | re.MULTILINE)
        self._fixed = b"".join([line.encode("latin-1") for _, line in lines])
        self._template = _PLACEHOLDER.search(self._fixed) is not None

    def apply(self, lines: bytes, value_of: ValueOf) -> bytes:
        """The field lines as they are sent on."""
        if self._removed is not None:
            lines = self._removed.sub(b"", lines)
        if self._template:
            return lines + _PLACEHOLDER.sub(lambda found: value_of(found[1]), self._fixed)
        return lines + self._fixed

    def describe(self) -> tuple[str, ...]:
        """The changes in words, in order."""
        return tuple(
            f"{change.kind.value} {change.name}" + f": {change.value}" * bool(change.value) for change in self._changes
        )


class Rewriter:
    """A regular expression and its replacement."""

    __slots__ = ("_pieces", "_search")

    def __init__(self, rewrite: Rewrite) -> None:
        options = re2.Options()
        options.encoding = re2.Options.Encoding.LATIN1
        options.log_errors = False
        try:
            compiled = re2.compile(rewrite.pattern.encode(), options)
        except re2.error as error:
            raise InvalidModel(
                "pattern", f"{rewrite.pattern!r} is not a regular expression that RE2 takes: {error}"
            ) from error
        self._search = compiled.search
        self._pieces = _split_replacement(rewrite.replacement, compiled.groups)

    def rewrite(self, text: bytes) -> bytes:
        """The text with what was found first replaced; the same where nothing is found."""
        found: Any = self._search(text)
        if found is None:
            return text
        start, end = found.span()
        pieces = [found.group(piece) or b"" if isinstance(piece, int) else piece for piece in self._pieces]
        return text[:start] + b"".join(pieces) + text[end:]


def _split_replacement(text: str, groups: int) -> list[bytes | int]:
    pieces: list[bytes | int] = []
    position = 0
    data = text.encode()
    for found in _GROUP.finditer(data):
        pieces.append(data[position : found.start()])
        position = found.end()
        if found[1] == b"$":
            pieces.append(b"$")
        elif int(found[1]) > groups:
            raise InvalidModel("replacement", f"{text!r} names group {int(found[1])}; there are {groups}")
        else:
            pieces.append(int(found[1]))
    pieces.append(data[position:])
    return pieces


class CompiledTransform:
    """A `Transform` ready for requests."""

    __slots__ = ("_host", "_url", "request", "response", "rewrites")

    def __init__(self, transform: Transform) -> None:
        self.request = FieldChanges(transform.request) if transform.request else None
        self.response = FieldChanges(transform.response) if transform.response else None
        self._url = None if transform.url is None else Rewriter(transform.url)
        self._host = None if transform.host is None else Rewriter(transform.host)
        self.rewrites = self._url is not None or self._host is not None
        """URL or host."""

    def rewrite_target(self, target: bytes) -> bytes:
        """Path and query as they are sent on.

        Raises `RemoteProtocolError` if they are none any more.
        """
        if self._url is None or not target.startswith(b"/"):
            return target
        rewritten = self._url.rewrite(target)
        if not _ORIGIN_FORM(rewritten) or len(rewritten) > MAX_TARGET_BYTES:
            raise RemoteProtocolError(f"rewritten to {rewritten[:80]!r}", reason="TransformFailed", status=500)
        return rewritten

    def rewrite_authority(self, authority: bytes) -> bytes:
        """Host and port as they are sent on; the port stays, unless the new host brings one.

        Raises `RemoteProtocolError` if that is no host any more.
        """
        if self._host is None or not authority:
            return authority
        try:
            host = host_of(authority)
            rewritten = self._host.rewrite(host)
            if rewritten == host:
                return authority
            new_host = host_of(rewritten)
        except RemoteProtocolError as error:
            raise RemoteProtocolError(str(error), reason="TransformFailed", status=500) from error
        return rewritten if len(new_host) < len(rewritten) else rewritten + authority[len(host) :]


def compile_transform(transform: Transform) -> CompiledTransform | None:
    """None for one that changes nothing."""
    return None if transform == Transform() else CompiledTransform(transform)


def is_preflight(request: RoutableRequest) -> bool:
    """Whether a browser asks ahead of a request to another origin (Fetch, "CORS-preflight request")."""
    return (
        request.method == b"OPTIONS"
        and bool(request.field_values(b"origin"))
        and bool(request.field_values(b"access-control-request-method"))
    )
