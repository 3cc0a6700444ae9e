"""One probe of one target: connect, ask, judge.

A probe is a function from `PROBES`.  It always fires with a `ProbeResult`, whatever happens, within the
check's timeout, connecting included; when cancelled it fires at once and leaves no socket and no timer.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote

import attrs
from OpenSSL import SSL
from twisted.internet import error
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint, wrapClientTLS
from twisted.internet.interfaces import (
    IOpenSSLClientConnectionCreator,
    IProtocolFactory,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.logger import Logger
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.failure import Failure
from twisted.web.client import Agent, ResponseDone, ResponseFailed
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgentEndpointFactory, IResponse
from zope.interface import implementer

from lbproxy.controlplane.health.http2 import Http2Probe
from lbproxy.controlplane.health.status import PASSED, TIMED_OUT, ProbeResult, failed, wrong_status
from lbproxy.model.health import HealthCheckProtocol
from lbproxy.model.target import Target, TargetReason
from lbproxy.model.target_group import ProtocolVersion, ProxyProtocolVersion, TargetGroup

_log = Logger()

USER_AGENT = b"ELB-HealthChecker/2.0"

MAX_BODY_BYTES = 64 * 1024
"""An answer's body is read this far, so that the target need not see a reset, and judged by its status alone."""

MAX_RECEIVED_BYTES = 256 * 1024
"""What a probe takes from a target in all: an endless head must not fill the supervisor."""

PROXY_HEADERS: Mapping[ProxyProtocolVersion, bytes] = {
    ProxyProtocolVersion.OFF: b"",
    ProxyProtocolVersion.V1: b"PROXY UNKNOWN\r\n",
    ProxyProtocolVersion.V2: b"\r\n\r\n\x00\r\nQUIT\n" + b"\x20\x00\x00\x00",
}
"""What goes ahead of the first byte to say that the connection is the balancer's own.

proxy-protocol.txt, section 2.1 (UNKNOWN) and 2.2 (LOCAL, family unspecified, no addresses).
"""

_PATH_CHARACTERS = "!#$%&'()*+,/:;=?@[]~"
"""Left as they are in a path; what is no printable ASCII is percent-encoded."""

Probe = Callable[[Any, TargetGroup, Target], "Deferred[ProbeResult]"]
"""``probe(reactor, group, target)``; the reactor offers TCP and time."""


def probe_http(reactor: Any, group: TargetGroup, target: Target) -> Deferred[ProbeResult]:
    """GET the check's path and judge the status; redirects are answers like any other."""
    return _within_timeout(reactor, group, Deferred.fromCoroutine(_request(reactor, group, target, encrypted=False)))


def probe_https(reactor: Any, group: TargetGroup, target: Target) -> Deferred[ProbeResult]:
    """As `probe_http`, over TLS.

    As with an ALB the certificate is not verified: a check asks whether the target works, not who it is.
    """
    return _within_timeout(reactor, group, Deferred.fromCoroutine(_request(reactor, group, target, encrypted=True)))


def probe_tcp(reactor: Any, group: TargetGroup, target: Target) -> Deferred[ProbeResult]:
    """Connect and close."""
    return _within_timeout(reactor, group, Deferred.fromCoroutine(_connect(reactor, group, target)))


PROBES: Mapping[HealthCheckProtocol, Probe] = {
    HealthCheckProtocol.HTTP: probe_http,
    HealthCheckProtocol.HTTPS: probe_https,
    HealthCheckProtocol.TCP: probe_tcp,
}


def probe_port(group: TargetGroup, target: Target) -> int:
    """The port to probe: the check's own or the target's (``traffic-port``)."""
    return group.health_check.port or target.port


def _within_timeout(reactor: Any, group: TargetGroup, probe: Deferred[ProbeResult]) -> Deferred[ProbeResult]:
    probe.addTimeout(group.health_check.timeout_seconds, reactor, onTimeoutCancel=lambda result, seconds: TIMED_OUT)
    return probe.addErrback(_explain)


async def _connect(reactor: Any, group: TargetGroup, target: Target) -> ProbeResult:
    endpoint = _ProbeEndpoint(reactor, group, target)
    try:
        await endpoint.connect(Factory.forProtocol(Protocol))
        return PASSED
    finally:
        endpoint.close()


