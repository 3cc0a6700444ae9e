"""The PROXY protocol ahead of what a listener speaks: who the client really is.

`ProxyProtocolFactory` goes around everything else (PROXY header, then TLS, then HTTP).  Once the header is
read, the protocol behind is built for the address that the header gave, so every factory in the chain
sees the real client in ``buildProtocol``; then it takes the transport over, and nothing of this module stays
in the way of the bytes.  A listener without the PROXY protocol does not use this module at all.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IDelayedCall, IProtocol, IProtocolFactory, IReactorTime
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from lbproxy.native.transport import Address
from lbproxy.wire.errors import RemoteProtocolError
from lbproxy.wire.proxyprotocol import Endpoint, ProxyHeaderReader


def _nobody_asked(reason: str) -> None:
    """Default for ``refused``."""


class ProxyProtocolFactory(Factory):
    """Read a PROXY header from connections of trusted senders, then hand over to the wrapped factory.

    A connection from elsewhere is the wrapped factory's from the start: what looks like a header there is
    a client's claim.  A trusted sender must send one; what is malformed or late is reset.
    """

    noisy = False

    def __init__(
        self,
        wrapped_factory: IProtocolFactory,
        trusted: Iterable[str],
        timeout_seconds: float,
        clock: IReactorTime,
        refused: Callable[[str], None] = _nobody_asked,
    ) -> None:
        """``trusted`` are CIDR blocks; the header must be whole within ``timeout_seconds``.

        ``refused`` is told each time a connection is ended here: ``BadProxyHeader`` or ``ProxyHeaderTimeout``.
        """
        self.wrapped_factory = wrapped_factory
        self.timeout_seconds = timeout_seconds
        self.clock = clock
        self.refused = refused
        self._trusted = tuple(ipaddress.ip_network(block) for block in trusted)

    def doStart(self) -> None:
        self.wrapped_factory.doStart()
        super().doStart()

    def doStop(self) -> None:
        self.wrapped_factory.doStop()
        super().doStop()

    def buildProtocol(self, addr: Any) -> Any:
        if self.trusts(addr.host):
            return ProxyProtocolFront(self, addr)
        return self.wrapped_factory.buildProtocol(addr)

    def trusts(self, host: str) -> bool:
        """Tell whether a header from this IP address is believed."""
        address = ipaddress.ip_address(host)
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
            # An IPv4 peer at a dual-stack socket.
            address = address.ipv4_mapped
        return any(address in network for network in self._trusted)


class ProxyProtocolFront(Protocol):
    """Reads the header of one connection and makes room for the protocol that serves it."""

    def __init__(self, factory: ProxyProtocolFactory, addr: Address) -> None:
        self._factory = factory
        self._addr = addr
        self._reader = ProxyHeaderReader()
        self._timeout: IDelayedCall | None = None

    def connectionMade(self) -> None:
        self._timeout = self._factory.clock.callLater(self._factory.timeout_seconds, self._expired)

    def dataReceived(self, data: bytes) -> None:
        try:
            header = self._reader.receive_data(data)
        except RemoteProtocolError as error:
            self._refuse(error.reason)
            return
        if header is not None:
            self._stop_timeout()
            self._hand_over(self._addr if header.source is None else _address(header.source), self._reader.rest)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._stop_timeout()

    def _hand_over(self, addr: Address, rest: bytes) -> None:
        transport: Any = self.transport
        factory: Any = self._factory.wrapped_factory
        wrapped: IProtocol | None = factory.buildProtocol(addr)
        if wrapped is None:
            transport.abortConnection()
            return
        transport.protocol = wrapped
        wrapped.makeConnection(transport)
        if rest:
            wrapped.dataReceived(rest)

    def _expired(self) -> None:
        self._timeout = None
        self._refuse("ProxyHeaderTimeout")

    def _refuse(self, reason: str) -> None:
        self._factory.refused(reason)
        transport: Any = self.transport
        transport.abortConnection()

    def _stop_timeout(self) -> None:
        if self._timeout is not None:
            self._timeout.cancel()
            self._timeout = None


def _address(source: Endpoint) -> IPv4Address | IPv6Address:
    host, port = source
    return IPv6Address("TCP", host, port) if ":" in host else IPv4Address("TCP", host, port)
