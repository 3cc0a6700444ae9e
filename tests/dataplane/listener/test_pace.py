"""How slow a client may be."""

from __future__ import annotations

from twisted.internet.task import Clock

from lbproxy.dataplane.deadlines import Deadlines
from lbproxy.dataplane.listener.pace import Pace


class Watched:
    """Something whose pace is judged: ten bytes a second over ten seconds."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.bytes = 500
        self.verdicts: list[float] = []
        self.pace = Pace(
            Deadlines(self.clock.callLater, self.clock.seconds),
            lambda: self.bytes,
            lambda: self.verdicts.append(self.clock.seconds()),
        )

    def begin(self) -> None:
        self.pace.begin(10, 10)

    def spend(self, seconds: float, rate: float = 0.0) -> None:
        for _ in range(round(seconds * 10)):
            self.clock.advance(0.1)
            self.bytes += round(rate / 10)


def test_silence_is_too_slow_once_the_grace_is_over() -> None:
    watched = Watched()
    watched.begin()
    watched.spend(9.8)
    assert not watched.verdicts
    watched.spend(0.5)
    [at] = watched.verdicts
    assert 9.9 <= at <= 10.2
    watched.spend(60)
    assert len(watched.verdicts) == 1


def test_the_rate_is_that_of_each_grace_not_of_all_time() -> None:
    watched = Watched()
    watched.begin()
    watched.spend(5, 1_000_000)
    watched.spend(9)
    assert not watched.verdicts, "the first grace had plenty"
    watched.spend(7)
    assert watched.verdicts


def test_who_keeps_the_rate_is_never_judged_slow() -> None:
    watched = Watched()
    watched.begin()
    watched.spend(120, 20)
    assert not watched.verdicts
    watched.spend(21, 0)
    assert watched.verdicts


def test_time_on_hold_does_not_count() -> None:
    watched = Watched()
    for _ in range(9):
        watched.begin()
        watched.spend(1)
        watched.pace.hold()
        watched.spend(30)
    assert not watched.verdicts
    watched.begin()
    watched.spend(1.3)
    assert watched.verdicts


def test_bytes_that_come_during_a_hold_do_not_count() -> None:
    watched = Watched()
    watched.begin()
    watched.spend(1)
    watched.pace.hold()
    watched.bytes += 10_000
    watched.begin()
    watched.spend(10)
    assert watched.verdicts


def test_stopping_forgets_what_was_waited() -> None:
    watched = Watched()
    watched.begin()
    watched.spend(9)
    watched.pace.stop()
    watched.spend(20)
    watched.begin()
    watched.spend(9)
    assert not watched.verdicts
    watched.pace.stop()
    watched.spend(20)
    assert not watched.verdicts
    assert not watched.clock.getDelayedCalls()


def test_beginning_and_holding_twice_is_the_same_as_once() -> None:
    watched = Watched()
    watched.begin()
    watched.spend(5)
    watched.begin()
    watched.spend(4)
    watched.pace.hold()
    watched.pace.hold()
    watched.begin()
    watched.spend(1.3)
    assert watched.verdicts