async def _request(reactor: Any, group: TargetGroup, target: Target, encrypted: bool) -> ProbeResult:
    if group.protocol_version is not ProtocolVersion.HTTP1:
        return await _request_http2(reactor, group, target, encrypted)
    check = group.health_check
    endpoint = _ProbeEndpoint(reactor, group, target)
    agent = Agent.usingEndpointFactory(reactor, _OneEndpoint(_encrypt(reactor, endpoint, group, target, encrypted)))
    gently = False
    try:
        response = await agent.request(b"GET", _request_uri(check.path), _request_headers(group, target))
        if not check.matches(response.code):
            return wrong_status(response.code)
        await _discard_body(response)
        gently = True
        return PASSED
    except ResponseFailed:
        if endpoint.received_too_much:
            return failed("answer too large")
        raise
    finally:
        endpoint.close(gently)


async def _request_http2(reactor: Any, group: TargetGroup, target: Target, encrypted: bool) -> ProbeResult:
    probe = Http2Probe(
        group.health_check,
        b"https" if encrypted else b"http",
        _host(group, target),
        _quoted_path(group.health_check.path),
        group.protocol_version is ProtocolVersion.GRPC,
        USER_AGENT,
    )
    endpoint = _ProbeEndpoint(reactor, group, target)
    try:
        factory = Factory.forProtocol(lambda: probe)
        await _encrypt(reactor, endpoint, group, target, encrypted).connect(factory)
        return await probe.done
    finally:
        endpoint.close()


def _quoted_path(path: str) -> bytes:
    return quote(path, safe=_PATH_CHARACTERS).encode("ascii")


def _request_uri(path: str) -> bytes:
    # The authority is not sent: there is one endpoint, and the Host field is given.
    return b"http://target" + _quoted_path(path)


def _host(group: TargetGroup, target: Target) -> bytes:
    named = attrs.evolve(target, host=target.server_name, port=probe_port(group, target))
    return (group.health_check.host or named.key).encode("utf-8")


def _request_headers(group: TargetGroup, target: Target) -> Headers:
    # Agent itself adds "Connection: close" to a request that is not persistent.
    return Headers({b"Host": [_host(group, target)], b"User-Agent": [USER_AGENT], b"Accept": [b"*/*"]})


def _explain(failure: Failure) -> ProbeResult:
    """Put what went wrong in words for the operator."""
    cause = _root_cause(failure)
    for kinds, result in _EXPLANATIONS:
        if isinstance(cause, kinds):
            return result
    if isinstance(cause, error.ConnectError):
        return failed(f"cannot connect: {cause.args[0] if cause.args else cause}")
    if isinstance(failure.value, ResponseFailed):
        return failed("malformed answer")
    _log.failure("a probe failed in an unexpected way", failure=failure)
    return ProbeResult(TargetReason.INTERNAL_ERROR, "internal error")


_EXPLANATIONS: tuple[tuple[type[BaseException] | tuple[type[BaseException], ...], ProbeResult], ...] = (
    (error.TimeoutError, TIMED_OUT),
    (error.ConnectionRefusedError, failed("connection refused")),
    (error.NoRouteError, failed("no route to host")),
    (error.ConnectingCancelledError, failed("cancelled")),
    (SSL.Error, failed("TLS handshake failed")),
    (error.ConnectionDone, failed("connection closed before a complete answer")),
    ((error.ConnectionLost, error.ConnectionAborted), failed("connection reset")),
)


def _root_cause(failure: Failure) -> BaseException:
    """The first exception inside the wrappers of `twisted.web.client`."""
    value: Any = failure.value
    while getattr(value, "reasons", None):
        value = value.reasons[0].value
    return value  # type: ignore[no-any-return]


