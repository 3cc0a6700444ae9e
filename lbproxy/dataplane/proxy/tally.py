"""How many of something all workers have together, in memory that they share: each changes its own cell.

A worker that drains has the same cell as its successor, so what is written there is a change and not the number.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lbproxy.dataplane.balancer.base import Cells


class Tally:
    """One worker's part of such a number, ``own``, and the whole."""

    __slots__ = ("_cells", "_first", "_slot", "_slots", "own")

    def __init__(self, cells: Cells, first: int, slot: int, slots: int) -> None:
        """``first`` is the cell of slot 0; this worker has ``slot``, and the first ``slots`` count."""
        self.own = 0
        self._slot = slot
        self._cells = cells
        self._first = first
        self._slots = slots

    def follow(self, first: int, slots: int) -> None:
        """Go on in these cells."""
        self._cells[self._first + self._slot] -= self.own
        self._cells[first + self._slot] += self.own
        self._first, self._slots = first, slots

    def add(self, change: int) -> None:
        """Count these more, or fewer, of one's own."""
        self.own += change
        self._cells[self._first + self._slot] += change

    def total(self) -> int:
        """All workers' together."""
        return sum(self._cells[self._first : self._first + self._slots])
