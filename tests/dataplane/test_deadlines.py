"""Deadlines by a test's clock: never early, a tick late at most, moved both ways, and let go."""

from __future__ import annotations

import weakref
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from lbproxy.dataplane.deadlines import NEVER, TICK_SECONDS, Deadlines
from lbproxy.native.protocol import Expiring

DUST = 1e-6


class Item(Expiring):
    """Notes when its deadlines came; may set the next one, or do anything, when they do."""

    def __init__(self, then: Any = None) -> None:
        self.deadline = NEVER
        self.armed = 0
        self.expirations: list[float] = []
        self._then = then

    def expired(self, now: float) -> None:
        self.expirations.append(now)
        if self._then is not None:
            self._then(self)


def wheel(start: float = 1000.0) -> tuple[Clock, Deadlines]:
    clock = Clock()
    clock.advance(start)
    return clock, Deadlines(clock.callLater, clock.seconds)


def run(clock: Clock, seconds: float) -> None:
    """Advance so finely that the wheel's own time decides."""
    for _ in range(round(seconds * 100)):
        clock.advance(0.01)


@pytest.mark.parametrize("seconds", [0.0, 0.05, 0.1, 1.0, 4.95, 5.0, 5.05, 60.0])
def test_a_deadline_comes_within_a_tick(seconds: float) -> None:
    clock, deadlines = wheel()
    item = Item()
    deadlines.set(item, 1000.0 + seconds)
    run(clock, seconds - 0.02)
    assert item.expirations == []
    run(clock, 0.04 + TICK_SECONDS)
    [at] = item.expirations
    assert 1000.0 + seconds - DUST <= at <= 1000.0 + seconds + TICK_SECONDS + 0.01 + DUST
    run(clock, 20)
    assert len(item.expirations) == 1
    assert clock.getDelayedCalls() == []


def test_it_is_moved_later_by_a_plain_store() -> None:
    clock, deadlines = wheel()
    item = Item()
    deadlines.set(item, 1001.0)
    for _ in range(100):
        run(clock, 0.5)
        item.deadline = clock.seconds() + 1.0
    assert item.expirations == []
    run(clock, 1.2)
    assert len(item.expirations) == 1


def test_it_is_moved_both_ways_by_set() -> None:
    clock, deadlines = wheel()
    item = Item()
    deadlines.set(item, 1060.0)
    deadlines.set(item, 1001.0)
    deadlines.set(item, 1030.0)
    deadlines.set(item, 1002.0)
    run(clock, 1.98)
    assert item.expirations == []
    run(clock, 0.15)
    assert len(item.expirations) == 1
    run(clock, 70)
    assert len(item.expirations) == 1


def test_it_is_cleared_and_set_again() -> None:
    clock, deadlines = wheel()
    item = Item()
    deadlines.set(item, 1001.0)
    deadlines.clear(item)
    deadlines.set(item, NEVER)
    run(clock, 10)
    assert item.expirations == []
    deadlines.set(item, clock.seconds() + 1)
    run(clock, 1.2)
    assert len(item.expirations) == 1


def test_one_that_is_cleared_is_let_go_at_once() -> None:
    clock, deadlines = wheel()
    for sooner in (5000.0, 1000.7):
        item = Item()
        gone = weakref.ref(item)
        deadlines.set(item, 5000.0)
        deadlines.set(item, sooner)
        deadlines.clear(item)
        del item
        assert gone() is None
    run(clock, 5.2)
    assert clock.getDelayedCalls() == []


def test_one_that_expires_may_set_its_next() -> None:
    clock, deadlines = wheel()
    item = Item(lambda item: deadlines.set(item, clock.seconds() + 1.0))
    deadlines.set(item, 1001.0)
    run(clock, 10.0)
    assert 8 <= len(item.expirations) <= 10