class _ProbeConnection(ProtocolWrapper):
    """The TCP connection of a probe: sends the PROXY header, bounds what comes in."""

    factory: _ProbeConnections

    def makeConnection(self, transport: Any) -> None:
        self.factory.transport = transport
        if self.factory.header:
            transport.write(self.factory.header)
        super().makeConnection(transport)

    def dataReceived(self, data: bytes) -> None:
        self.factory.received_bytes += len(data)
        if self.factory.received_bytes > MAX_RECEIVED_BYTES:
            self.factory.transport.abortConnection()
        else:
            super().dataReceived(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.factory.transport = None
        super().connectionLost(reason)


class _ProbeConnections(WrappingFactory):
    """Makes the one `_ProbeConnection` of a probe and remembers its transport."""

    protocol = _ProbeConnection

    def __init__(self, wrapped: IProtocolFactory, header: bytes) -> None:
        super().__init__(wrapped)
        self.header = header
        self.transport: Any = None
        self.received_bytes = 0

    def doStart(self) -> None:
        """Not passed on: all that the wrapped factories do is to log that they start, for each probe."""

    def doStop(self) -> None:
        """As `doStart`."""


@implementer(IStreamClientEndpoint)
class _ProbeEndpoint:
    """Connects once to where the target is probed, and can close that connection whatever runs on it."""

    def __init__(self, reactor: Any, group: TargetGroup, target: Target) -> None:
        kind = TCP6ClientEndpoint if isIPv6Address(target.address) else TCP4ClientEndpoint
        seconds = group.health_check.timeout_seconds
        self._endpoint = kind(reactor, target.address, probe_port(group, target), timeout=seconds)
        self._header = PROXY_HEADERS[group.proxy_protocol]
        self._connections: _ProbeConnections | None = None

    @property
    def received_too_much(self) -> bool:
        return self._connections is not None and self._connections.received_bytes > MAX_RECEIVED_BYTES

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[Any]:
        self._connections = _ProbeConnections(protocolFactory, self._header)
        connected: Deferred[Any] = self._endpoint.connect(self._connections)
        return connected.addCallback(lambda connection: connection.wrappedProtocol)

    def close(self, gently: bool = True) -> None:
        """Close the socket: after what was written, or at once with a reset."""
        transport = self._connections.transport if self._connections is not None else None
        if transport is None:
            return
        if gently:
            transport.loseConnection()
        else:
            transport.abortConnection()


@implementer(IAgentEndpointFactory)
@attrs.frozen(eq=False)
class _OneEndpoint:
    """Gives an agent the same endpoint for any URI."""

    endpoint: IStreamClientEndpoint

    def endpointForURI(self, uri: object) -> IStreamClientEndpoint:
        return self.endpoint


@implementer(IOpenSSLClientConnectionCreator)
@attrs.frozen(eq=False)
class _UnverifiedTls:
    """TLS to a target without a look at its certificate; ``server_name`` goes into SNI when it is a name."""

    server_name: str
    alpn: tuple[bytes, ...] = ()

    def clientConnectionForTLS(self, tlsProtocol: object) -> SSL.Connection:
        connection = SSL.Connection(_tls_context(self.alpn), None)
        if not (isIPAddress(self.server_name) or isIPv6Address(self.server_name)):
            connection.set_tlsext_host_name(self.server_name.encode("idna"))
        return connection


@functools.cache
def _tls_context(alpn: tuple[bytes, ...]) -> SSL.Context:
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_verify(SSL.VERIFY_NONE)
    if alpn:
        context.set_alpn_protos(list(alpn))
    return context


def _encrypt(
    reactor: Any, endpoint: _ProbeEndpoint, group: TargetGroup, target: Target, encrypted: bool
) -> IStreamClientEndpoint:
    if not encrypted:
        return endpoint
    alpn = () if group.protocol_version is ProtocolVersion.HTTP1 else (b"h2",)
    return wrapClientTLS(_UnverifiedTls(group.tls.server_name or target.server_name, alpn), endpoint, clock=reactor)


class _Discard(Protocol):
    """Reads an answer's body as far as `MAX_BODY_BYTES` and keeps nothing of it."""

    def __init__(self) -> None:
        self.done: Deferred[None] = Deferred()
        self._received_bytes = 0

    def dataReceived(self, data: bytes) -> None:
        self._received_bytes += len(data)
        if self._received_bytes > MAX_BODY_BYTES and not self.done.called:
            self.done.callback(None)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.done.called:
            return
        if reason.check(ResponseDone, PotentialDataLoss):
            self.done.callback(None)
        else:
            self.done.errback(reason)


async def _discard_body(response: IResponse) -> None:
    discard = _Discard()
    response.deliverBody(discard)
    await discard.done
