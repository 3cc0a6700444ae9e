"""What each algorithm chooses, and what it falls back to."""

from __future__ import annotations

from array import array
from collections import Counter
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbproxy.controlplane.config.options.target_group.balancing import ALGORITHMS as OPTION_VALUES
from lbproxy.dataplane.balancer import ALGORITHMS
from lbproxy.model.errors import InvalidModel
from lbproxy.model.snapshot import GroupState
from lbproxy.model.target import TargetState

from .states import REQUEST, SOURCE, balancer, cells_for, number_of, picks, target, weighted

every_algorithm = pytest.mark.parametrize("algorithm", sorted(ALGORITHMS))


def test_the_configuration_knows_every_algorithm() -> None:
    assert set(OPTION_VALUES) == set(ALGORITHMS)


def test_an_unknown_algorithm_is_refused() -> None:
    with pytest.raises(InvalidModel, match="'fastest' is not one of first, least_outstanding_requests, least_time"):
        balancer("fastest", weighted([1]))


@every_algorithm
def test_an_empty_group_has_no_candidates(algorithm: str) -> None:
    empty = balancer(algorithm, GroupState())
    assert empty.pick(REQUEST, SOURCE) is None
    assert list(empty.candidates(REQUEST, SOURCE)) == []
    assert list(empty.others(target(1), REQUEST, SOURCE)) == []
    assert not empty.fail_open


@every_algorithm
def test_unhealthy_targets_are_used_when_there_are_no_others(algorithm: str) -> None:
    state = GroupState(targets=tuple(target(number, state=TargetState.UNHEALTHY) for number in range(3)))
    found = balancer(algorithm, state)
    assert found.fail_open
    assert sorted(number_of(candidate) or 0 for candidate in found.candidates(REQUEST, SOURCE)) == [0, 1, 2]


@given(
    st.sampled_from(sorted(ALGORITHMS)),
    st.lists(st.integers(0, 5), max_size=8),
    st.integers(0, 100),
    st.integers(0, 10),
)
def test_candidates_are_all_eligible_targets_once(algorithm: str, weights: list[int], position: int, seed: int) -> None:
    state = weighted(weights)
    cells = cells_for(state)
    cells[0] = position
    found = [
        number_of(candidate)
        for candidate in balancer(algorithm, state, cells=cells, seed=seed).candidates(REQUEST, SOURCE)
    ]
    assert len(found) == len(set(found))
    assert set(found) == {number for number, weight in enumerate(weights) if weight}


@every_algorithm
def test_candidates_come_when_asked_for(algorithm: str) -> None:
    state = weighted([1, 1, 1])
    cells = cells_for(state)
    found = balancer(algorithm, state, cells=cells)
    candidates = found.candidates(REQUEST, SOURCE)
    assert cells[0] == 0
    assert len(list(islice(candidates, 1))) == 1
    assert cells[0] <= 1


@every_algorithm
def test_others_leave_out_a_target_that_the_group_no_longer_has(algorithm: str) -> None:
    """The first choice may stem from an older snapshot."""
    found = balancer(algorithm, weighted([1, 1]))
    assert sorted(number_of(candidate) or 0 for candidate in found.others(target(7), REQUEST, SOURCE)) == [0, 1]


# round_robin


def test_round_robin_takes_turns() -> None:
    assert picks(balancer("round_robin", weighted([1, 1, 1])), 7) == [0, 1, 2, 0, 1, 2, 0]


def test_round_robin_spreads_weights() -> None:
    assert picks(balancer("round_robin", weighted([3, 0, 1])), 8) == [0, 0, 0, 2, 0, 0, 0, 2]


def test_round_robin_goes_on_over_workers_and_over_changes_of_health() -> None:
    state = weighted([1, 1, 1])
    cells = memoryview(array("q", cells_for(state)))
    one = balancer("round_robin", state, cells=cells, slots=2)
    two = balancer("round_robin", state, cells=cells, slots=2)
    assert [number_of(worker.pick(REQUEST, SOURCE)) for worker in (one, two, two, one)] == [0, 1, 2, 0]
    assert picks(balancer("round_robin", state, cells=cells), 2) == [1, 2]


