"""The TCP proxy: a client's connection joined to a target's.

A TLS listener in front of TCP targets is the same factory inside `lbproxy.native.tls`, a TLS target group
the same protocol inside the connector's.  A connection goes through these phases: (TLS handshake,) connecting to
one candidate after another, relaying, closing.  `TcpClientSide` is the connection; `TcpTargetSide` only tells it
what happens at the other end.

How an end is carried to the other side:

* A plain side that sends no more (FIN): what it sent is flushed, then the other side's write direction is
  closed and the way back stays open.  A TLS side is sent close_notify instead, and what it still sends is
  relayed until it answers.
* A TLS side that sends close_notify: as a FIN, the way back stays open (RFC 8446 section 6.1).  Where TLS is Twisted's
  (without native code) it has closed both directions: what it sent is delivered to the other side, which is then
  closed; what was on its way to it and not yet handed to its TCP connection is lost, as TLS 1.2 demands.
* A plain side that is reset, after it had not yet finished: the other side is reset too, and what was on its
  way is lost, as it would be on a direct connection.
* A TLS side that goes without close_notify: as if it had sent one.  Many clients do so, and a reset would
  cut off what they sent; that the data may have been truncated can thus not be seen by a plain other side.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IHalfCloseableProtocol, IHandshakeListener, IPushProducer
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import classImplements

from lbproxy.dataplane.deadlines import NEVER, Deadlines
from lbproxy.dataplane.listener.tls import TlsDetails, describe
from lbproxy.dataplane.proxy.faults import Fault, Side
from lbproxy.dataplane.proxy.runtime import GroupRuntime
from lbproxy.model.listener import Listener
from lbproxy.model.target import RegisteredTarget, Target
from lbproxy.model.target_group import ProxyProtocolVersion, TargetGroup
from lbproxy.native.protocol import StreamProtocol
from lbproxy.native.transport import Address, Flow, StreamTransport, relay
from lbproxy.telemetry.counters import ListenerCounters, TargetCounters
from lbproxy.telemetry.records import TcpRecord
from lbproxy.wire.proxyprotocol import encode_v1, encode_v2

_log = Logger(__name__)  # compiled, it could not see where it is made

_NO_TLS = TlsDetails("", "", "", b"", False)


class Connecting(Protocol):
    """A connection to a target that is being made."""

    def cancel(self) -> None:
        """Give up; nobody is told."""


class Connector(Protocol):
    """Makes connections to targets (`lbproxy.dataplane.upstream.connector`)."""

    def connect(self, group: TargetGroup, target: Target, protocol: Any, header: bytes = b"") -> Connecting:
        """Connect, with the group's TLS and timeouts, and send ``header`` ahead of everything.

        Later exactly one of ``protocol.makeConnection`` and ``protocol.connectFailed(fault, detail)`` is called.
        """


class Cells(Protocol):
    """The counters that all workers share."""

    def __getitem__(self, index: int, /) -> int: ...

    def __setitem__(self, index: int, value: int, /) -> None: ...


class TcpContext:
    """What the connections of one listener need of their worker.

    A base, not a protocol, so that the compiled build calls it directly.
    """

    __slots__ = (
        "cells",
        "connections",
        "connector",
        "counters",
        "deadlines",
        "encrypted",
        "handshake_seconds",
        "idle_seconds",
        "name",
        "slot",
    )

    def __init__(
        self,
        listener: Listener,
        connector: Connector,
        deadlines: Deadlines,
        cells: Cells,
        slot: int,
        counters: ListenerCounters,
        connections: set[TcpClientSide],
    ) -> None:
        self.name = listener.name
        self.encrypted = listener.protocol.is_encrypted
        self.handshake_seconds = listener.request_header_timeout_seconds
        self.idle_seconds = listener.idle_timeout_seconds
        self.connector = connector
        self.deadlines = deadlines
        self.cells = cells
        self.slot = slot
        """The worker's slot, its index in every target's run of cells."""
        self.counters = counters
        self.connections = connections
        """Those open now; a connection adds and removes itself."""

    def entered(self, host: str) -> None:
        """A connection from this address is open."""
        raise NotImplementedError  # interface

    def left(self, host: str) -> None:
        """It is closed."""
        raise NotImplementedError  # interface

    def choose(self) -> GroupRuntime:
        """Choose a target group."""
        raise NotImplementedError  # interface

    def target_counters(self, group: GroupRuntime, registered: RegisteredTarget) -> TargetCounters:
        """The counters of a target in its group, which also know its key."""
        raise NotImplementedError  # interface

    def unix_time(self) -> float:
        raise NotImplementedError  # interface

    def log(self, record: TcpRecord) -> None:
        """Take the record of a connection that ended."""
        raise NotImplementedError  # interface


class _Side(StreamProtocol):
    """What the two ends have in common; each produces for the other's transport."""

    __slots__ = ("_fed", "encrypted", "finished", "lost", "stream", "transport")

    transport: Any
    stream: StreamTransport | None
    """The transport, if it is a compiled one or its stand-in: its methods are called in C."""
    encrypted: bool
    """Whether TLS is spoken at this end."""
    finished: bool
    """It has sent its last byte."""
    lost: bool
    """Its connection is gone."""
    _fed: bool
    """The other side is registered as its transport's producer."""

    def makeConnection(self, transport: Any) -> None:
        self.transport = transport
        self.stream = transport if isinstance(transport, StreamTransport) else None
        self.connectionMade()

    def connectionMade(self) -> None:
        raise NotImplementedError  # interface

    def feed_from(self, source: _Side) -> None:
        """Let this end's transport slow the other end down."""
        self._fed = True
        stream = self.stream
        if stream is not None:
            stream.registerProducer(source, True)
        else:
            self.transport.registerProducer(source, True)

    def end_of_feed(self) -> None:
        """Nothing more comes from the other end."""
        if self._fed:
            self._fed = False
            stream = self.stream
            if stream is not None:
                stream.unregisterProducer()
            else:
                self.transport.unregisterProducer()

    def close_writing(self) -> None:
        """Flush, then tell this end that nothing more comes; what it sends is still read."""
        self.end_of_feed()
        stream = self.stream
        if stream is not None:
            stream.loseWriteConnection()
        # Asked of the class: Twisted's TLS passes the method on to the TCP transport below, past what TLS itself holds.
        elif hasattr(type(self.transport), "loseWriteConnection"):
            self.transport.loseWriteConnection()
        else:
            self.close()

    def close(self) -> None:
        """Flush, then close."""
        self.end_of_feed()
        if self.encrypted and not self.transport.disconnecting:
            # Twisted's TLS closes when it has read the peer's close_notify.
            self.transport.resumeProducing()
        stream = self.stream
        if stream is not None:
            stream.loseConnection()
        else:
            self.transport.loseConnection()

    def writeConnectionLost(self) -> None:
        """`close_writing` is done."""

    def pauseProducing(self) -> None:
        self.transport.pauseProducing()

    def resumeProducing(self) -> None:
        if not self.finished:
            self.transport.resumeProducing()

    def stopProducing(self) -> None:
        """The transport that this end produces for is gone; its protocol's connectionLost deals with that."""


