"""Makes connections to targets: TCP, the PROXY header, TLS, all within one deadline."""

from __future__ import annotations

import errno
from typing import Any, Protocol, cast

from twisted.internet.interfaces import IHandshakeListener, IProtocol, ITransport
from twisted.internet.protocol import Protocol as TwistedProtocol
from twisted.python.failure import Failure
from zope.interface import classImplements, implementer

from lbproxy.dataplane.deadlines import NEVER, Deadlines
from lbproxy.dataplane.proxy.faults import Fault
from lbproxy.dataplane.upstream.tls import ClientTls, explain_failure
from lbproxy.model.errors import InvalidModel
from lbproxy.model.target import Target
from lbproxy.model.target_group import ProtocolVersion, TargetGroup, TargetTls
from lbproxy.native.protocol import StreamProtocol
from lbproxy.native.tls import start_client_tls
from lbproxy.native.transport import connect


class TargetProtocol(Protocol):
    """The protocol of a connection to a target: Twisted's `IProtocol`, and one method more."""

    def makeConnection(self, transport: Any) -> None: ...
    def dataReceived(self, data: bytes) -> None: ...
    def connectionLost(self, reason: Failure) -> None: ...
    def connectFailed(self, fault: Fault, detail: str) -> None:
        """The connection could not be made; ``detail`` says why, for people."""


class Attempt(Protocol):
    """A connection that is being made."""

    def cancel(self) -> None:
        """Give up; the protocol is not told."""


class Connector:
    """Connects to targets."""

    def __init__(self, reactor: Any, deadlines: Deadlines) -> None:
        self._reactor = reactor
        self._deadlines = deadlines
        self._tls: dict[tuple[TargetTls, tuple[bytes, ...]], ClientTls] = {}
        self._known: dict[int, tuple[TargetGroup, bool, float]] = {}
        """What a connection needs of a group, by its identity; an entry keeps its group, so that it stays its own."""

    def connect(self, group: TargetGroup, target: Target, protocol: TargetProtocol, header: bytes = b"") -> Attempt:
        """Connect to ``target`` as ``group`` says; send ``header`` (a PROXY protocol header) ahead of all else.

        Later, never at once, exactly one of ``protocol.makeConnection`` (TLS handshake done) and
        ``protocol.connectFailed`` is called, unless `Attempt.cancel` comes first.
        """
        known = self._known.get(id(group))
        if known is None or known[0] is not group:
            known = self._learn(group)
        creator = None
        if known[1]:
            try:
                creator = self._client_tls(group).creator_for(target)
            except InvalidModel as problem:
                return _Impossible(self._reactor, protocol, str(problem))
        attempt = Connecting.__new__(Connecting)
        attempt.begin(self._reactor, self._deadlines, target, protocol, header, creator)
        self._deadlines.set(attempt, self._deadlines.clock.now() + known[2])
        return attempt

    def _learn(self, group: TargetGroup) -> tuple[TargetGroup, bool, float]:
        if len(self._known) >= 256:  # of snapshots that are long gone
            self._known.clear()
        known = self._known[id(group)] = (group, group.protocol.is_encrypted, group.connect_timeout_seconds)
        return known

    def _client_tls(self, group: TargetGroup) -> ClientTls:
        alpn = () if group.protocol_version is ProtocolVersion.HTTP1 else (b"h2",)
        settings = (group.tls, alpn)
        found = self._tls.get(settings)
        if found is None:
            if len(self._tls) > 100:  # settings of groups that are long gone
                self._tls.clear()
            found = self._tls[settings] = ClientTls(*settings)
        return found


class _Impossible:
    """An attempt that fails for want of settings that TLS can work with."""

    def __init__(self, reactor: Any, protocol: TargetProtocol, detail: str) -> None:
        self._call = reactor.callLater(0, protocol.connectFailed, Fault.TLS_FAILED, detail)

    def cancel(self) -> None:
        if self._call.active():
            self._call.cancel()


class Connecting(StreamProtocol):
    """One attempt to connect; the transport's protocol until the connection is ready for use."""

    __slots__ = (
        "_deadlines",
        "_handshake",
        "_header",
        "_over",
        "_protocol",
        "_stream",
        "_tls_creator",
        "_transport",
    )

    def begin(
        self,
        reactor: Any,
        deadlines: Deadlines,
        target: Target,
        protocol: TargetProtocol,
        header: bytes,
        tls_creator: Any,
    ) -> None:
        """In the place of ``__init__``: compiled, a call in C."""
        self.armed = 0
        self.deadline = NEVER
        self._over = False
        self._stream: Any = None
        self._deadlines = deadlines
        self._protocol = protocol
        self._header = header
        self._tls_creator = tls_creator
        self._handshake: _Handshake | None = None
        self._transport: Any = connect(reactor, target.address, target.port, cast(IProtocol, self), self._refused)

    def cancel(self) -> None:
        """Give up; the protocol is not told."""
        if not self._over:
            self._end()
            self._drop()

    def expired(self, now: float) -> None:
        if not self._over:
            self._end()
            self._drop()
            if self._handshake is None:
                self._protocol.connectFailed(Fault.CONNECT_TIMEOUT, "TCP connect timed out")
            else:
                self._protocol.connectFailed(Fault.TLS_FAILED, "TLS handshake timed out")

    def _drop(self) -> None:
        tls: Any = self._handshake and self._handshake.transport
        if tls is not None:
            tls.abortConnection()
        elif self._transport.connected:
            self._transport.abortConnection()
        else:
            self._transport.cancel()

    def _end(self) -> None:
        self._over = True
        self._deadlines.clear(self)

    def _refused(self, failure: OSError) -> None:
        if not self._over:
            self._end()
            fault = Fault.CONNECT_TIMEOUT if failure.errno == errno.ETIMEDOUT else Fault.CONNECT_REFUSED
            self._protocol.connectFailed(fault, failure.strerror or "connection failed")

    # The transport's protocol

    def makeConnection(self, transport: ITransport) -> None:
        self._stream = transport
        self.connectionMade()

    def connectionMade(self) -> None:
        transport = self._stream
        if self._header:
            transport.write(self._header)
        if self._tls_creator is None:
            self._hand_over(transport)
            return
        self._handshake = _Handshake(self)
        start_client_tls(transport, self._tls_creator, self._handshake)

    def dataReceived(self, data: bytes) -> None:
        raise AssertionError("data before the connection was handed over")

    def connectionLost(self, reason: Failure) -> None:
        """Only while the TCP connection is being handed over."""

    def _hand_over(self, transport: Any) -> None:
        self._end()
        self._transport.protocol = self._protocol
        self._protocol.makeConnection(transport)

    # The handshake calls

    def secured(self, tls: Any) -> None:
        """The TLS handshake is done, the target's certificate accepted."""
        if self._over:
            return
        self._end()
        tls.wrappedProtocol = self._protocol
        self._protocol.makeConnection(tls)

    def insecure(self, reason: Failure) -> None:
        """The connection was lost during the handshake."""
        if not self._over:
            self._end()
            self._protocol.connectFailed(Fault.TLS_FAILED, explain_failure(reason))


classImplements(Connecting, IProtocol)


@implementer(IHandshakeListener)
class _Handshake(TwistedProtocol):
    """Stands in for the real protocol until TLS is up."""

    def __init__(self, attempt: Connecting) -> None:
        self._attempt = attempt

    def handshakeCompleted(self) -> None:
        self._attempt.secured(self.transport)

    def connectionLost(self, reason: Failure = Failure(Exception())) -> None:  # noqa: B008
        self._attempt.insecure(reason)
