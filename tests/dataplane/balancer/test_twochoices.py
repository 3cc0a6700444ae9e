"""The better of two: by what is in flight, or by how fast a target answers."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbproxy.dataplane.balancer import Observation
from lbproxy.dataplane.balancer.draw import Draw
from lbproxy.dataplane.balancer.observation import DECAY_SECONDS, FAILURE_SECONDS

from .states import REQUEST, SOURCE, balancer, cells_for, number_of, picks, weighted


@given(st.lists(st.integers(1, 50), min_size=2, max_size=9), st.integers(0, 1000))
def test_two_are_different(weights: list[int], seed: int) -> None:
    one, other = Draw(weights, Random(seed)).two()
    assert one != other
    assert min(one, other) >= 0
    assert max(one, other) < len(weights)


def test_of_one_there_is_no_second() -> None:
    assert Draw([3], Random(1)).two() == (0, 0)


def test_the_second_is_drawn_by_weight_too() -> None:
    draw = Draw([1, 1, 8], Random(1))
    pairs = Counter(draw.two() for _ in range(20_000))
    # P(first = 0) * P(second = 2 | first = 0) = 0.1 * 8/9
    assert pairs[0, 2] == pytest.approx(1778, rel=0.1)
    assert pairs[0, 1] == pytest.approx(222, rel=0.3)
    assert pairs[2, 0] == pytest.approx(8000, rel=0.1)


def test_random_two_takes_the_less_busy_one() -> None:
    state = weighted([1, 1])
    cells = cells_for(state)
    cells[state.targets[0].cell] = 2
    cells[state.targets[1].cell] = 1
    assert set(picks(balancer("random_two", state, cells=cells), 20)) == {1}


def test_random_two_counts_all_workers() -> None:
    state = weighted([1, 1])
    cells = cells_for(state)
    cells[state.targets[0].cell + 3] = 2
    assert set(picks(balancer("random_two", state, cells=cells, slots=4), 20)) == {1}
    assert set(picks(balancer("random_two", state, cells=cells, slots=1), 20)) == {0, 1}


def test_random_two_never_takes_the_busiest() -> None:
    state = weighted([1, 1, 1, 1])
    cells = cells_for(state)
    cells[state.targets[2].cell] = 1
    assert 2 not in picks(balancer("random_two", state, cells=cells), 500)


def test_an_idle_group_is_shared_by_weight() -> None:
    counts = Counter(picks(balancer("random_two", weighted([3, 1])), 8000))
    assert counts[0] == pytest.approx(6000, rel=0.05)


def seen(*seconds: float, now: float = 0.0) -> Observation:
    observation = Observation()
    for each in seconds:
        observation.responded(200, each, now)
    return observation


def test_least_time_takes_the_faster_one() -> None:
    state = weighted([1, 1])
    observations = {state.targets[0].cell: seen(0.1), state.targets[1].cell: seen(0.01)}
    assert set(picks(balancer("least_time", state, observations=observations), 20)) == {1}


def test_least_time_takes_the_slower_one_when_the_faster_has_a_queue() -> None:
    state = weighted([1, 1])
    cells = cells_for(state)
    observations = {state.targets[0].cell: seen(0.1), state.targets[1].cell: seen(0.01)}
    cells[state.targets[1].cell] = 9  # 0.01 * 10 = 0.1
    found = balancer("least_time", state, cells=cells, observations=observations)
    assert set(picks(found, 20)) == {0, 1}
    cells[state.targets[1].cell] = 10
    assert set(picks(found, 20)) == {0}


def test_least_time_tries_an_unknown_target_with_one_request() -> None:
    state = weighted([1, 1])
    cells = cells_for(state)
    found = balancer("least_time", state, cells=cells, observations={state.targets[0].cell: seen(0.01)})
    assert number_of(found.pick(REQUEST, SOURCE)) == 1
    cells[state.targets[1].cell] = 1
    assert number_of(found.pick(REQUEST, SOURCE)) == 0


def test_least_time_asks_a_slow_target_again_after_a_while() -> None:
    state = weighted([1, 1])
    time = [0.0]
    fast = seen(0.01)
    found = balancer(
        "least_time",
        state,
        observations={state.targets[0].cell: fast, state.targets[1].cell: seen(0.1)},
        now=lambda: time[0],
    )
    while number_of(found.pick(REQUEST, SOURCE)) == 0:
        time[0] += 1.0
        fast.responded(200, 0.01, time[0])
    assert DECAY_SECONDS < time[0] < 3 * DECAY_SECONDS


def test_a_slower_answer_counts_at_once_and_a_faster_one_little_by_little() -> None:
    observation = seen(0.01)
    observation.responded(200, 0.5, 1.0)
    assert observation.response_seconds(1.0) == pytest.approx(0.5)
    observation.responded(200, 0.01, 1.1)
    assert observation.response_seconds(1.1) == pytest.approx(0.451)
    for tick in range(60):
        observation.responded(200, 0.01, 1.2 + tick / 100)
    assert observation.response_seconds(1.8) == pytest.approx(0.01, rel=0.2)


def test_a_rare_answer_counts_by_the_time_that_has_passed() -> None:
    observation = seen(0.5)
    observation.responded(200, 0.01, 2 * DECAY_SECONDS)
    assert observation.response_seconds(2 * DECAY_SECONDS) == pytest.approx(0.5 * 0.135 + 0.01 * 0.865, rel=0.01)


@pytest.mark.parametrize("failed", [lambda o: o.responded(503, 0.001, 0.0), lambda o: o.failed(0.001, 0.0)])
def test_failing_fast_is_not_fast(failed: object) -> None:
    observation = seen(0.01)
    assert callable(failed)
    failed(observation)
    assert observation.response_seconds(0.0) == FAILURE_SECONDS


def test_a_clock_that_is_behind_does_no_harm() -> None:
    observation = seen(0.01, now=10.0)
    assert observation.response_seconds(9.0) == pytest.approx(0.01)


def test_first_takes_all() -> None:
    assert picks(balancer("first", weighted([0, 1, 9])), 3) == [1, 1, 1]
