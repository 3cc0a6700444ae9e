"""The TCP proxy with doubles at both ends."""

from __future__ import annotations

from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.error import ConnectionAborted
from twisted.internet.interfaces import IHalfCloseableProtocol, IHandshakeListener, IPushProducer
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from lbproxy.dataplane.l4.tcp import TcpClientSide
from lbproxy.dataplane.listener.tls import ServerTls
from lbproxy.dataplane.proxy.faults import Fault
from lbproxy.model.listener import Bind, Listener, ListenerProtocol
from lbproxy.model.rule import FixedResponse
from lbproxy.wire.proxyprotocol import encode_v1, encode_v2
from tests.certificate_authority import Authority
from tests.dataplane.l4.doubles import DONE, LOST, SLOT, STARTED, FakeContext, TcpFactory, TcpTransport, TlsTransport
from tests.tls_pair import client_connection, shuttle

CLIENT = IPv4Address("TCP", "192.0.2.1", 5000)
ABORTED = Failure(ConnectionAborted())


class TcpTestCase(SynchronousTestCase):
    def accept(self, context: FakeContext, transport: Any = None, addr: Any = CLIENT) -> TcpClientSide:
        self.context = context
        self.client = TcpFactory(context).buildProtocol(addr)
        self.client_transport: Any = transport or TcpTransport()
        self.client.makeConnection(self.client_transport)
        return self.client

    def connected(self, context: FakeContext | None = None, transport: Any = None) -> TcpClientSide:
        """A relay whose first target was connected."""
        self.accept(context or FakeContext())
        self.target_transport = self.attempts[0].succeed(transport)
        self.target = self.attempts[0].protocol
        return self.client

    @property
    def attempts(self) -> list[Any]:
        return self.context.connector.attempts

    def assert_concluded(self, reason: str = "") -> None:
        """Everything is accounted for, exactly once."""
        context = self.context
        self.assertEqual([record.error_reason for record in context.records], [reason])
        self.assertEqual(sum(context.cells), 0)
        self.assertEqual(context.counters.active, 0)
        self.assertEqual(context.connections, set())
        self.assertEqual(context.deadlines.items, [])
        self.assertEqual(dict(context.counters.faults), {reason: 1} if reason else {})


