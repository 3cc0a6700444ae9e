"""Patterns of conditions, made into functions that run in time linear in the text.

Wildcards are matched piece by piece: the text between two stars is looked for from left to
right and the first find is kept, which is always right because a star takes anything in
between.  So no pattern of an operator and no path of a client can make matching backtrack.
Regular expressions go to RE2 for the same reason.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import attrs
import re2

from lbproxy.model.errors import InvalidModel
from lbproxy.model.rule import Pattern

Matcher = Callable[[bytes], bool]


@attrs.frozen
class Piece:
    """What a wildcard pattern has between two stars: text of a fixed length, perhaps with ``?`` in it."""

    text: bytes
    """The characters, escapes resolved, with any ``?`` as it is."""
    holes: re.Pattern[bytes] | None
    """The same for ``re`` if there is a ``?`` in it: no quantifiers, so nothing to backtrack into."""

    def is_at(self, text: bytes, position: int) -> bool:
        """Tell whether this piece stands at ``position`` of ``text``."""
        if self.holes is not None:
            return self.holes.match(text, position) is not None
        return text.startswith(self.text, position)

    def find(self, text: bytes, start: int, end: int) -> int:
        """The first place in ``text[start:end]`` that holds this piece, or -1."""
        if self.holes is None:
            return text.find(self.text, start, end)
        found = self.holes.search(text, start, end)
        return -1 if found is None else found.start()


def split_wildcard(text: bytes, *, escapes: bool) -> list[Piece]:
    """Cut a wildcard pattern at its stars; without one there is a single piece.

    ``escapes`` gives the backslash its meaning: the next character is itself.
    """
    pieces: list[list[bytes | None]] = [[]]  # characters, None for any one
    characters = iter(text[i : i + 1] for i in range(len(text)))
    for character in characters:
        if character == b"*":
            pieces.append([])
        elif character == b"?":
            pieces[-1].append(None)
        elif character == b"\\" and escapes:
            pieces[-1].append(next(characters, character))
        else:
            pieces[-1].append(character)
    return [_piece(piece) for piece in pieces]


def _piece(characters: Sequence[bytes | None]) -> Piece:
    text = b"".join(character or b"?" for character in characters)
    if None not in characters:
        return Piece(text, None)
    regex = b"".join(b"." if character is None else re.escape(character) for character in characters)
    return Piece(text, re.compile(regex, re.DOTALL))


def compile_pattern(pattern: Pattern, *, ignore_case: bool, escapes: bool = False) -> Matcher:
    """A function that tells whether a text matches.

    With ``ignore_case`` the text must come in lower case (ASCII letters are folded, no others).
    Raises `InvalidModel` for a regular expression that RE2 does not take.
    """
    if pattern.is_regex:
        return _compile_regex(pattern.text, ignore_case)
    text = pattern.text.encode()
    pieces = split_wildcard(text.lower() if ignore_case else text, escapes=escapes)
    head = pieces[0]
    if len(pieces) == 1 and head.holes is None:
        return head.text.__eq__
    if len(pieces) == 2 and head.holes is None and pieces[1].holes is None:
        return _head_and_tail(head.text, pieces[1].text)
    return _piecewise(pieces)


def any_of(matchers: Sequence[Matcher]) -> Matcher:
    """A function that tells whether a text matches one of several patterns."""
    if len(matchers) == 1:
        return matchers[0]

    def matches(text: bytes) -> bool:
        for matcher in matchers:  # noqa: SIM110 (any() with a generator costs twice as much)
            if matcher(text):
                return True
        return False

    return matches


def _head_and_tail(head: bytes, tail: bytes) -> Matcher:
    if not tail:
        return lambda text: text.startswith(head)
    if not head:
        return lambda text: text.endswith(tail)
    shortest = len(head) + len(tail)
    return lambda text: len(text) >= shortest and text.startswith(head) and text.endswith(tail)


def _piecewise(pieces: Sequence[Piece]) -> Matcher:
    head, tail = pieces[0], pieces[-1]
    middle = pieces[1:-1]
    head_length, tail_length = len(head.text), len(tail.text)
    shortest = sum(len(piece.text) for piece in pieces)
    has_star = len(pieces) > 1

    def matches(text: bytes) -> bool:
        length = len(text)
        if not has_star:
            return length == head_length and head.is_at(text, 0)
        end = length - tail_length
        if length < shortest or not head.is_at(text, 0) or not tail.is_at(text, end):
            return False
        position = head_length
        for piece in middle:
            position = piece.find(text, position, end)
            if position < 0:
                return False
            position += len(piece.text)
        return True

    return matches


def _compile_regex(text: str, ignore_case: bool) -> Matcher:
    options = re2.Options()
    # Wire data is bytes of no certain encoding: each byte is one character.
    options.encoding = re2.Options.Encoding.LATIN1
    options.case_sensitive = not ignore_case
    options.never_capture = True
    options.log_errors = False
    try:
        search = re2.compile(text.encode(), options).search
    except re2.error as error:
        raise InvalidModel("pattern", f"{text!r} is not a regular expression that RE2 takes: {error}") from error
    return lambda subject: search(subject) is not None
