"""Random walks of clients and targets through a whole worker's HTTP side.

Whatever happens, the accounts stay right, and when nothing happens any more everything ends by its deadlines.
"""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from lbproxy.dataplane.proxy.faults import Fault
from lbproxy.model.retry import RetryPolicy
from tests.dataplane.doubles import CHUNKED_ANSWER, CHUNKED_REQUEST, FakeTransport, World, answer, request

UPGRADE = request("/", "Connection: upgrade", "Upgrade: websocket")

FROM_CLIENT = [
    request(),
    request("/fixed"),
    request("/fixed") * 5 + request("/old"),
    request(method="HEAD"),
    request("/", "Connection: close"),
    request("/fixed", "Connection: close"),
    request("/", "Connection: keep-alive", version="1.0"),
    request(version="1.0"),
    request(method="POST", body=b"0123456789"),
    request("/fixed", method="POST", body=b"0123456789"),
    CHUNKED_REQUEST,
    UPGRADE,
    UPGRADE + b"ahead",
    b"nonsense\r\n",
    request() * 3,
]

FROM_TARGET = [
    answer(),
    answer(b""),
    answer(b"busy", status="503 Service Unavailable"),
    answer(b"hello", "Connection: close"),
    answer() + b"surplus",
    CHUNKED_ANSWER,
    CHUNKED_ANSWER.replace(b"0\r\n\r\n", b"0\r\nX: 1\r\n\r\n"),
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"HTTP/1.1 103 Early Hints\r\n\r\n" + answer(),
    b"HTTP/1.0 200 OK\r\n\r\nup to the close",
    b"HTTP/1.1 304 Not Modified\r\n\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nhello",
    b"nonsense\r\n\r\n",
    b"0",
]


class Walk(RuleBasedStateMachine):
    """Three targets, some clients."""

    @initialize(
        limit=st.integers(0, 2),
        retry=st.builds(
            RetryPolicy,
            on_reset=st.booleans(),
            statuses=st.sampled_from([(), ((503, 503),)]),
            try_timeout_seconds=st.sampled_from([None, 1.0]),
            request_timeout_seconds=st.sampled_from([None, 10.0]),
            hedge_delay_seconds=st.sampled_from([None, 1.0]),
        ),
    )
    def begin(self, limit: int, retry: RetryPolicy) -> None:
        self.world = World(
            targets=3,
            group={
                "response_timeout_seconds": 4.0,
                "keep_alive_seconds": 6.0,
                "max_idle_connections": limit,
                "retry": retry,
            },
            idle_timeout_seconds=5.0,
            request_header_timeout_seconds=3.0,
            client_keep_alive_seconds=30.0,
        )
        self.clients: list[FakeTransport] = []

    @property
    def targets(self) -> list[FakeTransport]:
        transports = [attempt.transport for attempt in self.world.connector.attempts]
        return [transport for transport in transports if transport is not None and transport.connected]

    def pending(self) -> list[Any]:
        return [
            attempt
            for attempt in self.world.connector.attempts
            if attempt.transport is None and not attempt.cancelled and not attempt.failed
        ]

    @rule()
    def come(self) -> None:
        if len(self.clients) < 4:
            self.clients.append(self.world.client())

    @precondition(lambda self: self.clients)
    @rule(number=st.integers(0, 3), data=st.sampled_from(FROM_CLIENT), cut=st.none() | st.integers(1, 120))
    def client_sends(self, number: int, data: bytes, cut: int | None) -> None:
        client = self.clients[number % len(self.clients)]
        if client.connected:
            client.deliver(data[:cut])
            if cut is not None and data[cut:] and client.connected:
                client.deliver(data[cut:])

    @precondition(lambda self: self.clients)
    @rule(number=st.integers(0, 3), data=st.sampled_from(FROM_CLIENT), cut=st.integers(1, 120))
    def client_sends_a_part(self, number: int, data: bytes, cut: int) -> None:
        client = self.clients[number % len(self.clients)]
        if client.connected:
            client.deliver(data[:cut])

    @precondition(lambda self: self.pending())
    @rule(number=st.integers(0, 3), fault=st.sampled_from([None, None, None, Fault.CONNECT_REFUSED, Fault.TLS_FAILED]))
    def connect(self, number: int, fault: Fault | None) -> None:
        pending = self.pending()
        attempt = pending[number % len(pending)]
        if fault is None:
            attempt.succeed()
        else:
            attempt.fail(fault)

    @precondition(lambda self: self.targets)
    @rule(number=st.integers(0, 5), data=st.sampled_from(FROM_TARGET), cut=st.none() | st.integers(1, 80))
    def target_sends(self, number: int, data: bytes, cut: int | None) -> None:
        target = self.targets[number % len(self.targets)]
        target.deliver(data[:cut])

    @rule(number=st.integers(0, 9), how=st.sampled_from(["eof", "reset", "full", "drain"]))
    def happen(self, number: int, how: str) -> None:
        transports = [client for client in self.clients if client.connected] + self.targets
        if not transports:
            return
        transport = transports[number % len(transports)]
        if how == "eof":
            transport.deliver_eof()
        elif how == "reset":
            transport.reset()
        elif how == "full":
            transport.full = True
        else:
            transport.drain()

    @rule(seconds=st.sampled_from([0.0, 0.0, 1.0, 4.5]))
    def pass_time(self, seconds: float) -> None:
        self.world.wait(seconds)
        self.world.turn()

    @rule(what=st.sampled_from(["drain", "retire", "end all", "nothing", "nothing", "nothing"]))
    def operate(self, what: str) -> None:
        if what == "drain":
            self.world.front.drain("Drain")
        elif what == "retire":
            self.world.pools[2].retire()
        elif what == "end all":
            self.world.pools[3].end_all()

    @invariant()
    def the_accounts_are_right(self) -> None:
        if not hasattr(self, "world"):
            return
        world = self.world
        open_now = [client for client in self.clients if client.connected]
        assert world.counters.active == len(world.front.connections) == len(open_now)
        hedged = 1 + (world.group.retry.hedge_delay_seconds is not None)
        assert 0 <= world.in_flight <= len(open_now) * hedged
        assert all(cell >= 0 for cell in world.cells)
        for pool in world.pools.values():
            for connection in pool.idle:
                transport: Any = connection._transport
                assert connection.exchange is None
                assert transport.reading, "it would not be heard"

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        for _ in range(60):
            while pending := self.pending():
                for attempt in pending:
                    attempt.fail(Fault.CONNECT_TIMEOUT)
            self.world.wait(2)
        world = self.world
        assert world.in_flight == 0
        assert not [client for client in self.clients if client.connected], "a client's connection has no deadline"
        assert not self.targets, "a target's connection has no deadline"
        assert not any(pool.idle or pool.connections for pool in world.pools.values())
        assert world.clock.getDelayedCalls() == []


Walk.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestWalk = Walk.TestCase
