from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbproxy.telemetry.histograms import BOUNDS, Histogram


def _filled(*seconds: float) -> Histogram:
    histogram = Histogram()
    for value in seconds:
        histogram.observe(value)
    return histogram


def test_a_bound_belongs_to_its_own_bucket() -> None:
    """Prometheus buckets are "less than or equal"."""
    assert _filled(BOUNDS[3]).counts[3] == 1
    assert _filled(BOUNDS[3] * 1.0001).counts[4] == 1


def test_count_and_sum() -> None:
    histogram = _filled(0.001, 0.2, 100.0)
    assert histogram.count == 3
    assert histogram.sum == pytest.approx(100.201)
    assert histogram.counts[-1] == 1


def test_quantile_of_nothing_is_zero() -> None:
    assert Histogram().quantile(0.99) == 0.0


def test_quantile_above_all_bounds_is_the_last_bound() -> None:
    assert _filled(1000.0).quantile(0.5) == BOUNDS[-1]


def test_quantile_lies_between_its_buckets_bounds() -> None:
    histogram = _filled(*[0.003] * 90, *[0.3] * 10)
    assert 0.0025 <= histogram.quantile(0.5) <= 0.005
    assert 0.25 <= histogram.quantile(0.99) <= 0.5


@given(st.lists(st.floats(0, 60), min_size=1), st.floats(0, 1), st.floats(0, 1))
def test_quantiles_grow_with_their_share(values: list[float], a: float, b: float) -> None:
    histogram = _filled(*values)
    assert histogram.quantile(min(a, b)) <= histogram.quantile(max(a, b)) + 1e-9


@given(st.lists(st.floats(0, 100)), st.lists(st.floats(0, 100)))
def test_merging_and_adding_a_report_equal_observing_both(first: list[float], second: list[float]) -> None:
    both = _filled(*first, *second)
    merged = _filled(*first)
    merged.merge(_filled(*second))
    added = _filled(*first)
    added.add(json.loads(json.dumps(_filled(*second).report())))
    for result in (merged, added):
        assert result.counts == both.counts
        assert result.sum == pytest.approx(both.sum)
