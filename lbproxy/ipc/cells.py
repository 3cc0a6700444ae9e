"""Counters that all workers share: an array of 64-bit integers in a memfd.

The supervisor makes the array and allocates *runs* of cells in it; each worker maps it by the
descriptor that came with `Welcome` and writes only its own cell of a target's run, so no lock
is needed.  What the cells mean is in docs/architecture.md, "Shared cells".
"""

from __future__ import annotations

import mmap
import os
import tempfile
from collections import deque
from collections.abc import Hashable

from lbproxy.ipc.tables import SLOTS, TABLE_BYTES, SharedTables, choose_secret

SLOT_LIMIT = SLOTS
"""Cells in a target's run, and so the most workers there can be."""

GROUP_CELLS = 1 + 2 * SLOT_LIMIT
"""Cells in a group's run: its place in the rotation, then by slot the requests that wait, then retries under way."""

CELL_BYTES = 8

DEFAULT_BYTES = 8 << 20
"""Room for some 16,000 targets.  The memory is sparse: a page costs nothing until it is written."""


class CellsExhausted(RuntimeError):
    """No run of this length is left."""

    def __init__(self, length: int, capacity: int) -> None:
        super().__init__(
            f"no room for {length} more shared cells: all {capacity} are in use "
            f"(one run of {SLOT_LIMIT} for each target of each group)"
        )


class SharedCells:
    """The array itself; ``view`` is a memoryview of signed 64-bit integers, ``tables`` are what lies behind it.

    Owns the descriptor ``fd``; `close` ends the mapping and closes it.
    """

    def __init__(self, fd: int) -> None:
        """Map the memory behind ``fd``, which this object owns from now on."""
        self.fd = fd
        self._map = mmap.mmap(fd, os.fstat(fd).st_size)
        with memoryview(self._map) as memory:
            self.view = memory[:-TABLE_BYTES].cast("q")
            self.tables = SharedTables(memory[-TABLE_BYTES:])

    @classmethod
    def create(cls, size_bytes: int = DEFAULT_BYTES) -> SharedCells:
        """Make a new array of this size, all zero, and its tables."""
        fd = _anonymous_file()
        os.ftruncate(fd, size_bytes + TABLE_BYTES)
        with mmap.mmap(fd, 0) as memory, memoryview(memory) as view, view[size_bytes:] as tables:
            choose_secret(tables)
        return cls(fd)

    @classmethod
    def attach(cls, fd: int) -> SharedCells:
        """Map an array that another process made; takes over ``fd``."""
        return cls(fd)

    def __len__(self) -> int:
        """Give the number of cells."""
        return len(self.view)

    def close(self) -> None:
        """End the mapping; ``view`` cannot be used any more.  May be called again."""
        if self.fd < 0:
            return
        self.view.release()
        self.tables.release()
        self._map.close()
        os.close(self.fd)
        self.fd = -1


class CellAllocator:
    """Which run of cells belongs to what; the supervisor's side only.

    A key keeps its run until it is freed.  Freed runs are used again in the order in which they
    were freed and only when no fresh memory is left, so that a worker that still finishes a request by
    an old snapshot hardly ever meets a new owner.
    """

    def __init__(self, cells: SharedCells) -> None:
        self._cells = cells
        self._runs: dict[Hashable, tuple[int, int]] = {}
        self._free: dict[int, deque[int]] = {}
        self._fresh = 0

    def run(self, key: Hashable, length: int = SLOT_LIMIT) -> int:
        """Give the index of the first cell of this key's run, zeroed when it is new.

        Raises `CellsExhausted`, and ValueError for a key that has a run of another length.
        """
        known = self._runs.get(key)
        if known is not None:
            index, known_length = known
            if known_length != length:
                raise ValueError(f"{key!r} has a run of {known_length} cells, not {length}")
            return index
        index = self._take(length)
        self._zero(index, length)
        self._runs[key] = index, length
        return index

    def free(self, key: Hashable) -> None:
        """Give a key's run back, zeroed.  An unknown key is ignored."""
        known = self._runs.pop(key, None)
        if known is None:
            return
        index, length = known
        self._zero(index, length)
        self._free.setdefault(length, deque()).append(index)

    def zero_slot(self, slot: int) -> int:
        """Zero one worker's cells in every target's and group's run: what a dead worker had in flight is over.

        Gives how much that was, by the runs of the targets.
        """
        view = self._cells.view
        in_flight = 0
        for index, length in self._runs.values():
            if length == SLOT_LIMIT:
                in_flight += max(0, view[index + slot])
                view[index + slot] = 0
            elif length == GROUP_CELLS:
                view[index + 1 + slot] = view[index + 1 + SLOT_LIMIT + slot] = 0
        self._cells.tables.zero_slot(slot)
        return in_flight

    def _take(self, length: int) -> int:
        if self._fresh + length <= len(self._cells):
            index = self._fresh
            self._fresh += length
            return index
        freed = self._free.get(length)
        if not freed:
            raise CellsExhausted(length, len(self._cells))
        return freed.popleft()

    def _zero(self, index: int, length: int) -> None:
        for cell in range(index, index + length):
            self._cells.view[cell] = 0


def _anonymous_file() -> int:
    """Open a file without a name, close-on-exec."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("lbproxy-cells", os.MFD_CLOEXEC)
    with tempfile.TemporaryFile(prefix="lbproxy-cells-") as file:
        return os.dup(file.fileno())
