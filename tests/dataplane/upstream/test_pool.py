"""A pool: which connection a request gets, how many are kept, and what happens when the target leaves."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from lbproxy.dataplane.proxy.faults import Fault
from lbproxy.model.target import Target
from lbproxy.model.target_group import ProxyProtocolVersion, TargetGroup, TargetProtocol, TargetTls
from lbproxy.wire.proxyprotocol import ProxyHeaderReader
from tests.dataplane.doubles import FakeTransport, World, answer
from tests.dataplane.upstream.exchanges import FakeExchange


def served(world: World) -> FakeTransport:
    """A connection that has served one exchange."""
    [transport] = several(world, 1)
    return transport


def several(world: World, number: int) -> list[FakeTransport]:
    """So many connections that have each served one exchange, in this order."""
    exchanges, transports = [], []
    for _ in range(number):
        exchange = FakeExchange(world.pool)
        world.pool.connect(exchange)  # type: ignore[arg-type]
        transports.append(world.target())
        exchange.ask()
        exchanges.append(exchange)
    for transport in transports:
        transport.deliver(answer())
    return transports


def transport_of(connection: Any) -> FakeTransport:
    transport: FakeTransport = connection._transport
    return transport


def test_counting_what_is_in_flight() -> None:
    world = World()
    world.pool.begin()
    world.pool.begin()
    assert list(world.cells) == [0, 2]
    world.pool.end()
    assert list(world.cells) == [0, 1]
    assert world.pool.counters.requests == 2


def test_the_connection_used_last_is_used_first() -> None:
    world = World()
    first, second, third = several(world, 3)
    assert transport_of(world.pool.take(True)) is third
    assert transport_of(world.pool.take(True)) is second
    assert transport_of(world.pool.take(True)) is first
    assert world.pool.take(True) is None
    assert world.pool.counters.reused == 3
    assert world.pool.counters.connects == 3


def test_no_more_are_kept_than_allowed() -> None:
    world = World(group={"max_idle_connections": 2})
    transports = several(world, 4)
    world.turn()
    assert [transport.ended for transport in transports] == ["", "", "closed", "closed"]
    assert len(world.pool.idle) == len(world.pool.connections) == 2


def test_what_must_not_be_repeated_gets_a_connection_that_is_surely_open() -> None:
    world = World()
    quiet, noisy = several(world, 2)
    noisy.reading = False
    noisy.deliver_eof()  # not noticed yet
    assert transport_of(world.pool.take(False)) is quiet
    assert noisy.ended == "aborted"
    assert world.pool.take(False) is None


def test_a_connection_that_cannot_be_made() -> None:
    world = World()
    exchange = FakeExchange(world.pool)
    world.pool.connect(exchange)  # type: ignore[arg-type]
    world.connector.attempts[0].fail(Fault.CONNECT_TIMEOUT)
    assert exchange.fault is Fault.CONNECT_TIMEOUT
    assert world.pool.counters.connect_failures == 1
    world.pool.cancel(exchange)  # type: ignore[arg-type]
    assert not world.connector.attempts[0].cancelled


def test_cancelling_a_connection_that_is_being_made() -> None:
    world = World()
    exchange = FakeExchange(world.pool)
    world.pool.connect(exchange)  # type: ignore[arg-type]
    world.pool.cancel(exchange)  # type: ignore[arg-type]
    assert world.connector.attempts[0].cancelled
    world.pool.cancel(exchange)  # type: ignore[arg-type]
    assert world.pool.counters.connect_failures == 0


def test_a_pool_that_retires_closes_what_is_idle_and_finishes_what_is_not() -> None:
    world = World()
    idle, busy = several(world, 2)
    exchange = FakeExchange(world.pool)
    exchange.begin()
    exchange.ask()
    world.pool.retire()
    world.turn()
    assert (idle.ended, busy.ended) == ("closed", "")
    busy.deliver(answer())
    world.turn()
    assert exchange.ended
    assert busy.ended == "closed"
    assert not world.pool.connections


def test_a_retired_pool_still_connects_for_what_began_before() -> None:
    world = World()
    world.pool.retire()
    transport = served(world)
    world.turn()
    assert transport.ended == "closed"


def test_the_end_of_all_tells_every_exchange() -> None:
    world = World()
    idle, _ = several(world, 2)
    busy, waiting = FakeExchange(world.pool), FakeExchange(world.pool)
    busy.begin()
    busy.ask()
    world.pool.connect(waiting)  # type: ignore[arg-type]
    world.pool.end_all()
    world.turn()
    assert (busy.gone, waiting.gone) == (True, True)
    assert idle.ended == "closed"


@pytest.mark.parametrize("version", [ProxyProtocolVersion.V1, ProxyProtocolVersion.V2])
def test_with_a_proxy_header_a_connection_serves_one_client(version: ProxyProtocolVersion) -> None:
    world = World(group={"proxy_protocol": version})
    transport = served(world)
    header = ProxyHeaderReader().receive_data(world.connector.attempts[0].header)
    assert header is not None
    assert (header.source, header.destination) == (("192.0.2.7", 40000), ("198.51.100.1", 8080))
    world.turn()
    assert transport.ended == "closed"
    assert world.pool.take(True) is None


def test_whether_connections_serve_for_changed_settings() -> None:
    world = World()
    pool = world.pool

    def changed(**settings: Any) -> bool:
        group = {"name": "app", "protocol": TargetProtocol.HTTP, **settings}
        return pool.reaches(TargetGroup(**group), pool.target, 1)

    assert changed()
    assert changed(algorithm="weighted_random", max_idle_connections=1, deregistration_delay_seconds=1.0)
    assert not changed(protocol=TargetProtocol.HTTPS)
    assert not changed(tls=TargetTls(verify=False))
    assert not changed(proxy_protocol=ProxyProtocolVersion.V1)
    elsewhere = Target(host=pool.target.host, port=80, address="10.0.0.9")
    assert not pool.reaches(world.group, elsewhere, 1)
    assert not pool.reaches(world.group, pool.target, 2)


class PoolMachine(RuleBasedStateMachine):
    """Connections in any state and order: none is handed out twice, dirty or dead, and none is forgotten."""

    @initialize(limit=st.integers(0, 2))
    def begin(self, limit: int) -> None:
        self.world = World(group={"max_idle_connections": limit, "keep_alive_seconds": 5.0})
        self.pool = self.world.pool
        self.busy: list[FakeExchange] = []
        self.waiting: list[tuple[FakeExchange, Any]] = []
        self.transports: list[FakeTransport] = []

    @rule(idempotent=st.booleans())
    def ask(self, idempotent: bool) -> None:
        exchange = FakeExchange(self.pool)
        connection = self.pool.take(idempotent)
        if connection is None:
            self.pool.connect(exchange)  # type: ignore[arg-type]
            self.waiting.append((exchange, self.world.connector.attempts[-1]))
            return
        transport = transport_of(connection)
        assert transport.connected
        assert not transport.ended
        assert transport.reading or transport.full
        exchange.connected(connection)
        exchange.ask()
        self.busy.append(exchange)

    @precondition(lambda self: self.waiting)
    @rule(outcome=st.sampled_from(["made", "failed", "cancelled"]))
    def settle(self, outcome: str) -> None:
        exchange, attempt = self.waiting.pop(0)
        if outcome == "made":
            self.transports.append(attempt.succeed())
            exchange.ask()
            self.busy.append(exchange)
        elif outcome == "failed":
            attempt.fail()
        else:
            self.pool.cancel(exchange)  # type: ignore[arg-type]

    @precondition(lambda self: self.busy)
    @rule(
        number=st.integers(0, 9),
        data=st.sampled_from(
            [answer(), answer(b""), answer(b"x", "Connection: close"), answer() + b"y", b"bad\r\n\r\n"]
        ),
        slow=st.booleans(),
    )
    def be_answered(self, number: int, data: bytes, slow: bool) -> None:
        exchange = self.busy.pop(number % len(self.busy))
        exchange.pauses_after_data = slow
        transport = transport_of(exchange.connection)
        transport.deliver(data[:40])
        self.world.turn()
        transport.reading = transport.reading or transport.connected
        if transport.connected and not transport.ended:
            transport.deliver(data[40:])
        assert exchange.ended or exchange.fault

    @precondition(lambda self: self.busy)
    @rule(number=st.integers(0, 9))
    def give_up(self, number: int) -> None:
        exchange = self.busy.pop(number % len(self.busy))
        assert exchange.connection is not None
        exchange.connection.abort()

    @precondition(lambda self: self.transports)
    @rule(number=st.integers(0, 9), how=st.sampled_from(["eof", "reset", "data"]))
    def disturb(self, number: int, how: str) -> None:
        """The target does something, also on idle connections."""
        transport = self.transports[number % len(self.transports)]
        if not transport.connected:
            return
        busy = [exchange for exchange in self.busy if transport_of(exchange.connection) is transport]
        if how == "eof":
            transport.deliver_eof()
        elif how == "reset":
            transport.reset()
        elif not busy:
            transport.deliver(b"x")
        for exchange in busy:
            if exchange.fault:
                self.busy.remove(exchange)

    @rule(seconds=st.sampled_from([0.0, 1.0, 6.0]))
    def pass_time(self, seconds: float) -> None:
        self.world.wait(seconds)
        self.world.turn()

    @rule()
    def retire(self) -> None:
        self.pool.retire()

    @invariant()
    def each_connection_is_in_one_place(self) -> None:
        if not hasattr(self, "pool"):
            return
        idle = list(self.pool.idle)
        assert len(set(map(id, idle))) == len(idle) <= self.pool.group.max_idle_connections
        for connection in idle:
            assert connection.exchange is None
            assert connection in self.pool.connections
            assert not transport_of(connection).ended
        if self.pool.retired:
            assert not idle
        for exchange in self.busy:
            assert exchange.connection in self.pool.connections
            assert exchange.connection not in idle

    def teardown(self) -> None:
        if hasattr(self, "pool"):
            self.pool.end_all()
            for exchange in self.busy:
                assert exchange.connection is not None
                exchange.connection.abort()
            self.world.wait(12)
            assert not self.pool.connections
            assert not self.world.clock.getDelayedCalls()


PoolMachine.TestCase.settings = settings(max_examples=100, stateful_step_count=20, deadline=None)
TestPoolMachine = PoolMachine.TestCase
