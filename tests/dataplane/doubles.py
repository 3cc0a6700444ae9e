"""A worker's HTTP side in memory: real connections, exchanges and pools on transports that tests move by hand."""

from __future__ import annotations

import re
from array import array
from random import Random
from typing import Any

import attrs
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from lbproxy.dataplane.balancer import Circumstances, make_balancer
from lbproxy.dataplane.balancer.seal import Seal
from lbproxy.dataplane.balancer.stickiness import GroupStickiness, target_stickiness
from lbproxy.dataplane.deadlines import Deadlines
from lbproxy.dataplane.listener.http1 import ClientConnection, HttpFront
from lbproxy.dataplane.listener.http2 import Http2Connection
from lbproxy.dataplane.proxy.faults import Fault
from lbproxy.dataplane.proxy.forwarded import TraceIds
from lbproxy.dataplane.proxy.gate import Gate
from lbproxy.dataplane.proxy.retry import RetryBudget, Retrying
from lbproxy.dataplane.proxy.runtime import GroupRuntime, HttpRuntime
from lbproxy.dataplane.proxy.tally import Tally
from lbproxy.dataplane.router.table import Table
from lbproxy.dataplane.upstream.multiplex import MultiplexPool
from lbproxy.dataplane.upstream.pool import TargetPool
from lbproxy.model.listener import Bind, Listener, ListenerProtocol
from lbproxy.model.retry import RetryPolicy
from lbproxy.model.rule import FixedResponse, Forward, PathCondition, Pattern, Redirect, Rule, WeightedGroup
from lbproxy.model.snapshot import GroupState
from lbproxy.model.target import RegisteredTarget, Target, TargetHealth, TargetState
from lbproxy.model.target_group import ProtocolVersion, TargetGroup, TargetProtocol
from lbproxy.native.clock import turns
from lbproxy.telemetry.counters import ListenerCounters, TargetCounters
from lbproxy.telemetry.records import RequestLog

CLIENT = IPv4Address("TCP", "192.0.2.7", 40000)
OWN = IPv4Address("TCP", "198.51.100.1", 8080)

_EOF = b""
_DATE = re.compile(rb"(?i)\r\ndate: [^\r]*")


def undated(data: bytes) -> bytes:
    """Answers without their Date, which is that of the computer (RFC 9110 section 6.6.1)."""
    return _DATE.sub(b"", data)


class FakeTransport:
    """Behaves as `lbproxy.native.transport.StreamTransport`; the test plays the kernel and the peer.

    What is written is in ``sent`` at once, or waits while the transport is ``full``.  What the peer sends is
    delivered as long as the protocol reads; after a pause the rest comes with the next turn of the clock.
    """

    def __init__(self, clock: Clock, protocol: Any) -> None:
        self.clock = clock
        self.protocol = protocol
        self.sent = b""
        self.writes = 0
        self.full = False
        self.reading = True
        self.connected = True
        self.disconnecting = False
        self.write_closed = False
        self.ended = ""
        """``closed`` or ``aborted`` when this side has ended the connection, ``lost`` when the peer has."""
        self._queued = b""
        self._incoming: list[bytes] = []
        self._half_closing = False
        self._producer: Any = None
        self._paused = False

    # What the protocol calls

    def getHost(self) -> IPv4Address:
        return OWN

    def getPeer(self) -> IPv4Address:
        return CLIENT

    def is_quiet(self) -> bool:
        return self.connected and not self._incoming

    def untaken(self) -> int:
        return len(self._queued)

    def write(self, data: bytes) -> None:
        assert isinstance(data, bytes)
        if not self.connected or self.write_closed or self.ended == "aborted":
            return
        self.writes += 1
        if self.full or self._queued:
            self._queued += data
            if self._producer is not None:
                self._paused = True
                self._producer.pauseProducing()
        else:
            self.sent += data

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        assert streaming
        assert self._producer is None
        self._producer = producer

    def unregisterProducer(self) -> None:
        self._producer = None

    def pauseProducing(self) -> None:
        self.reading = False

    def resumeProducing(self) -> None:
        if self.connected and not self.disconnecting and not self.reading:
            self.reading = True
            self.clock.callLater(0, self._deliver)

    def loseConnection(self) -> None:
        assert self._producer is None or not self._paused, "it would never close"
        if not self.connected or self.disconnecting or self.ended:
            return
        self.reading = False
        if self.write_closed:
            self._lose(ConnectionDone(), "closed")
            return
        self.disconnecting = True
        if not self._queued:
            self.clock.callLater(0, self._lose, ConnectionDone(), "closed")

    def loseWriteConnection(self) -> None:
        self._half_closing = True
        if not self._queued:
            self.clock.callLater(0, self._close_write)

    def abortConnection(self) -> None:
        if self.connected and self.ended != "aborted":
            self.reading = False
            self.ended = "aborted"
            self._queued = b""
            self.clock.callLater(0, self._lose, ConnectionAborted(), "aborted")

    # What the test calls

    def deliver(self, data: bytes) -> None:
        """The peer sends this."""
        self._incoming.append(data)
        self._deliver()

    def deliver_eof(self) -> None:
        """The peer sends no more."""
        self.deliver(_EOF)

    def reset(self) -> None:
        """The peer resets the connection."""
        self._lose(ConnectionLost(), "lost")

    def drain(self) -> None:
        """The peer has read: there is room again, and what waited is sent."""
        self.full = False
        self.sent += self._queued
        self._queued = b""
        if self._producer is not None and self._paused:
            self._paused = False
            self._producer.resumeProducing()
        elif self.disconnecting:
            self._lose(ConnectionDone(), "closed")
        elif self._half_closing:
            self._close_write()

    def drain_some(self, size: int) -> None:
        """The peer has read some of what waits; not enough for the kernel to tell."""
        self.sent += self._queued[:size]
        self._queued = self._queued[size:]

    def take(self) -> bytes:
        """What was sent since the last time."""
        sent, self.sent = self.sent, b""
        return sent

    def _deliver(self) -> None:
        while self._incoming and self.reading and self.connected:
            data = self._incoming.pop(0)
            if data:
                self.protocol.dataReceived(data)
            elif IHalfCloseableProtocol.providedBy(self.protocol):
                self.reading = False
                self.protocol.readConnectionLost()
            else:
                self._lose(ConnectionDone(), "lost")

    def _close_write(self) -> None:
        if self.connected and not self.write_closed and not self.ended:
            self.write_closed = True
            if IHalfCloseableProtocol.providedBy(self.protocol):
                self.protocol.writeConnectionLost()

    def _lose(self, reason: Exception, how: str) -> None:
        if self.connected:
            self.connected = self.reading = False
            self.ended = self.ended or how
            self.protocol.connectionLost(Failure(reason))


