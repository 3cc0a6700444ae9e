"""Tables of fixed size in the memory that all workers share, found by hash.

They lie behind the cells (`lbproxy.ipc.cells`) and hold what depends on clients, of whom there may be any number.
Keys are hashed with a secret, so that nobody can choose addresses that fall together with another's.  Memory
that nobody has written to costs nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from hashlib import blake2b

SLOTS = 64

CENSUS_WIDTH = 16384
"""Counters in a row.  Of 1,000 clients in a slot about four share both their counters, and seem to have more."""
_CENSUS_ROWS = 2
_CENSUS_SLOT = _CENSUS_ROWS * CENSUS_WIDTH

BUCKET_SETS = 16384
BUCKET_WAYS = 4

_SECRET_BYTES = 16
_CENSUS_BYTES = SLOTS * _CENSUS_SLOT * 4
_BUCKET_BYTES = BUCKET_SETS * BUCKET_WAYS * 16
TABLE_BYTES = _SECRET_BYTES + _CENSUS_BYTES + _BUCKET_BYTES

Hash = Callable[[bytes], int]


class SharedTables:
    """The tables in ``memory``, which has `TABLE_BYTES`; `create` makes memory of this process alone."""

    def __init__(self, memory: memoryview) -> None:
        self._memory = memory
        secret = bytes(memory[:_SECRET_BYTES])

        def number(key: bytes) -> int:
            digest = blake2b(key, digest_size=8, key=secret).digest()
            return int.from_bytes(digest, "little") >> 1 or 1

        census_end = _SECRET_BYTES + _CENSUS_BYTES
        self.census = CensusTable(memory[_SECRET_BYTES:census_end].cast("i"), number)
        self.buckets = BucketTable(memory[census_end:].cast("q"), number)

    @classmethod
    def create(cls) -> SharedTables:
        """Tables that are shared with nobody."""
        memory = memoryview(bytearray(TABLE_BYTES))
        choose_secret(memory)
        return cls(memory)

    def zero_slot(self, slot: int) -> None:
        """Forget what a dead worker counted."""
        start = _SECRET_BYTES + slot * _CENSUS_SLOT * 4
        self._memory[start : start + _CENSUS_SLOT * 4] = bytes(_CENSUS_SLOT * 4)

    def release(self) -> None:
        """Let go of the memory; the tables cannot be used any more."""
        self.census.view.release()
        self.buckets.view.release()
        self._memory.release()


def choose_secret(memory: memoryview) -> None:
    """Give fresh memory its secret; whoever makes it does so, once."""
    memory[:_SECRET_BYTES] = os.urandom(_SECRET_BYTES)


class CensusTable:
    """Counts by worker slot and key: a count-min sketch for each slot.

    A slot's worker alone writes its counters, so a dead worker's can be zeroed and the others' remain right.
    A count is never less than it should be, and hardly ever more.
    """

    def __init__(self, view: memoryview, number: Hash) -> None:
        self.view = view
        """Signed 32-bit integers, by slot, row and column."""
        self._number = number

    def place(self, key: bytes) -> tuple[int, int]:
        """Where a key is counted; the same in all workers."""
        number = self._number(key)
        return number % CENSUS_WIDTH, CENSUS_WIDTH + number // CENSUS_WIDTH % CENSUS_WIDTH

    def add(self, slot: int, place: tuple[int, int], count: int) -> None:
        """Count so many more, or fewer, of the key at this place."""
        start = slot * _CENSUS_SLOT
        for column in place:
            self.view[start + column] += count

    def elsewhere(self, slot: int, slots: int, place: tuple[int, int]) -> int:
        """Count what the slots below ``slots`` have of the key at this place, but for ``slot``."""
        view = self.view
        first, second = place
        total = 0
        for other in range(slots):
            if other != slot:
                start = other * _CENSUS_SLOT
                total += max(0, min(view[start + first], view[start + second]))
        return total


class BucketTable:
    """Token buckets by key, each the time at which it will be full again (the generic cell rate algorithm).

    Sets of `BUCKET_WAYS`: a new key takes the place of the bucket in its set that has been full for longest, which
    loses nothing; only where more than so many keys of a set are busy at once is one of them forgotten, and lets more
    through than it should.  So does a race of two workers for the last token of a bucket.
    """

    def __init__(self, view: memoryview, number: Hash) -> None:
        self.view = view
        """Signed 64-bit integers, by set and way: the key's number, 0 for none, and the time in nanoseconds."""
        self._number = number

    def take(self, key: bytes, now: int, interval: int, tolerance: int) -> int:
        """Take a token; give 0, or the nanoseconds to wait until there is one.

        A token comes each ``interval``; a full bucket has ``tolerance`` / ``interval`` + 1 of them.
        """
        view = self.view
        tag = self._number(key)
        start = tag % BUCKET_SETS * (2 * BUCKET_WAYS)
        place, full_at = start, view[start + 1]
        for index in range(start, start + 2 * BUCKET_WAYS, 2):
            at = view[index + 1]
            if view[index] == tag:
                place, full_at = index, at
                break
            if at < full_at:
                place, full_at = index, at
        else:
            view[place] = tag
            view[place + 1] = full_at = 0
        if full_at < now:
            full_at = now
        elif full_at - now > tolerance:
            return full_at - now - tolerance
        view[place + 1] = full_at + interval
        return 0