class ConnectTests(TcpTestCase):
    def test_first_candidate_is_connected_while_the_client_waits(self) -> None:
        self.accept(FakeContext())
        self.assertEqual([attempt.target.key for attempt in self.attempts], ["10.0.0.1:80"])
        self.assertEqual(self.client_transport.producerState, "paused")
        self.assertTrue(self.client_transport.no_delay)
        self.assertEqual(self.context.cells[SLOT], 1)
        self.assertEqual(self.context.connections, {self.client})
        self.attempts[0].succeed()
        self.assertEqual(self.client_transport.producerState, "producing")

    def test_what_was_read_before_is_kept(self) -> None:
        self.accept(FakeContext())
        self.client.dataReceived(b"early ")
        self.client.dataReceived(b"bird")
        transport = self.attempts[0].succeed()
        self.assertEqual(transport.value(), b"early bird")
        self.assertEqual(self.context.by_target["10.0.0.1:80"].sent_bytes, 10)

    def test_next_candidate_on_failure(self) -> None:
        self.accept(FakeContext())
        self.client.dataReceived(b"hello")
        self.context.deadlines.advance(2)
        self.attempts[0].protocol.connectFailed(Fault.CONNECT_REFUSED, "refused")
        self.assertEqual([attempt.target.key for attempt in self.attempts], ["10.0.0.1:80", "10.0.0.2:80"])
        self.assertFalse(self.attempts[0].cancelled)
        self.assertEqual((self.context.cells[SLOT], self.context.cells[10 + SLOT]), (0, 1))
        self.context.deadlines.advance(1)
        transport = self.attempts[1].succeed()
        self.assertEqual(transport.value(), b"hello")
        counts = self.context.by_target["10.0.0.1:80"]
        self.assertEqual((counts.requests, counts.connects, counts.connect_failures), (1, 0, 1))
        self.assertEqual(dict(counts.faults), {"ConnectRefused": 1})
        self.client.connectionLost(DONE)
        self.attempts[1].protocol.connectionLost(DONE)
        self.assert_concluded()
        record = self.context.records[0]
        self.assertEqual((record.target, record.connect_time), ("10.0.0.2:80", 3.0))

    def test_no_candidate_left_resets_the_client(self) -> None:
        self.accept(FakeContext())
        self.attempts[0].protocol.connectFailed(Fault.CONNECT_REFUSED, "refused")
        self.attempts[1].protocol.connectFailed(Fault.CONNECT_TIMEOUT, "silent")
        self.assertTrue(self.client_transport.disconnected)
        self.client.connectionLost(ABORTED)
        self.assert_concluded("ConnectTimeout")
        self.assertEqual(dict(self.context.by_target["10.0.0.2:80"].faults), {"ConnectTimeout": 1})
        self.assertEqual(self.context.records[0].connect_time, -1)

    def test_no_target_closes(self) -> None:
        self.accept(FakeContext(0))
        self.assertTrue(self.client_transport.disconnecting)
        self.assertFalse(self.client_transport.disconnected)
        self.client.connectionLost(DONE)
        self.assert_concluded("NoTargets")
        record = self.context.records[0]
        self.assertEqual((record.target_group, record.target), ("group", ""))

    def test_client_reset_while_connecting(self) -> None:
        for early in (b"", b"data"):
            with self.subTest(early=early):
                self.accept(FakeContext())
                if early:
                    self.client.dataReceived(early)
                self.client.connectionLost(LOST)
                self.assertTrue(self.attempts[0].cancelled)
                self.assert_concluded("ClientClosed")

    def test_what_a_client_sent_before_it_closed_is_delivered(self) -> None:
        """A TLS client may send a message and close_notify in one segment with its Finished."""
        self.accept(FakeContext())
        self.client.dataReceived(b"message")
        self.client.connectionLost(DONE)
        self.attempts[0].protocol.connectFailed(Fault.CONNECT_REFUSED, "refused")
        transport = self.attempts[1].succeed()
        self.assertEqual(transport.value(), b"message")
        self.assertTrue(transport.disconnecting)
        self.assertFalse(transport.disconnected)
        self.attempts[1].protocol.connectionLost(DONE)
        self.assert_concluded()

    def test_and_given_up_when_no_target_takes_it(self) -> None:
        self.accept(FakeContext(1))
        self.client.dataReceived(b"message")
        self.client.connectionLost(DONE)
        self.attempts[0].protocol.connectFailed(Fault.CONNECT_REFUSED, "refused")
        self.assert_concluded("ConnectRefused")

    def test_or_in_time(self) -> None:
        self.accept(FakeContext(1))
        self.client.dataReceived(b"message")
        self.client.connectionLost(DONE)
        self.context.deadlines.advance(350)
        self.assertTrue(self.attempts[0].cancelled)
        self.assert_concluded("ConnectTimeout")

    def test_connecting_is_bounded_by_the_idle_timeout(self) -> None:
        self.accept(FakeContext())
        self.context.deadlines.advance(350)
        self.assertTrue(self.attempts[0].cancelled)
        self.assertTrue(self.client_transport.disconnected)
        self.client.connectionLost(ABORTED)
        self.assert_concluded("ConnectTimeout")

    def test_client_end_seen_while_connecting(self) -> None:
        self.accept(FakeContext())
        self.client.dataReceived(b"query")
        self.client.readConnectionLost()
        transport = self.attempts[0].succeed()
        self.assertEqual((transport.value(), transport.write_closed), (b"query", True))

    def test_a_connection_that_comes_too_late_is_reset(self) -> None:
        self.accept(FakeContext())
        self.client.connectionLost(LOST)
        transport = self.attempts[0].succeed()
        self.assertTrue(transport.disconnected)
        self.attempts[0].protocol.connectionLost(ABORTED)
        self.attempts[0].protocol.connectFailed(Fault.CONNECT_REFUSED, "late")
        self.assert_concluded("ClientClosed")


