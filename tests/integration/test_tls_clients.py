"""curl and openssl against a TLS listener in front of a TCP target, all of it made of lbproxy's pieces."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from typing import Any

import attrs
import pytest
from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, ProcessProtocol, Protocol
from twisted.internet.task import deferLater
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.trial.unittest import TestCase

from lbproxy.dataplane.deadlines import Deadlines
from lbproxy.dataplane.listener.proxyprotocol import ProxyProtocolFactory
from lbproxy.dataplane.listener.tls import ServerTls
from lbproxy.dataplane.upstream.connector import Connector
from lbproxy.model.target import Target
from lbproxy.wire.proxyprotocol import ProxyHeader, ProxyHeaderReader
from tests.certificate_authority import Authority
from tests.dataplane.l4.doubles import FakeContext, TcpFactory

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not (shutil.which("curl") and shutil.which("openssl")), reason="needs curl and openssl"),
]

reactor: Any = _reactor
CA = Authority()
NAME = "www.example.com"


class Answers(Protocol):
    """A target that expects a PROXY header and an HTTP request, and tells who the client is."""

    def __init__(self) -> None:
        self._reader = ProxyHeaderReader()
        self._header: ProxyHeader | None = None
        self._request = b""

    def dataReceived(self, data: bytes) -> None:
        if self._header is None:
            self._header = self._reader.receive_data(data)
            data = self._reader.rest
        self._request += data
        if b"\r\n\r\n" in self._request and self._header is not None:
            body = json.dumps(self._header.source).encode()
            self.transport.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + body)
            self.transport.loseConnection()


class Run(ProcessProtocol):
    """Collects what a program writes to either stream."""

    def __init__(self) -> None:
        self.output = b""
        self.ended: Deferred[tuple[str, int]] = Deferred()

    def outReceived(self, data: bytes) -> None:
        self.output += data

    errReceived = outReceived

    def processEnded(self, reason: Any) -> None:
        self.ended.callback((self.output.decode(), reason.value.exitCode))


class TlsClientTests(TestCase):
    timeout = 30

    def setUp(self) -> None:
        self.deadlines = Deadlines(reactor.callLater, time.monotonic)
        self.addCleanup(self.deadlines.stop)
        self.directory = tempfile.TemporaryDirectory()
        self.addCleanup(self.directory.cleanup)
        self.ca_file = os.path.join(self.directory.name, "ca.pem")
        with open(self.ca_file, "wb") as file:
            file.write(CA.root_pem)

    def listen(self, factory: Any) -> int:
        port = reactor.listenTCP(0, factory, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        return int(port.getHost().port)

    def serve(self, *, alpn: tuple[bytes, ...] = (), proxy_protocol: bool = False, policy: str = "") -> int:
        answers: Any = Answers
        target = Target(host="127.0.0.1", port=self.listen(Factory.forProtocol(answers)), address="127.0.0.1")
        connector = Connector(reactor, self.deadlines)
        self.context = FakeContext(
            [target], protocol="TLS", proxy_protocol="v2", connector=connector, deadlines=self.deadlines
        )
        certificates = (
            CA.certificate("default.example.org"),
            CA.certificate(NAME),
            CA.certificate(NAME, kind="rsa"),
            CA.certificate("*.example.com", kind="rsa"),
        )
        listener = attrs.evolve(self.context.listener, certificates=certificates)
        if policy:
            listener = attrs.evolve(listener, tls_policy=policy)
        factory: Any = TLSMemoryBIOFactory(ServerTls(listener, alpn), False, TcpFactory(self.context))
        if proxy_protocol:
            factory = ProxyProtocolFactory(factory, ["127.0.0.0/8"], 10.0, reactor)
        return self.listen(factory)

    async def run_program(self, name: str, *arguments: str, stdin: bytes = b"") -> tuple[str, int]:
        run = Run()
        path = shutil.which(name)
        assert path is not None
        process = reactor.spawnProcess(run, path, [name, *arguments], env={"PATH": os.environ["PATH"]})
        process.write(stdin)
        process.closeStdin()
        return await run.ended

    async def curl(self, port: int, *options: str, name: str = NAME) -> tuple[str, int]:
        return await self.run_program(
            *("curl", "--silent", "--show-error", "--noproxy", "*", "--max-time", "10", "--cacert", self.ca_file),
            *("--resolve", f"{name}:{port}:127.0.0.1", *options, f"https://{name}:{port}/"),
        )

    async def s_client(self, port: int, *options: str, name: str = NAME) -> str:
        request = b"GET / HTTP/1.1\r\n\r\n"
        output, _ = await self.run_program(
            *("openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-servername", name, "-CAfile", self.ca_file),
            *("-verify_return_error", "-verify_hostname", name, "-ign_eof", *options),
            stdin=request,
        )
        return output

    async def test_curl_gets_the_certificate_of_each_name(self) -> None:
        port = self.serve()
        for name in (NAME, "a.example.com", "default.example.org"):
            output, status = await self.curl(port, name=name)
            self.assertEqual((json.loads(output)[0], status), ("127.0.0.1", 0))
        output, status = await self.curl(port, name="unknown.example.net")
        self.assertEqual(status, 60, output)  # the default certificate, which is not for this name

    async def test_versions(self) -> None:
        port = self.serve()
        for options in (("--tls-max", "1.2"), ("--tlsv1.3",)):
            _, status = await self.curl(port, *options)
            self.assertEqual(status, 0)
        while len(self.context.records) < 2:
            await deferLater(reactor, 0.01)
        self.assertEqual({record.tls_version for record in self.context.records}, {"TLSv1.2", "TLSv1.3"})
        old = ("--tlsv1.0", "--tls-max", "1.1", "--ciphers", "DEFAULT@SECLEVEL=0")
        output, status = await self.curl(port, *old)
        self.assertEqual(status, 35, output)
        output, status = await self.curl(self.serve(policy="ELBSecurityPolicy-TLS13-1-3-2021-06"), "--tls-max", "1.2")
        self.assertEqual(status, 35, output)

    async def test_the_client_named_by_a_proxy_header_reaches_the_target(self) -> None:
        """A PROXY header ahead of the TLS handshake, and one of our own ahead of what the target gets."""
        port = self.serve(proxy_protocol=True)
        output, status = await self.curl(port, "--haproxy-protocol", "--write-out", " %{local_port}")
        body, _, local_port = output.rpartition(" ")
        self.assertEqual((json.loads(body), status), (["127.0.0.1", int(local_port)], 0))
        output, status = await self.curl(port)
        self.assertEqual(status, 35, output)

    async def test_openssl_sees_chain_and_both_kinds_of_key(self) -> None:
        port = self.serve()
        for options, kind in (
            ((), "ECDSA"),
            (("-sigalgs", "RSA-PSS+SHA256"), "RSA"),
            (("-tls1_2",), "ECDSA"),
            (("-tls1_2", "-cipher", "ECDHE-RSA-AES128-GCM-SHA256"), "RSA"),
        ):
            output = await self.s_client(port, *options)
            self.assertRegex(output, f"Peer signature type: {kind}")
            self.assertIn("Verify return code: 0 (ok)", output)
            self.assertIn("1 s:CN = Test middle", output.replace("CN=Test", "CN = Test"))
            self.assertIn("HTTP/1.1 200 OK", output)

    async def test_alpn(self) -> None:
        output = await self.s_client(self.serve(alpn=(b"h2", b"http/1.1")), "-alpn", "http/1.1,h2")
        self.assertIn("ALPN protocol: h2", output)
        output = await self.s_client(self.serve(alpn=(b"http/1.1",)), "-alpn", "h2")
        self.assertIn("No ALPN negotiated", output)

    async def test_sessions_are_resumed(self) -> None:
        port = self.serve()
        session = os.path.join(self.directory.name, "session.pem")
        for version in ("-tls1_2", "-tls1_3"):
            self.assertIn("New, TLSv1", await self.s_client(port, version, "-sess_out", session))
            self.assertIn("Reused, TLSv1", await self.s_client(port, version, "-sess_in", session))
        self.assertEqual(self.context.counters.tls_resumed, 2)

    async def test_renegotiation_is_refused(self) -> None:
        """`R` at the start of a line asks openssl s_client to renegotiate."""
        output, _ = await self.run_program(
            *("openssl", "s_client", "-connect", f"127.0.0.1:{self.serve()}", "-tls1_2"), stdin=b"R\nQ\n"
        )
        self.assertIn("no renegotiation", output)
