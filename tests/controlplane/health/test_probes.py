"""What a probe sends and how it judges, on a reactor in memory."""

from __future__ import annotations

from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectError, ConnectionDone, ConnectionLost, ConnectionRefusedError, NoRouteError
from twisted.internet.interfaces import (
    IOpenSSLClientConnectionCreator,
    IStreamClientEndpoint,
)
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.iweb import IAgentEndpointFactory
from zope.interface.verify import verifyObject

from lbproxy.controlplane.health import probes
from lbproxy.controlplane.health.probes import PROBES
from lbproxy.controlplane.health.status import PASSED, TIMED_OUT, ProbeResult, failed, wrong_status
from lbproxy.model.health import HealthCheck, HealthCheckProtocol
from lbproxy.model.target import Target, TargetReason
from lbproxy.model.target_group import ProxyProtocolVersion, TargetGroup
from tests.controlplane.fakes import make_group, make_target

HTTP, TCP = HealthCheckProtocol.HTTP, HealthCheckProtocol.TCP


class ProbeTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()
        self.transport = StringTransport()

    def start(
        self,
        protocol: HealthCheckProtocol = HTTP,
        target: Target | None = None,
        proxy_protocol: ProxyProtocolVersion = ProxyProtocolVersion.OFF,
        **settings: Any,
    ) -> Deferred[ProbeResult]:
        target = target or make_target(1)
        check = HealthCheck(protocol=protocol, **settings)
        group = attrs.evolve(make_group(target, health_check=check), proxy_protocol=proxy_protocol)
        return PROBES[protocol](self.reactor, group, target)

    def accept(self) -> Any:
        factory = self.reactor.tcpClients[-1][2]
        self.protocol = factory.buildProtocol(None)
        self.transport.protocol = self.protocol
        self.protocol.makeConnection(self.transport)
        return self.protocol

    def answer(self, data: bytes, **settings: Any) -> ProbeResult:
        probe = self.start(**settings)
        self.accept().dataReceived(data)
        self.protocol.connectionLost(Failure(ConnectionDone()))
        return self.successResultOf(probe)

    def assert_nothing_left(self) -> None:
        self.assertEqual([call for call in self.reactor.getDelayedCalls() if call.active()], [])
        self.assertTrue(self.transport.disconnecting or self.transport.disconnected or self.transport.aborting)

    # What is sent

    def test_an_http_probe_sends_elbs_request(self) -> None:
        self.start(path="/health?deep=1")
        self.accept()
        head, _, rest = self.transport.value().partition(b"\r\n")
        self.assertEqual(head, b"GET /health?deep=1 HTTP/1.1")
        fields = sorted(rest.strip().lower().split(b"\r\n"))
        self.assertEqual(
            fields, [b"accept: */*", b"connection: close", b"host: 10.0.0.1:80", b"user-agent: elb-healthchecker/2.0"]
        )

    def test_the_host_field(self) -> None:
        six = Target(host="2001:db8::1", port=8080, address="2001:db8::1")
        named = Target(host="app.example.com", port=8080, address="10.0.0.7")
        for target, settings, expected in [
            (named, {}, b"app.example.com:8080"),
            (named, {"port": 9000}, b"app.example.com:9000"),
            (named, {"host": "www.example.com"}, b"www.example.com"),
            (six, {}, b"[2001:db8::1]:8080"),
        ]:
            with self.subTest(expected=expected):
                self.setUp()
                self.start(target=target, **settings)
                self.accept()
                self.assertIn(b"Host: " + expected + b"\r\n", self.transport.value())

    def test_it_connects_to_the_address_and_the_checks_port(self) -> None:
        self.start(target=Target(host="app.example.com", port=80, address="10.0.0.7"), port=9000)
        self.assertEqual(self.reactor.tcpClients[0][:2], ("10.0.0.7", 9000))

    def test_a_path_with_odd_characters_cannot_break_the_request(self) -> None:
        self.start(path="/a b\r\nX: é%20")
        self.accept()
        self.assertTrue(self.transport.value().startswith(b"GET /a%20b%0D%0AX:%20%C3%A9%20 HTTP/1.1\r\n"))

    def test_a_proxy_header_goes_first_where_the_group_sends_one(self) -> None:
        for version, header in [
            (ProxyProtocolVersion.V1, b"PROXY UNKNOWN\r\n"),
            (ProxyProtocolVersion.V2, bytes.fromhex("0d0a0d0a000d0a515549540a20000000")),
        ]:
            for protocol in (HTTP, TCP):
                with self.subTest(version=version, protocol=protocol):
                    self.setUp()
                    self.start(protocol, proxy_protocol=version)
                    self.accept()
                    self.assertTrue(self.transport.value().startswith(header))
                    self.assertEqual(self.transport.value() == header, protocol is TCP)

    # How it judges

    def test_answers(self) -> None:
        ok = b"HTTP/1.1 200 OK\r\n"
        closed = failed("connection closed before a complete answer")
        for data, expected in [
            (ok + b"Content-Length: 2\r\n\r\nok", PASSED),
            (ok + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", PASSED),
            (ok + b"\r\nuntil close", PASSED),
            (b"HTTP/1.0 200 OK\r\n\r\n", PASSED),
            (b"HTTP/1.1 100 Continue\r\n\r\n" + ok + b"Content-Length: 0\r\n\r\n", PASSED),
            (b"HTTP/1.1 204 No Content\r\n\r\n", wrong_status(204)),
            (b"HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n", wrong_status(302)),
            (b"HTTP/1.1 503 Busy\r\nContent-Length: 99\r\n\r\nbusy", wrong_status(503)),
            (b"", closed),
            (b"HTTP/1.1 2", closed),
            (ok + b"Content-Length: 20\r\n\r\nshort", closed),
            (b"SSH-2.0-OpenSSH_9.2\r\n", failed("malformed answer")),
            (ok + b"Content-Length: x\r\n\r\n", failed("malformed answer")),
            (ok + b"Transfer-Encoding: gzip\r\n\r\n", failed("malformed answer")),
        ]:
            with self.subTest(data=data):
                self.setUp()
                self.assertEqual(self.answer(data), expected)

    def test_the_matcher_decides_which_statuses_pass(self) -> None:
        data = b"HTTP/1.1 204 No Content\r\n\r\n"
        self.assertEqual(self.answer(data, matcher=((200, 202), (204, 204))), PASSED)

    def test_a_long_body_is_not_read_to_its_end(self) -> None:
        probe = self.start()
        self.accept().dataReceived(b"HTTP/1.1 200 OK\r\n\r\n")
        for _ in range(9):
            self.protocol.dataReceived(bytes(8192))
        self.assertEqual(self.successResultOf(probe), PASSED)
        self.assert_nothing_left()

    def test_an_endless_head_ends_the_probe(self) -> None:
        probe = self.start()
        self.accept().dataReceived(b"HTTP/1.1 200 OK\r\n")
        for _ in range(300):
            if not self.transport.disconnecting:
                self.protocol.dataReceived(b"X: " + b"y" * 1019 + b"\r\n")
        self.protocol.connectionLost(Failure(ConnectionLost()))
        self.assertEqual(self.successResultOf(probe), failed("answer too large"))

    def test_a_tcp_probe_passes_when_connected_and_closes(self) -> None:
        probe = self.start(TCP)
        self.accept()
        self.assertEqual(self.successResultOf(probe), PASSED)
        self.assert_nothing_left()

    def test_failures_to_connect(self) -> None:
        for cause, expected in [
            (ConnectionRefusedError(), failed("connection refused")),
            (NoRouteError(), failed("no route to host")),
            (ConnectError(99, "odd"), failed("cannot connect: odd")),
        ]:
            for protocol in HealthCheckProtocol:
                with self.subTest(cause=cause, protocol=protocol):
                    self.setUp()
                    probe = self.start(protocol)
                    self.reactor.tcpClients[0][2].clientConnectionFailed(None, Failure(cause))
                    self.assertEqual(self.successResultOf(probe), expected)

    def test_a_reset_is_told_from_an_orderly_close(self) -> None:
        probe = self.start()
        self.accept().connectionLost(Failure(ConnectionLost()))
        self.assertEqual(self.successResultOf(probe), failed("connection reset"))

    # Time

    def test_the_timeout_covers_connecting(self) -> None:
        for protocol in HealthCheckProtocol:
            with self.subTest(protocol=protocol):
                self.setUp()
                probe = self.start(protocol, timeout_seconds=5)
                self.reactor.advance(4.9)
                self.assertNoResult(probe)
                self.reactor.advance(0.1)
                self.assertEqual(self.successResultOf(probe), TIMED_OUT)
                self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_the_timeout_covers_head_and_body(self) -> None:
        for data in (b"", b"HTTP/1.1 200 OK\r\nX", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"):
            with self.subTest(data=data):
                self.setUp()
                probe = self.start(timeout_seconds=5)
                self.reactor.advance(3)
                self.accept().dataReceived(data)
                self.reactor.advance(1.9)
                self.assertNoResult(probe)
                self.reactor.advance(0.1)
                self.assertEqual(self.successResultOf(probe), TIMED_OUT)
                self.assert_nothing_left()

    def test_cancelling_fires_at_once_and_leaves_nothing(self) -> None:
        for connected in (False, True):
            for protocol in (HTTP, TCP):
                with self.subTest(connected=connected, protocol=protocol):
                    self.setUp()
                    probe = self.start(protocol)
                    if connected:
                        self.accept()
                    probe.cancel()
                    self.successResultOf(probe)
                    self.assertEqual(self.reactor.getDelayedCalls(), [])
                    if connected:
                        self.assert_nothing_left()

    # The unexpected

    def test_a_bug_of_ours_is_logged_and_is_no_exception(self) -> None:
        self.patch(probes, "_request_uri", lambda path: 1 // 0)
        result = self.successResultOf(self.start())
        self.assertEqual(result.reason, TargetReason.INTERNAL_ERROR)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_interfaces(self) -> None:
        group: TargetGroup = make_group(make_target(1))
        endpoint = probes._ProbeEndpoint(self.reactor, group, group.targets[0])
        verifyObject(IStreamClientEndpoint, endpoint)
        verifyObject(IAgentEndpointFactory, probes._OneEndpoint(endpoint))
        verifyObject(IOpenSSLClientConnectionCreator, probes._UnverifiedTls("example.com"))
