"""The order of turns."""

from __future__ import annotations

import time
from collections import Counter
from fractions import Fraction
from math import gcd

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbproxy.dataplane.balancer.rotation import MAX_ORDER_LENGTH, smooth_order


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ([], []),
        ([7], [0]),
        ([1, 1, 1], [0, 1, 2]),
        ([5, 5, 5], [0, 1, 2]),
        ([2, 1], [0, 0, 1]),
        ([5, 1, 1], [0, 0, 0, 1, 0, 0, 2]),
        ([3, 2, 1], [0, 1, 0, 1, 0, 2]),
        ([10, 20], [1, 0, 1]),
    ],
)
def test_order(weights: list[int], expected: list[int]) -> None:
    assert smooth_order(weights) == expected


@given(st.lists(st.integers(1, 999), min_size=1, max_size=6))
def test_each_turn_comes_in_time(weights: list[int]) -> None:
    """After any number of steps every index has had its share to within one, and at the end exactly."""
    order = smooth_order(weights)
    total = sum(weights)
    counts = [0] * len(weights)
    for step, index in enumerate(order, 1):
        counts[index] += 1
        for count, weight in zip(counts, weights, strict=True):
            assert abs(count * total - step * weight) < total, (weights, step, counts)
    assert counts == [weight // gcd(*weights) for weight in weights]


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.integers(0, 60), st.integers(1, 60))
def test_any_window_of_the_rotation_is_fair_to_within_two(weights: list[int], start: int, size: int) -> None:
    order = smooth_order(weights)
    window = Counter(order[(start + step) % len(order)] for step in range(size))
    for index, weight in enumerate(weights):
        assert abs(window[index] - Fraction(size * weight, sum(weights))) < 2


def test_large_weights_are_scaled_down_and_all_keep_a_turn() -> None:
    started = time.process_time()
    weights = [999, *([1] * 5), *(range(1, 995))]
    order = smooth_order(weights)
    assert time.process_time() - started < 2
    assert len(order) <= MAX_ORDER_LENGTH + len(weights)
    counts = Counter(order)
    assert set(counts) == set(range(len(weights)))
    assert counts[0] == 999 * MAX_ORDER_LENGTH // sum(weights)
