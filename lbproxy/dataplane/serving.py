"""What a worker serves now: its groups and listeners, made to follow each snapshot.

Each change keeps what it does not touch: listeners their sockets and clients, compiled rules their tables.
"""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from twisted.logger import Logger

from lbproxy.dataplane.balancer.base import Cells
from lbproxy.dataplane.balancer.seal import Seal
from lbproxy.dataplane.balancer.stickiness import GroupStickiness
from lbproxy.dataplane.deadlines import Deadlines
from lbproxy.dataplane.groups import Groups
from lbproxy.dataplane.l4.front import TcpFront, TcpRuntime
from lbproxy.dataplane.listener.admission import Admission, Admissions
from lbproxy.dataplane.listener.census import SharedCensus
from lbproxy.dataplane.listener.http1 import HttpFront
from lbproxy.dataplane.listener.http2 import Http2Connection
from lbproxy.dataplane.listener.proxyprotocol import ProxyProtocolFactory
from lbproxy.dataplane.listener.tls import ServerTls, describe
from lbproxy.dataplane.proxy.exchange import Exchange
from lbproxy.dataplane.proxy.forwarded import TraceIds
from lbproxy.dataplane.proxy.ratelimit import Buckets, RateLimits
from lbproxy.dataplane.proxy.runtime import HttpRuntime
from lbproxy.dataplane.router.table import Table
from lbproxy.dataplane.upstream.connector import Connector
from lbproxy.model.errors import InvalidModel
from lbproxy.model.listener import Bind, Listener
from lbproxy.model.snapshot import AccessLogSettings, Snapshot
from lbproxy.native.tls import ServerTlsFactory
from lbproxy.native.transport import Acceptor
from lbproxy.telemetry import ledger
from lbproxy.telemetry.accesslog import AccessLog
from lbproxy.telemetry.counters import WorkerCounters

_log = Logger()


class Front(Protocol):
    """A listener's side of its connections at one bind."""

    draining: bool
    runtime: Any
    connections: Any

    def buildProtocol(self, addr: Any) -> Any: ...
    def admit(self, admission: Admission | None) -> None: ...
    def drain(self, cause: str) -> None: ...
    def end(self) -> int: ...


class Tables(Protocol):
    """Tables in memory that all workers share (`lbproxy.ipc.tables.SharedTables`)."""

    @property
    def census(self) -> SharedCensus: ...
    @property
    def buckets(self) -> Buckets: ...


class _Accepting:
    """One bind of a listener: its socket, and the front of those that come in."""

    def __init__(self, acceptor: Acceptor, front: Front, listener: Listener, tls: ServerTls | None) -> None:
        self.acceptor = acceptor
        self.front = front
        self.listener = listener
        self.tls = tls


