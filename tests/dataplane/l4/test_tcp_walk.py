"""Random walks through the life of a TCP connection: whatever happens in which order, the accounts are right."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address

from lbproxy.dataplane.proxy.faults import Fault
from tests.dataplane.l4.doubles import DONE, LOST, FakeContext, TcpFactory, TcpTransport

ACTIONS = (
    "client sends",
    "client finishes",
    "client closes",
    "client resets",
    "connect fails",
    "connect succeeds",
    "target sends",
    "target finishes",
    "target closes",
    "target resets",
    "time passes",
    "long time passes",
    "drain ends",
    "target goes",
)


class World:
    """The network around one connection: does what is possible at the moment."""

    def __init__(self, targets: int) -> None:
        self.context = FakeContext(targets)
        self.client = TcpFactory(self.context).buildProtocol(IPv4Address("TCP", "192.0.2.1", 1))
        self.client_transport = TcpTransport()
        self.target: Any = None
        self.target_transport: Any = None
        self.done: set[Any] = set()
        self.gone: set[Any] = set()
        self.client.makeConnection(self.client_transport)

    def act(self, action: str) -> None:
        who, what = action.split(" ", 1)
        match who, what:
            case "connect", _:
                self._connect(what == "succeeds")
            case "time", _:
                self.context.deadlines.advance(20)
            case "long", _:
                self.context.deadlines.advance(351)
            case "drain", _:
                self.client.abort(Fault.DRAIN_DEADLINE)
            case "target", "goes":
                self.client.target_gone()
            case "client", _:
                self._side_acts(self.client, self.client_transport, what)
            case "target", _ if self.target is not None:
                self._side_acts(self.target, self.target_transport, what)

    def _connect(self, succeeds: bool) -> None:
        attempts = self.context.connector.attempts
        if not attempts or attempts[-1].cancelled or attempts[-1] in self.done:
            return
        attempt = attempts[-1]
        self.done.add(attempt)
        if succeeds:
            self.target, self.target_transport = attempt.protocol, TcpTransport()
            attempt.succeed(self.target_transport)
        else:
            attempt.protocol.connectFailed(Fault.CONNECT_REFUSED, "refused")

    def _side_acts(self, side: Any, transport: TcpTransport, what: str) -> None:
        if side in self.gone:
            return
        if what == "sends":
            if side not in self.done and not transport.disconnecting:
                side.dataReceived(b"data")
        elif what == "finishes":
            if side not in self.done and not transport.disconnecting:
                self.done.add(side)
                side.readConnectionLost()
        else:
            self.gone.add(side)
            side.connectionLost(DONE if what == "closes" else LOST)

    def settle(self) -> None:
        """Everything asked for happens: closed connections are lost, silent ones time out."""
        for _ in range(3):
            for side, transport in ((self.client, self.client_transport), (self.target, self.target_transport)):
                if side is not None and side not in self.gone and transport.disconnecting:
                    self.gone.add(side)
                    side.connectionLost(LOST if transport.disconnected else DONE)
        if not self.context.records:
            self.act("long time passes")


@given(st.integers(0, 2), st.lists(st.sampled_from(ACTIONS), max_size=12))
def test_every_connection_is_concluded_exactly_once(targets: int, actions: list[str]) -> None:
    world = World(targets)
    for action in actions:
        world.act(action)
        assert world.context.counters.active == len(world.context.connections) == 1 - len(world.context.records)
        assert sum(world.context.cells) in (0, 1)
    world.settle()
    world.settle()
    context = world.context
    assert len(context.records) == 1
    assert sum(context.cells) == context.counters.active == 0
    assert (context.connections, context.deadlines.items) == (set(), [])
    reason = context.records[0].error_reason
    assert dict(context.counters.faults) == ({reason: 1} if reason else {})
