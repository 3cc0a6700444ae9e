"""TLS on transports: the compiled `TlsTransport`, or Twisted's ``TLSMemoryBIOProtocol`` where that cannot be had.

Both take pyOpenSSL connections from Twisted's ``IOpenSSLServerConnectionCreator`` and
``IOpenSSLClientConnectionCreator``, and look the same to the protocol inside.  They differ in one thing:
Twisted's has no half-closed connections.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from OpenSSL import SSL
from twisted.internet.interfaces import IProtocol, IProtocolFactory
from twisted.internet.protocol import connectionDone
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from lbproxy.native.choice import available
from lbproxy.native.symbols import bound, unbound

if TYPE_CHECKING or available:
    from lbproxy.native import _contexts, _tls

_ffi: Any = SSL._ffi  # type: ignore[attr-defined]
_lib: Any = SSL._lib  # type: ignore[attr-defined]

_CHEAPER = ("SSL_has_pending", "SSL_set_read_ahead")


def _address(pointer: Any) -> int:
    """What a pointer of pyOpenSSL points to."""
    return int(_ffi.cast("uintptr_t", pointer))


def _connection(context: Any, address: int) -> Any:
    """Make pyOpenSSL's connection around the ``SSL`` at an address, or, where that is 0, a server's with its own."""
    connection: Any = SSL.Connection(context, None)
    if address:
        connection._ssl = _ffi.gc(_ffi.cast("SSL *", address), _lib.SSL_free)
        connection._into_ssl = connection._from_ssl = None
        connection._reverse_mapping[connection._ssl] = connection
    else:
        connection.set_accept_state()
    return connection


def _bind() -> bool:
    """Give the compiled transport its OpenSSL; tell whether that has all it needs."""
    try:
        addresses = bound(_tls.REQUIRED) | unbound(_CHEAPER)
        _tls.bind(addresses, _address, _connection)
    except (ImportError, AttributeError, KeyError):
        return False
    return True


direct = available and _bind()
"""Whether TLS is spoken straight on the socket."""


def _bind_contexts() -> bool:
    """Give the callbacks of servers their OpenSSL; tell whether that has all they need."""
    try:
        _contexts.bind(bound(_contexts.BOUND) | unbound(_contexts.UNBOUND))
    except KeyError:
        return False
    return True


chooses = direct and _bind_contexts()
"""Whether certificates and protocols are chosen in C."""


def _bind_tickets() -> bool:
    """Give the ticket callback its OpenSSL; tell whether that has all it needs."""
    addresses = unbound(_contexts.TICKETS)
    if addresses:
        _contexts.bind_tickets(addresses)
        _contexts.use_ticket_keys((os.urandom(80),))
    return bool(addresses)


shares_tickets = direct and _bind_tickets()
"""Whether `share_tickets` has an effect."""


def use_ticket_keys(keys: tuple[bytes, ...]) -> None:
    """Encrypt session tickets of this process with the first of these keys; accept those of the others too.

    A key is 80 random bytes; there may be up to four.  Until this is called there is one that nobody else knows.
    """
    if shares_tickets:
        _contexts.use_ticket_keys(keys)


def share_tickets(context: Any) -> None:
    """Have a pyOpenSSL server context use the process's ticket keys; else it has a key of its own."""
    if shares_tickets:
        _contexts.share_tickets(_address(context._context))


def server_contexts(default: Any, by_name: Mapping[str, Any], protocols: Sequence[bytes]) -> Any:
    """Have certificates and protocols of these pyOpenSSL contexts chosen in C; give what begins connections with them.

    ``by_name`` has server names in lower case, exact or with ``*`` as the whole first label; ``protocols`` are those of
    ALPN, best first.  Returns None where that cannot be: then the caller sets callbacks of its own.
    """
    if not chooses:
        return None
    kept = tuple(dict.fromkeys((default, *by_name.values())))
    contexts = _contexts.ServerContexts(
        _address(default._context),
        {name.encode("ascii"): _address(context._context) for name, context in by_name.items()},
        tuple(protocols),
        tuple(_address(context._context) for context in kept),
        kept,
    )
    for context in kept:
        context.set_app_data(contexts)  # which OpenSSL points to from now on
    return contexts


