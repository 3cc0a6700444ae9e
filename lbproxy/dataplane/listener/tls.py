"""TLS towards clients: OpenSSL contexts for a listener's certificates and policy.

A `ServerTls` is made when a listener is made or its certificates change, and used by all connections
that are accepted from then on; earlier ones keep theirs.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple, cast

from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.protocols.tls import TLSMemoryBIOProtocol
from zope.interface import implementer

from lbproxy.dataplane.listener.certificates import (
    LoadedCertificate,
    choose_default,
    choose_for_names,
    load_certificate,
    wildcard_of,
)
from lbproxy.model.errors import InvalidModel
from lbproxy.model.listener import Listener
from lbproxy.model.tls_policy import TLS_POLICIES, TlsPolicy
from lbproxy.native.tls import agreed, agreed_by, server_contexts, share_tickets

# The published type stubs of pyOpenSSL lag behind it.
_ssl: Any = SSL

_lib = _ssl._lib
"""What pyOpenSSL binds but does not wrap."""

_CURVES = b"X25519:P-256:P-384"
"""Key-exchange groups, best first."""

_VERSIONS = {"TLSv1.2": SSL.TLS1_2_VERSION, "TLSv1.3": SSL.TLS1_3_VERSION}

_OPTIONS = (
    SSL.OP_CIPHER_SERVER_PREFERENCE  # a policy's order is its point; also prefers ECDSA over RSA signatures
    | SSL.OP_NO_COMPRESSION
    | _ssl.OP_NO_RENEGOTIATION
)


class TlsDetails(NamedTuple):
    """What a handshake agreed on."""

    version: str
    """As OpenSSL names it: ``TLSv1.3``."""
    cipher: str
    """OpenSSL's name of the suite: ``TLS_AES_256_GCM_SHA384``, ``ECDHE-RSA-AES128-GCM-SHA256``."""
    server_name: str
    """What the client asked for by SNI, in lower case; empty if nothing."""
    alpn: bytes
    """The protocol agreed on, empty if none."""
    resumed: bool
    """Whether the client resumed a session."""


def describe(transport: Any) -> TlsDetails:
    """Tell what the handshake of a TLS transport agreed on; call once it is completed."""
    return _details(*agreed(transport))


def describe_connection(connection: SSL.Connection) -> TlsDetails:
    """The same of pyOpenSSL's connection."""
    return _details(*agreed_by(connection))


@lru_cache(maxsize=1024)
def _details(version: str, cipher: str, server_name: bytes, alpn: bytes, resumed: bool) -> TlsDetails:
    """One object for all connections that agreed on the same."""
    return TlsDetails(version, cipher, server_name.decode("ascii", "backslashreplace").lower(), alpn, resumed)


