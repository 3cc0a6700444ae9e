"""Wildcards and regular expressions."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbproxy.dataplane.router.patterns import any_of, compile_pattern
from lbproxy.model.errors import InvalidModel
from lbproxy.model.rule import Pattern


def matches(pattern: str, text: bytes, *, ignore_case: bool = False, escapes: bool = False) -> bool:
    return compile_pattern(Pattern(pattern), ignore_case=ignore_case, escapes=escapes)(text)


@pytest.mark.parametrize(
    ("pattern", "text", "expected"),
    [
        ("/a", b"/a", True),
        ("/a", b"/ab", False),
        ("/a", b"/A", False),
        ("", b"", True),
        ("", b"x", False),
        ("*", b"", True),
        ("*", b"/any/thing.at?all", True),
        ("/api/*", b"/api/", True),
        ("/api/*", b"/api/v1/x.y", True),  # a star takes / and .
        ("/api/*", b"/api", False),
        ("*.example.com", b"test.example.com", True),
        ("*.example.com", b"a.b.example.com", True),
        ("*.example.com", b"example.com", False),
        ("a*a", b"a", False),  # head and tail may not share a character
        ("a*a", b"aa", True),
        ("a?c", b"abc", True),
        ("a?c", b"ac", False),
        ("a?c", b"a\nc", True),
        ("??", b"ab", True),
        ("??", b"abc", False),
        ("*?", b"", False),
        ("*?", b"a", True),
        ("?*", b"a", True),
        ("/*/b/*", b"/a/b/c", True),
        ("/*/b/*", b"/a/c/b", False),
        ("*b*b*", b"abab", True),
        ("*b*b*", b"aba", False),
        ("*a?c*", b"zzabczz", True),
        ("*a?c*d", b"aXcaXcd", True),
        ("ab*bc", b"abc", False),
        ("(a+)*", b"(a+)x", True),  # nothing else is special
        ("[ab]", b"a", False),
        ("a\\*", b"a\\x", True),  # no escapes unless asked for
    ],
)
def test_wildcards_match_the_whole_text(pattern: str, text: bytes, expected: bool) -> None:
    assert matches(pattern, text) is expected


@pytest.mark.parametrize(
    ("pattern", "text", "expected"),
    [
        ("a\\*", b"a*", True),
        ("a\\*", b"ax", False),
        ("a\\?b", b"a?b", True),
        ("a\\?b", b"axb", False),
        ("a\\\\*", b"a\\xyz", True),
        ("\\a", b"a", True),
        ("a\\", b"a\\", True),  # nothing left to escape: itself
    ],
)
def test_backslash_escapes_where_asked_for(pattern: str, text: bytes, expected: bool) -> None:
    assert matches(pattern, text, escapes=True) is expected


def test_letter_case_is_ignored_in_the_pattern_when_asked_for() -> None:
    assert matches("ACME*", b"acme corp", ignore_case=True)
    assert not matches("ACME*", b"acme corp")


@pytest.mark.parametrize(
    ("pattern", "text", "ignore_case", "expected"),
    [
        ("v[12]", b"/api/v1/x", False, True),  # anywhere in the text
        ("^v[12]", b"/api/v1/x", False, False),
        ("^/api/v[12]/x$", b"/api/v1/x", False, True),
        ("ACME", b"acme", False, False),
        ("ACME", b"acme", True, True),
        ("^.$", b"\xff", False, True),  # a byte is a character, whatever the encoding
    ],
)
def test_regular_expressions_search(pattern: str, text: bytes, ignore_case: bool, expected: bool) -> None:
    assert compile_pattern(Pattern(pattern, is_regex=True), ignore_case=ignore_case)(text) is expected


@pytest.mark.parametrize("pattern", ["(", r"(a)\1", "(?=a)", "a(?<!b)"])
def test_regular_expression_that_re2_does_not_take_is_refused(pattern: str) -> None:
    with pytest.raises(InvalidModel, match="RE2"):
        compile_pattern(Pattern(pattern, is_regex=True), ignore_case=False)


def test_any_of_no_pattern_matches_nothing() -> None:
    assert not any_of([])(b"")


def _reference(pattern: str, text: str) -> bool:
    """Wildcard matching by the definition, row by row."""
    row = [True] + [False] * len(text)
    for character in pattern:
        if character == "*":
            for i in range(1, len(row)):
                row[i] = row[i] or row[i - 1]
        else:
            row = [False] + [row[i] and (character in ("?", text[i])) for i in range(len(text))]
    return row[-1]


@given(st.text("ab?*", max_size=10), st.text("ab", max_size=12))
def test_wildcards_agree_with_the_definition(pattern: str, text: str) -> None:
    assert matches(pattern, text.encode()) is _reference(pattern, text)


@given(st.text("aB?*\\", max_size=8), st.text("aB*?\\", max_size=8))
def test_an_escaped_text_matches_itself_and_nothing_else(pattern: str, text: str) -> None:
    escaped = "".join(f"\\{character}" for character in pattern)
    assert matches(escaped, text.encode(), escapes=True) is (pattern == text)


@pytest.mark.parametrize("pattern", ["*a*a*a*a*b", "*a?*a?*a?*a?*b", "*" + "a*" * 60 + "b"])
def test_no_pattern_backtracks(pattern: str) -> None:
    """A matcher that backtracks would be busy for years with these."""
    match = compile_pattern(Pattern(pattern), ignore_case=False)
    text = b"a" * 16384
    started = time.process_time()
    assert not match(text)
    assert not match(text + b"c")
    assert match(text + b"b")
    assert time.process_time() - started < 0.5
