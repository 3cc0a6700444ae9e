"""Shared cells and who gets which."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from lbproxy.ipc.cells import CELL_BYTES, GROUP_CELLS, SLOT_LIMIT, CellAllocator, CellsExhausted, SharedCells


@pytest.fixture
def cells() -> Iterator[SharedCells]:
    shared = SharedCells.create(4 * SLOT_LIMIT * CELL_BYTES)
    yield shared
    shared.close()


def test_what_one_mapping_writes_the_other_reads(cells: SharedCells) -> None:
    attached = SharedCells.attach(os.dup(cells.fd))
    attached.view[7] = -3

    assert cells.view[7] == -3
    assert len(attached) == len(cells)
    attached.close()


def test_descriptor_is_not_inherited_by_accident(cells: SharedCells) -> None:
    assert not os.get_inheritable(cells.fd)


def test_closing_twice_is_harmless() -> None:
    shared = SharedCells.create(4096)
    shared.close()
    shared.close()


def test_a_key_keeps_its_run(cells: SharedCells) -> None:
    allocator = CellAllocator(cells)

    first = allocator.run("a")

    assert allocator.run("b") == first + SLOT_LIMIT
    assert allocator.run("a") == first


def test_a_key_cannot_change_its_length(cells: SharedCells) -> None:
    allocator = CellAllocator(cells)
    allocator.run("a", 1)

    with pytest.raises(ValueError, match="has a run of 1 cells, not 2"):
        allocator.run("a", 2)


def test_fresh_memory_is_used_before_freed_runs_and_those_in_order(cells: SharedCells) -> None:
    allocator = CellAllocator(cells)
    runs = [allocator.run(name) for name in "abc"]
    allocator.free("b")
    allocator.free("a")

    assert allocator.run("d") == runs[2] + SLOT_LIMIT
    assert allocator.run("e") == runs[1]
    assert allocator.run("f") == runs[0]


def test_a_late_write_to_a_freed_run_does_not_reach_its_next_owner(cells: SharedCells) -> None:
    allocator = CellAllocator(cells)
    indexes = {name: allocator.run(name) for name in "abcd"}
    allocator.free("a")
    cells.view[indexes["a"] + 3] = -1

    index = allocator.run("e")

    assert index == indexes["a"]
    assert not any(cells.view[index : index + SLOT_LIMIT])


def test_exhaustion_says_what_is_full(cells: SharedCells) -> None:
    allocator = CellAllocator(cells)
    for name in "abcd":
        allocator.run(name)

    with pytest.raises(CellsExhausted, match="no room for 64 more shared cells: all 256"):
        allocator.run("e")


def test_a_dead_workers_cells_are_zeroed_and_only_those(cells: SharedCells) -> None:
    allocator = CellAllocator(cells)
    position = allocator.run("group", 1)
    run = allocator.run("target")
    group = allocator.run("its group", GROUP_CELLS)
    waiting, retrying = group + 1, group + 1 + SLOT_LIMIT
    cells.view[position] = cells.view[group] = 5
    for first in (run, waiting, retrying):
        cells.view[first + 1] = cells.view[first + 2] = 9

    assert allocator.zero_slot(1) == 9

    assert (cells.view[position], cells.view[group]) == (5, 5)
    for first in (run, waiting, retrying):
        assert (cells.view[first + 1], cells.view[first + 2]) == (0, 9)


def test_freeing_an_unknown_key_is_ignored(cells: SharedCells) -> None:
    CellAllocator(cells).free("nobody")


def test_zeroing_a_slot_tells_what_it_had_in_flight(cells: SharedCells) -> None:
    allocator = CellAllocator(cells)
    for key, count in (("a", 3), ("b", 2), ("c", -1)):
        cells.view[allocator.run(key) + 5] = count
    assert allocator.zero_slot(5) == 5
    assert allocator.zero_slot(5) == 0
