"""Probes against real servers on the loopback interface."""

from __future__ import annotations

import datetime
from typing import Any, cast

import attrs
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from twisted.internet import reactor, ssl
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.protocol import Factory, Protocol
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import TestCase
from twisted.web.resource import Resource
from twisted.web.server import Request, Site

from lbproxy.controlplane.health.probes import PROBES
from lbproxy.controlplane.health.status import PASSED, TIMED_OUT, ProbeResult, failed, wrong_status
from lbproxy.model.health import HealthCheck, HealthCheckProtocol
from lbproxy.model.target import Target
from lbproxy.model.target_group import ProxyProtocolVersion
from tests.controlplane.fakes import make_group

pytestmark = pytest.mark.integration
HTTP, HTTPS, TCP = HealthCheckProtocol.HTTP, HealthCheckProtocol.HTTPS, HealthCheckProtocol.TCP


def self_signed() -> ssl.CertificateOptions:
    """A certificate that nobody trusts, for a name that is not the target's."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "elsewhere.example")])
    now = datetime.datetime.now(datetime.timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=2))
        .not_valid_after(now - datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM) + key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return cast(ssl.CertificateOptions, ssl.PrivateCertificate.loadPEM(pem).options())


class Page(Resource):
    isLeaf = True

    def render_GET(self, request: Request) -> bytes:
        request.setResponseCode(503 if request.uri == b"/bad" else 200)
        return b"hello"


class Recorder(Protocol):
    """A server that says nothing and keeps what it hears."""

    def dataReceived(self, data: bytes) -> None:
        self.factory.heard += data  # type: ignore[union-attr]

    def connectionLost(self, reason: object = None) -> None:
        self.factory.lost.callback(None)  # type: ignore[union-attr]


class Greeter(Protocol):
    """A server that speaks first, in plain text."""

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(b"220 welcome\r\n")


class RealProbeTests(TestCase):
    async def serve(self, factory: Any, tls: bool = False) -> int:
        endpoint = serverFromString(reactor, "tcp:0:interface=127.0.0.1")
        if tls:
            port = reactor.listenSSL(0, factory, self_signed(), interface="127.0.0.1")  # type: ignore[attr-defined]
        else:
            port = await endpoint.listen(factory)
        self.addCleanup(port.stopListening)
        return int(port.getHost().port)

    def probe(self, protocol: HealthCheckProtocol, port: int, **settings: Any) -> Deferred[ProbeResult]:
        settings.setdefault("timeout_seconds", 5)
        target = Target(host="app.example", port=port, address="127.0.0.1")
        proxy = settings.pop("proxy_protocol", ProxyProtocolVersion.OFF)
        group = make_group(target, health_check=HealthCheck(protocol=protocol, **settings))
        return PROBES[protocol](reactor, attrs.evolve(group, proxy_protocol=proxy), target)

    async def test_http_and_https(self) -> None:
        for protocol in (HTTP, HTTPS):
            port = await self.serve(Site(Page()), tls=protocol is HTTPS)
            self.assertEqual(await self.probe(protocol, port), PASSED)
            self.assertEqual(await self.probe(protocol, port, path="/bad"), wrong_status(503))

    async def test_tcp(self) -> None:
        self.assertEqual(await self.probe(TCP, await self.serve(Site(Page()))), PASSED)

    async def test_nobody_listens(self) -> None:
        endpoint = serverFromString(reactor, "tcp:0:interface=127.0.0.1")
        listening = await endpoint.listen(Site(Page()))
        port = listening.getHost().port
        await listening.stopListening()
        for protocol in HealthCheckProtocol:
            self.assertEqual(await self.probe(protocol, port), failed("connection refused"))

    async def test_https_to_a_server_that_does_not_speak_tls(self) -> None:
        port = await self.serve(Factory.forProtocol(Greeter))
        self.assertEqual(await self.probe(HTTPS, port), failed("TLS handshake failed"))

    async def test_a_server_that_says_nothing_times_out_and_is_let_go(self) -> None:
        for protocol in (HTTP, HTTPS):
            factory: Any = Factory.forProtocol(Recorder)
            factory.heard, factory.lost = b"", Deferred()
            port = await self.serve(factory)
            self.assertEqual(await self.probe(protocol, port, timeout_seconds=0.1), TIMED_OUT)
            await factory.lost

    async def test_the_proxy_header_goes_ahead_of_the_tls_handshake(self) -> None:
        factory: Any = Factory.forProtocol(Recorder)
        factory.heard, factory.lost = b"", Deferred()
        port = await self.serve(factory)
        await self.probe(HTTPS, port, timeout_seconds=0.1, proxy_protocol=ProxyProtocolVersion.V2)
        await factory.lost
        self.assertEqual(factory.heard[12:17], b"\x20\x00\x00\x00\x16", "LOCAL, then a TLS record of type handshake")

    async def test_a_probe_leaves_no_line_in_the_log(self) -> None:
        site = Site(Page())
        site.noisy = False
        site.log = lambda request: None  # type: ignore[method-assign]
        port = await self.serve(site)
        events: list[object] = []
        globalLogPublisher.addObserver(events.append)
        self.addCleanup(globalLogPublisher.removeObserver, events.append)
        for protocol in (HTTP, TCP):
            self.assertEqual(await self.probe(protocol, port), PASSED)
        self.assertEqual(events, [])
