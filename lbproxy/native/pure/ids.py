"""Identifiers that are unlikely to repeat, though not secret."""

from __future__ import annotations

from collections.abc import Callable

DIGITS = 24


class Identifiers:
    """Makes identifiers of 24 hexadecimal digits from a source of random bits, such as ``random.getrandbits``."""

    __slots__ = ("_bits",)

    def __init__(self, bits: Callable[[int], int]) -> None:
        self._bits = bits

    def next(self, prefix: bytes) -> bytes:
        """A new one, after ``prefix``."""
        return b"%b%024x" % (prefix, self._bits(4 * DIGITS))
