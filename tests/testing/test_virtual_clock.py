"""The clock of simulations keeps the promises of a reactor's."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.error import AlreadyCalled, AlreadyCancelled
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import Clock
from zope.interface.verify import verifyObject

from lbproxy.testing.virtual_clock import VirtualClock


def test_interfaces() -> None:
    clock = VirtualClock()
    verifyObject(IReactorTime, clock)
    verifyObject(IDelayedCall, clock.callLater(1, int))


def test_calls_come_in_the_order_of_their_times_then_of_their_making() -> None:
    clock, came = VirtualClock(100.0), []
    for name, delay in (("late", 2), ("first", 1), ("second", 1), ("now", 0)):
        clock.callLater(delay, lambda name=name: came.append((name, clock.seconds())))
    clock.run_until(101.5)
    assert came == [("now", 100.0), ("first", 101.0), ("second", 101.0)]
    assert clock.seconds() == 101.5
    clock.run_until(102.0)
    assert came[-1] == ("late", 102.0)


def test_calls_that_are_made_meanwhile_come_too() -> None:
    clock, came = VirtualClock(), []

    def again() -> None:
        came.append(clock.seconds())
        clock.callLater(1, again)

    clock.callLater(1, again)
    clock.run_until(4.5)
    assert came == [1, 2, 3, 4]
    (pending,) = clock.getDelayedCalls()
    assert pending.getTime() == 5


def test_a_call_is_put_off_brought_forward_or_cancelled() -> None:
    clock, came = VirtualClock(), []
    off, forward, cancelled = (clock.callLater(5, came.append, name) for name in ("off", "forward", "cancelled"))
    off.delay(1)
    forward.reset(2)
    cancelled.cancel()
    assert [call.active() for call in (off, forward, cancelled)] == [True, True, False]
    assert sorted(call.getTime() for call in clock.getDelayedCalls()) == [2, 6]
    clock.run_until(5)
    assert came == ["forward"]
    clock.run_until(6)
    assert came == ["forward", "off"]
    assert clock.getDelayedCalls() == []


def test_what_is_over_cannot_be_changed() -> None:
    clock = VirtualClock()
    called, cancelled = clock.callLater(0, int), clock.callLater(0, int)
    cancelled.cancel()
    clock.run_until(0)
    for call, error in ((called, AlreadyCalled), (cancelled, AlreadyCancelled)):
        for change in (call.cancel, lambda call=call: call.reset(1), lambda call=call: call.delay(1)):
            with pytest.raises(error):
                change()


@given(
    st.lists(
        st.tuples(st.sampled_from(["call", "cancel", "reset", "delay", "pass"]), st.integers(0, 9), st.integers(0, 9)),
        max_size=40,
    )
)
def test_it_does_what_twisteds_clock_does(steps: list[tuple[str, int, int]]) -> None:
    """But for the order of calls at one time, of which a reactor promises nothing."""
    traces = []
    for clock, go in ((mine := VirtualClock(), mine.run_until), (Clock(), None)):
        came: list[tuple[int, float]] = []
        calls = []
        trace: list[object] = []
        for kind, which, amount in steps:
            if kind == "call":
                number = len(calls)
                calls.append(clock.callLater(amount, lambda n=number, c=clock, to=came: to.append((n, c.seconds()))))
            elif kind == "pass":
                if go is not None:
                    go(clock.seconds() + amount)
                else:
                    clock.pump([0.0, *[1.0] * amount])  # type: ignore[attr-defined]
            elif calls and (call := calls[which % len(calls)]).active():
                call.cancel() if kind == "cancel" else getattr(call, kind)(amount)
            trace.append((sorted(came), sorted(call.getTime() for call in clock.getDelayedCalls())))
        traces.append(trace)
    assert traces[0] == traces[1]
