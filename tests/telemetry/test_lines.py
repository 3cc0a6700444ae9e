"""Both classes that gather lines gather the same."""

from __future__ import annotations

from typing import Any

import pytest

from lbproxy.telemetry.lines import Lines, PureLines
from tests.telemetry.test_formats import Http

BOTH = list(dict.fromkeys((Lines, PureLines)))


@pytest.mark.parametrize("kind", BOTH)
def test_lines_are_taken_together_and_once(kind: Any) -> None:
    lines = kind()
    lines.append("one\n")
    lines.append("two\n")
    assert (lines.count, lines.size) == (2, 8)
    assert lines.take() == b"one\ntwo\n"
    assert (lines.count, lines.size) == (0, 0)
    assert lines.take() == b""


@pytest.mark.parametrize("user_agent", [b"curl", b'with "quotes"', b"x" * 30_000])
def test_many_requests_make_the_lines_of_each(user_agent: bytes) -> None:
    lines, pure = Lines(), PureLines()
    for priority in range(500):
        record = Http(priority=priority, user_agent=user_agent)
        lines.append_http_json(record)
        pure.append_http_json(record)
    assert (lines.count, lines.size) == (pure.count, pure.size)
    assert lines.take() == pure.take()


@pytest.mark.parametrize("kind", BOTH)
def test_only_ascii_is_taken(kind: Any) -> None:
    lines = kind()
    with pytest.raises(UnicodeEncodeError):
        lines.append("\u00e9\n")
        lines.take()
