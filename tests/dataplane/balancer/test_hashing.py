"""Hashing: who gets which key, how few keys move, and how loads are bounded."""

from __future__ import annotations

from collections import Counter
from itertools import islice

import pytest

from lbproxy.dataplane.balancer import Balancer
from lbproxy.dataplane.balancer.hashkey import key_function
from lbproxy.dataplane.router.request import PlainRequest
from lbproxy.model.snapshot import GroupState
from lbproxy.model.target_group import HashKey, HashPart

from .states import SOURCE, balancer, cells_for, number_of, target, weighted

HASHING = ("maglev", "rendezvous")
both = pytest.mark.parametrize("algorithm", HASHING)
KEYS = 4000


def owners(found: Balancer, keys: int = KEYS) -> list[int | None]:
    return [number_of(found.pick(None, f"192.0.2.{number}")) for number in range(keys)]


@both
def test_the_same_key_goes_to_the_same_target_in_every_worker(algorithm: str) -> None:
    state = weighted([1] * 7)
    one, other = balancer(algorithm, state, seed=1), balancer(algorithm, state, seed=2)
    assert owners(one, 100) == owners(other, 100) == owners(one, 100)


@both
def test_the_assignment_does_not_change_from_one_release_to_the_next(algorithm: str) -> None:
    """Else every upgrade would empty the targets' caches."""
    expected = {"maglev": [0, 2, 1, 1, 0, 1, 2, 1], "rendezvous": [2, 0, 1, 2, 0, 2, 2, 2]}
    assert owners(balancer(algorithm, weighted([1, 1, 1])), 8) == expected[algorithm]


@both
def test_keys_are_spread_by_weight(algorithm: str) -> None:
    counts = Counter(owners(balancer(algorithm, weighted([1, 3, 0, 1])), 10_000))
    assert set(counts) == {0, 1, 3}
    assert counts[1] == pytest.approx(6000, rel=0.06)
    assert counts[0] == pytest.approx(2000, rel=0.15)


@both
def test_few_keys_move_when_one_of_a_hundred_targets_leaves(algorithm: str) -> None:
    everybody = tuple(target(number) for number in range(100))
    before = owners(balancer(algorithm, GroupState(targets=everybody)))
    for gone in (0, 13, 57, 99):
        rest = tuple(each for each in everybody if number_of(each) != gone)
        after = owners(balancer(algorithm, GroupState(targets=rest)))
        moved = sum(one != other for one, other in zip(before, after, strict=True))
        assert moved / KEYS <= 1 / 100 + 0.02, (gone, moved)
        if algorithm == "rendezvous":
            assert moved == before.count(gone)


@both
def test_few_keys_move_when_a_target_gets_another_weight(algorithm: str) -> None:
    before = owners(balancer(algorithm, weighted([10] * 10)))
    after = owners(balancer(algorithm, weighted([10] * 9 + [5])))
    moved = sum(one != other for one, other in zip(before, after, strict=True))
    assert moved / KEYS <= 0.05 + 0.04


@both
def test_a_key_has_the_same_second_target_each_time(algorithm: str) -> None:
    found = balancer(algorithm, weighted([1] * 5))
    orders = {tuple(map(number_of, found.candidates(None, SOURCE))) for _ in range(5)}
    assert len(orders) == 1


@both
def test_requests_without_the_key_take_turns(algorithm: str) -> None:
    found = balancer(algorithm, weighted([1, 1, 1]), hash_key=HashKey(HashPart.COOKIE, "session"))
    counts = Counter(number_of(found.pick(PlainRequest(), SOURCE)) for _ in range(900))
    assert all(count == pytest.approx(300, abs=70) for count in counts.values()), counts


@both
def test_a_busy_target_passes_its_keys_on(algorithm: str) -> None:
    state = weighted([1] * 4)
    cells = cells_for(state)
    found = balancer(algorithm, state, cells=cells, hash_balance_factor=150)
    order = list(found.candidates(None, SOURCE))
    for each in order:
        cells[each.cell] = 10
    assert found.pick(None, SOURCE) is order[0]
    cells[order[0].cell] = 20  # 51 with the new one, a fair share is 12.75, the bound 19.1
    assert found.pick(None, SOURCE) is order[1]
    cells[order[0].cell] = 18
    assert found.pick(None, SOURCE) is order[0]


@both
def test_no_target_gets_more_than_its_bound_of_one_hot_key(algorithm: str) -> None:
    state = weighted([1, 2, 1])
    cells = cells_for(state)
    found = balancer(algorithm, state, cells=cells, hash_balance_factor=125)
    for count in range(1, 400):
        picked = found.pick(None, SOURCE)
        assert picked is not None
        cells[picked.cell] += 1
        bound = 1.25 * count * picked.target.weight / 4
        assert cells[picked.cell] <= bound + 1, (count, picked.target.key)


REQUEST = PlainRequest(
    host=b"Example.com",
    path=b"/a/b",
    query=b"x=1&user=7&user=8&u=",
    fields=[(b"X-Tenant", b"acme"), (b"Cookie", b"a=b; session=s1"), (b"X-Tenant", b"other")],
)


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        (HashKey(), SOURCE.encode()),
        (HashKey(HashPart.HOST), b"example.com"),
        (HashKey(HashPart.PATH), b"/a/b"),
        (HashKey(HashPart.HEADER, "x-tenant"), b"acme"),
        (HashKey(HashPart.HEADER, "x-other"), None),
        (HashKey(HashPart.COOKIE, "session"), b"s1"),
        (HashKey(HashPart.COOKIE, "sess"), None),
        (HashKey(HashPart.QUERY, "user"), b"7"),
        (HashKey(HashPart.QUERY, "u"), b""),
        (HashKey(HashPart.QUERY, "y"), None),
    ],
)
def test_hash_key(key: HashKey, expected: bytes | None) -> None:
    assert key_function(key)(REQUEST, SOURCE) == expected
    assert key_function(key)(None, SOURCE) == (expected if key.part is HashPart.SOURCE else None)


@both
@pytest.mark.parametrize("count", [0, 1, 3])
def test_candidates_end_when_all_targets_were_tried(algorithm: str, count: int) -> None:
    found = balancer(algorithm, weighted([1] * count))
    assert len(list(islice(found.candidates(None, SOURCE), 10))) == count


def test_the_last_candidate_is_not_looked_for_in_the_whole_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else each request of an outage would cost milliseconds."""
    found = balancer("maglev", weighted([1] * 3))
    order, steps = found.order, []
    monkeypatch.setattr(type(found), "order", lambda self, key: (steps.append(each) or each for each in order(key)))
    assert len(list(found.candidates(None, SOURCE))) == 3
    assert len(steps) < 100
