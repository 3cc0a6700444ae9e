"""Clients that give their requests or take their answers slower than the listener lets them."""

from __future__ import annotations

from typing import Any

from tests.dataplane.doubles import FakeTransport, World, answer, request

SLOW: dict[str, Any] = {"min_request_rate": 10, "min_response_rate": 10, "slow_client_grace_seconds": 10.0}
POST = b"POST / HTTP/1.1\r\nHost: example.com\r\nContent-Length: 100000\r\n\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nHost: example.com\r\nTransfer-Encoding: chunked\r\n\r\n"
FIXED = b"GET /fixed HTTP/1.1\r\nHost: example.com\r\n\r\n"


def trickle(world: World, client: FakeTransport, seconds: int, data: bytes) -> None:
    for _ in range(seconds):
        client.deliver(data)
        world.wait(1)


def test_a_body_that_trickles_is_answered_with_408_and_counted() -> None:
    for start, piece in ((POST, b"x" * 5), (CHUNKED, b"1\r\nx\r\n")):
        world = World(**SLOW)
        client = world.client()
        client.deliver(start)
        target = world.target()
        trickle(world, client, 9, piece)
        assert not client.take()
        trickle(world, client, 2, piece)
        assert client.take().startswith(b"HTTP/1.1 408 ")
        assert target.ended == "aborted"
        [record] = world.log.records
        assert (record.status, record.error_reason) == (408, "ClientTooSlow")
        assert world.counters.faults == {"ClientTooSlow": 1}
        world.wait(5)
        assert not client.connected
        assert world.in_flight == 0


def test_a_body_that_comes_steadily_may_take_long() -> None:
    world = World(**SLOW)
    client = world.client()
    client.deliver(POST)
    world.target()
    trickle(world, client, 60, b"x" * 12)
    assert not client.take()


def test_each_body_has_a_grace_of_its_own() -> None:
    world = World(**SLOW)
    client = world.client()
    client.deliver(request())
    target = world.target()
    target.deliver(answer())
    client.take()
    for _ in range(4):
        client.deliver(b"POST / HTTP/1.1\r\nHost: example.com\r\nContent-Length: 2\r\n\r\n")
        world.wait(7)
        client.deliver(b"ok")
        world.wait(7)
        target.deliver(answer())
        assert client.take().endswith(b"hello")
        assert client.connected


def test_the_target_s_slowness_is_not_the_client_s() -> None:
    world = World(**SLOW)
    client = world.client()
    client.deliver(POST)
    target = world.target()
    target.full = True
    client.deliver(b"x" * 100)
    assert not client.reading, "the target is asked to catch up first"
    world.wait(30)
    assert client.connected
    assert not client.take()
    target.drain()
    world.turn()
    world.wait(8)
    assert not client.take()
    world.wait(3)
    assert client.take().startswith(b"HTTP/1.1 408 ")


def test_time_to_connect_is_not_the_client_s() -> None:
    world = World(**SLOW)
    client = world.client()
    client.deliver(POST)
    world.wait(9)
    world.target()
    world.wait(8)
    assert not client.take()


