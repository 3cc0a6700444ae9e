from __future__ import annotations

from lbproxy.testing.splits import prefixes, splits


def test_prefixes_are_all_but_the_whole() -> None:
    assert list(prefixes(b"abc")) == [b"", b"a", b"ab"]


def test_splits_are_the_whole_each_cut_and_single_bytes() -> None:
    assert list(splits(b"abc")) == [[b"abc"], [b"a", b"bc"], [b"ab", b"c"], [b"a", b"b", b"c"]]


def test_splits_of_little_are_not_repeated() -> None:
    assert list(splits(b"")) == [[b""]]
    assert list(splits(b"ab")) == [[b"ab"], [b"a", b"b"]]
