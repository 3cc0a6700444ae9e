"""Tables that workers share: what one writes the others read, and a dead one's counts go."""

from __future__ import annotations

import os

from lbproxy.ipc.cells import CELL_BYTES, SLOT_LIMIT, CellAllocator, SharedCells
from lbproxy.ipc.tables import CENSUS_WIDTH, SharedTables


def test_a_count_is_seen_by_the_other_slots_only() -> None:
    census = SharedTables.create().census
    place = census.place(b"client")
    census.add(0, place, 3)
    census.add(2, place, 1)
    assert [census.elsewhere(slot, 4, place) for slot in range(4)] == [1, 4, 3, 4]
    assert census.elsewhere(0, 2, place) == 0, "slot 2 is not in use"
    census.add(0, place, -3)
    assert census.elsewhere(1, 4, place) == 1


def test_one_column_shared_with_another_key_does_no_harm() -> None:
    census = SharedTables.create().census
    first, second = census.place(b"client")
    census.add(0, (first, CENSUS_WIDTH + (second + 1) % CENSUS_WIDTH), 50)
    assert census.elsewhere(1, 2, (first, second)) == 0


def test_a_count_below_zero_is_none() -> None:
    """What a dead worker's successor meets when the old one's last words came late."""
    census = SharedTables.create().census
    place = census.place(b"client")
    census.add(0, place, -2)
    assert census.elsewhere(1, 2, place) == 0


def test_keys_spread_over_the_table() -> None:
    census = SharedTables.create().census
    places = {census.place(number.to_bytes(4, "big")) for number in range(1000)}
    assert len(places) >= 995
    assert all(0 <= first < CENSUS_WIDTH <= second < 2 * CENSUS_WIDTH for first, second in places)


def test_the_tables_are_behind_the_cells_of_every_process() -> None:
    cells = SharedCells.create(4 * SLOT_LIMIT * CELL_BYTES)
    attached = SharedCells.attach(os.dup(cells.fd))
    place = cells.tables.census.place(b"client")
    assert attached.tables.census.place(b"client") == place, "the secret is shared"
    attached.tables.census.add(1, place, 2)
    assert cells.tables.census.elsewhere(0, 2, place) == 2
    assert not any(cells.view), "and apart from the cells"
    attached.close()
    cells.close()
    cells.close()


def test_each_array_has_a_secret_of_its_own() -> None:
    places = {SharedTables.create().census.place(b"client") for _ in range(3)}
    assert len(places) == 3


def test_a_dead_worker_s_counts_go_and_the_others_stay() -> None:
    cells = SharedCells.create(4 * SLOT_LIMIT * CELL_BYTES)
    census = cells.tables.census
    place = census.place(b"client")
    for slot in range(3):
        census.add(slot, place, 5)
    CellAllocator(cells).zero_slot(1)
    assert census.elsewhere(63, 3, place) == 10
    assert census.elsewhere(0, 2, place) == 0
    cells.close()
