"""So many requests at a time for each target, and a queue for the others."""

from __future__ import annotations

from typing import Any

from lbproxy.dataplane.proxy.gate import LOOK_SECONDS
from lbproxy.model.retry import RetryPolicy
from lbproxy.model.rule import Forward, PathCondition, Pattern, Rule, WeightedGroup
from tests.dataplane.doubles import FakeTransport, World, answer, request

RULES = (
    Rule(
        name="high",
        priority=5,
        conditions=(PathCondition((Pattern("/high"),)),),
        action=Forward((WeightedGroup("app"),)),
        queue_priority=9,
    ),
)


def world(targets: int = 1, limit: int = 1, length: int = 10, **group: Any) -> World:
    settings = {"max_concurrent_requests": limit, "queue_length": length, "queue_timeout_seconds": 2.0, **group}
    return World(targets=targets, group=settings, rules=RULES)


def ask(world: World, path: str = "/", **request_settings: Any) -> FakeTransport:
    client = world.client()
    client.deliver(request(path, **request_settings))
    return client


def look(world: World) -> None:
    world.clock.advance(LOOK_SECONDS)


def test_a_target_is_given_no_more_than_its_limit() -> None:
    bench = world(limit=2)
    clients = [ask(bench) for _ in range(3)]
    assert len(bench.connector.attempts) == 2
    assert bench.in_flight == 2
    bench.connector.attempts[0].succeed().deliver(answer())
    assert clients[0].take().startswith(b"HTTP/1.1 200")
    look(bench)
    assert bench.in_flight == 2
    bench.connector.attempts[1].succeed().deliver(answer())
    bench.connector.attempts[0].transport.deliver(answer())  # type: ignore[union-attr]
    assert [client.take()[:12] for client in clients[1:]] == [b"HTTP/1.1 200"] * 2
    assert bench.in_flight == 0


def test_another_target_with_room_is_taken_first() -> None:
    bench = world(targets=3)
    for _ in range(3):
        ask(bench)
    assert len({attempt.target.key for attempt in bench.connector.attempts}) == 3
    ask(bench)
    assert len(bench.connector.attempts) == 3


def test_first_fills_one_target_after_the_other() -> None:
    bench = world(targets=2, limit=2, algorithm="first")
    for _ in range(4):
        ask(bench)
    assert [attempt.target.host[-1] for attempt in bench.connector.attempts] == ["1", "1", "2", "2"]


def test_those_that_wait_are_served_in_turn() -> None:
    bench = world()
    ask(bench)
    waiting = [ask(bench) for _ in range(3)]
    target = bench.target()
    for client in waiting:
        target.deliver(answer())
        look(bench)
        assert bench.in_flight == 1
        assert client.take() == b""
    target.deliver(answer())
    assert [client.take()[:12] for client in waiting] == [b"HTTP/1.1 200"] * 3
    assert len(bench.connector.attempts) == 1


def test_who_comes_later_does_not_push_in() -> None:
    bench = world()
    ask(bench)
    first = ask(bench)
    bench.target().deliver(answer())
    late = ask(bench)
    look(bench)
    bench.connector.attempts[0].transport.deliver(answer(b"first"))  # type: ignore[union-attr]
    assert b"first" in first.take()
    assert late.take() == b""


def test_a_higher_priority_goes_first() -> None:
    bench = world()
    ask(bench)
    low, high = ask(bench), ask(bench, "/high")
    target = bench.target()
    target.deliver(answer())
    look(bench)
    target.deliver(answer(b"second"))
    assert b"second" in high.take()
    assert low.take() == b""


def test_a_full_queue_refuses() -> None:
    bench = world(length=1)
    ask(bench)
    waiting, refused = ask(bench), ask(bench)
    assert refused.take().startswith(b"HTTP/1.1 503")
    assert bench.log.records[-1].error_reason == "QueueFull"
    assert bench.counters.faults == {"QueueFull": 1}
    high = ask(bench, "/high")
    assert waiting.take().startswith(b"HTTP/1.1 503"), "it had to make place"
    assert high.take() == b""
    assert ask(bench, "/high").take().startswith(b"HTTP/1.1 503")


def test_without_a_queue_a_request_is_refused_at_once() -> None:
    bench = world(length=0)
    ask(bench)
    assert ask(bench).take().startswith(b"HTTP/1.1 503")


def test_waiting_has_an_end() -> None:
    bench = world()
    ask(bench)
    client = ask(bench)
    bench.wait(1.9)
    assert client.take() == b""
    bench.wait(0.2)
    assert client.take().startswith(b"HTTP/1.1 503")
    assert bench.log.records[-1].error_reason == "QueueTimeout"
    assert bench.in_flight == 1