class ProxyHeaderTests(TcpTestCase):
    def test_header_for_the_target(self) -> None:
        local = IPv4Address("TCP", "198.51.100.7", 5432)
        ends = (("192.0.2.1", 5000), ("198.51.100.7", 5432))
        for version, expected in (("off", b""), ("v1", encode_v1(*ends)), ("v2", encode_v2(*ends))):
            with self.subTest(version=version):
                self.accept(FakeContext(proxy_protocol=version), TcpTransport(hostAddress=local))
                self.assertEqual(self.attempts[0].header, expected)

    def test_client_of_another_family_behind_a_proxy(self) -> None:
        context = FakeContext(proxy_protocol="v1")
        transport = TcpTransport(hostAddress=IPv4Address("TCP", "198.51.100.7", 5432))
        self.accept(context, transport, IPv6Address("TCP", "2001:db8::1", 9))
        self.assertEqual(self.attempts[0].header, b"PROXY TCP6 2001:db8::1 ::ffff:198.51.100.7 9 5432\r\n")
        self.client.connectionLost(LOST)
        self.assertEqual(context.records[0].client_address, "2001:db8::1")


class RelayTests(TcpTestCase):
    def test_bytes_go_both_ways_and_are_counted(self) -> None:
        self.connected()
        self.client.dataReceived(b"question")
        self.target.dataReceived(b"ans")
        self.target.dataReceived(b"wer")
        self.assertEqual(self.target_transport.value(), b"question")
        self.assertEqual(self.client_transport.value(), b"answer")
        self.context.deadlines.advance(7)
        self.client.connectionLost(DONE)
        self.target.connectionLost(DONE)
        self.assert_concluded()
        record = self.context.records[0]
        self.assertEqual(
            [getattr(record, name) for name in record.__slots__],
            ["192.0.2.1", 5000, 0.0, 7.0, "", "db", 8, 6, "", STARTED, "10.0.0.1:80", "group", "", ""],
        )
        listener, target = self.context.counters, self.context.by_target["10.0.0.1:80"]
        self.assertEqual((listener.connections, listener.received_bytes, listener.sent_bytes), (1, 8, 6))
        self.assertEqual((target.connects, target.sent_bytes, target.received_bytes), (1, 8, 6))

    def test_each_side_slows_the_other_down(self) -> None:
        self.connected()
        for transport, producer, source in (
            (self.target_transport, self.client, self.client_transport),
            (self.client_transport, self.target, self.target_transport),
        ):
            self.assertIs(transport.producer, producer)
            self.assertTrue(transport.streaming)
            transport.producer.pauseProducing()
            self.assertEqual(source.producerState, "paused")
            transport.producer.resumeProducing()
            self.assertEqual(source.producerState, "producing")

    def test_interfaces(self) -> None:
        self.connected()
        for protocol in (self.client, self.target):
            verifyObject(IHalfCloseableProtocol, protocol)
            verifyObject(IPushProducer, protocol)
        verifyObject(IHandshakeListener, self.client)


