"""Tables that workers share: what one writes the others read, and a dead one's counts go."""

from __future__ import annotations

import os

from lbproxy.ipc.cells import CELL_BYTES, SLOT_LIMIT, CellAllocator, SharedCells
from lbproxy.ipc.tables import BUCKET_SETS, BUCKET_WAYS, CENSUS_WIDTH, SharedTables


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


# Buckets


def test_a_full_bucket_has_its_burst_and_then_a_token_each_interval() -> None:
    take = SharedTables.create().buckets.take
    now = 10**12
    assert [take(b"key", now, 100, 200) for _ in range(4)] == [0, 0, 0, 100]
    assert take(b"key", now + 60, 100, 200) == 40
    assert take(b"key", now + 100, 100, 200) == 0
    assert take(b"key", now + 101, 100, 200) == 99
    assert [take(b"key", now + 10_000, 100, 200) for _ in range(4)] == [0, 0, 0, 100], "it holds no more than the burst"


def test_a_refusal_costs_no_token() -> None:
    take = SharedTables.create().buckets.take
    assert take(b"key", 1000, 100, 0) == 0
    assert {take(b"key", 1000, 100, 0) for _ in range(50)} == {100}
    assert take(b"key", 1100, 100, 0) == 0


def test_keys_have_buckets_of_their_own_and_workers_share_them() -> None:
    cells = SharedCells.create(4 * SLOT_LIMIT * CELL_BYTES)
    other = SharedCells.attach(os.dup(cells.fd))
    assert cells.tables.buckets.take(b"one", 1000, 100, 0) == 0
    assert other.tables.buckets.take(b"one", 1000, 100, 0) == 100
    assert other.tables.buckets.take(b"two", 1000, 100, 0) == 0
    assert cells.tables.buckets.take(b"two", 1000, 100, 0) == 100
    other.close()
    cells.close()


def test_any_number_of_keys_fits_and_the_busy_ones_stay() -> None:
    buckets = SharedTables.create().buckets
    now, second = 10**12, 10**9
    assert [buckets.take(b"busy", now, second, second) for _ in range(3)] == [0, 0, second]
    for number in range(2 * BUCKET_SETS * BUCKET_WAYS):
        buckets.take(number.to_bytes(4, "big"), now, 1, 10)
    assert buckets.take(b"busy", now, second, second) == second
