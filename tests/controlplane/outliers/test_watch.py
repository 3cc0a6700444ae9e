"""Who stands out, who is taken out, and for how long."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbproxy.controlplane.outliers.watch import Anomalies, Ejections, Seen
from lbproxy.model.target_group import OutlierDetection

FOUR = ("a", "b", "c", "d")


def ejections(**settings: Any) -> Ejections:
    return Ejections(OutlierDetection(**{"max_ejected_percentage": 50, **settings}))


def seen(requests: int = 100, errors: int = 0, ms: float = 20.0) -> Seen:
    return Seen(requests=requests, errors=errors, answers=requests, seconds=requests * ms / 1000)


def judged(watch: Ejections, **each: Seen) -> dict[str, str]:
    watch.judge({key: each.get(key, seen()) for key in FOUR}, FOUR, 0.0)
    return watch.out


@pytest.mark.parametrize(
    ("odd", "peers", "reason"),
    [
        (seen(errors=50), seen(), "50% errors where others have 0%"),
        (seen(errors=20), seen(errors=6), "20% errors where others have 6%"),
        (seen(errors=19), seen(), ""),
        (seen(errors=50), seen(errors=17), ""),
        (seen(requests=19, errors=19), seen(), ""),
        (seen(ms=101), seen(), "101 ms where others take 20 ms"),
        (seen(ms=100), seen(), ""),
        (seen(ms=9), seen(ms=0.5), ""),
        (seen(requests=19, ms=500), seen(), ""),
    ],
)
def test_one_is_compared_with_the_others(odd: Seen, peers: Seen, reason: str) -> None:
    out = judged(ejections(), a=odd, b=peers, c=peers, d=peers)
    assert out == ({"a": reason} if reason else {})


def test_all_alike_are_no_outliers() -> None:
    bad = seen(errors=90, ms=900)
    assert judged(ejections(), a=bad, b=bad, c=bad, d=bad) == {}


def test_time_is_left_alone_if_so_configured() -> None:
    assert judged(ejections(latency_factor=0), a=seen(ms=5000)) == {}


def test_failures_in_a_row_take_a_target_out_at_once() -> None:
    watch = ejections()
    assert watch.suspect("a", 5, FOUR, 0.0)
    assert watch.out == {"a": "5 failures in a row"}
    assert not watch.suspect("a", 5, FOUR, 1.0)
    assert not watch.suspect("x", 5, FOUR, 1.0)


def test_the_worst_go_first_and_only_so_many() -> None:
    assert set(judged(ejections(), a=seen(errors=40), b=seen(errors=80))) == {"a", "b"}
    assert set(judged(ejections(max_ejected_percentage=25), a=seen(errors=40), b=seen(errors=80))) == {"b"}
    watch = ejections()
    for key in FOUR:
        watch.suspect(key, 5, FOUR, 0.0)
    assert set(watch.out) == {"a", "b"}


@pytest.mark.parametrize(
    ("percentage", "healthy", "most"),
    [(33, 4, 1), (33, 10, 3), (1, 4, 1), (100, 4, 3), (33, 1, 0), (100, 1, 0), (33, 2, 1)],
)
def test_how_many_may_be_out(percentage: float, healthy: int, most: int) -> None:
    watch = ejections(max_ejected_percentage=percentage)
    keys = [str(number) for number in range(healthy)]
    for key in keys:
        watch.suspect(key, 5, keys, 0.0)
    assert len(watch.out) == most


def test_each_time_it_takes_longer() -> None:
    watch = ejections(base_ejection_seconds=10, max_ejection_seconds=60)
    now = 0.0
    times = []
    for _ in range(5):
        watch.suspect("a", 5, FOUR, now)
        until = watch.next_return()
        assert until is not None
        times.append(until - now)
        assert not watch.let_back(until - 0.1)
        assert watch.let_back(until)
        assert watch.out == {}
        now = until
    assert times == [10, 20, 40, 60, 60]


def test_good_behaviour_makes_up_for_it() -> None:
    watch = ejections(base_ejection_seconds=10)
    now = 0.0
    for _ in range(2):
        watch.suspect("a", 5, FOUR, now)
        now = watch.next_return() or 0.0
        watch.let_back(now)
    for _ in range(2):
        watch.judge({}, FOUR, now)
    watch.suspect("a", 5, FOUR, now)
    assert watch.next_return() == now + 10


def test_nobody_is_out_at_first() -> None:
    assert ejections().next_return() is None
    assert not ejections().let_back(1e9)


# Anomaly mitigation


def test_an_anomalous_target_gets_less_and_less_and_then_more_and_more() -> None:
    watch = Anomalies()
    shares = []
    for _ in range(8):
        watch.judge({"a": seen(errors=50), "b": seen(), "c": seen()}, "abc")
        shares.append(watch.shares.get("a", 100))
    for _ in range(7):
        watch.judge({"a": seen(requests=3), "b": seen(), "c": seen()}, "abc")
        shares.append(watch.shares.get("a", 100))
    assert shares == [50, 25, 12, 6, 3, 1, 1, 1, 2, 4, 8, 16, 32, 64, 100]


@pytest.mark.parametrize(
    ("odd", "peers", "healthy", "found"),
    [
        (seen(errors=6), seen(), "abc", True),
        (seen(errors=5), seen(), "abc", False),
        (seen(errors=20), seen(errors=5), "abc", False),
        (seen(errors=21), seen(errors=5), "abc", True),
        (seen(requests=4, errors=4), seen(), "abc", False),
        (seen(errors=50), seen(), "ab", False),
    ],
)
def test_anomalous(odd: Seen, peers: Seen, healthy: str, found: bool) -> None:
    watch = Anomalies()
    watch.judge({"a": odd, "b": peers, "c": peers}, healthy)
    assert (watch.shares == {"a": 50}) is found


def test_at_most_half_of_the_targets_are_mitigated() -> None:
    watch = Anomalies()
    counts = {key: seen(errors=90) for key in "abc"} | {key: seen(requests=10_000) for key in "de"}
    watch.judge(counts, "abcde")
    assert len(watch.shares) == 2


def test_a_target_that_is_gone_or_unhealthy_is_forgotten() -> None:
    watch = Anomalies()
    watch.judge({"a": seen(errors=50), "b": seen(), "c": seen()}, "abc")
    watch.judge({}, "bc")
    assert watch.shares == {}


counts = st.builds(Seen, requests=st.integers(0, 50), errors=st.integers(0, 50), answers=st.integers(0, 50))


@given(st.lists(st.lists(counts, min_size=5, max_size=5), max_size=20), st.integers(1, 100))
def test_whatever_happens_some_targets_stay(intervals: list[list[Seen]], percentage: int) -> None:
    watch, anomalies = ejections(max_ejected_percentage=percentage), Anomalies()
    for number, each in enumerate(intervals):
        watch.judge(dict(zip("abcde", each, strict=True)), "abcde", number * 10.0)
        anomalies.judge(dict(zip("abcde", each, strict=True)), "abcde")
        watch.let_back(number * 10.0 + 5)
        assert len(watch.out) <= max(1, min(4, 5 * percentage // 100))
        assert len(anomalies.shares) <= 2
        assert all(0 < share < 100 for share in anomalies.shares.values())