def test_a_conversation_may_pause() -> None:
    world = World(**SLOW)
    client = world.client()
    client.deliver(CHUNKED)
    target = world.target()
    target.deliver(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    for _ in range(4):
        world.wait(9)
        client.deliver(b"1\r\nx\r\n")
        target.deliver(b"1\r\ny\r\n")
    assert client.connected
    assert client.take().endswith(b"1\r\ny\r\n")


def test_zero_is_any_rate() -> None:
    world = World(min_request_rate=0, min_response_rate=0, slow_client_grace_seconds=10.0)
    client = world.client()
    client.deliver(POST)
    world.target()
    trickle(world, client, 60, b"x")
    assert client.connected
    assert not client.take()


def test_an_answer_taken_in_drops_is_cut_and_counted() -> None:
    world = World(**SLOW)
    client = world.client()
    client.deliver(request())
    target = world.target()
    client.full = True
    target.deliver(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + b"x" * 50_000)
    assert not target.reading
    for _ in range(9):
        client.drain_some(5)
        world.wait(1)
    assert client.connected
    for _ in range(2):
        client.drain_some(5)
        world.wait(1)
    assert client.ended == "aborted"
    assert target.ended == "aborted"
    [record] = world.log.records
    assert (record.status, record.error_reason) == (200, "ClientTooSlow")
    assert world.counters.faults == {"ClientTooSlow": 1}


def test_an_answer_taken_steadily_may_take_long() -> None:
    world = World(**SLOW)
    client = world.client()
    client.deliver(request())
    target = world.target()
    client.full = True
    target.deliver(answer(b"x" * 50_000))
    for _ in range(60):
        client.drain_some(12)
        world.wait(1)
    client.drain()
    assert client.take().endswith(b"x" * 100)
    assert world.counters.faults == {}


def test_a_whole_answer_that_nobody_takes_ends_with_the_connection() -> None:
    """The exchange is over, and only the transport still holds what the client does not want."""
    for data in (FIXED, FIXED.replace(b"1.1", b"1.0")):
        world = World(**SLOW)
        client = world.client()
        client.full = True
        client.deliver(data)
        for _ in range(12):
            client.drain_some(1)
            world.wait(1)
        assert client.ended == "aborted"
        assert world.counters.faults == {"ClientTooSlow": 1}
        world.wait(6)
        assert not world.clock.getDelayedCalls()


def test_a_client_that_is_gone_is_not_judged() -> None:
    for data in (POST, request()):
        world = World(**SLOW)
        client = world.client()
        client.full = True
        client.deliver(data)
        world.target().deliver(answer(b"x" * 1000))
        client.reset()
        world.wait(20)
        assert set(world.counters.faults) <= {"ClientClosed"}
        assert world.in_flight == 0


def test_a_connection_ends_after_its_share_of_requests() -> None:
    world = World(max_requests_per_connection=3)
    client = world.client()
    for number in range(3):
        client.deliver(FIXED)
        assert (b"Connection: close" in client.take()) == (number == 2)
    world.turn()
    assert client.ended == "closed"


def test_a_pipeline_ends_after_its_share_of_requests_too() -> None:
    world = World(max_requests_per_connection=2)
    client = world.client()
    client.deliver(FIXED * 5)
    world.turn()
    assert client.take().count(b"HTTP/1.1 200") == 2
    assert len(world.log.records) == 2


# What is closed in order is in the ledger


def test_closed_connections_have_a_cause() -> None:
    world = World(max_requests_per_connection=1)
    world.client().deliver(FIXED)
    assert world.counters.closed == {"MaxRequests": 1}

    world = World(client_keep_alive_seconds=5.0)
    client = world.client()
    world.wait(6)
    client.deliver(FIXED)
    assert world.counters.closed == {"KeepAliveAge": 1}

    world = World(idle_timeout_seconds=5.0)
    client = world.client()
    client.deliver(FIXED)
    world.wait(6)
    assert client.ended == "closed"
    assert world.counters.closed == {"IdleTimeout": 1}

    world = World()
    idle, busy = world.client(), world.client()
    world.front.drain("Reload")
    busy.deliver(FIXED)
    world.wait(3)
    assert (idle.ended, busy.ended) == ("closed", "closed")
    assert world.counters.closed == {"Reload": 2}

    world = World()
    world.client()
    world.front.end()
    assert world.counters.closed == {"DrainDeadline": 1}


def test_what_the_client_closes_is_not_in_the_ledger() -> None:
    world = World()
    for leave in ("deliver_eof", "reset"):
        client = world.client()
        client.deliver(FIXED)
        getattr(client, leave)()
        world.wait(6)
    asked_to_close = world.client()
    asked_to_close.deliver(FIXED.replace(b"Host", b"Connection: close\r\nHost"))
    world.wait(6)
    assert (world.counters.closed, world.counters.faults) == ({}, {})