def test_one_that_expires_may_set_and_clear_others() -> None:
    clock, deadlines = wheel()
    cleared, sooner = Item(), Item()

    def then(item: Item) -> None:
        deadlines.clear(cleared)
        deadlines.set(sooner, clock.seconds() + 0.05)

    first = Item(then)
    deadlines.set(first, 1001.0)
    deadlines.set(cleared, 1001.3)
    deadlines.set(sooner, 1060.0)
    run(clock, 1.3)
    assert (len(first.expirations), len(cleared.expirations), len(sooner.expirations)) == (1, 0, 1)


def test_one_timer_serves_all() -> None:
    clock, deadlines = wheel()
    items = [Item() for _ in range(100)]
    for number, item in enumerate(items):
        deadlines.set(item, 1100.0 - number)
    assert len(clock.getDelayedCalls()) == 1
    run(clock, 101)
    assert [len(item.expirations) for item in items] == [1] * 100


def test_stop_forgets_everything() -> None:
    clock, deadlines = wheel()
    item = Item()
    deadlines.set(item, 1001.0)
    deadlines.stop()
    run(clock, 10)
    assert item.expirations == []


class FailureTests(SynchronousTestCase):
    def test_one_that_fails_does_not_take_the_others_along(self) -> None:
        clock, deadlines = wheel()

        def fail(item: Item) -> None:
            raise ValueError("not handled")

        bad, good, later = Item(fail), Item(), Item()
        deadlines.set(bad, 1001.0)
        deadlines.set(good, 1001.0)
        deadlines.set(later, 1003.0)
        run(clock, 4)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        self.assertEqual((len(good.expirations), len(later.expirations)), (1, 1))


@settings(max_examples=200, deadline=None)
@given(
    start=st.floats(0, 1e7),
    steps=st.lists(
        st.tuples(
            st.sampled_from(["set", "later", "clear", "wait", "wait"]),
            st.integers(0, 2),
            st.one_of(st.floats(0, 12), st.integers(0, 120).map(lambda tenths: tenths / 10)),
        ),
        max_size=25,
    ),
)
def test_whatever_is_done_a_deadline_comes_once_and_in_time(start: float, steps: list[tuple[str, int, float]]) -> None:
    clock, deadlines = wheel(start)
    items = [Item() for _ in range(3)]
    due: list[float] = [NEVER] * 3

    def check() -> None:
        now = clock.seconds()
        for number, item in enumerate(items):
            if item.expirations:
                [at] = item.expirations
                assert due[number] - DUST <= at <= due[number] + TICK_SECONDS + 0.05 + DUST
                item.expirations.clear()
                due[number] = NEVER
            assert now <= due[number] + TICK_SECONDS + 0.05 + DUST, "it is late"

    for action, number, seconds in steps:
        item = items[number]
        if action == "set":
            due[number] = clock.seconds() + seconds
            deadlines.set(item, due[number])
        elif action == "later" and due[number] != NEVER:
            due[number] = item.deadline = due[number] + seconds
        elif action == "clear":
            due[number] = NEVER
            deadlines.clear(item)
        elif action == "wait":
            for _ in range(int(seconds / 0.05)):
                clock.advance(0.05)
                check()
    while due != [NEVER] * 3:
        clock.advance(0.05)
        check()
    clock.advance(10.0)
    assert clock.getDelayedCalls() == []


def test_a_clock_that_stands_between_two_numbers_does_not_hold_the_wheel_up() -> None:
    """Where tenths of a second have no exact number, the timer's time divided by a tick may fall short of it."""
    for start in (565791.46075889, 0.3, 1e7 + 0.7, 123456.7):
        clock, deadlines = wheel(start)
        items = [Item() for _ in range(50)]
        for number, item in enumerate(items):
            deadlines.set(item, start + number * 0.07)
        for _ in range(60):
            calls = clock.getDelayedCalls()
            if not calls:
                break
            clock.advance(min(call.getTime() for call in calls) - clock.seconds())
        assert [len(item.expirations) for item in items] == [1] * 50