@implementer(IOpenSSLServerConnectionCreator)
class ServerTls:
    """The server's side of TLS at one listener; give it to Twisted's ``TLSMemoryBIOFactory``.

    A client gets the certificate of the name it asks for (exact, else wildcard), else the default one, the
    listener's first.  Where a name has an ECDSA and an RSA certificate, OpenSSL takes what the client can verify.

    Sessions are resumed by ticket only: there is no cache to bound.  The keys are the process's
    (`lbproxy.native.tls.use_ticket_keys`); where that cannot be, each context has a key of its own.
    """

    def __init__(self, listener: Listener, alpn: Sequence[bytes] | None = None) -> None:
        """Build the contexts.

        ``alpn`` lists protocols, best first; by default what an HTTPS listener speaks and none for TLS.
        A client that offers none of them is served without ALPN, as ELB does.

        Raises `InvalidModel` naming the certificate's source or ``tls_policy``.
        """
        if not listener.certificates:
            raise InvalidModel("certificates", f"listener {listener.name} needs at least one")
        policy = TLS_POLICIES.get(listener.tls_policy)
        if policy is None:
            known = ", ".join(TLS_POLICIES)
            raise InvalidModel("tls_policy", f"{listener.tls_policy!r} is none of {known}")
        if alpn is None:
            alpn = _alpn(listener)
        self._policy = policy
        self._alpn = tuple(alpn)
        self._made_of = _ingredients(listener)
        self._session_id_context = _digest(listener)
        self._built: dict[tuple[LoadedCertificate, ...], SSL.Context] = {}

        loaded = [load_certificate(certificate) for certificate in listener.certificates]
        self.context = self._context(choose_default(loaded))
        """The context of the default certificate, which switches to another by SNI."""
        self._by_name = {name: self._context(chosen) for name, chosen in choose_for_names(loaded).items()}
        self._names = {
            self._built[chosen]: frozenset[str]().union(*(certificate.names for certificate in chosen))
            for chosen in self._built
        }
        """What the certificates of a context are good for."""
        self.contexts = server_contexts(self.context, self._by_name, self._alpn)
        """What chooses among them in a handshake, if that is compiled; else this object does."""
        if self.contexts is None:
            for context in self._built.values():
                context.set_tlsext_servername_callback(self._switch_context)
                if self._alpn:
                    context.set_alpn_select_callback(self._select_protocol)

    def same_as(self, listener: Listener) -> bool:
        """Tell whether a listener would get the same contexts, so that these can stay."""
        return self._made_of == _ingredients(listener)

    def context_for(self, server_name: str) -> SSL.Context:
        """The context for a server name in any letter case."""
        name = server_name.lower().rstrip(".")
        return self._by_name.get(name) or self._by_name.get(wildcard_of(name)) or self.context

    def is_misdirected(self, server_name: str, host: bytes) -> bool:
        """Tell whether ``host`` has a certificate here, but not the one that a client of ``server_name`` has seen."""
        name = host.decode("latin-1").rstrip(".")
        wildcard = wildcard_of(name)
        seen = self._names[self.context_for(server_name)]
        return name not in seen and wildcard not in seen and (name in self._by_name or wildcard in self._by_name)

    @property
    def connection_creator(self) -> IOpenSSLServerConnectionCreator:
        """This object, as what Twisted asks for."""
        return self

    def serverConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        return SSL.Connection(self.context, None)

    def _context(self, certificates: tuple[LoadedCertificate, ...]) -> SSL.Context:
        """Get or make the context that serves these; many names share one."""
        context = self._built.get(certificates)
        if context is None:
            context = self._built[certificates] = _make_context(self._policy)
            context.set_session_id(self._session_id_context)
            for certificate in certificates:
                _use(context, certificate)
            share_tickets(context)
        return context

    def _switch_context(self, connection: SSL.Connection) -> None:
        """OpenSSL has read the server name, or that there is none."""
        name = connection.get_servername()
        if name:
            context = self.context_for(name.decode("ascii", "replace"))
            if context is not self.context:
                connection.set_context(context)

    def _select_protocol(self, connection: SSL.Connection, offered: list[bytes]) -> Any:
        for protocol in self._alpn:
            if protocol in offered:
                return protocol
        return SSL.NO_OVERLAPPING_PROTOCOLS


def _alpn(listener: Listener) -> tuple[bytes, ...]:
    if not listener.protocol.is_http:
        return ()
    return (b"h2", b"http/1.1") if listener.http2 else (b"http/1.1",)


def _ingredients(listener: Listener) -> tuple[Any, ...]:
    """What a listener's contexts are made of."""
    return listener.certificates, listener.tls_policy, _alpn(listener)


def _make_context(policy: TlsPolicy) -> SSL.Context:
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.set_min_proto_version(_VERSIONS[policy.minimum_version])
    context.set_max_proto_version(_VERSIONS[policy.maximum_version])
    context.set_options(_OPTIONS)
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)  # about 34 KiB less for each idle connection
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    if policy.ciphers:
        try:
            context.set_cipher_list(":".join(policy.ciphers).encode("ascii"))
        except SSL.Error as error:
            raise InvalidModel("tls_policy", f"this OpenSSL has no cipher suite of {policy.name}") from error
    # A failure leaves OpenSSL's own order, which is fine too.
    _lib.SSL_CTX_set1_curves_list(context._context, _CURVES)
    return context


def _use(context: SSL.Context, certificate: LoadedCertificate) -> None:
    """Add a certificate with its own chain and key.

    ``add_extra_chain_cert`` would give one chain to all certificates of the context; OpenSSL takes a chain
    for each from a file only, so there is one, in memory.
    """
    descriptor = os.memfd_create("chain", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, certificate.chain_pem)
        context.use_certificate_chain_file(f"/proc/self/fd/{descriptor}")
        context.use_privatekey(cast(Any, certificate.key))
        context.check_privatekey()
    except SSL.Error as error:
        queue = error.args[0] if error.args else ()
        reason = queue[-1][2] if queue else "unknown reason"
        raise InvalidModel(certificate.source, f"OpenSSL refuses it ({reason})") from error
    finally:
        os.close(descriptor)


def _digest(listener: Listener) -> bytes:
    """Sessions belong to these certificates and this policy."""
    digest = hashlib.sha256(listener.tls_policy.encode())
    for certificate in listener.certificates:
        digest.update(certificate.pem)
    return digest.digest()
