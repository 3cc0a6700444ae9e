"""Ways to cut bytes into pieces, since a codec must read any split of its input alike."""

from __future__ import annotations

from collections.abc import Iterator


def prefixes(data: bytes) -> Iterator[bytes]:
    """Every proper prefix, from the empty one on: what a reader that keeps the whole input gets to see."""
    for length in range(len(data)):
        yield data[:length]


def splits(data: bytes) -> Iterator[list[bytes]]:
    """The whole, every cut in two, and one byte after the other: what a reader that is fed pieces gets."""
    yield [data]
    for cut in range(1, len(data)):
        yield [data[:cut], data[cut:]]
    if len(data) > 2:
        yield [data[at : at + 1] for at in range(len(data))]