class EndTests(TcpTestCase):
    def test_half_close_of_the_client(self) -> None:
        self.connected()
        self.client.dataReceived(b"query")
        self.client.readConnectionLost()
        self.assertTrue(self.target_transport.write_closed)
        self.assertFalse(self.target_transport.disconnecting)
        self.assertIsNone(self.target_transport.producer)
        self.target.dataReceived(b"result")
        self.assertEqual(self.client_transport.value(), b"result")
        self.target.readConnectionLost()
        self.assertTrue(self.client_transport.disconnecting)
        self.assertTrue(self.target_transport.disconnecting)
        self.assertFalse(self.client_transport.disconnected or self.target_transport.disconnected)
        self.client.connectionLost(DONE)
        self.target.connectionLost(DONE)
        self.assert_concluded()

    def test_half_close_of_the_target(self) -> None:
        self.connected()
        self.target.readConnectionLost()
        self.assertTrue(self.client_transport.write_closed)
        self.client.dataReceived(b"more")
        self.assertEqual(self.target_transport.value(), b"more")
        self.client.readConnectionLost()
        self.assertTrue(self.client_transport.disconnecting)
        self.assertTrue(self.target_transport.disconnecting)
        self.target.connectionLost(DONE)
        self.client.connectionLost(DONE)
        self.assert_concluded()

    def test_a_side_that_finished_is_not_read_again(self) -> None:
        self.connected()
        self.client_transport.pauseProducing()
        self.client.readConnectionLost()
        self.client.resumeProducing()
        self.assertEqual(self.client_transport.producerState, "paused")

    def test_reset_of_the_client(self) -> None:
        self.connected()
        self.client.connectionLost(LOST)
        self.assertTrue(self.target_transport.disconnected)
        self.assertEqual(self.context.cells[SLOT], 1)
        self.target.connectionLost(ABORTED)
        self.assert_concluded("ClientClosed")

    def test_reset_of_the_target(self) -> None:
        self.connected()
        self.target.connectionLost(LOST)
        self.assertTrue(self.client_transport.disconnected)
        self.assertEqual(self.context.cells[SLOT], 0)
        self.client.connectionLost(ABORTED)
        self.assert_concluded("TargetReset")
        self.assertEqual(dict(self.context.by_target["10.0.0.1:80"].faults), {"TargetReset": 1})

    def test_a_target_that_finished_cannot_cut_its_answer_off(self) -> None:
        """It answers, closes, and its kernel resets what the client goes on to send."""
        self.connected()
        self.target.dataReceived(b"too large")
        self.target.readConnectionLost()
        self.target.connectionLost(LOST)
        self.assertTrue(self.client_transport.disconnecting)
        self.assertFalse(self.client_transport.disconnected)
        self.client.connectionLost(DONE)
        self.assert_concluded()

    def test_idle_timeout_resets_both(self) -> None:
        self.connected()
        for sender in (self.client, self.target):
            self.context.deadlines.advance(349)
            sender.dataReceived(b"x")
        self.context.deadlines.advance(349)
        self.assertFalse(self.client_transport.disconnected)
        self.context.deadlines.advance(1)
        self.assertTrue(self.client_transport.disconnected)
        self.assertTrue(self.target_transport.disconnected)
        self.client.connectionLost(ABORTED)
        self.target.connectionLost(ABORTED)
        self.assert_concluded("IdleTimeout")

    def test_a_close_that_hangs_ends_with_the_idle_timeout(self) -> None:
        self.connected()
        self.client.connectionLost(DONE)
        self.context.deadlines.advance(350)
        self.assertTrue(self.target_transport.disconnected)
        self.target.connectionLost(ABORTED)
        self.assert_concluded("IdleTimeout")

    def test_drain_lets_live_until_the_deadline(self) -> None:
        self.connected()
        self.client.drain()
        self.assertFalse(self.client_transport.disconnecting)
        self.client.abort(Fault.DRAIN_DEADLINE)
        self.assertTrue(self.client_transport.disconnected)
        self.target.connectionLost(ABORTED)
        self.client.connectionLost(ABORTED)
        self.client.abort(Fault.INTERNAL)
        self.assert_concluded("DrainDeadline")

    def test_target_gone(self) -> None:
        self.connected()
        self.client.target_gone()
        self.assertTrue(self.client_transport.disconnected)
        self.assertTrue(self.target_transport.disconnected)
        self.client.connectionLost(ABORTED)
        self.target.connectionLost(ABORTED)
        self.assert_concluded("TargetDeregistered")

    def test_target_gone_while_connecting(self) -> None:
        self.accept(FakeContext())
        self.client.target_gone()
        self.assertTrue(self.attempts[0].cancelled)
        self.client.connectionLost(ABORTED)
        self.assert_concluded("TargetDeregistered")


