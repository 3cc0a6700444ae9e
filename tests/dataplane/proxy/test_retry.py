"""Another target: when one is asked, when it must not be, and what is kept account of."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule
from twisted.internet.task import Clock

from lbproxy.dataplane.proxy.faults import Fault
from lbproxy.model.retry import RetryChange, RetryPolicy
from lbproxy.model.rule import Forward, WeightedGroup
from tests.dataplane.doubles import RULES, make_budget, make_retrying, request
from tests.dataplane.proxy.scene import (
    CHUNKS,
    GET,
    POST,
    RESPONSE,
    SWITCHING,
    UPGRADE,
    FakePool,
    FakeUpstream,
    Scene,
    response_head,
)
from tests.dataplane.proxy.walk import ExchangeWalk

PUT = POST.replace(b"POST", b"PUT")
RESET = RetryPolicy(on_reset=True)
STATUS = RetryPolicy(statuses=((502, 504),))
TIMEOUT = RetryPolicy(try_timeout_seconds=1.0)
HEDGE = RetryPolicy(hedge_delay_seconds=0.5)
UNAVAILABLE = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


def sent(scene: Scene) -> Any:
    """Connect, and give the connection that has the request."""
    return scene.pool.succeed()


def answer(
    upstream: Any, data: bytes = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", body: bytes = b"hello"
) -> None:
    upstream.let_go().response(response_head(data), True, body, True)


def tried(scene: Scene) -> list[tuple[str, int]]:
    return list(scene.exchange.targets_tried)


ONE, TWO, THREE = "10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"


# After a reset


def test_a_reset_leads_to_another_target() -> None:
    scene = Scene(3, RESET)
    exchange = scene.ask(GET)
    sent(scene).let_go().upstream_failed(Fault.TARGET_RESET, False)
    assert scene.pool.key == TWO
    answer(sent(scene))
    assert (scene.client.status, exchange.retry_reason) == (200, "TargetReset")
    assert tried(scene) == [(ONE, 0), (TWO, 200)]
    assert scene.pools[1].counters.retries == {"TargetReset": 1}
    scene.check_over()


@pytest.mark.parametrize("policy", [None, RetryPolicy(), STATUS, TIMEOUT])
def test_a_reset_ends_it_unless_the_policy_says_otherwise(policy: RetryPolicy | None) -> None:
    scene = Scene(3, policy)
    scene.ask(GET)
    sent(scene).let_go().upstream_failed(Fault.TARGET_RESET, False)
    assert scene.client.status == 502
    scene.check_over()


def test_a_request_that_may_have_been_acted_on_is_not_sent_again() -> None:
    scene = Scene(3, RESET)
    scene.ask(POST, b"12345678")
    sent(scene).let_go().upstream_failed(Fault.TARGET_RESET, False)
    assert scene.client.status == 502
    assert tried(scene) == [(ONE, 0)]
    scene.check_over()


def test_unless_the_operator_says_that_targets_know_it_again() -> None:
    scene = Scene(3, RetryPolicy(on_reset=True, methods=("POST",)))
    scene.ask(POST, b"12345678")
    sent(scene).let_go().upstream_failed(Fault.TARGET_CLOSED, False)
    upstream = sent(scene)
    assert (upstream.data, upstream.whole) == (b"12345678", True)
    answer(upstream)
    scene.check_over()


def test_a_request_of_which_nothing_was_sent_goes_on() -> None:
    scene = Scene(3, RESET)
    scene.ask(POST, b"12345678")
    scene.pool.fail()
    scene.pool.fail()
    answer(sent(scene))
    assert scene.exchange.retry_reason == "ConnectRefused,ConnectRefused"
    assert tried(scene) == [(ONE, 0), (TWO, 0), (THREE, 200)]
    scene.check_over()


def test_not_even_that_where_retries_are_off() -> None:
    scene = Scene(3, RetryPolicy(on_connect_failure=False))
    scene.ask(GET)
    scene.pool.fail()
    assert scene.client.status == 502
    scene.check_over()


def test_attempts_are_bounded() -> None:
    scene = Scene(3, RetryPolicy(on_reset=True, attempts=1))
    scene.ask(GET)
    for _ in range(2):
        sent(scene).let_go().upstream_failed(Fault.TARGET_RESET, False)
    assert scene.client.status == 502
    assert tried(scene) == [(ONE, 0), (TWO, 0)]
    scene.check_over()


def test_each_target_is_tried_once() -> None:
    scene = Scene(2, RetryPolicy(on_reset=True, attempts=10))
    scene.ask(GET)
    for _ in range(2):
        sent(scene).let_go().upstream_failed(Fault.TARGET_RESET, False)
    assert scene.client.status == 502
    scene.check_over()


def test_a_malformed_answer_is_not_asked_for_again() -> None:
    scene = Scene(2, RESET)
    scene.ask(GET)
    sent(scene).let_go().upstream_failed(Fault.BAD_RESPONSE, False)
    assert scene.client.status == 502
    scene.check_over()


def test_nothing_is_tried_once_the_answer_has_begun() -> None:
    scene = Scene(2, RESET)
    exchange = scene.ask(GET)
    upstream = sent(scene)
    exchange.response(response_head(), True, b"he", False)
    upstream.let_go().upstream_failed(Fault.TARGET_RESET, False)
    assert scene.client.was_cut
    scene.check_over()


def test_nor_after_an_interim_answer() -> None:
    """The client may have begun to send on account of it, and the target to act."""
    scene = Scene(2, RESET)
    exchange = scene.ask(PUT, b"", False)
    upstream = sent(scene)
    exchange.informational(response_head(CONTINUE))
    exchange.request_data(b"12345678")
    exchange.end_request(b"")
    upstream.let_go().upstream_failed(Fault.TARGET_RESET, False)
    assert (scene.client.interim, scene.client.status) == ([100], 502)
    scene.check_over()


def test_an_expectation_goes_to_the_next_target_as_well() -> None:
    scene = Scene(2, RESET)
    exchange = scene.ask(PUT.replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n"), b"", False)
    sent(scene).let_go().upstream_failed(Fault.TARGET_RESET, False)
    upstream = sent(scene)
    assert b"Expect: 100-continue" in upstream.block
    exchange.informational(response_head(CONTINUE))
    exchange.request_data(b"12345678")
    exchange.end_request(b"")
    assert (scene.client.interim, upstream.data, upstream.whole) == ([100], b"12345678", True)
    answer(upstream)
    scene.check_over()


# Bodies on their way


def test_a_body_on_its_way_is_sent_from_its_start() -> None:
    scene = Scene(2, RESET)
    exchange = scene.ask(CHUNKS.replace(b"POST", b"PUT"), b"ab", False)
    first = sent(scene)
    exchange.request_data(b"cd")
    exchange.pause_request()
    first.let_go().upstream_failed(Fault.TARGET_RESET, False)
    exchange.request_data(b"ef")
    second = sent(scene)
    assert (first.data, second.data, second.whole) == (b"abcd", b"abcdef", False)
    assert not scene.client.paused
    exchange.timed_out()
    assert scene.client.status == 408, "the target reads, so it is the client that is slow"
    scene.check_over()


def test_a_body_and_its_trailers_are_sent_again() -> None:
    scene = Scene(2, RESET)
    exchange = scene.ask(CHUNKS.replace(b"POST", b"PUT"), b"ab", False)
    first = sent(scene)
    exchange.end_request(b"X-Sum: 1\r\n")
    first.let_go().upstream_failed(Fault.TARGET_RESET, False)
    second = sent(scene)
    assert (second.data, second.whole, second.trailers) == (b"ab", True, b"X-Sum: 1\r\n")
    answer(second)
    scene.check_over()


def test_a_long_body_is_not_kept() -> None:
    scene = Scene(2, RESET)
    exchange = scene.ask(CHUNKS.replace(b"POST", b"PUT"), bytes(40000), False)
    first = sent(scene)
    exchange.request_data(bytes(40000))
    exchange.end_request(b"")
    first.let_go().upstream_failed(Fault.TARGET_RESET, False)
    assert scene.client.status == 502
    scene.check_over()


def test_what_goes_through_a_tunnel_is_not_kept() -> None:
    scene = Scene(2, RetryPolicy(on_reset=True, request_timeout_seconds=1.0))
    exchange = scene.ask(UPGRADE)
    upstream = sent(scene)
    exchange.switch_protocols(response_head(SWITCHING))
    assert not scene.timers.getDelayedCalls(), "an open tunnel may last"
    exchange.request_data(b"up")
    upstream.let_go().upstream_failed(Fault.TARGET_RESET, False)
    assert scene.client.was_cut
    scene.check_over()


# After an answer


@pytest.mark.parametrize("whole", [True, False])
def test_an_answer_is_thrown_away_for_another(whole: bool) -> None:
    scene = Scene(2, STATUS)
    exchange = scene.ask(GET)
    first = sent(scene)
    if whole:
        answer(first, UNAVAILABLE, b"busy")
    else:
        exchange.response(response_head(UNAVAILABLE), True, b"bu", False)
        assert first.gone == "aborted"
    answer(sent(scene))
    assert (scene.client.status, scene.client.body, exchange.retry_reason) == (200, b"hello", "503")
    assert tried(scene) == [(ONE, 503), (TWO, 200)]
    assert scene.pools[1].counters.responses[5] == 1
    scene.check_over()


def test_the_last_answer_counts_whatever_it_is() -> None:
    scene = Scene(2, STATUS)
    scene.ask(GET)
    for _ in range(2):
        answer(sent(scene), UNAVAILABLE, b"busy")
    assert (scene.client.status, scene.client.body) == (503, b"busy")
    assert tried(scene) == [(ONE, 503), (TWO, 503)]
    scene.check_over()


def test_a_target_that_fails_after_that_has_no_status() -> None:
    scene = Scene(2, STATUS)
    scene.ask(GET)
    answer(sent(scene), UNAVAILABLE, b"busy")
    sent(scene).let_go().upstream_failed(Fault.TARGET_RESET, False)
    assert tried(scene) == [(ONE, 503), (TWO, 0)]
    assert scene.exchange.target_time == -1.0
    scene.check_over()


@pytest.mark.parametrize(("head", "body", "status"), [(POST, b"12345678", 503), (GET, b"", 500)])
def test_other_answers_are_answers(head: bytes, body: bytes, status: int) -> None:
    scene = Scene(2, STATUS)
    scene.ask(head, body)
    answer(sent(scene), b"HTTP/1.1 %d X\r\nContent-Length: 0\r\n\r\n" % status, b"")
    assert scene.client.status == status
    scene.check_over()


# Time


def test_a_slow_target_is_given_up_for_another() -> None:
    scene = Scene(2, TIMEOUT)
    exchange = scene.ask(GET)
    first = sent(scene)
    scene.timers.advance(1.0)
    assert first.gone == "aborted"
    assert scene.pool.key == TWO
    scene.timers.advance(1.0)
    answer(sent(scene))
    assert exchange.retry_reason == "ResponseTimeout"
    assert scene.pools[1].counters.faults == {"ResponseTimeout": 1}
    scene.check_over()


def test_where_there_is_no_other_it_is_waited_for() -> None:
    scene = Scene(1, TIMEOUT)
    scene.ask(GET)
    upstream = sent(scene)
    scene.timers.advance(1.0)
    assert scene.client.patience == RESPONSE
    answer(upstream)
    scene.check_over()


def test_a_request_that_must_not_be_repeated_waits() -> None:
    scene = Scene(2, TIMEOUT)
    scene.ask(POST, b"12345678")
    upstream = sent(scene)
    scene.timers.advance(1.0)
    answer(upstream)
    assert scene.client.status == 200
    scene.check_over()


def test_unless_it_was_not_sent_yet() -> None:
    scene = Scene(2, TIMEOUT)
    scene.ask(POST, b"12345678")
    scene.timers.advance(1.0)
    assert scene.pools[1].waiting is None
    answer(sent(scene))
    assert tried(scene) == [(ONE, 0), (TWO, 200)]
    scene.check_over()


def test_the_time_of_a_try_begins_with_the_whole_request() -> None:
    scene = Scene(2, TIMEOUT)
    exchange = scene.ask(PUT, b"1234", False)
    first = sent(scene)
    scene.timers.advance(5.0)
    exchange.request_data(b"5678")
    exchange.end_request(b"")
    scene.timers.advance(0.9)
    assert not first.gone
    scene.timers.advance(0.1)
    assert sent(scene).data == b"12345678"
    exchange.client_lost()
    scene.check_over()


def test_everything_has_its_time() -> None:
    policy = RetryPolicy(request_timeout_seconds=2.5, try_timeout_seconds=1.0, attempts=5)
    scene = Scene(5, policy)
    exchange = scene.ask(GET)
    for _ in range(3):
        sent(scene)
        scene.timers.advance(1.0)
    assert (scene.client.status, exchange.error_reason) == (504, "RequestTimeout")
    scene.check_over()


def test_an_answer_that_takes_too_long_is_cut() -> None:
    scene = Scene(1, RetryPolicy(request_timeout_seconds=2.0))
    exchange = scene.ask(GET)
    sent(scene)
    exchange.response(response_head(), True, b"he", False)
    scene.timers.advance(2.0)
    assert scene.client.was_cut
    scene.check_over()


# gRPC

CALL = b"POST /a.B/C HTTP/1.1\r\nHost: x\r\nContent-Type: application/grpc%b\r\nContent-Length: 5\r\n%b\r\n"


@pytest.mark.parametrize(
    ("written", "seconds"), [(b"1500m", 1.5), (b"2S", 2.0), (b"1M", 60.0), (b"1H", 3600.0), (b"500000u", 0.5)]
)
def test_a_call_brings_its_deadline(written: bytes, seconds: float) -> None:
    scene = Scene(1, RetryPolicy(), is_grpc=True)
    exchange = scene.ask(CALL % (b"", b"grpc-timeout: %b\r\n" % written), bytes(5))
    sent(scene)
    scene.timers.advance(seconds - 0.01)
    assert not exchange.done
    scene.timers.advance(0.01)
    assert (exchange.error_reason, scene.client.status) == ("RequestTimeout", 200)
    assert b"grpc-status: 4\r\n" in scene.client.fields
    scene.check_over()


@pytest.mark.parametrize("written", [b"", b"S", b"-1S", b"1", b"1x", b"123456789S", b"1.5S"])
def test_what_is_no_deadline_is_none(written: bytes) -> None:
    scene = Scene(1, RetryPolicy(), is_grpc=True)
    scene.ask(CALL % (b"", b"grpc-timeout: %b\r\n" % written), bytes(5))
    assert not scene.timers.getDelayedCalls()
    scene.exchange.client_lost()


def test_the_groups_own_limit_may_be_shorter() -> None:
    scene = Scene(1, RetryPolicy(request_timeout_seconds=1.0), is_grpc=True)
    scene.ask(CALL % (b"", b"grpc-timeout: 1H\r\n"), bytes(5))
    scene.timers.advance(1.0)
    scene.check_over()


@pytest.mark.parametrize(("kind", "is_grpc"), [(b"", True), (b"+proto", True), (b"; x=y", True), (b"-web", False)])
def test_our_errors_to_calls_have_a_status_of_grpc(kind: bytes, is_grpc: bool) -> None:
    scene = Scene(0)
    exchange = scene.ask(CALL % (kind, b""), bytes(5))
    assert (exchange.status, b"grpc-status: 14" in scene.client.fields) == ((200, True) if is_grpc else (503, False))
    assert (b"application/grpc" in scene.client.fields) == is_grpc
    assert exchange.error_reason == "NoTargets"
    scene.check_over()


# Hedges


def hedging(policy: RetryPolicy = HEDGE, targets: int = 3) -> tuple[Scene, FakeUpstream, FakeUpstream]:
    scene = Scene(targets, policy)
    scene.ask(PUT, b"12345678")
    first = scene.pools[1].succeed()
    scene.timers.advance(0.5)
    second = scene.pools[2].succeed()
    assert (second.block, second.data, second.whole) == (first.block, b"12345678", True)
    return scene, first, second


def test_the_first_target_may_still_be_first() -> None:
    scene, first, second = hedging()
    answer(first)
    assert second.gone == "aborted"
    assert tried(scene) == [(TWO, 0), (ONE, 200)]
    assert scene.exchange.retry_reason == "Hedge"
    scene.check_over()


@pytest.mark.parametrize("whole", [True, False])
def test_the_second_target_may_be_first(whole: bool) -> None:
    scene, first, second = hedging()
    if whole:
        answer(second)
    else:
        exchange = second.exchange
        assert exchange is not None
        exchange.response(response_head(), True, b"he", False)
        assert second.exchange is scene.exchange
        scene.exchange.response_data(b"llo")
        second.let_go().response_ended(b"")
    assert first.gone == "aborted"
    assert (scene.client.status, scene.client.body, scene.client.whole) == (200, b"hello", True)
    assert tried(scene) == [(ONE, 0), (TWO, 200)]
    assert scene.exchange.target == TWO
    assert scene.pools[2].counters.responses[2] == 1
    scene.check_over()


def test_the_second_try_uses_a_kept_connection() -> None:
    scene = Scene(2, HEDGE)
    scene.ask(GET)
    kept = FakeUpstream(reused=True)
    scene.pools[2].kept.append(kept)
    sent(scene)
    scene.timers.advance(0.5)
    answer(kept)
    scene.check_over()


def test_a_hedge_may_begin_while_the_first_target_is_being_connected_to() -> None:
    scene = Scene(2, HEDGE)
    scene.ask(GET)
    scene.timers.advance(0.5)
    answer(scene.pools[2].succeed())
    assert scene.pools[1].waiting is None
    assert scene.client.status == 200
    scene.check_over()


@pytest.mark.parametrize("head", [POST, UPGRADE])
def test_what_must_not_be_repeated_is_not_hedged(head: bytes) -> None:
    """While connecting nothing is sent yet, but a hedge would send it twice."""
    for connected in (False, True):
        scene = Scene(2, HEDGE)
        scene.ask(head, b"12345678" if head == POST else b"")
        if connected:
            sent(scene)
        scene.timers.advance(5.0)
        assert scene.pools[2].begun == 0
        scene.exchange.client_lost()
        scene.check_over()


def test_when_the_first_fails_the_second_goes_on() -> None:
    scene, first, second = hedging()
    first.let_go().upstream_failed(Fault.TARGET_RESET, False)
    assert not scene.client.status
    assert scene.client.patience == RESPONSE
    answer(second)
    assert tried(scene) == [(ONE, 0), (TWO, 200)]
    scene.check_over()


def test_when_the_second_fails_the_first_goes_on() -> None:
    scene, first, second = hedging()
    second.let_go().upstream_failed(Fault.TARGET_RESET, False)
    answer(first)
    assert tried(scene) == [(TWO, 0), (ONE, 200)]
    scene.check_over()


def test_when_both_fail_the_policy_decides() -> None:
    for policy, status in ((HEDGE, 502), (RetryPolicy(hedge_delay_seconds=0.5, on_reset=True), 200)):
        scene, first, second = hedging(policy)
        first.let_go().upstream_failed(Fault.TARGET_RESET, False)
        second.let_go().upstream_failed(Fault.TARGET_RESET, False)
        if status == 200:
            answer(scene.pools[3].succeed())
            assert tried(scene) == [(TWO, 0), (ONE, 0), (THREE, 200)]
        else:
            assert tried(scene) == [(TWO, 0), (ONE, 0)]
        assert scene.client.status == status
        scene.check_over()


def test_a_second_target_that_cannot_be_connected_to() -> None:
    scene = Scene(2, HEDGE)
    scene.ask(GET)
    first = sent(scene)
    scene.timers.advance(0.5)
    scene.pools[2].fail()
    answer(first)
    scene.check_over()


def test_a_second_target_that_leaves() -> None:
    scene, first, second = hedging()
    exchange = second.exchange
    assert exchange is not None
    exchange.target_gone()
    assert second.gone == "aborted"
    answer(first)
    scene.check_over()


def test_an_answer_to_throw_away_does_not_win() -> None:
    policy = RetryPolicy(hedge_delay_seconds=0.5, statuses=((503, 503),))
    for loser in (0, 1):
        scene, *both = hedging(policy)
        answer(both[loser], UNAVAILABLE, b"busy")
        assert not scene.client.status
        answer(both[1 - loser])
        assert scene.client.status == 200
        keys = (ONE, TWO)
        assert tried(scene) == [(keys[loser], 503), (keys[1 - loser], 200)]
        scene.check_over()


def test_a_try_that_expires_leaves_it_to_the_second() -> None:
    scene, first, second = hedging(RetryPolicy(hedge_delay_seconds=0.5, try_timeout_seconds=1.0))
    scene.timers.advance(0.5)
    assert first.gone == "aborted"
    assert not scene.pools[3].begun
    answer(second)
    scene.check_over()


def test_a_client_that_leaves_ends_both() -> None:
    scene, first, second = hedging()
    scene.exchange.client_lost()
    assert (first.gone, second.gone) == ("aborted", "aborted")
    scene.check_over()


def test_an_interim_answer_of_the_second_is_kept_from_the_client() -> None:
    scene, first, second = hedging()
    exchange = second.exchange
    assert exchange is not None
    exchange.informational(response_head(b"HTTP/1.1 103 Early Hints\r\n\r\n"))
    assert scene.client.interim == []
    scene.exchange.informational(response_head(b"HTTP/1.1 103 Early Hints\r\n\r\n"))
    assert second.gone == "aborted", "the client has heard of the first"
    answer(first)
    scene.check_over()


# Of a rule


def test_a_rule_may_have_it_otherwise() -> None:
    """And what its requests take of the budget is the group's."""
    retrying = make_retrying(RetryPolicy(request_timeout_seconds=3.0), Clock())
    changed = retrying.changed(RetryChange(on_reset=True, methods=("POST",)))
    assert changed is retrying.changed(RetryChange(on_reset=True, methods=("POST",)))
    assert changed.policy == RetryPolicy(on_reset=True, methods=("POST",), request_timeout_seconds=3.0)
    assert changed.methods == {b"POST"}
    assert changed.budget is retrying.budget