class TcpClientSide(_Side):
    """A client's connection, and the one to its target."""

    __slots__ = (
        "_accepted",
        "_began_connecting",
        "_clock",
        "_concluded",
        "_connecting",
        "_counters",
        "_down",
        "_early",
        "_failure",
        "_fault",
        "_held_cell",
        "_idle_seconds",
        "_others",
        "_ready",
        "_record",
        "_relaying",
        "_target",
        "_up",
        "context",
        "group",
        "host",
        "port",
        "registered",
    )

    def __init__(self, context: TcpContext, addr: Address) -> None:
        self.begin(context, addr)

    def begin(self, context: TcpContext, addr: Address) -> None:
        """What `__init__` does; compiled, it is cheaper to call this on a new object than to have Python do so."""
        self.context = context
        self.group: GroupRuntime | None = None
        self.registered: RegisteredTarget | None = None
        """The target that it is connected or connecting to, or was last."""
        self.encrypted = context.encrypted
        self.finished = self.lost = self._fed = False
        self.armed = 0
        self.deadline = NEVER
        self.host = addr.host
        self.port = addr.port
        self._counters = context.counters
        self._clock = context.deadlines.clock
        self._idle_seconds = context.idle_seconds
        self._record = TcpRecord(context.name, self.host, self.port, context.unix_time())
        self._accepted = self._clock.now()
        self._ready = False
        """The TLS handshake, if there is one, is done."""
        self._began_connecting = 0.0
        self._others: Iterator[RegisteredTarget] | None = None
        """Those to try after the first, once that has failed."""
        self._connecting: Connecting | None = None
        self._early: list[bytes] = []
        """Received before the target was connected: no more than was read when reading was paused."""
        self._target: TcpTargetSide | None = None
        self._relaying = False
        self._up: Flow | None = None
        self._down: Flow | None = None
        """What the transports relay by themselves, to the target and back; not counted yet."""
        self._held_cell = -1
        self._failure: Fault | None = None
        """Of the last attempt to connect."""
        self._fault: Fault | None = None
        self._concluded = False

    # Accept, tls

    def connectionMade(self) -> None:
        self.context.connections.add(self)
        self.context.entered(self.host)
        self._counters.connections += 1
        self._counters.active += 1
        self.transport.setTcpNoDelay(True)
        if self.encrypted:
            self.context.deadlines.set(self, self._accepted + self.context.handshake_seconds)
        else:
            self._choose()

    def handshakeCompleted(self) -> None:
        """TLS with the client stands."""
        tls = describe(self.transport)
        self._counters.tls_handshakes += 1
        self._counters.tls_resumed += tls.resumed
        self._record.tls_version = tls.version
        self._record.tls_cipher = tls.cipher
        self._record.server_name = tls.server_name
        self._choose()

    # Pick, connect

    def _choose(self) -> None:
        self._ready = True
        self._began_connecting = self._clock.now()
        self.context.deadlines.set(self, self._began_connecting + self._idle_seconds)
        self.transport.pauseProducing()
        group = self.group = self.context.choose()
        self._record.target_group = group.name
        self._try(group.pick(None, self.host))

    def _try(self, registered: RegisteredTarget | None) -> None:
        if registered is None:
            self._give_up()
            return
        group = self.group
        assert group is not None
        self.registered = registered
        self._hold(registered.cell + self.context.slot)
        counters = self.context.target_counters(group, registered)
        self._record.target = counters.key
        counters.requests += 1
        self._target = side = TcpTargetSide.__new__(TcpTargetSide)
        side.begin(self, counters, group.encrypted)
        header = self._proxy_header(group.group) if group.sends_header else b""
        self._connecting = self.context.connector.connect(group.group, registered.target, side, header)

    def _next(self) -> RegisteredTarget | None:
        """The target to try after those that have failed."""
        if self._others is None:
            assert self.group is not None
            assert self.registered is not None
            self._others = iter(self.group.balancer.others(self.registered, None, self.host))
        return next(self._others, None)

    def _proxy_header(self, group: TargetGroup) -> bytes:
        local = self.transport.getHost()
        encode = encode_v1 if group.proxy_protocol is ProxyProtocolVersion.V1 else encode_v2
        return encode((self.host, self.port), (local.host, local.port))

    def connect_failed(self, side: TcpTargetSide, fault: Fault, detail: str) -> None:
        """The connection to a candidate was not made."""
        if side is not self._target or self._connecting is None:
            return
        _log.debug("cannot connect to target {target}: {detail}", target=self._record.target, detail=detail)
        side.counters.connect_failures += 1
        side.counters.faults[fault.reason] += 1
        self._failure = fault
        self._forget_target()
        self._try(self._next())

    def _give_up(self) -> None:
        """No candidate is left."""
        self._note(self._failure or Fault.NO_TARGETS)
        if self.lost:
            self._conclude()
        elif self._failure is None:
            self.close()
        else:
            self.transport.abortConnection()

    def target_connected(self, side: TcpTargetSide) -> None:
        """The connection to a candidate stands."""
        if side is not self._target or self._connecting is None:
            side.transport.abortConnection()
            return
        self._connecting = None
        self._relaying = True
        now = self._clock.now()
        self._record.connect_time = now - self._began_connecting
        self.deadline = now + self._idle_seconds
        side.counters.connects += 1
        early, self._early = self._early, []
        if not self.lost:
            self.transport.resumeProducing()
            side.feed_from(self)
            self.feed_from(side)
        for data in early:
            side.counters.sent_bytes += len(data)
            side.transport.write(data)
        if self.lost:
            side.close()
            return
        self._up = relay(self.transport, side.transport, self._clock)
        self._down = relay(side.transport, self.transport, self._clock)
        if self.finished:
            self._carry_end(self, side)

    # Relay

    def dataReceived(self, data: bytes) -> None:
        size = len(data)
        self._record.received_bytes += size
        self._counters.received_bytes += size
        if self._relaying:
            side = self._target
            assert side is not None
            self.deadline = self._clock.now() + self._idle_seconds
            side.counters.sent_bytes += size
            side.transport.write(data)
        elif self._connecting is not None:
            self._early.append(data)

    def target_sent(self, data: bytes) -> None:
        """The target sent this."""
        size = len(data)
        self._record.sent_bytes += size
        self._counters.sent_bytes += size
        self.deadline = self._clock.now() + self._idle_seconds
        self.transport.write(data)

    # Ends

    def readConnectionLost(self) -> None:
        self.finished = True
        if self._relaying:
            assert self._target is not None
            self._carry_end(self, self._target)

    def target_finished(self, side: TcpTargetSide) -> None:
        """The target sent its last byte."""
        side.finished = True
        if self._relaying:
            self._carry_end(side, self)

    def _carry_end(self, source: _Side, sink: _Side) -> None:
        if sink.finished:
            sink.close()
            source.close()
        else:
            sink.close_writing()

    def connectionLost(self, reason: Failure) -> None:
        self.lost = True
        if self._relaying:
            self._carry_loss(self, self._target, reason)
        elif self._connecting is not None:
            if self._early and reason.check(ConnectionDone):
                # It sent something and closed: that is for the target yet.
                return
            self._note(Fault.CLIENT_CLOSED)
            self._stop_connecting()
            self._conclude()
        elif self._target is None or self._target.lost:
            if not self._ready and self.encrypted:
                self._counters.tls_failures += 1
                self._note(Fault.CLIENT_TLS_FAILED)
            self._conclude()

    def target_lost(self, side: TcpTargetSide, reason: Failure) -> None:
        """The target's connection is gone."""
        side.lost = True
        if side is not self._target:
            return
        self._release()
        if self._relaying:
            self._carry_loss(side, self, reason)
        elif self.lost:
            self._conclude()

    def _carry_loss(self, source: _Side, sink: _Side | None, reason: Failure) -> None:
        """One connection is gone: close the other, or reset it if the loss was a reset."""
        self._relaying = False
        orderly = source.finished or source.encrypted or reason.check(ConnectionDone) is not None
        if not orderly:
            self._note(Fault.CLIENT_CLOSED if source is self else Fault.TARGET_RESET)
        if sink is None or sink.lost:
            self._conclude()
        elif orderly:
            sink.close()
        else:
            sink.end_of_feed()
            sink.transport.abortConnection()

    def expired(self, now: float) -> None:
        """Nothing came in either direction for the idle timeout, or the TLS handshake took too long."""
        if not self._ready:
            self.abort(Fault.CLIENT_TIMEOUT)
        elif self._connecting is not None:
            self.abort(Fault.CONNECT_TIMEOUT)
        else:
            self._idle_since(now)

    def _idle_since(self, now: float) -> None:
        """The idle timeout is over, unless the transports have relayed something meanwhile."""
        if self._up is not None and self._down is not None:
            until = max(self._up.last, self._down.last) + self._idle_seconds
            if until > now:
                self.context.deadlines.set(self, until)
                return
        self.abort(Fault.IDLE_TIMEOUT)

    def abort(self, fault: Fault) -> None:
        """End the connection for this reason: both ends are reset, what is in flight is lost."""
        if self._concluded:
            return
        self._note(fault)
        target = self._target
        if self._connecting is not None:
            self._stop_connecting()
        elif target is not None and not target.lost:
            target.transport.abortConnection()
        if not self.lost:
            self.transport.abortConnection()
        elif self._target is None:
            self._conclude()

    def drain(self) -> None:
        """The worker will stop.

        The connection lives on: where a TCP conversation may be cut, only its ends know.  At the deadline
        the worker calls ``abort(Fault.DRAIN_DEADLINE)``.
        """

    def target_gone(self) -> None:
        """The target was deregistered and its delay is over."""
        self.abort(Fault.TARGET_DEREGISTERED)

    # Accounts

    def _note(self, fault: Fault) -> None:
        """The first fault is the one that counts; what it leads to is not counted again."""
        if self._fault is None:
            self._fault = fault
            self._counters.faults[fault.reason] += 1
            if fault.side is Side.TARGET and self._target is not None:
                self._target.counters.faults[fault.reason] += 1

    def _hold(self, cell: int) -> None:
        self._held_cell = cell
        self.context.cells[cell] += 1

    def _release(self) -> None:
        cell = self._held_cell
        self._held_cell = -1
        if cell >= 0:
            self.context.cells[cell] -= 1

    def _forget_target(self) -> None:
        self._connecting = None
        self._target = None
        self._release()

    def _stop_connecting(self) -> None:
        connecting = self._connecting
        assert connecting is not None
        connecting.cancel()
        self._forget_target()

    def settle(self) -> None:
        """Count what the transports have relayed by themselves."""
        up, down, side = self._up, self._down, self._target
        if up is None or down is None or side is None:
            return
        size = up.settle()
        self._record.received_bytes += size
        self._counters.received_bytes += size
        side.counters.sent_bytes += size
        size = down.settle()
        self._record.sent_bytes += size
        self._counters.sent_bytes += size
        side.counters.received_bytes += size

    def _conclude(self) -> None:
        """Both connections are gone."""
        if self._concluded:
            return
        self._concluded = True
        self._release()
        self.settle()
        context = self.context
        context.deadlines.clear(self)
        context.connections.discard(self)
        context.left(self.host)
        self._counters.active -= 1
        record = self._record
        record.duration = self._clock.now() - self._accepted
        if self._fault is not None:
            record.error_reason = self._fault.reason
        context.log(record)
        self._target = None  # each knows the other: they would be there until the garbage collector comes


class TcpTargetSide(_Side):
    """The connection to a target: tells the client's side what happens."""

    __slots__ = ("_client", "counters")

    def begin(self, client: TcpClientSide, counters: TargetCounters, encrypted: bool) -> None:
        """In the place of ``__init__``, as for the other side."""
        self.finished = self.lost = self._fed = False
        self._client = client
        self.counters = counters
        self.encrypted = encrypted

    def connectionMade(self) -> None:
        self._client.target_connected(self)

    def connectFailed(self, fault: Fault, detail: str) -> None:
        """The connector could not connect; ``detail`` is for people."""
        self._client.connect_failed(self, fault, detail)

    def dataReceived(self, data: bytes) -> None:
        self.counters.received_bytes += len(data)
        self._client.target_sent(data)

    def readConnectionLost(self) -> None:
        self._client.target_finished(self)

    def connectionLost(self, reason: Failure) -> None:
        self._client.target_lost(self, reason)


classImplements(TcpClientSide, IHalfCloseableProtocol, IHandshakeListener, IPushProducer)
classImplements(TcpTargetSide, IHalfCloseableProtocol, IPushProducer)