class TlsClientTests(TcpTestCase):
    """A TLS listener; the handshake is TLSMemoryBIOProtocol's, the end at either side is ours."""

    def handshaken(self) -> Any:
        listener = Listener(
            name="db",
            protocol=ListenerProtocol.TLS,
            binds=(Bind("127.0.0.1", 0),),
            default_action=FixedResponse(status=200),
            certificates=(Authority().certificate("db.example.com"),),
        )
        server = ServerTls(listener).serverConnectionForTLS(None)
        server.set_accept_state()
        shuttle(client_connection(b"db.example.com"), server)
        return server

    def relaying(self) -> None:
        self.accept(FakeContext(protocol="TLS"), TlsTransport(self.handshaken()))
        self.client.handshakeCompleted()
        self.target_transport: StringTransport = self.attempts[0].succeed()
        self.target = self.attempts[0].protocol

    def test_no_target_is_sought_before_the_handshake(self) -> None:
        self.accept(FakeContext(protocol="TLS"), TlsTransport(self.handshaken()))
        self.assertEqual(self.attempts, [])
        self.assertEqual(self.client_transport.producerState, "producing")
        self.context.deadlines.advance(3)
        self.client.handshakeCompleted()
        self.context.deadlines.advance(1)
        self.attempts[0].succeed()
        self.client.connectionLost(DONE)
        self.attempts[0].protocol.connectionLost(DONE)
        record = self.context.records[0]
        self.assertEqual(
            (record.tls_version, record.tls_cipher, record.server_name, record.connect_time, record.duration),
            ("TLSv1.3", "TLS_AES_256_GCM_SHA384", "db.example.com", 1.0, 4.0),
        )
        self.assertEqual(self.context.counters.tls_handshakes, 1)
        self.assertEqual(self.context.counters.tls_failures, 0)

    def test_failed_handshake(self) -> None:
        self.accept(FakeContext(protocol="TLS"), TlsTransport())
        self.client.connectionLost(LOST)
        self.assert_concluded("ClientTlsFailed")
        self.assertEqual(self.context.counters.tls_failures, 1)

    def test_slow_handshake(self) -> None:
        self.accept(FakeContext(protocol="TLS"), TlsTransport())
        self.context.deadlines.advance(10)
        self.assertTrue(self.client_transport.disconnected)
        self.client.connectionLost(ABORTED)
        self.assert_concluded("ClientTimeout")
        self.assertEqual(self.context.counters.tls_failures, 1)

    def test_end_of_the_target_becomes_close_notify(self) -> None:
        """And the client is read again, or its own close_notify would not be seen."""
        self.relaying()
        self.target_transport.producer.pauseProducing()
        self.target.readConnectionLost()
        self.assertTrue(self.client_transport.disconnecting)
        self.assertIsNone(self.client_transport.producer)
        self.assertEqual(self.client_transport.producerState, "producing")
        self.client.dataReceived(b"still sent")
        self.assertEqual(self.target_transport.value(), b"still sent")
        self.client.connectionLost(DONE)
        self.assertTrue(self.target_transport.disconnecting)
        self.target.connectionLost(DONE)
        self.assert_concluded()

    def test_a_client_that_omits_close_notify_does_not_cut_off_what_it_sent(self) -> None:
        self.relaying()
        self.client.dataReceived(b"message")
        self.client.connectionLost(LOST)
        self.assertTrue(self.target_transport.disconnecting)
        self.assertFalse(self.target_transport.disconnected)
        self.target.connectionLost(DONE)
        self.assert_concluded()


class TlsTargetTests(TcpTestCase):
    def test_end_of_the_client_becomes_close_notify_and_the_answer_comes_through(self) -> None:
        self.connected(FakeContext(target_protocol="TLS"), TlsTransport())
        self.client.readConnectionLost()
        self.assertTrue(self.target_transport.disconnecting)
        self.target.dataReceived(b"answer")
        self.assertEqual(self.client_transport.value(), b"answer")
        self.target.connectionLost(DONE)
        self.assertTrue(self.client_transport.disconnecting)
        self.client.connectionLost(DONE)
        self.assert_concluded()

    def test_a_target_that_omits_close_notify_does_not_cut_off_its_answer(self) -> None:
        self.connected(FakeContext(target_protocol="TLS"), TlsTransport())
        self.target.dataReceived(b"answer")
        self.target.connectionLost(LOST)
        self.assertTrue(self.client_transport.disconnecting)
        self.assertFalse(self.client_transport.disconnected)
