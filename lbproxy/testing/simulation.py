"""A whole lbproxy in one thread, without sockets and with a clock of its own.

The code is the real one: connections, exchanges, retries, pools, balancers, health checks, outlier detection and the
state that both planes go by.  Simulated are the network, the servers, the clients and time.  Everything
random comes from one seed, so what happened once happens again: seconds of traffic and failures
in some ten milliseconds, and a failing seed replays.
"""

from __future__ import annotations

import enum
from array import array
from collections.abc import Callable
from random import Random
from typing import Any

import attrs
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.python.failure import Failure

from lbproxy.controlplane.health.checker import HealthService
from lbproxy.controlplane.health.status import PASSED, TIMED_OUT, ProbeResult, failed
from lbproxy.controlplane.outliers.service import OutlierService
from lbproxy.controlplane.state import ControlState
from lbproxy.dataplane.balancer.seal import Seal
from lbproxy.dataplane.deadlines import Deadlines
from lbproxy.dataplane.groups import Groups
from lbproxy.dataplane.listener.http1 import HttpFront
from lbproxy.dataplane.proxy.faults import Fault
from lbproxy.dataplane.proxy.forwarded import TraceIds
from lbproxy.dataplane.proxy.runtime import HttpRuntime
from lbproxy.dataplane.router.table import Table
from lbproxy.ipc.cells import SLOT_LIMIT
from lbproxy.model.health import HealthCheckProtocol
from lbproxy.model.listener import Bind, Listener, ListenerProtocol
from lbproxy.model.rule import Forward, WeightedGroup
from lbproxy.model.snapshot import Configuration, Snapshot
from lbproxy.model.target import Target
from lbproxy.model.target_group import TargetGroup
from lbproxy.native.clock import turns
from lbproxy.telemetry.counters import TargetCounters, WorkerCounters
from lbproxy.testing.virtual_clock import VirtualClock

_OWN = IPv4Address("TCP", "198.51.100.1", 80)
_CLIENT = IPv4Address("TCP", "192.0.2.7", 40000)


class Cells:
    """The shared cells and their allocator."""

    def __init__(self, size: int = SLOT_LIMIT * 64) -> None:
        self.view = memoryview(array("q", bytes(8 * size)))
        self._next = 0

    def run(self, key: str, length: int) -> int:
        self._next += length
        return self._next - length

    def free(self, key: str) -> None:
        """Runs are not used again here."""


class Wire:
    """A connection of lbproxy's: its transport, with latency; at the other end is a `Peer`.

    Bytes and the end of a connection arrive in order; what was under way when one side aborts is lost.
    """

    def __init__(self, clock: VirtualClock, random: Random, protocol: Any, peer: Any) -> None:
        self.connected = True
        self.disconnecting = False
        self._clock = clock
        self._random = random
        self._protocol = protocol
        self._peer = peer
        self._reading = True
        self._incoming: list[bytes | Exception] = []
        self._arrives_here = self._arrives_there = 0.0
        self._paused_delivery = False

    # lbproxy's side

    def getHost(self) -> IPv4Address:
        return _OWN

    def getPeer(self) -> IPv4Address:
        return _CLIENT

    def is_quiet(self) -> bool:
        return self.connected and not self._incoming

    def untaken(self) -> int:
        return 0

    def write(self, data: bytes) -> None:
        if self.connected and not self.disconnecting:
            self._send_there(self._peer.received, self, bytes(data))

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """The peer always reads."""

    def unregisterProducer(self) -> None:
        """See `registerProducer`."""

    def pauseProducing(self) -> None:
        self._reading = False

    def resumeProducing(self) -> None:
        self._reading = True
        if self._incoming:
            self._clock.callLater(0, self._deliver)

    def loseConnection(self) -> None:
        if self.connected and not self.disconnecting:
            self.disconnecting = True
            self._send_there(self._peer.ended, self)
            self._clock.callLater(0, self._lose, ConnectionDone())

    def loseWriteConnection(self) -> None:
        if self.connected and not self.disconnecting:
            self._send_there(self._peer.ended, self)
            if IHalfCloseableProtocol.providedBy(self._protocol):
                self._clock.callLater(0, self._protocol.writeConnectionLost)

    def abortConnection(self) -> None:
        if self.connected:
            self.disconnecting = True
            self._send_there(self._peer.ended, self)
            self._clock.callLater(0, self._lose, ConnectionAborted())

    # The peer's side

    def send(self, data: bytes) -> None:
        """The peer sends this."""
        self._arrive(data)

    def end(self) -> None:
        """The peer sends no more and closes."""
        self._arrive(ConnectionDone())

    def reset(self) -> None:
        """The peer resets the connection: what is still under way is lost."""
        self._incoming.clear()
        self._arrive(ConnectionLost())

    def _send_there(self, call: Callable[..., None], *arguments: Any) -> None:
        self._arrives_there = max(self._clock.seconds() + self._latency(), self._arrives_there)
        self._clock.callLater(self._arrives_there - self._clock.seconds(), call, *arguments)

    def _arrive(self, what: bytes | Exception) -> None:
        self._arrives_here = max(self._clock.seconds() + self._latency(), self._arrives_here)
        self._clock.callLater(self._arrives_here - self._clock.seconds(), self._arrived, what)

    def _arrived(self, what: bytes | Exception) -> None:
        self._incoming.append(what)
        self._deliver()

    def _deliver(self) -> None:
        while self._incoming and self.connected and (self._reading or not isinstance(self._incoming[0], bytes)):
            what = self._incoming.pop(0)
            if isinstance(what, bytes):
                self._protocol.dataReceived(what)
            else:
                self._lose(what)

    def _lose(self, reason: Exception) -> None:
        if self.connected:
            self.connected = False
            self._protocol.connectionLost(Failure(reason))

    def _latency(self) -> float:
        return 0.0001 + self._random.random() * 0.001