def agreed(transport: Any) -> tuple[str, str, bytes, bytes, bool]:
    """What the handshake of a TLS transport agreed on: version, cipher suite, server name, ALPN's protocol, resumed."""
    if direct and isinstance(transport, _tls.TlsTransport):
        return transport.agreed()
    return agreed_by(transport.getHandle())


def agreed_by(connection: Any) -> tuple[str, str, bytes, bytes, bool]:
    """The same of pyOpenSSL's connection."""
    return (
        connection.get_protocol_version_name(),
        connection.get_cipher_name() or "",
        connection.get_servername() or b"",
        connection.get_alpn_proto_negotiated(),
        bool(_lib.SSL_session_reused(connection._ssl)),
    )


def finish(transport: Any) -> None:
    """Close a TLS transport once all that was written is sent, without waiting for the peer's close_notify.

    Twisted's TLS waits.
    """
    if direct and isinstance(transport, _tls.TlsTransport):
        transport.finish()
    else:
        transport.loseConnection()


class ServerTlsFactory:
    """Wrap a factory's protocols in TLS as a server.

    ``creator`` is asked for a connection each time, unless it has ``contexts`` of `server_contexts` for that;
    ``factory`` needs ``buildProtocol`` only.
    """

    noisy = False

    def __init__(self, creator: Any, factory: Any) -> None:
        self._creator = getattr(creator, "contexts", None) or creator
        self._factory = factory
        self._twisted = None if direct else _TwistedTls(creator, False, factory.buildProtocol)

    def buildProtocol(self, addr: Any) -> Any:
        if self._twisted is not None:
            return self._twisted.buildProtocol(addr)
        protocol = self._factory.buildProtocol(addr)
        return None if protocol is None else _Securing(self._creator, protocol)

    def doStart(self) -> None:
        """For factories around this one."""

    def doStop(self) -> None:
        """For factories around this one."""


def start_client_tls(transport: Any, creator: Any, protocol: IProtocol) -> Any:
    """Speak TLS as a client on a connection that stands, after what was written to it; return the new transport.

    ``protocol.makeConnection`` is called at once with it, and ``handshakeCompleted`` later if it is
    an ``IHandshakeListener``.  The new transport's ``wrappedProtocol`` may be changed.
    """
    if direct:
        return _tls.secure(transport, creator, True, protocol)
    outer: Any = _TwistedTls(creator, True, lambda addr: protocol).buildProtocol(None)
    transport.protocol = outer
    outer.makeConnection(transport)
    return outer


class _Securing:
    """The protocol of a plain connection, for the moment until TLS takes it over."""

    def __init__(self, creator: Any, protocol: Any) -> None:
        self._creator = creator
        self._protocol = protocol
        self._secured: Any = None

    def makeConnection(self, transport: Any) -> None:
        self._secured = _tls.secure(transport, self._creator, False, self._protocol)

    def dataReceived(self, data: bytes) -> None:
        """What came behind a PROXY header."""
        self._secured.feed(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Only if TLS could not be begun."""


class _TwistedTls(TLSMemoryBIOFactory):
    """Twisted's TLS, without the buffer that holds writes back until the reactor's next turn."""

    protocol = TLSMemoryBIOProtocol

    def __init__(self, creator: Any, client: bool, build: Callable[[Any], Any]) -> None:
        super().__init__(creator, client, _Builds(build), _NO_CLOCK)

    def buildProtocol(self, addr: Any) -> Any:
        assert isinstance(self.wrappedFactory, _Builds)
        protocol = self.wrappedFactory.buildProtocol(addr)
        return None if protocol is None else self.protocol(self, protocol)


_NO_CLOCK: Any = object()
"""Only that buffer wants one; without, Twisted would install its default reactor."""


@implementer(IProtocolFactory)
class _Builds:
    """The least that Twisted's TLS wants to wrap."""

    noisy = False

    def __init__(self, build: Callable[[Any], Any]) -> None:
        self.buildProtocol = build

    def doStart(self) -> None:
        pass

    def doStop(self) -> None:
        pass
