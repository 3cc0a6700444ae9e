"""One worker's connections to one target."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from lbproxy.dataplane.deadlines import TICK_SECONDS
from lbproxy.dataplane.proxy.runtime import Pool
from lbproxy.dataplane.upstream.http1 import TargetConnection
from lbproxy.model.target_group import ProxyProtocolVersion
from lbproxy.wire.proxyprotocol import encode_v1, encode_v2

if TYPE_CHECKING:
    from lbproxy.dataplane.balancer.base import Cells
    from lbproxy.dataplane.deadlines import Deadlines
    from lbproxy.dataplane.proxy.exchange import Exchange
    from lbproxy.dataplane.proxy.faults import Fault
    from lbproxy.dataplane.upstream.connector import Attempt, Connector
    from lbproxy.model.target import Target
    from lbproxy.model.target_group import TargetGroup
    from lbproxy.telemetry.counters import TargetCounters


CLOSE_SECONDS = 5.0
"""How long a connection may take to close in order: what is left is sent, TLS waits for the target's close_notify."""


class TargetPool(Pool):
    """Keeps unused connections for the next request and counts what is in flight.

    With PROXY protocol a connection speaks for one client, so none is kept.
    """

    __slots__ = (
        "_cell",
        "_cells",
        "_clock",
        "_connector",
        "_deadlines",
        "_keep_seconds",
        "_max_idle",
        "_waiting",
        "connections",
        "group",
        "idle",
        "retired",
        "target",
    )

    def __init__(
        self,
        group: TargetGroup,
        target: Target,
        connector: Connector,
        deadlines: Deadlines,
        counters: TargetCounters,
        cells: Cells,
        cell: int,
    ) -> None:
        self.target = target
        self.key = target.key
        self.authority = target.key.encode("ascii")
        self.counters = counters
        self.observation = None
        self.gate = None
        self.idle: list[TargetConnection] = []
        """The one used last is at the right; it is used first, so that the others may grow old."""
        self.connections: set[TargetConnection] = set()
        """All that stand."""
        self.retired = False
        self._connector = connector
        self._deadlines = deadlines
        self._clock = deadlines.clock
        self._cells = cells
        self._cell = cell
        self.use(group)
        self._waiting: dict[Exchange, Attempt] = {}

    def reaches(self, group: TargetGroup, target: Target, cell: int) -> bool:
        """Tell whether this pool's connections serve for ``group`` with these settings too."""
        mine = self.group
        return (
            self.target.address == target.address
            and self.target.name == target.name
            and self._cell == cell
            and mine.protocol is group.protocol
            and mine.protocol_version is group.protocol_version
            and mine.tls == group.tls
            and mine.proxy_protocol is group.proxy_protocol
        )

    def use(self, group: TargetGroup) -> None:
        """Follow these settings from now on; only for those that `reaches` accepts."""
        self.group = group
        self._keep_seconds = group.keep_alive_seconds
        self._max_idle = group.max_idle_connections if group.proxy_protocol is ProxyProtocolVersion.OFF else 0

    def begin(self) -> None:
        """Count a request as in flight."""
        self._cells[self._cell] += 1
        self.counters.requests += 1

    def end(self) -> None:
        """It is over."""
        self._cells[self._cell] -= 1
        gate = self.gate
        if gate is not None:
            gate.freed()

    def take(self, repeatable: bool) -> TargetConnection | None:
        """Hand out a kept connection.

        A request that must not be repeated gets one only after a look at its socket: a target
        that has closed it meanwhile would leave us not knowing whether it saw the request.
        """
        idle = self.idle
        while idle:
            connection = idle.pop()
            if repeatable or connection.is_quiet():
                self.counters.reused += 1
                connection.reused = True
                return connection
            connection.abort()
        return None

    def connect(self, exchange: Exchange) -> None:
        """Make a connection for ``exchange``."""
        header = b""
        version = self.group.proxy_protocol
        if version is not ProxyProtocolVersion.OFF:
            encode = encode_v1 if version is ProxyProtocolVersion.V1 else encode_v2
            header = encode((exchange.client.host, exchange.client.port), exchange.client.local_address())
        connection = TargetConnection(self, exchange)
        self._waiting[exchange] = self._connector.connect(self.group, self.target, connection, header)

    def cancel(self, exchange: Exchange) -> None:
        """``exchange`` no longer waits for the connection that is being made."""
        waiting = self._waiting.pop(exchange, None)
        if waiting is not None:
            waiting.cancel()

    @property
    def in_use(self) -> int:
        """How many connections stand that do not wait for a request."""
        return len(self.connections) - len(self.idle)

    # A connection calls

    def connected(self, connection: TargetConnection, exchange: Exchange) -> None:
        """A connection stands."""
        self._waiting.pop(exchange, None)
        self.counters.connects += 1
        self.connections.add(connection)
        exchange.connected(connection)

    def connect_failed(self, fault: Fault, exchange: Exchange) -> None:
        """A connection could not be made."""
        self._waiting.pop(exchange, None)
        self.counters.connect_failures += 1
        exchange.connect_failed(fault)

    def put(self, connection: TargetConnection) -> bool:
        """Take back a connection whose exchange is over; tell whether it is kept."""
        if self.retired or len(self.idle) >= self._max_idle:
            return False
        connection.deadline = at = self._clock.now() + self._keep_seconds
        if not 0.0 < connection.armed * TICK_SECONDS <= at:  # else the wheel looks in time
            self._deadlines.set(connection, at)
        self.idle.append(connection)
        return True

    def closing(self, connection: TargetConnection) -> None:
        """A connection that is not idle is being closed; it has a little time for that."""
        self._deadlines.set(connection, self._deadlines.now() + CLOSE_SECONDS)

    def lost(self, connection: TargetConnection) -> None:
        """A connection is gone, or about to be."""
        self.connections.discard(connection)
        with contextlib.suppress(ValueError):
            self.idle.remove(connection)

    def retire(self) -> None:
        """Keep no connection from now on: the target has left, or is reached in another way."""
        self.retired = True
        while self.idle:
            self.idle.pop().close()

    def end_all(self) -> None:
        """End what is still in flight: the target's time to finish is over."""
        self.retire()
        for exchange in list(self._waiting):
            exchange.target_gone()
        for connection in list(self.connections):
            if connection.exchange is not None:
                connection.exchange.target_gone()