@pytest.mark.parametrize("policy", [RetryPolicy(), RetryPolicy(on_reset=True, methods=("GET",))])
def test_requests_of_the_rule_go_by_it(policy: RetryPolicy) -> None:
    rule = attrs.evolve(RULES[0], action=Forward((WeightedGroup("app"),)), retry=RetryChange(on_reset=True, attempts=1))
    scene = Scene(3, policy, rules=(rule,))
    scene.ask(request("/fixed"))
    sent(scene).let_go().upstream_failed(Fault.TARGET_RESET, False)
    sent(scene).let_go().upstream_failed(Fault.TARGET_RESET, False)
    assert tried(scene) == [(ONE, 0), (TWO, 0)], "and no third"
    scene.check_over()


def test_what_was_remembered_for_rules_of_long_ago_is_let_go() -> None:
    retrying = make_retrying(RetryPolicy(), Clock())
    first = retrying.changed(RetryChange(attempts=0))
    for number in range(1, 1001):
        retrying.changed(RetryChange(request_timeout_seconds=float(number)))
    assert retrying.changed(RetryChange(attempts=0)) is not first


# The budget


def test_a_budget_is_a_part_of_the_recent_requests() -> None:
    clock = Clock()
    budget = make_budget(20, clock)
    for _ in range(100):
        budget.request()
    assert sum(budget.take() for _ in range(100)) == 20 + 3
    clock.advance(60.0)
    assert sum(budget.take() for _ in range(100)) == 3, "what was long ago counts no more"
    clock.advance(1.0)
    assert sum(budget.take() for _ in range(100)) == 3


