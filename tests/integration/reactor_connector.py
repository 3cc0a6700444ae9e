"""A connector on Twisted's own TCP client, for tests of what uses a connector."""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.protocol import ClientFactory
from twisted.protocols.tls import TLSMemoryBIOFactory

from lbproxy.dataplane.proxy.faults import Fault
from lbproxy.dataplane.upstream.tls import ClientTls
from lbproxy.model.target import Target
from lbproxy.model.target_group import TargetGroup

reactor: Any = _reactor


class _Behind(ClientFactory):
    """Gives the one protocol, its header sent first."""

    noisy = False

    def __init__(self, inner: Any, protocol: Any, header: bytes) -> None:
        self._inner = inner
        self._protocol = protocol
        self._header = header

    def buildProtocol(self, addr: Any) -> Any:
        return _HeaderFirst(self._inner.buildProtocol(addr), self._header)

    def clientConnectionFailed(self, connector: Any, reason: Any) -> None:
        if self._protocol is not None:
            self._protocol.connectFailed(Fault.CONNECT_REFUSED, reason.getErrorMessage())

    def cancelled(self) -> None:
        self._protocol = None


class _HeaderFirst:
    def __init__(self, inner: Any, header: bytes) -> None:
        self._inner = inner
        self._header = header

    def makeConnection(self, transport: Any) -> None:
        transport.write(self._header)
        transport.protocol = self._inner
        self._inner.makeConnection(transport)


class _One:
    """A factory of one protocol."""

    def __init__(self, protocol: Any) -> None:
        self._protocol = protocol

    def buildProtocol(self, addr: Any) -> Any:
        return self._protocol

    def doStart(self) -> None:
        pass

    doStop = doStart


class _Connecting:
    def __init__(self, factory: _Behind, connector: Any) -> None:
        self._factory = factory
        self._connector = connector

    def cancel(self) -> None:
        self._factory.cancelled()
        self._connector.stopConnecting()


class ReactorConnector:
    """Connects to ``target.address``; TLS where the group says so, with its settings."""

    def connect(self, group: TargetGroup, target: Target, protocol: Any, header: bytes = b"") -> _Connecting:
        inner: Any = _One(protocol)
        if group.protocol.is_encrypted:
            inner = TLSMemoryBIOFactory(ClientTls(group.tls).creator_for(target), True, inner)
        factory = _Behind(inner, protocol, header)
        return _Connecting(factory, reactor.connectTCP(target.address, target.port, factory))
