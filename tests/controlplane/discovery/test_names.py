"""Names are followed: asked again after the TTL, and their last good answer kept."""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock

from lbproxy.controlplane.discovery.names import JITTER, LONGEST_RETRY_SECONDS, Names, SrvTargets
from lbproxy.model.discovery import SrvSource
from tests.controlplane.discovery.fakes import FakeLookup, FakeSink, context


class Bench:
    def __init__(self) -> None:
        self.clock = Clock()
        self.lookup = FakeLookup()
        self.names = Names(self.clock, self.lookup, {"known.internal": ["10.9.9.9"]})
        self.news = 0

    def told(self) -> None:
        self.news += 1


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_a_name_is_asked_for_again_when_its_answer_is_no_longer_good(bench: Bench) -> None:
    bench.lookup.names["app.internal"] = ["10.0.0.1"]
    bench.lookup.ttl = 7.0
    name = bench.names.follow("app.internal", bench.told)
    assert not name.is_settled
    bench.clock.advance(0)
    assert (name.is_settled, name.addresses, bench.news) == (True, ("10.0.0.1",), 1)
    bench.lookup.names["app.internal"] = ["10.0.0.1", "10.0.0.2"]
    bench.clock.advance(6.9)
    assert bench.lookup.asked == ["app.internal"]
    bench.clock.advance(0.2)
    assert (name.addresses, bench.news) == (("10.0.0.1", "10.0.0.2"), 2)


@pytest.mark.parametrize(("ttl", "wait"), [(0.0, 1.0), (0.5, 1.0), (86400.0, 3600.0)])
def test_a_ttl_is_kept_in_bounds(bench: Bench, ttl: float, wait: float) -> None:
    bench.lookup.names["app.internal"] = ["10.0.0.1"]
    bench.lookup.ttl = ttl
    bench.names.follow("app.internal", bench.told)
    bench.clock.advance(0)
    bench.clock.advance(wait - 0.01)
    assert len(bench.lookup.asked) == 1
    bench.clock.advance(0.02)
    assert len(bench.lookup.asked) == 2


def test_the_last_good_answer_is_kept_while_asking_fails(bench: Bench) -> None:
    bench.lookup.names["app.internal"] = ["10.0.0.1"]
    bench.lookup.ttl = 1.0
    name = bench.names.follow("app.internal", bench.told)
    bench.clock.advance(0)
    bench.lookup.names["app.internal"] = "app.internal: the name server answers SERVFAIL"
    bench.clock.pump([1.0] * 10)
    assert (name.addresses, name.problem) == (("10.0.0.1",), "app.internal: the name server answers SERVFAIL")
    assert bench.news == 2, "one for the answer, one for the failure, however often it fails"
    bench.lookup.names["app.internal"] = ["10.0.0.2"]
    bench.clock.pump([1.0] * 10)
    assert (name.addresses, name.problem) == (("10.0.0.2",), "")


def test_failures_are_asked_again_ever_later(bench: Bench) -> None:
    bench.names.follow("app.internal", bench.told)
    bench.clock.pump([0.0] + [0.1] * 1500)
    in_the_first = len(bench.lookup.asked)
    assert 6 <= in_the_first <= 10, in_the_first
    bench.clock.advance(LONGEST_RETRY_SECONDS * (1 + JITTER))
    assert len(bench.lookup.asked) == in_the_first + 1


def test_a_name_is_asked_for_once_whoever_follows_it(bench: Bench) -> None:
    bench.lookup.names["app.internal"] = ["10.0.0.1"]
    other: list[int] = []
    bench.names.follow("app.internal", bench.told)
    bench.names.follow("app.internal", lambda: other.append(1))
    bench.clock.advance(0)
    assert (bench.lookup.asked, bench.news, other) == (["app.internal"], 1, [1])


def test_what_nobody_follows_is_not_asked_for(bench: Bench) -> None:
    bench.lookup.names["app.internal"] = ["10.0.0.1"]
    bench.lookup.names["slow.internal"] = None
    for name in ("app.internal", "slow.internal", "void.internal"):
        bench.names.follow(name, bench.told)
    bench.clock.advance(0)
    for name in ("app.internal", "slow.internal", "void.internal"):
        bench.names.leave(name, bench.told)
    assert bench.clock.getDelayedCalls() == []
    bench.names.follow("early.internal", bench.told)
    bench.names.leave("early.internal", bench.told)
    bench.clock.advance(0)
    assert "early.internal" not in bench.lookup.asked


def test_addresses_of_an_earlier_run_count_until_there_is_an_answer(bench: Bench) -> None:
    name = bench.names.follow("known.internal", bench.told)
    assert name.addresses == ("10.9.9.9",)
    bench.clock.advance(0)
    assert (name.addresses, name.problem) == (("10.9.9.9",), "known.internal has no address")
    bench.lookup.names["known.internal"] = ["10.0.0.1"]
    bench.clock.advance(2)
    assert name.addresses == ("10.0.0.1",)


def test_srv_records_are_followed_by_their_ttl() -> None:
    clock, lookup, sink = Clock(), FakeLookup(), FakeSink()
    lookup.srv["_http._tcp.internal"] = ["a.internal:80", "b.internal:81 weight=7"]
    lookup.ttl = 5.0
    source = SrvTargets(
        SrvSource(name="_http._tcp.internal", text="srv:_http._tcp.internal"), context(clock, lookup), sink, "app"
    )
    source.start()
    assert sink.told == [["a.internal:80", "b.internal:81 weight=7"]]
    lookup.srv["_http._tcp.internal"] = "SERVFAIL"
    clock.advance(5)
    lookup.srv["_http._tcp.internal"] = ["c.internal:80"]
    clock.advance(1.2)
    assert sink.told[1:] == ["SERVFAIL", ["c.internal:80"]]
    source.stop()
    assert clock.getDelayedCalls() == []