class Mood(enum.Enum):
    """What a server does."""

    WELL = "well"
    SLOW = "slow"
    """Ten times slower."""
    DEAD = "dead"
    """Refuses connections; those that it had were reset."""
    HANGING = "hanging"
    """Takes requests and does not answer; health checks time out."""
    FAILING = "failing"
    """Answers 503, also health checks."""
    SICK = "sick"
    """Answers 500, but health checks succeed."""
    CUTTING = "cutting"
    """Resets the connection in the middle of its answers."""


class Server:
    """A target: answers each request with its path."""

    def __init__(self, world: Simulation, number: int) -> None:
        self.target = Target(host=f"10.0.0.{number}", port=80, address=f"10.0.0.{number}")
        self.mood = Mood.WELL
        self.asked = 0
        self.cut = 0
        """How many answers it broke off."""
        self._world = world
        self._wires: dict[Wire, bytes] = {}

    def become(self, mood: Mood) -> None:
        self.mood = mood
        if mood is Mood.DEAD:
            for wire in list(self._wires):
                wire.reset()
            self._wires.clear()

    def connected(self, wire: Wire) -> None:
        self._wires[wire] = b""

    def received(self, wire: Wire, data: bytes) -> None:
        if wire not in self._wires:
            return
        data = self._wires[wire] + data
        while b"\r\n\r\n" in data:
            head, _, data = data.partition(b"\r\n\r\n")
            self.asked += 1
            seconds = 0.002 + self._world.random.random() * 0.01
            if self.mood is Mood.SLOW:
                seconds *= 10
            if self.mood is not Mood.HANGING:
                self._world.clock.callLater(seconds, self._answer, wire, head.split(b" ")[1])
        self._wires[wire] = data

    def ended(self, wire: Wire) -> None:
        if self._wires.pop(wire, None) is not None:
            wire.end()

    def _answer(self, wire: Wire, path: bytes) -> None:
        if wire not in self._wires:
            return
        status = {Mood.FAILING: b"503 No", Mood.SICK: b"500 Oh"}.get(self.mood, b"200 OK")
        answer = b"HTTP/1.1 %b\r\nContent-Length: %d\r\n\r\n%b" % (status, len(path), path)
        if self.mood is Mood.CUTTING:
            self.cut += 1
            wire.send(answer[:-1])
            self._world.clock.callLater(0.005, wire.reset)
            del self._wires[wire]
        else:
            wire.send(answer)

    def probe(self, timeout_seconds: float) -> Deferred[ProbeResult]:
        """What a health check finds."""
        result = {
            Mood.DEAD: failed("connection refused"),
            Mood.FAILING: failed("503"),
            Mood.HANGING: TIMED_OUT,
        }.get(self.mood, PASSED)
        found: Deferred[ProbeResult] = Deferred(lambda _: call.cancel())
        call = self._world.clock.callLater(timeout_seconds if result is TIMED_OUT else 0.003, found.callback, result)
        return found


