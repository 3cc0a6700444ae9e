"""TLS towards targets: one OpenSSL context for a target group, the identity checked for each target.

A target's certificate must lead to a trusted one (OpenSSL checks that) and name the target
(service-identity checks that, by RFC 9525: subjectAltName only).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Any, cast

from cryptography import x509
from OpenSSL import SSL, crypto
from service_identity import CertificateError, VerificationError
from service_identity.hazmat import (
    DNS_ID,
    CertificatePattern,
    DNSPattern,
    IPAddress_ID,
    IPAddressPattern,
    ServiceID,
    verify_service_identity,
)
from service_identity.pyopenssl import extract_patterns
from twisted.internet import error
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from lbproxy.model.errors import InvalidModel
from lbproxy.model.target import Target
from lbproxy.model.target_group import TargetTls

_log = Logger()

_ssl: Any = SSL
"""The published type stubs of pyOpenSSL lag behind it."""

_MAX_NAMES_TOLD = 5
"""Names of a certificate in a message; some have hundreds."""


class CertificateRefused(Exception):
    """A target's certificate is not good; the message is one line for the operator."""


class ClientTls:
    """The client's side of TLS for the targets of one group."""

    def __init__(self, tls: TargetTls, alpn: tuple[bytes, ...] = ()) -> None:
        """Build the context; it trusts what the system trusts, or ``ca_pem`` alone.  ``alpn`` is what it offers.

        Raises `InvalidModel` naming ``ca_pem``.
        """
        self.tls = tls
        context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        context.set_min_proto_version(SSL.TLS1_2_VERSION)
        context.set_options(SSL.OP_NO_COMPRESSION | _ssl.OP_NO_RENEGOTIATION)
        context.set_mode(SSL.MODE_RELEASE_BUFFERS)
        context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
        if tls.verify:
            if tls.ca_pem is None:
                context.set_default_verify_paths()
            else:
                _trust(context, tls.ca_pem)
        if alpn:
            context.set_alpn_protos(list(alpn))
        self._context = context

    def creator_for(self, target: Target) -> IOpenSSLClientConnectionCreator:
        """Make what Twisted's ``TLSMemoryBIOFactory`` (or ``startTLS``) wants for connections to a target.

        Raises `InvalidModel` naming ``server_name`` when that, or the target's host, cannot be a host name.
        """
        return _ConnectionCreator(self._context, self.tls.server_name or target.server_name, self.tls.verify)


@implementer(IOpenSSLClientConnectionCreator)
class _ConnectionCreator:
    """Connections to one target."""

    def __init__(self, context: SSL.Context, name: str, verify: bool) -> None:
        self._context = context
        self._name = name
        self._verify = verify
        self._server_name, self._identity = _identify(name)

    def clientConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        connection = SSL.Connection(self._context, None)
        connection.set_app_data(tlsProtocol)
        if self._server_name:
            connection.set_tlsext_host_name(self._server_name)
        if self._verify:
            cast(Any, connection).set_verify(SSL.VERIFY_PEER, self._check)
        return connection

    def _check(self, connection: SSL.Connection, certificate: crypto.X509, code: int, depth: int, ok: bool) -> bool:
        """OpenSSL has looked at one certificate of the chain; the target's own comes last, at depth 0.

        An exception here would get lost inside OpenSSL, so there is none.
        """
        try:
            reason = None
            if not ok:
                reason = f"certificate verify failed: {_verify_error(code)}"
            elif depth == 0:
                reason = self._identity_mismatch(certificate)
            if reason is None:
                return True
            # Twisted ends the connection and gives this to the protocol's connectionLost.
            connection.get_app_data().failVerification(Failure(CertificateRefused(reason)))
        except BaseException:
            _log.failure("while verifying a target's certificate")
        return False

    def _identity_mismatch(self, certificate: crypto.X509) -> str | None:
        patterns: Sequence[CertificatePattern] = ()
        try:
            patterns = extract_patterns(certificate)
            verify_service_identity(patterns, [self._identity], [])
        except (VerificationError, CertificateError, ValueError):
            return f"certificate is for {_told(patterns)}, wanted {self._name}"
        return None


def _identify(name: str) -> tuple[bytes, ServiceID]:
    """Give what to send as server name, if anything, and what the certificate must say."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        try:
            server_name = name.encode("ascii" if name.isascii() else "idna")
            return server_name, DNS_ID(server_name.decode("ascii"))
        except ValueError as problem:
            raise InvalidModel("server_name", f"{name!r} is neither a host name nor an IP address") from problem
    # RFC 6066 section 3: literal addresses are not sent as server names.
    return b"", IPAddress_ID(name)


def explain_failure(failure: Failure) -> str:
    """Say in one line why a connection to a target failed."""
    value = failure.value
    match value:
        case CertificateRefused():
            return str(value)
        case SSL.SysCallError() | error.ConnectionDone() | error.ConnectionLost():
            return "the target closed the connection during the TLS handshake"
        case SSL.Error():
            queue = value.args[0] if value.args else ()
            return f"TLS handshake failed: {queue[-1][2] if queue else 'unexpected end'}"
    lines = failure.getErrorMessage().splitlines()
    return lines[0].rstrip(".") if lines else type(value).__name__


def _trust(context: SSL.Context, pem: bytes) -> None:
    try:
        certificates = x509.load_pem_x509_certificates(pem)
    except ValueError as problem:
        raise InvalidModel("ca_pem", f"holds no readable PEM certificate ({problem})") from problem
    store = context.get_cert_store()
    assert store is not None
    for certificate in certificates:
        store.add_cert(crypto.X509.from_cryptography(certificate))
    # What the operator trusts need not be a root: an intermediate or the target's own certificate will do.
    store.set_flags(crypto.X509StoreFlags.PARTIAL_CHAIN)


def _verify_error(code: int) -> str:
    text: bytes = _ssl._ffi.string(_ssl._lib.X509_verify_cert_error_string(code))
    return text.decode("ascii", "replace")


def _told(patterns: Sequence[CertificatePattern]) -> str:
    names = []
    for pattern in patterns:
        match pattern:
            case DNSPattern():
                names.append(pattern.pattern.decode("ascii", "backslashreplace"))
            case IPAddressPattern():
                names.append(str(pattern.pattern))
    if not names:
        return "no host"
    more = len(names) - _MAX_NAMES_TOLD
    return ", ".join(names[:_MAX_NAMES_TOLD]) + (f" and {more} more" if more > 0 else "")
