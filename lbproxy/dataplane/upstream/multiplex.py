"""One worker's connections to one target that speaks HTTP/2: few, each for many exchanges at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.logger import Logger

from lbproxy.dataplane.proxy.runtime import Pool
from lbproxy.dataplane.upstream.http2 import Http2Connection, TargetStream
from lbproxy.dataplane.upstream.pool import CLOSE_SECONDS
from lbproxy.model.target_group import ProtocolVersion

if TYPE_CHECKING:
    from lbproxy.dataplane.balancer import Cells
    from lbproxy.dataplane.deadlines import Deadlines
    from lbproxy.dataplane.proxy.exchange import Exchange
    from lbproxy.dataplane.proxy.faults import Fault
    from lbproxy.dataplane.upstream.connector import Connector
    from lbproxy.model.target import Target
    from lbproxy.model.target_group import TargetGroup
    from lbproxy.telemetry.counters import TargetCounters

_log = Logger(__name__)  # compiled, it could not see where it is made

_STREAMS_EXPECTED = 100
"""How many exchanges wait for one connection that is being made; what it takes, it says only then."""


class MultiplexPool(Pool):
    """Fills one connection with streams before it makes another, and counts what is in flight."""

    __slots__ = (
        "_attempts",
        "_cell",
        "_cells",
        "_connector",
        "_waiting",
        "connections",
        "deadlines",
        "group",
        "is_grpc",
        "keep_seconds",
        "now",
        "retired",
        "scheme",
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
        self.connections: dict[Http2Connection, None] = {}
        """All that stand and may take requests."""
        self.retired = False
        self.deadlines = deadlines
        self.now = deadlines.now
        self.scheme = b"https" if group.protocol.is_encrypted else b"http"
        self.is_grpc = group.protocol_version is ProtocolVersion.GRPC
        self._connector = connector
        self._cells = cells
        self._cell = cell
        self._waiting: dict[Exchange, None] = {}
        self._attempts: set[Http2Connection] = set()
        self.use(group)

    def reaches(self, group: TargetGroup, target: Target, cell: int) -> bool:
        """Tell whether this pool's connections serve for ``group`` with these settings too."""
        mine = self.group
        return (
            self.target.address == target.address
            and self._cell == cell
            and mine.protocol is group.protocol
            and mine.protocol_version is group.protocol_version
            and mine.tls == group.tls
        )

    def use(self, group: TargetGroup) -> None:
        """Follow these settings from now on; only for those that `reaches` accepts."""
        self.group = group
        self.keep_seconds = group.keep_alive_seconds

    def begin(self) -> None:
        self._cells[self._cell] += 1
        self.counters.requests += 1

    def end(self) -> None:
        self._cells[self._cell] -= 1
        gate = self.gate
        if gate is not None:
            gate.freed()

    def take(self, repeatable: bool) -> TargetStream | None:
        """A stream on a connection that has room."""
        for connection in self.connections:
            if connection.can_open and (repeatable or connection.is_quiet()):
                self.counters.reused += connection.served
                return TargetStream(connection)
        return None

    def connect(self, exchange: Exchange) -> None:
        """Let ``exchange`` wait for a connection that is being made, or made now."""
        self._waiting[exchange] = None
        if len(self._waiting) > len(self._attempts) * _STREAMS_EXPECTED:
            self._start()

    def cancel(self, exchange: Exchange) -> None:
        """``exchange`` waits no longer; the connection may serve others."""
        self._waiting.pop(exchange, None)

    def _start(self) -> None:
        connection = Http2Connection(self)
        self._attempts.add(connection)
        self._connector.connect(self.group, self.target, connection)

    # Connections call

    def connected(self, connection: Http2Connection) -> None:
        """A connection stands."""
        self._attempts.discard(connection)
        self.counters.connects += 1
        self.connections[connection] = None
        while self._waiting and connection.can_open:
            exchange = next(iter(self._waiting))
            del self._waiting[exchange]
            exchange.connected(TargetStream(connection))
        if self._waiting and not self._attempts:
            self._start()

    def connect_failed(self, connection: Http2Connection, fault: Fault, detail: str) -> None:
        """A connection could not be made; those that wait may still get another that is being made."""
        _log.debug("cannot connect to {target}: {detail}", target=self.key, detail=detail)
        self._attempts.discard(connection)
        self.counters.connect_failures += 1
        if self._attempts:
            return
        waiting, self._waiting = self._waiting, {}
        for exchange in waiting:
            if not exchange.done:  # one that ends may end others
                exchange.connect_failed(fault)

    def lost(self, connection: Http2Connection) -> None:
        """A connection is gone, or takes no more requests."""
        self.connections.pop(connection, None)

    def closing(self, connection: Http2Connection) -> None:
        """A connection is being closed; it has a little time for that."""
        self.deadlines.set(connection, self.now() + CLOSE_SECONDS)

    # Leaving

    def retire(self) -> None:
        """Keep no connection from now on: the target has left, or is reached in another way."""
        self.retired = True
        for connection in list(self.connections):
            connection.retire()

    def end_all(self) -> None:
        """End what is still in flight: the target's time to finish is over."""
        self.retire()
        waiting, self._waiting = self._waiting, {}
        for exchange in waiting:
            exchange.target_gone()
        for connection in list(self.connections):
            for stream in list(connection.streams):
                if stream.exchange is not None:
                    stream.exchange.target_gone()
