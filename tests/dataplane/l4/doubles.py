"""Doubles for what the TCP proxy needs of its worker and of the network."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from typing import Any

from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from lbproxy.dataplane.deadlines import Deadlines
from lbproxy.dataplane.l4.tcp import TcpClientSide, TcpContext
from lbproxy.dataplane.proxy.runtime import GroupRuntime
from lbproxy.model.listener import Bind, Listener, ListenerProtocol
from lbproxy.model.rule import Forward, WeightedGroup
from lbproxy.model.target import RegisteredTarget, Target, TargetHealth, TargetState
from lbproxy.model.target_group import ProxyProtocolVersion, TargetGroup, TargetProtocol, TargetTls
from lbproxy.telemetry.counters import ListenerCounters, TargetCounters
from lbproxy.telemetry.records import TcpRecord

SLOT = 1
STARTED = 1_700_000_000.0


class TcpTransport(StringTransport):
    """A TCP transport in memory; a paused or closing one may be resumed, as real ones may."""

    def __init__(self, **addresses: Any) -> None:
        super().__init__(lenient=True, **addresses)
        self.write_closed = False
        self.no_delay = False

    def setTcpNoDelay(self, enabled: bool) -> None:
        self.no_delay = enabled

    def loseWriteConnection(self) -> None:
        self.write_closed = True


class TlsTransport(StringTransport):
    """What `TLSMemoryBIOProtocol` looks like from inside: it passes on what it does not know."""

    def __init__(self, handle: Any = None) -> None:
        super().__init__(lenient=True)
        self.handle = handle

    def getHandle(self) -> Any:
        return self.handle

    def __getattr__(self, name: str) -> Any:
        if name == "setTcpNoDelay":
            return lambda enabled: None
        raise AssertionError(f"{name} would reach the TCP transport below TLS")


class FakeConnecting:
    """One attempt to connect."""

    def __init__(self, target: Target, protocol: Any, header: bytes) -> None:
        self.target = target
        self.protocol = protocol
        self.header = header
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True

    def succeed(self, transport: StringTransport | None = None) -> Any:
        transport = transport or TcpTransport()
        self.protocol.makeConnection(transport)
        return transport


class FakeConnector:
    """Notes the attempts."""

    def __init__(self) -> None:
        self.attempts: list[FakeConnecting] = []

    def connect(self, group: TargetGroup, target: Target, protocol: Any, header: bytes = b"") -> FakeConnecting:
        self.attempts.append(FakeConnecting(target, protocol, header))
        return self.attempts[-1]


class FakeDeadlines(Deadlines):
    """Deadlines by a test's clock, looked at when time is advanced."""

    def __init__(self) -> None:
        self._reactor = Clock()
        super().__init__(self._reactor.callLater, self._reactor.seconds)
        self.items: list[Any] = []

    def set(self, item: Any, at: float) -> None:
        item.deadline = at
        if item not in self.items:
            self.items.append(item)

    def clear(self, item: Any) -> None:
        if item in self.items:
            self.items.remove(item)

    def advance(self, seconds: float) -> None:
        self._reactor.advance(seconds)
        for item in list(self.items):
            if item.deadline <= self.now():
                self.items.remove(item)
                item.expired(self.now())


class InOrder:
    """Hands out targets as they stand."""

    rotation = None

    def __init__(self, targets: list[RegisteredTarget]) -> None:
        self.targets = targets

    def pick(self, request: None, source: str) -> RegisteredTarget | None:
        return next(iter(self.targets), None)

    def others(self, first: RegisteredTarget, request: None, source: str) -> Iterator[RegisteredTarget]:
        return (target for target in self.targets if target is not first)


class FakeContext(TcpContext):
    """A worker with one listener and one target group."""

    def __init__(
        self,
        targets: int | list[Target] = 2,
        *,
        protocol: str = "TCP",
        target_protocol: str = "TCP",
        proxy_protocol: str = "off",
        connector: Any = None,
        deadlines: Any = None,
        target_tls: TargetTls | None = None,
    ) -> None:
        self.listener = listener = Listener(
            name="db",
            protocol=ListenerProtocol(protocol),
            binds=(Bind("127.0.0.1", 0),),
            default_action=Forward((WeightedGroup("group"),)),
            idle_timeout_seconds=350.0,
        )
        group = TargetGroup(
            name="group",
            protocol=TargetProtocol(target_protocol),
            proxy_protocol=ProxyProtocolVersion(proxy_protocol),
            tls=target_tls or TargetTls(),
        )
        if isinstance(targets, int):
            targets = [Target(host=f"10.0.0.{n}", port=80, address=f"10.0.0.{n}") for n in range(1, targets + 1)]
        self.targets = [
            RegisteredTarget(target=target, health=TargetHealth(state=TargetState.HEALTHY), cell=10 * n)
            for n, target in enumerate(targets)
        ]
        self.chosen = GroupRuntime(group, InOrder(self.targets), {})  # type: ignore[arg-type]
        super().__init__(
            listener,
            connector or FakeConnector(),
            deadlines or FakeDeadlines(),
            array("q", [0] * (10 * len(targets) + 10)),
            SLOT,
            ListenerCounters("db"),
            set(),
        )
        self.by_target: dict[str, TargetCounters] = {}
        self.records: list[TcpRecord] = []

    def entered(self, host: str) -> None:
        pass

    def left(self, host: str) -> None:
        pass

    def choose(self) -> GroupRuntime:
        return self.chosen

    def target_counters(self, group: GroupRuntime, registered: RegisteredTarget) -> TargetCounters:
        key = registered.target.key
        return self.by_target.setdefault(key, TargetCounters(group.name, key))

    def unix_time(self) -> float:
        return STARTED

    def log(self, record: TcpRecord) -> None:
        self.records.append(record)


DONE = Failure(ConnectionDone())
LOST = Failure(ConnectionLost())


class TcpFactory(Factory):
    """Accepts for one context."""

    noisy = False

    def __init__(self, context: FakeContext) -> None:
        self.context = context

    def buildProtocol(self, addr: Any) -> Any:
        return TcpClientSide(self.context, addr)