def test_round_robin_failover_does_not_double_the_load_of_a_neighbour() -> None:
    found = balancer("round_robin", weighted([1, 1, 1, 1]))
    served: Counter[int | None] = Counter()
    for _ in range(300):
        served[
            next(number for candidate in found.candidates(REQUEST, SOURCE) if (number := number_of(candidate)) != 1)
        ] += 1
    assert served == {0: 100, 2: 100, 3: 100}


# least_outstanding_requests


def test_least_outstanding_counts_all_workers() -> None:
    state = weighted([1, 1, 1])
    cells = memoryview(array("q", cells_for(state)))
    for registered, loads in zip(state.targets, [(2, 2), (0, 5), (3, 0)], strict=True):
        for slot, load in enumerate(loads):
            cells[registered.cell + slot] = load
    found = balancer("least_outstanding_requests", state, cells=cells, slots=2)
    assert number_of(found.pick(REQUEST, SOURCE)) == 2
    assert [number_of(candidate) for candidate in found.candidates(REQUEST, SOURCE)] == [2, 0, 1]
    alone = balancer("least_outstanding_requests", state, cells=cells, slots=1)
    assert number_of(alone.pick(REQUEST, SOURCE)) == 1


def test_least_outstanding_divides_by_weight() -> None:
    state = weighted([1, 4])
    cells = cells_for(state)
    cells[state.targets[0].cell], cells[state.targets[1].cell] = 2, 7
    assert number_of(balancer("least_outstanding_requests", state, cells=cells).pick(REQUEST, SOURCE)) == 1
    cells[state.targets[1].cell] = 9
    assert number_of(balancer("least_outstanding_requests", state, cells=cells).pick(REQUEST, SOURCE)) == 0


def test_an_idle_group_takes_turns_by_weight() -> None:
    assert picks(balancer("least_outstanding_requests", weighted([1, 1, 1])), 6) == [0, 1, 2, 0, 1, 2]
    assert Counter(picks(balancer("least_outstanding_requests", weighted([3, 1])), 8)) == {0: 6, 1: 2}


def test_equally_busy_targets_take_turns() -> None:
    state = weighted([1, 1, 1])
    cells = cells_for(state)
    for registered in state.targets:
        cells[registered.cell] = 3
    assert picks(balancer("least_outstanding_requests", state, cells=cells), 6) == [0, 1, 2, 0, 1, 2]


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 20)), min_size=1, max_size=8), st.integers(0, 30))
def test_no_target_has_less_for_its_weight_than_the_one_picked(loads: list[tuple[int, int]], position: int) -> None:
    state = weighted([weight for weight, _ in loads])
    cells = cells_for(state)
    cells[0] = position
    for registered, (_, load) in zip(state.targets, loads, strict=True):
        cells[registered.cell] = load
    picked = number_of(balancer("least_outstanding_requests", state, cells=cells).pick(REQUEST, SOURCE))
    assert picked is not None
    weight, load = loads[picked]
    assert all(load * other_weight <= other_load * weight for other_weight, other_load in loads)


# weighted_random


def test_weighted_random_draws_by_weight() -> None:
    counts = Counter(picks(balancer("weighted_random", weighted([1, 0, 3])), 8000))
    assert set(counts) == {0, 2}
    assert counts[0] == pytest.approx(2000, abs=150)


def test_weighted_random_fails_over_by_weight() -> None:
    found = balancer("weighted_random", weighted([1, 1, 8]))
    first = found.targets[0]
    counts = Counter(number_of(next(found.others(first, REQUEST, SOURCE))) for _ in range(900))
    assert counts[1] == pytest.approx(100, abs=45)


def test_weighted_random_leaves_the_shared_cells_alone() -> None:
    state = weighted([1, 2])
    cells = cells_for(state)
    found = balancer("weighted_random", state, cells=cells)
    picks(found, 10)
    list(found.candidates(REQUEST, SOURCE))
    assert not any(cells)