def test_a_steady_load_gets_its_part() -> None:
    clock = Clock()
    budget = make_budget(10, clock)
    retries = 0
    for _ in range(60_000):
        clock.advance(0.001)
        budget.request()
        retries += budget.take()
    assert 60_000 * 0.1 <= retries <= 60_000 * 0.1 + 60 * 3 + 1000


def test_workers_share_the_allowance() -> None:
    clock = Clock()
    budget = make_budget(20, clock, 6)
    assert [budget.take(), budget.take()] == [True, False]
    clock.advance(2.0)
    assert [budget.take(), budget.take()] == [True, False]


def test_no_budget_no_retry() -> None:
    clock = Clock()
    budget = make_budget(0, clock)
    clock.advance(100.0)
    budget.request()
    assert not budget.take()


def test_so_many_are_in_a_retry_at_a_time() -> None:
    retrying = make_retrying(RetryPolicy(on_reset=True, budget_percent=100, most_at_once=1), Clock())
    first, second = (Scene(4, retrying) for _ in range(2))
    first.ask(GET)
    second.ask(GET)
    sent(first).let_go().upstream_failed(Fault.TARGET_RESET, False)
    assert retrying.budget.active.own == 1
    sent(second).let_go().upstream_failed(Fault.TARGET_RESET, False)
    assert second.client.status == 502, "another one is in a retry"
    sent(first).let_go().upstream_failed(Fault.TARGET_RESET, False)
    assert retrying.budget.active.own == 1, "its second retry, and still one request"
    answer(sent(first))
    assert retrying.budget.active.own == 0


