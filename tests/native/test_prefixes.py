"""The longest entry that is a prefix of a text, in both builds as by looking at each of them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbproxy.native.prefixes import Prefixes
from lbproxy.native.pure.prefixes import Prefixes as PurePrefixes

BOTH: list[Any] = list(dict.fromkeys((Prefixes, PurePrefixes)))
texts = st.text("ab/\x00", max_size=6).map(str.encode) | st.binary(max_size=4)


@pytest.mark.parametrize("kind", BOTH)
@given(st.sets(texts, max_size=12), texts)
def test_as_by_looking_at_each(kind: Any, entries: set[bytes], text: bytes) -> None:
    prefixes = kind(entries)
    fitting = sorted((entry for entry in entries if text.startswith(entry)), key=len, reverse=True)
    found = []
    index = prefixes.longest(text)
    while index >= 0:
        found.append(prefixes.texts[index])
        index = prefixes.parents[index]
    assert found == fitting


@pytest.mark.parametrize("kind", BOTH)
def test_a_thousand(kind: Any) -> None:
    entries = [b"/p%04d/" % number for number in range(1000)]
    prefixes = kind([*entries, b"/", b"/p0500/x/"])
    for number in (0, 1, 499, 500, 998, 999):
        assert prefixes.texts[prefixes.longest(b"/p%04d/x" % number)] == b"/p%04d/" % number
    assert prefixes.texts[prefixes.longest(b"/p0500/x/y")] == b"/p0500/x/"
    assert prefixes.texts[prefixes.longest(b"/q")] == b"/"
    assert prefixes.longest(b"") == prefixes.longest(b"q") == -1


@pytest.mark.parametrize("kind", BOTH)
def test_what_is_no_text_is_an_error(kind: Any) -> None:
    with pytest.raises(TypeError):
        kind([b"a"]).longest(None)
    with pytest.raises((TypeError, AttributeError)):
        kind(["a"]).longest(b"a")