class FakeConnecting:
    """One attempt to connect, whose outcome the test decides."""

    def __init__(self, clock: Clock, target: Target, protocol: Any, header: bytes) -> None:
        self.target = target
        self.header = header
        self.cancelled = False
        self.failed = False
        self.transport: FakeTransport | None = None
        self._clock = clock
        self._protocol = protocol

    def cancel(self) -> None:
        self.cancelled = True

    def succeed(self) -> FakeTransport:
        assert not self.cancelled
        transport = self.transport = FakeTransport(self._clock, self._protocol)
        self._protocol.makeConnection(transport)
        return transport

    def fail(self, fault: Fault = Fault.CONNECT_REFUSED) -> None:
        assert not self.cancelled
        self.failed = True
        self._protocol.connectFailed(fault, "as the test says")


class FakeConnector:
    """Notes the attempts to connect."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.attempts: list[FakeConnecting] = []

    def connect(self, group: TargetGroup, target: Target, protocol: Any, header: bytes = b"") -> FakeConnecting:
        attempt = FakeConnecting(self._clock, target, protocol, header)
        self.attempts.append(attempt)
        return attempt


class Log(RequestLog):
    """An access log that keeps its records."""

    def __init__(self) -> None:
        self.records: list[Any] = []

    def log(self, record: Any) -> None:
        assert record not in self.records
        self.records.append(record)


def make_budget(percent: int, clock: Any, workers: int = 1, most_at_once: int = 0) -> RetryBudget:
    return RetryBudget(percent, workers, clock.seconds, Tally(array("q", [0] * 4), 0, 0, 4), most_at_once)


def make_retrying(policy: RetryPolicy, clock: Any, is_grpc: bool = False) -> Retrying:
    budget = make_budget(policy.budget_percent, clock, most_at_once=policy.most_at_once)
    return Retrying(policy, 1, clock.callLater, clock.seconds, budget, is_grpc)


def registered(number: int) -> RegisteredTarget:
    """Target ``10.0.0.<number>:80`` with cell ``number``."""
    address = f"10.0.0.{number}"
    return RegisteredTarget(
        target=Target(host=address, port=80, address=address),
        health=TargetHealth(state=TargetState.HEALTHY),
        cell=number,
    )


RULES = (
    Rule(
        name="fixed",
        priority=1,
        conditions=(PathCondition((Pattern("/fixed*"),)),),
        action=FixedResponse(status=200, body="fixed\n"),
    ),
    Rule(
        name="old",
        priority=2,
        conditions=(PathCondition((Pattern("/old"),)),),
        action=Redirect(status=301, path="/new"),
    ),
)


class World:
    """One HTTP listener in front of one target group.

    Paths that begin with ``/fixed`` and ``/old`` are answered without a target.
    """

    def __init__(self, *, targets: int = 1, group: dict[str, Any] | None = None, **listener: Any) -> None:
        turns.current = 0  # here is no reactor that counts them
        self.clock = Clock()
        self.clock.advance(1000.0)
        self.deadlines = Deadlines(self.clock.callLater, self.clock.seconds)
        self.connector = FakeConnector(self.clock)
        self.log = Log()
        self.counters = ListenerCounters("web")
        self.group = TargetGroup(name="app", **{"protocol": TargetProtocol.HTTP, **(group or {})})
        state = GroupState(cell=0, targets=tuple(registered(number) for number in range(1, targets + 1)))
        self.cells = array("q", [0] * (targets + 1))
        self.pools = {each.cell: self._pool(each) for each in state.targets}
        balancer = make_balancer(Circumstances(group=self.group, state=state, cells=self.cells, random=Random(1)))
        self.listener = Listener(
            name="web",
            binds=(Bind("198.51.100.1", 8080),),
            **{
                "rules": RULES,
                "protocol": ListenerProtocol.HTTP,
                "default_action": Forward((WeightedGroup("app"),)),
                **listener,
            },
        )
        seal = Seal()
        sticky = target_stickiness(self.group, balancer.targets, seal)
        self._waiting = array("q", [0] * 2)
        self.waiting = Tally(self._waiting, 0, 0, 2)
        gate = None
        if self.group.max_concurrent_requests or self.group.circuit_breaker_max_requests:
            gate = Gate(self.clock.callLater, self.clock.seconds, self.waiting)
        runtime = GroupRuntime(self.group, balancer, self.pools, self._retrying(), sticky, gate)
        if gate is not None:
            gate.use(runtime)
            for pool in self.pools.values():
                pool.gate = gate
        canary = GroupRuntime(attrs.evolve(self.group, name="canary"), balancer, self.pools, None, sticky)
        self.runtime = HttpRuntime(
            self.listener,
            Table.compile(self.listener, Random(1)),
            {"app": runtime, "canary": canary},
            self.counters,
            TraceIds(Random(1), lambda: 1.0),
            self.log,  # type: ignore[arg-type]
            GroupStickiness(seal),
        )
        self.front = HttpFront(8080, self.deadlines, None, Http2Connection)
        self.front.runtime = self.runtime

    def waiting_elsewhere(self, count: int) -> None:
        """So many requests wait at another worker."""
        self._waiting[1] = count

    def _retrying(self) -> Retrying:
        return make_retrying(self.group.retry, self.clock)

    def _pool(self, target: RegisteredTarget) -> Any:
        kind: Any = TargetPool if self.group.protocol_version is ProtocolVersion.HTTP1 else MultiplexPool
        return kind(
            self.group,
            target.target,
            self.connector,
            self.deadlines,
            TargetCounters("app", target.target.key),
            self.cells,
            target.cell,
        )

    @property
    def pool(self) -> Any:
        """The first target's."""
        return self.pools[1]

    @property
    def in_flight(self) -> int:
        return sum(self.cells[1:])

    def turn(self) -> None:
        """Let the reactor go round: what was put off to the next turn happens."""
        self.clock.advance(0)

    def wait(self, seconds: float) -> None:
        """Let time pass, in steps of the deadlines' precision."""
        for _ in range(round(seconds * 10)):
            self.clock.advance(0.1)

    def client(self) -> FakeTransport:
        """A client that has just connected; its transport."""
        connection: ClientConnection = self.front.buildProtocol(CLIENT)
        transport = FakeTransport(self.clock, connection)
        connection.makeConnection(transport)
        return transport

    def target(self) -> FakeTransport:
        """The connection to a target that was asked for last, made now."""
        return self.connector.attempts[-1].succeed()


def request(path: str = "/", *fields: str, method: str = "GET", body: bytes = b"", version: str = "1.1") -> bytes:
    """A request's bytes; a ``body`` gets its length announced."""
    lines = [f"{method} {path} HTTP/{version}", "Host: example.com", *fields]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def answer(body: bytes = b"hello", *fields: str, status: str = "200 OK") -> bytes:
    """An answer's bytes, its length announced."""
    return "\r\n".join([f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *fields, "", ""]).encode() + body


CHUNKED_ANSWER = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
CHUNKED_REQUEST = b"POST / HTTP/1.1\r\nHost: example.com\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