def test_a_client_that_leaves_is_forgotten() -> None:
    bench = world(length=1)
    ask(bench)
    ask(bench).reset()
    assert bench.log.records[-1].error_reason == "ClientClosed"
    assert ask(bench).take() == b""
    bench.target().deliver(answer())
    look(bench)
    assert bench.in_flight == 1


def test_many_that_come_and_go_leave_nothing_behind() -> None:
    bench = world(length=1)
    ask(bench)
    for _ in range(300):
        ask(bench).reset()
    gate = bench.pool.gate
    assert gate is not None
    assert gate.waiting.own == 0
    assert len(gate._queue) < 80
    assert len(gate._by_arrival) < 80
    bench.target().deliver(answer())
    bench.wait(1)
    assert bench.in_flight == 0


def test_a_body_waits_with_its_request() -> None:
    bench = world()
    ask(bench)
    client = bench.client()
    client.deliver(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\n\r\nabc")
    assert not client.reading
    client.deliver(b"def")
    target = bench.target()
    target.take()
    target.deliver(answer())
    look(bench)
    bench.turn()
    assert target.take().endswith(b"\r\n\r\nabcdef")
    target.deliver(answer())
    assert client.take().startswith(b"HTTP/1.1 200")


def test_what_another_worker_makes_room_for_is_found() -> None:
    bench = world()
    bench.cells[1] = 1  # in flight elsewhere
    client = ask(bench)
    assert not bench.connector.attempts
    bench.cells[1] = 0
    look(bench)
    bench.target().deliver(answer())
    assert client.take().startswith(b"HTTP/1.1 200")


def test_the_next_to_try_has_room_too() -> None:
    bench = world(targets=3)
    bench.cells[2] = 1
    client = ask(bench)
    while not client.take():
        bench.connector.attempts[-1].fail()
    assert sorted(attempt.target.host[-1] for attempt in bench.connector.attempts) == ["1", "3"]


# All workers together


def test_the_queue_is_as_long_for_all_workers_together() -> None:
    bench = world(length=3)
    bench.waiting_elsewhere(2)
    ask(bench)
    assert ask(bench).take() == b""
    assert ask(bench).take().startswith(b"HTTP/1.1 503")
    bench.waiting_elsewhere(1)
    assert ask(bench).take() == b""


def test_others_that_wait_elsewhere_do_not_keep_a_free_target_free() -> None:
    bench = world()
    bench.waiting_elsewhere(2)
    ask(bench)
    assert len(bench.connector.attempts) == 1


# The circuit breaker


def breaker(most: int, **group: Any) -> World:
    return world(targets=2, limit=0, circuit_breaker_max_requests=most, **group)


def test_a_group_with_all_that_it_may_have_in_flight_refuses_at_once() -> None:
    bench = breaker(3)
    clients = [ask(bench) for _ in range(4)]
    assert [client.take()[:12] for client in clients] == [b"", b"", b"", b"HTTP/1.1 503"]
    assert bench.log.records[-1].error_reason == "CircuitOpen"
    assert bench.counters.faults == {"CircuitOpen": 1}
    assert bench.waiting.own == 0
    bench.connector.attempts[0].succeed().deliver(answer())
    assert ask(bench).take() == b"", "one is over, so one more may be"
    assert bench.in_flight == 3


def test_what_other_workers_have_in_flight_counts() -> None:
    bench = breaker(3)
    bench.cells[1] += 2
    bench.cells[2] += 1
    assert ask(bench).take().startswith(b"HTTP/1.1 503")


def test_a_retry_is_no_request_more() -> None:
    bench = breaker(1, retry=RetryPolicy(on_reset=True))
    client = ask(bench)
    bench.connector.attempts[0].succeed().reset()
    assert len(bench.connector.attempts) == 2
    bench.connector.attempts[1].succeed().deliver(answer())
    assert client.take().startswith(b"HTTP/1.1 200")


def test_the_queue_waits_for_the_circuit_too() -> None:
    bench = world(targets=2, limit=1, circuit_breaker_max_requests=3)
    for _ in range(2):
        ask(bench)
    waiting = ask(bench)
    bench.cells[1] += 2  # at other workers, with an older limit
    assert ask(bench).take().startswith(b"HTTP/1.1 503")
    bench.connector.attempts[1].succeed().deliver(answer())
    look(bench)
    assert bench.waiting.own == 1, "a target has room, the group has not"
    bench.cells[1] -= 2
    look(bench)
    assert bench.waiting.own == 0
    assert waiting.take() == b""
