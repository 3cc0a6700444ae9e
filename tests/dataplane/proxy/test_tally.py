"""Numbers that workers have together."""

from __future__ import annotations

from array import array

from lbproxy.dataplane.proxy.tally import Tally


def test_each_worker_counts_its_own_and_sees_all() -> None:
    cells = array("q", [9, 0, 0, 0, 9])
    one, other = Tally(cells, 1, 0, 3), Tally(cells, 1, 2, 3)
    one.add(2)
    other.add(3)
    other.add(-1)
    assert (one.own, other.own, one.total(), other.total()) == (2, 2, 4, 4)
    assert cells.tolist() == [9, 2, 0, 2, 9]


def test_a_worker_and_its_successor_have_one_cell() -> None:
    cells = array("q", [0, 0])
    draining, successor = Tally(cells, 0, 1, 2), Tally(cells, 0, 1, 2)
    draining.add(2)
    successor.add(1)
    draining.add(-2)
    assert (cells.tolist(), successor.total()) == ([0, 1], 1)


def test_other_cells_get_what_is_counted() -> None:
    cells = array("q", [0] * 6)
    tally = Tally(cells, 0, 1, 2)
    tally.add(3)
    tally.follow(2, 4)
    assert cells.tolist() == [0, 0, 0, 3, 0, 0]
    tally.follow(2, 1)
    assert (cells.tolist(), tally.total()) == ([0, 0, 0, 3, 0, 0], 0)
