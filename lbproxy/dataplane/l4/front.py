"""A TCP or TLS listener as a worker serves it."""

from __future__ import annotations

import time
from typing import Any

from lbproxy.dataplane.balancer.base import Cells
from lbproxy.dataplane.deadlines import Deadlines
from lbproxy.dataplane.l4.tcp import TcpClientSide, TcpContext
from lbproxy.dataplane.listener.admission import Admission, replace
from lbproxy.dataplane.proxy.faults import Fault
from lbproxy.dataplane.proxy.runtime import GroupRuntime
from lbproxy.dataplane.router.table import Table
from lbproxy.dataplane.upstream.connector import Connector
from lbproxy.model.listener import Listener
from lbproxy.model.target import RegisteredTarget
from lbproxy.native.clock import Clock
from lbproxy.telemetry.accesslog import AccessLog
from lbproxy.telemetry.counters import TargetCounters, WorkerCounters
from lbproxy.telemetry.records import TcpRecord

_WALL = Clock(time.time)


class TcpRuntime(TcpContext):
    """What connections of one listener work with, as one snapshot has it."""

    __slots__ = ("_access_log", "_by_cell", "_front", "_groups", "_table", "_worker_counters")

    def __init__(
        self,
        listener: Listener,
        table: Table,
        groups: dict[str, GroupRuntime],
        counters: WorkerCounters,
        deadlines: Deadlines,
        connector: Connector,
        cells: Cells,
        slot: int,
        access_log: AccessLog | None,
        front: TcpFront,
    ) -> None:
        super().__init__(
            listener, connector, deadlines, cells, slot, counters.listener(listener.name), front.connections
        )
        self._front = front
        self._table = table
        self._groups = groups
        self._worker_counters = counters
        self._access_log = access_log
        self._by_cell: dict[int, TargetCounters] = {}

    def entered(self, host: str) -> None:
        if self._front.admission is not None:
            self._front.admission.entered(host)

    def left(self, host: str) -> None:
        if self._front.admission is not None:
            self._front.admission.left(host)

    def choose(self) -> GroupRuntime:
        """A target group by weight."""
        forward = self._table.default.forward
        assert forward is not None
        return self._groups[forward.pick()]

    def target_counters(self, group: GroupRuntime, registered: RegisteredTarget) -> TargetCounters:
        counters = self._by_cell.get(registered.cell)
        if counters is None:
            counters = self._worker_counters.target(group.name, registered.target.key)
            self._by_cell[registered.cell] = counters
        return counters

    def unix_time(self) -> float:
        return _WALL.now()

    def log(self, record: TcpRecord) -> None:
        if self._access_log is not None:
            self._access_log.log_tcp(record)


class TcpFront:
    """What the connections of one bind share."""

    def __init__(self) -> None:
        self.connections: set[TcpClientSide] = set()
        self.admission: Admission | None = None
        self.draining = False
        self.runtime: Any = None
        """A `TcpRuntime`; replaced by each snapshot, connections keep theirs."""

    def buildProtocol(self, addr: Any) -> TcpClientSide | None:
        if self.admission is not None and self.admission.refuses(addr.host):
            return None
        connection = TcpClientSide.__new__(TcpClientSide)
        connection.begin(self.runtime, addr)
        return connection

    def admit(self, admission: Admission | None) -> None:
        """Ask this of connections to come, and count those that are open."""
        replace(self.admission, admission, [connection.host for connection in self.connections])
        self.admission = admission

    def settle(self) -> None:
        """Bring the counters up to date."""
        for connection in self.connections:
            connection.settle()

    def drain(self, cause: str) -> None:
        """Connections live on: where a TCP conversation may be cut only its ends know."""
        self.draining = True

    def target_gone(self, group: str, key: str) -> None:
        """End the connections to a target whose deregistration delay is over."""
        for connection in list(self.connections):
            chosen, registered = connection.group, connection.registered
            if chosen is None or registered is None:
                continue
            if chosen.name == group and registered.target.key == key:
                connection.target_gone()

    def end(self) -> int:
        """End what is left; return how many connections that were."""
        connections = list(self.connections)
        for connection in connections:
            connection.abort(Fault.DRAIN_DEADLINE)
        return len(connections)