class Serving:
    """Everything that a worker serves.

    ``cells`` and ``tables`` are the memory that all workers share, ``slot`` this worker's number.
    """

    def __init__(
        self,
        reactor: Any,
        cells: Cells,
        tables: Tables,
        slot: int,
        on_suspect: Callable[[str, str, int], None] = lambda group, target, failures: None,
    ) -> None:
        """``on_suspect`` is told of a target that has failed so many requests in a row."""
        self._reactor = reactor
        self._cells = cells
        self._slot = slot
        self._random = random.Random()
        self._deadlines = Deadlines(reactor.callLater, time.monotonic)
        self._relaying: set[Exchange] = set()
        self._connector = Connector(reactor, self._deadlines)
        self._trace_ids = TraceIds(self._random, time.time)
        self._tables: dict[str, tuple[Listener, Table]] = {}
        self._tls: dict[str, ServerTls] = {}
        self._sockets: dict[Bind, socket.socket] = {}
        self._accepting: dict[Bind, _Accepting] = {}
        self._leaving: set[Front] = set()
        self.seal = Seal()
        """Of stickiness cookies; good for this worker alone until it is given the keys that all have."""
        self._group_stickiness = GroupStickiness(self.seal)
        self._admissions = Admissions(tables.census, slot)
        self._buckets = tables.buckets
        self._log: AccessLog | None = None
        self._log_settings = AccessLogSettings()
        self.counters = WorkerCounters()
        self._groups = Groups(
            self._deadlines,
            self._connector,
            self.counters,
            cells,
            slot,
            self._random,
            self.seal,
            self._target_gone,
            on_suspect,
        )
        self.draining = False

    def add_socket(self, bind: Bind, skt: socket.socket) -> None:
        """A listening socket, for snapshots to come."""
        former = self._sockets.pop(bind, None)
        if former is not None:
            former.close()
        self._sockets[bind] = skt

    def apply(self, snapshot: Snapshot) -> list[str]:
        """Serve as ``snapshot`` says; return what could not be done, in words for the operator."""
        configuration = snapshot.configuration
        if self._log_settings != configuration.access_log:
            self._open_log(configuration.access_log)
        self._groups.apply(snapshot)
        self._admissions.apply(configuration, snapshot.worker_slots)
        problems = []
        for listener in configuration.listeners:
            try:
                self._apply_listener(listener)
            except InvalidModel as error:
                problems.append(f"listener {listener.name}: {error}")
        wanted = {bind for listener in configuration.listeners for bind in listener.binds}
        for bind in [b for b in self._accepting if b not in wanted]:
            self._stop_accepting(bind)
        for bind in [b for b in self._sockets if b not in wanted]:
            self._sockets.pop(bind).close()
        self._forget_listeners({listener.name for listener in configuration.listeners})
        self.counters.keep_only({listener.name for listener in configuration.listeners}, set(self._groups.pools))
        return problems

    def _target_gone(self, group: str, key: str) -> None:
        for front in self._fronts():
            if isinstance(front, TcpFront):
                front.target_gone(group, key)

    # Listeners

    def _apply_listener(self, listener: Listener) -> None:
        for bind in listener.binds:
            if bind in self._accepting:  # whatever else may fail below
                self._accepting[bind].front.admit(self._admission(listener, bind))
        self._table(listener)
        tls = self._server_tls(listener) if listener.protocol.is_encrypted else None
        for bind in listener.binds:
            self._apply_bind(bind, listener, tls)

    def _admission(self, listener: Listener, bind: Bind) -> Admission | None:
        return self._admissions.make(listener, bind.port, self.counters.listener(listener.name))

    def _apply_bind(self, bind: Bind, listener: Listener, tls: ServerTls | None) -> None:
        accepting = self._accepting.get(bind)
        if accepting is None:
            skt = self._sockets.pop(bind, None)
            if skt is None:
                raise InvalidModel("bind", f"no listening socket for {bind}")
            front = self._make_front(bind, listener)
            accepting = self._accepting[bind] = _Accepting(
                Acceptor(self._reactor, skt, self._factory(front, listener, tls)), front, listener, tls
            )
            if not self.draining:
                accepting.acceptor.start()
        elif not _same_kind(accepting.listener, listener):
            self._leave(accepting.front)
            accepting.front = self._make_front(bind, listener)
        accepting.front.admit(self._admission(listener, bind))
        accepting.front.runtime = self._runtime(listener, accepting.front)
        if isinstance(accepting.front, HttpFront):
            accepting.front.certificates = tls
        if accepting.listener is not listener or accepting.tls is not tls:
            accepting.listener = listener
            accepting.tls = tls
            accepting.acceptor.set_factory(self._factory(accepting.front, listener, tls))

    def _make_front(self, bind: Bind, listener: Listener) -> Front:
        front: Front
        if listener.protocol.is_http:
            tls = describe if listener.protocol.is_encrypted else None
            front = HttpFront(bind.port, self._deadlines, tls, Http2Connection)
        else:
            front = TcpFront()
        front.draining = self.draining
        return front

    def _runtime(self, listener: Listener, front: Front) -> HttpRuntime | TcpRuntime:
        table = self._table(listener)
        if isinstance(front, TcpFront):
            return TcpRuntime(
                listener,
                table,
                self._groups.runtimes,
                self.counters,
                self._deadlines,
                self._connector,
                self._cells,
                self._slot,
                self._log,
                front,
            )
        counters = self.counters.listener(listener.name)
        return HttpRuntime(
            listener,
            table,
            self._groups.runtimes,
            counters,
            self._trace_ids,
            self._log,
            self._group_stickiness,
            RateLimits(listener, counters, self._buckets, time.monotonic_ns) if listener.rate_limits else None,
            self._relaying,
        )

    def _factory(self, front: Front, listener: Listener, tls: ServerTls | None) -> Any:
        """The protocols around a connection, outermost first: PROXY header, TLS, and what the front speaks."""
        factory: Any = front
        if tls is not None:
            factory = ServerTlsFactory(tls.connection_creator, front)
        if listener.proxy_protocol:
            counters = self.counters.listener(listener.name)

            def refused(reason: str) -> None:
                counters.faults[reason] += 1
                _log.info(
                    "listener {listener}: a connection is refused: {reason}", listener=listener.name, reason=reason
                )

            factory = ProxyProtocolFactory(
                factory,
                listener.proxy_protocol_trusted,
                listener.request_header_timeout_seconds,
                self._reactor,
                refused,
            )
        return factory

    def _table(self, listener: Listener) -> Table:
        known = self._tables.get(listener.name)
        if known is not None and (
            known[0].rules == listener.rules and known[0].default_action == listener.default_action
        ):
            return known[1]
        table = Table.compile(listener, self._random)
        self._tables[listener.name] = (listener, table)
        return table

    def _server_tls(self, listener: Listener) -> ServerTls:
        known = self._tls.get(listener.name)
        if known is not None and known.same_as(listener):
            return known
        tls = self._tls[listener.name] = ServerTls(listener)
        return tls

    def _forget_listeners(self, names: set[str]) -> None:
        for known in (self._tables, self._tls):
            for name in [n for n in known if n not in names]:
                del known[name]

    def _stop_accepting(self, bind: Bind) -> None:
        accepting = self._accepting.pop(bind)
        accepting.acceptor.finish()
        self._leave(accepting.front)

    def _leave(self, front: Front) -> None:
        """Nothing more comes in here; what is in flight may end in its own time."""
        front.drain(ledger.DRAIN if self.draining else ledger.RELOAD)
        self._leaving = {f for f in self._leaving if f.connections}
        self._leaving.add(front)

    # The access log

    def _open_log(self, settings: AccessLogSettings) -> None:
        former = self._log
        self._log_settings = settings
        self._log = AccessLog(settings, self._reactor) if settings.destination != "off" else None
        if former is not None:
            former.close(0)

    def reopen_log(self) -> None:
        """Open the access log anew under its name."""
        if self._log is not None:
            self._log.reopen()

    def report(self) -> Mapping[str, Any]:
        """The counters, for the supervisor."""
        for front in self._fronts():
            if isinstance(front, TcpFront):
                front.settle()
        for exchange in self._relaying:
            exchange.settle()
        if self._log is not None:
            self.counters.access_log_dropped = self._log.dropped
        return self.counters.report()

    # Ending

    def drain(self, close_sockets: bool) -> None:
        """Accept what is queued (unless the sockets live on elsewhere), then nothing more."""
        self.draining = True
        for bind in list(self._accepting):
            accepting = self._accepting.pop(bind)
            if close_sockets:
                accepting.acceptor.finish()
            else:
                accepting.acceptor.close()
            self._leave(accepting.front)
        for skt in self._sockets.values():
            skt.close()
        self._sockets.clear()

    def open_connections(self) -> int:
        """How many client connections there are."""
        return sum(len(front.connections) for front in self._fronts())

    def closing_target_connections(self) -> int:
        """How many connections to targets are not closed yet, once everything was ended."""
        return self._groups.connections_in_use()

    def _fronts(self) -> set[Front]:
        return self._leaving | {accepting.front for accepting in self._accepting.values()}

    def end(self) -> int:
        """End every connection; return how many had something in flight."""
        return sum(front.end() for front in self._leaving)

    def close(self) -> None:
        """Let go of everything."""
        for bind in list(self._accepting):
            self._accepting.pop(bind).acceptor.close()
        self._groups.close()
        self._deadlines.stop()
        if self._log is not None:
            self._log.close()
            self._log = None


def _same_kind(one: Listener, other: Listener) -> bool:
    """Whether connections of one listener can go on under the other's settings."""
    return one.name == other.name and one.protocol is other.protocol
