"""Finds the texts of a set that are prefixes of another, in O(log n)."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable


class Prefixes:
    """A set of texts, sorted.

    Sorted, every prefix of a text lies on one chain: the last entry that is not greater than the text, the
    longest entry that is a prefix of that one, and so on.  So one binary search finds the chain's
    end, however many different lengths the prefixes have.
    """

    __slots__ = ("parents", "texts")

    def __init__(self, texts: Iterable[bytes]) -> None:
        self.texts = sorted(texts)
        self.parents: list[int] = []
        """For each of them the index of the longest other one that is a prefix of it, -1 for none."""
        chain: list[int] = []
        for index, text in enumerate(self.texts):
            while chain and not text.startswith(self.texts[chain[-1]]):
                chain.pop()
            self.parents.append(chain[-1] if chain else -1)
            chain.append(index)

    def longest(self, text: bytes) -> int:
        """The index of the longest entry that is a prefix of ``text``, -1 for none; its parents are the others."""
        index = bisect_right(self.texts, text) - 1
        while index >= 0 and not text.startswith(self.texts[index]):
            index = self.parents[index]
        return index