class _Attempt:
    """One connection that is being made."""

    def __init__(self, world: Simulation, group: TargetGroup, target: Target, protocol: Any) -> None:
        self._world = world
        self._server = world.servers[target.key]
        self._protocol = protocol
        self._call = world.clock.callLater(0.0005, self._made)

    def _made(self) -> None:
        if self._server.mood is Mood.DEAD:
            self._protocol.connectFailed(Fault.CONNECT_REFUSED, "refused")
            return
        wire = Wire(self._world.clock, self._world.random, self._protocol, self._server)
        self._server.connected(wire)
        self._protocol.makeConnection(wire)

    def cancel(self) -> None:
        if self._call.active():
            self._call.cancel()


class Client:
    """Asks, waits for the answer, checks it, thinks, and asks again."""

    def __init__(self, world: Simulation, worker: Worker, name: str) -> None:
        self._world = world
        self._worker = worker
        self._name = name
        self._wire: Wire | None = None
        self._buffer = b""
        self._asked: bytes | None = None
        self._count = 0
        self._since = 0.0

    def ask(self) -> None:
        if self._world.clock.seconds() >= self._world.ends:
            return
        if self._wire is None or not self._wire.connected or self._world.random.random() < 0.05:
            if self._wire is not None:
                self._wire.end()
            protocol = self._worker.front.buildProtocol(_CLIENT)
            assert protocol is not None
            self._wire = Wire(self._world.clock, self._world.random, protocol, self)
            self._buffer = b""
            protocol.makeConnection(self._wire)
        self._count += 1
        self._asked = f"/{self._name}/{self._count}".encode()
        self._since = self._world.clock.seconds()
        self._wire.send(b"GET %b HTTP/1.1\r\nHost: simulated\r\n\r\n" % self._asked)

    def received(self, wire: Wire, data: bytes) -> None:
        if wire is not self._wire:
            return
        self._buffer += data
        head, separator, body = self._buffer.partition(b"\r\n\r\n")
        if not separator or self._asked is None:
            return
        length = next(int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
        if len(body) < length:
            return
        self._buffer = body[length:]
        self._done(int(head[9:12]), body[:length])

    def ended(self, wire: Wire) -> None:
        if wire is self._wire:
            self._wire = None
            if self._asked is not None:
                self._done(0, b"")
        wire.end()

    def _done(self, status: int, body: bytes) -> None:
        asked, self._asked = self._asked, None
        assert asked is not None
        self._world.answered(asked, status, body, self._world.clock.seconds() - self._since)
        self._world.clock.callLater(self._world.random.random() * self._world.think_seconds, self.ask)


class Worker:
    """One worker's data plane."""

    def __init__(self, world: Simulation, slot: int) -> None:
        self.counters = WorkerCounters()
        self.version = 0
        self._world = world
        clock = world.clock
        self._deadlines = Deadlines(clock.callLater, clock.seconds)
        self.front = HttpFront(80, self._deadlines)
        self.groups = Groups(
            self._deadlines,
            world,  # type: ignore[arg-type]
            self.counters,
            world.cells.view,
            slot,
            world.random,
            Seal(),
            lambda group, key: None,
            self._suspect,
        )
        self._trace_ids = TraceIds(world.random, clock.seconds)
        self._table = Table.compile(world.listener, world.random)

    def apply(self, snapshot: Snapshot) -> None:
        """Work from this snapshot; a late one that was overtaken is dropped."""
        if snapshot.version <= self.version:
            return
        self.version = snapshot.version
        self.groups.apply(snapshot)
        counters = self.counters.listener("web")
        self.front.runtime = HttpRuntime(
            self._world.listener, self._table, self.groups.runtimes, counters, self._trace_ids, None
        )

    def _suspect(self, group: str, key: str, failures: int) -> None:
        self._world.clock.callLater(0.002, self._world.outliers.suspect, group, key, failures)


class Simulation:
    """Servers, workers, the control plane and clients.

    `run` lets it all happen; what clients saw is in ``answers`` and ``slowest``.
    """

    def __init__(
        self,
        seed: int,
        group: TargetGroup,
        *,
        servers: int = 4,
        workers: int = 2,
        clients: int = 6,
        think_seconds: float = 0.02,
    ) -> None:
        """Clients think for at most so long after each answer."""
        turns.current = 0  # here is no reactor that counts them
        self.random = Random(seed)
        self.clock = VirtualClock(1000.0)
        self.think_seconds = think_seconds
        self.ends = 0.0
        self.answers: dict[int, int] = {}
        """How many answers with each status; 0 for a connection that broke off."""
        self.slowest = 0.0
        self.wrong: list[str] = []
        """Answers that were not to the question."""
        self.servers = {server.target.key: server for server in (Server(self, number + 1) for number in range(servers))}
        self.listener = Listener(
            name="web",
            protocol=ListenerProtocol.HTTP,
            binds=(Bind("198.51.100.1", 80),),
            default_action=Forward((WeightedGroup(group.name),)),
        )
        self.group = group
        self.cells = Cells()
        self.state = ControlState(self.clock, self.cells, self.cells)
        self.workers = [Worker(self, slot) for slot in range(workers)]
        self.state.version_in_force = lambda: min(worker.version for worker in self.workers)
        self.outliers = OutlierService(self.clock, self.state, self._counts)
        probes = dict.fromkeys(HealthCheckProtocol, self._probe)
        self.health = HealthService(self.clock, self.state, probes, self.random)
        self.clients = [Client(self, self.workers[number % workers], f"client-{number}") for number in range(clients)]
        self.state.subscribe(self._publish)
        self.configure(*self.servers)
        for worker in self.workers:
            worker.apply(self.state.snapshot)
        self.health.startService()
        self.outliers.startService()
        self._pass(2.0)

    def configure(self, *keys: str) -> None:
        """Register these servers and no others."""
        targets = tuple(self.servers[key].target for key in keys)
        group = attrs.evolve(self.group, targets=targets)
        self.state.configure(Configuration(listeners=(self.listener,), target_groups=(group,)), len(self.workers))

    def run(self, seconds: float, *events: tuple[float, Callable[[], Any]]) -> None:
        """Let clients ask for so long; ``events`` happen at their times from the start.  Ends when all is answered."""
        start = self.clock.seconds()
        self.ends = start + seconds
        for at, event in events:
            self.clock.callLater(at, event)
        for client in self.clients:
            self.clock.callLater(self.random.random() * 0.05, client.ask)
        self._pass(seconds + 1.0)

    def settle(self) -> None:
        """Let time pass until every deadline of what may hang is over; nobody is checked any more."""
        self.health.stopService()
        self.outliers.stopService()
        self._pass(self.group.response_timeout_seconds + 15.0)
        self.state.close()

    def in_flight(self) -> int:
        """What the shared cells say is in flight, waits or is in a retry."""
        runs = [
            first
            for group in self.state.snapshot.groups.values()
            for first in (group.waiting, group.retrying, *(one.cell for one in group.targets))
        ]
        return sum(sum(self.cells.view[first : first + SLOT_LIMIT]) for first in runs)

    def answered(self, asked: bytes, status: int, body: bytes, seconds: float) -> None:
        """A client has its answer."""
        self.answers[status] = self.answers.get(status, 0) + 1
        self.slowest = max(self.slowest, seconds)
        if status == 200 and body != asked:
            self.wrong.append(f"{asked!r} was answered with {body!r}")

    def connect(self, group: TargetGroup, target: Target, protocol: Any, header: bytes = b"") -> _Attempt:
        """As `lbproxy.dataplane.upstream.connector.Connector.connect`."""
        return _Attempt(self, group, target, protocol)

    def _pass(self, seconds: float) -> None:
        self.clock.run_until(self.clock.seconds() + seconds)

    def _publish(self, snapshot: Snapshot) -> None:
        for worker in self.workers:
            self.clock.callLater(self.random.random() * 0.02, worker.apply, snapshot)

    def _probe(self, reactor: Any, group: TargetGroup, target: Target) -> Deferred[ProbeResult]:
        return self.servers[target.key].probe(group.health_check.timeout_seconds)

    def _counts(self) -> dict[tuple[str, str], TargetCounters]:
        totals: dict[tuple[str, str], TargetCounters] = {}
        for worker in self.workers:
            for (group, key), pool in worker.groups.pools.items():
                totals.setdefault((group, key), TargetCounters(group, key)).add(pool.counters.report())
        return totals
