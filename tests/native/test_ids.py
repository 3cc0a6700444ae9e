"""Identifiers: of the right form, and none twice."""

from __future__ import annotations

import random
from typing import Any

import pytest

from lbproxy.native.ids import Identifiers
from lbproxy.native.pure.ids import Identifiers as PureIdentifiers

BOTH = list(dict.fromkeys((Identifiers, PureIdentifiers)))


@pytest.mark.parametrize("kind", BOTH)
def test_they_are_hexadecimal_and_differ(kind: Any) -> None:
    ids = kind(random.Random(1).getrandbits)
    made = [ids.next(b"1-") for _ in range(5000)]
    assert len(set(made)) == len(made)
    for one in made:
        assert one.startswith(b"1-")
        assert len(one) == 26
        assert not one[2:].translate(None, b"0123456789abcdef")
    for place in range(2, 26):
        assert len({one[place] for one in made}) == 16, f"digit {place} does not take every value"


@pytest.mark.parametrize("kind", BOTH)
def test_sources_that_differ_make_others(kind: Any) -> None:
    one, two = kind(random.Random(1).getrandbits), kind(random.Random(2).getrandbits)
    assert one.next(b"") != two.next(b"")


@pytest.mark.parametrize("kind", BOTH)
def test_a_source_of_nothing_but_zeros_does_not_stop_it(kind: Any) -> None:
    ids = kind(lambda bits: 0)
    assert len(ids.next(b"")) == 24