def test_what_the_budget_refuses_is_counted() -> None:
    scene = Scene(2, RetryPolicy(on_reset=True, budget_percent=0))
    scene.ask(GET)
    sent(scene).let_go().upstream_failed(Fault.TARGET_RESET, False)
    assert scene.client.status == 502
    assert scene.pools[1].counters.retries_over_budget == 1
    scene.check_over()


# Random walks


class RetryMachine(ExchangeWalk):
    """Any policy, any events: one answer, right accounts, and nothing twice that must not be."""

    @initialize(
        number=st.integers(1, 4),
        head=st.sampled_from([GET, PUT, POST, CHUNKS, UPGRADE, request("/fixed")]),
        ended=st.booleans(),
        kept=st.integers(0, 1),
        policy=st.builds(
            RetryPolicy,
            on_reset=st.booleans(),
            statuses=st.sampled_from([(), ((503, 503),)]),
            attempts=st.integers(0, 4),
            try_timeout_seconds=st.sampled_from([None, 1.0]),
            request_timeout_seconds=st.sampled_from([None, 5.0]),
            hedge_delay_seconds=st.sampled_from([None, 0.5]),
        ),
    )
    def begin(self, number: int, head: bytes, ended: bool, kept: int, policy: RetryPolicy) -> None:
        self.scene = Scene(number, policy)
        self.sends = 0
        self.repeatable = head not in (POST, CHUNKS)
        self.connections: list[Any] = []
        for pool in self.scene.pools.values():
            for _ in range(kept):
                upstream = self.make(reused=True)
                pool.kept.append(upstream)
        self.ask(head, ended)

    def make(self, reused: bool) -> Any:
        machine = self

        class Counted(FakeUpstream):
            def send_request(self, *args: Any) -> None:
                super().send_request(*args)
                machine.sends += 1
                assert self.data == machine.body, "the body from its start"

        upstream = Counted(reused)
        self.connections.append(upstream)
        return upstream

    def waiting(self) -> list[FakePool]:
        return [pool for pool in self.scene.pools.values() if pool.waiting]

    def busy(self) -> list[Any]:
        return [upstream for upstream in self.connections if upstream.exchange is not None]

    def unanswered(self) -> bool:
        return bool(self.busy()) and not self.exchange.response_started

    @precondition(lambda self: self.waiting())
    @rule(data=st.data())
    def connect(self, data: Any) -> None:
        pool = data.draw(st.sampled_from(self.waiting()))
        exchange, pool.waiting = pool.waiting, None
        exchange.connected(self.make(reused=False))

    @precondition(lambda self: self.waiting())
    @rule(data=st.data())
    def fail_to_connect(self, data: Any) -> None:
        data.draw(st.sampled_from(self.waiting())).fail(Fault.CONNECT_REFUSED)

    @rule(seconds=st.sampled_from([0.5, 1.0, 5.0]))
    def pass_time(self, seconds: float) -> None:
        self.scene.timers.advance(seconds)

    @precondition(lambda self: self.busy())
    @rule(data=st.data())
    def deregister(self, data: Any) -> None:
        data.draw(st.sampled_from(self.busy())).exchange.target_gone()

    @precondition(lambda self: self.exchange.upstream is not None and not self.exchange.response_started)
    @rule()
    def press_back(self) -> None:
        self.exchange.pause_request()

    @precondition(unanswered)
    @rule(data=st.data())
    def inform(self, data: Any) -> None:
        upstream = data.draw(st.sampled_from(self.busy()))
        upstream.exchange.informational(response_head(b"HTTP/1.1 103 Early Hints\r\n\r\n"))

    @precondition(unanswered)
    @rule(data=st.data(), whole=st.booleans(), head=st.sampled_from([UNAVAILABLE, None]))
    def answer(self, data: Any, whole: bool, head: bytes | None) -> None:
        upstream = data.draw(st.sampled_from(self.busy()))
        read = response_head() if head is None else response_head(head)
        if whole:
            upstream.let_go().response(read, True, b"hello", True)
        else:
            upstream.exchange.response(read, True, b"he", False)

    @precondition(lambda self: self.running() and self.exchange.response_started and self.exchange.upstream)
    @rule(last=st.booleans())
    def relay(self, last: bool) -> None:
        upstream: Any = self.exchange.upstream
        self.exchange.response_data(b"llo")
        if last:
            upstream.let_go().response_ended(b"")

    @precondition(lambda self: self.busy())
    @rule(data=st.data(), fault=st.sampled_from([Fault.TARGET_CLOSED, Fault.TARGET_RESET, Fault.BAD_RESPONSE]))
    def fail_target(self, data: Any, fault: Fault) -> None:
        upstream = data.draw(st.sampled_from(self.busy()))
        fresh = not upstream.reused or self.exchange.response_started
        upstream.let_go().upstream_failed(fault, not fresh)

    @invariant()
    def accounts_are_right(self) -> None:
        if not hasattr(self, "scene"):
            return
        scene = self.scene
        under_way = len(self.busy()) + len(self.waiting())
        assert under_way == scene.in_flight
        if self.exchange.done:
            assert not self.busy()
            tries = len(self.exchange.targets_tried)
            assert tries == sum(pool.begun for pool in scene.pools.values())
            assert len(self.exchange.retry_reason.split(",")) == max(1, tries - 1)
        else:
            assert 1 <= under_way <= 2, "somebody has to go on"
            assert under_way == 1 or not self.exchange.response_started
        if not self.repeatable:
            assert self.sends <= 1, "it may have been acted on"


RetryMachine.TestCase.settings = settings(max_examples=200, stateful_step_count=20, deadline=None)
TestRetryMachine = RetryMachine.TestCase
