"""The PROXY header ahead of a connection, with and without TLS behind it."""

from __future__ import annotations

from typing import Any

from OpenSSL import SSL
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IProtocolFactory
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from lbproxy.dataplane.listener.proxyprotocol import ProxyProtocolFactory, ProxyProtocolFront
from lbproxy.dataplane.listener.tls import ServerTls
from lbproxy.model.listener import Bind, Listener, ListenerProtocol
from lbproxy.model.rule import FixedResponse
from lbproxy.wire.proxyprotocol import encode_v1, encode_v2, encode_v2_local
from tests.certificate_authority import Authority
from tests.tls_pair import client_connection

TRUSTED = ("10.0.0.0/8", "2001:db8::/32")
SENDER = IPv4Address("TCP", "10.1.2.3", 4000)
HEADER = encode_v1(("192.0.2.1", 56324), ("198.51.100.7", 443))


class Served(Protocol):
    """Notes what it gets."""

    def __init__(self, addr: object) -> None:
        self.addr = addr
        self.data = b""
        self.lost = False

    def dataReceived(self, data: bytes) -> None:
        assert self.connected
        self.data += data

    def connectionLost(self, reason: object = None) -> None:
        self.lost = True


class Serving(Factory):
    """Builds `Served`, or nothing."""

    refuses = False
    protocols: list[Served]

    def __init__(self) -> None:
        self.protocols = []

    def buildProtocol(self, addr: object) -> Any:
        if self.refuses:
            return None
        self.protocols.append(Served(addr))
        return self.protocols[-1]


class ProxyProtocolTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.serving = Serving()
        self.refusals: list[str] = []
        self.factory = ProxyProtocolFactory(self.serving, TRUSTED, 10.0, self.clock, self.refusals.append)

    def connect(self, addr: object = SENDER) -> StringTransport:
        transport: Any = StringTransport(peerAddress=addr)
        transport.protocol = self.factory.buildProtocol(addr)
        transport.protocol.makeConnection(transport)
        return transport

    def test_header_gives_the_address_at_every_split(self) -> None:
        data = HEADER + b"GET /"
        for cut in range(len(data) + 1):
            with self.subTest(cut=cut):
                transport = self.connect()
                for part in (data[:cut], data[cut:]):
                    if part:
                        transport.protocol.dataReceived(part)
                served = self.serving.protocols[-1]
                self.assertIs(transport.protocol, served)
                self.assertIs(served.transport, transport)
                self.assertEqual(served.addr, IPv4Address("TCP", "192.0.2.1", 56324))
                self.assertEqual(served.data, b"GET /")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_ipv6_source(self) -> None:
        transport = self.connect()
        transport.protocol.dataReceived(encode_v2(("2001:db8::5", 1), ("2001:db8::6", 2)))
        self.assertEqual(self.serving.protocols[0].addr, IPv6Address("TCP", "2001:db8::5", 1))
        self.assertEqual(self.serving.protocols[0].data, b"")

    def test_local_and_unknown_keep_the_socket_address(self) -> None:
        for header in (encode_v2_local(), b"PROXY UNKNOWN\r\n"):
            self.connect().protocol.dataReceived(header)
            self.assertEqual(self.serving.protocols[-1].addr, SENDER)

    def test_untrusted_peers_are_served_directly(self) -> None:
        for host in ("192.0.2.9", "11.0.0.1"):
            transport = self.connect(IPv4Address("TCP", host, 1))
            self.assertIsInstance(transport.protocol, Served)
            transport.protocol.dataReceived(HEADER)
            self.assertEqual(self.serving.protocols[-1].data, HEADER)
        self.assertIsInstance(self.connect(IPv6Address("TCP", "2001:db9::1", 1)).protocol, Served)

    def test_trusted_peers(self) -> None:
        for addr in (SENDER, IPv6Address("TCP", "2001:db8::1", 1), IPv6Address("TCP", "::ffff:10.0.0.1", 1)):
            self.assertIsInstance(self.connect(addr).protocol, ProxyProtocolFront)

    def test_malformed_header_is_reset(self) -> None:
        transport = self.connect()
        transport.protocol.dataReceived(b"GET / HTTP/1.1\r\n")
        self.assertTrue(transport.disconnected)
        transport.protocol.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(self.refusals, ["BadProxyHeader"])
        self.assertEqual(self.serving.protocols, [])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_late_header_is_reset(self) -> None:
        transport = self.connect()
        transport.protocol.dataReceived(HEADER[:-1])
        self.clock.advance(9.9)
        self.assertFalse(transport.disconnected)
        self.clock.advance(0.2)
        self.assertTrue(transport.disconnected)
        transport.protocol.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(self.refusals, ["ProxyHeaderTimeout"])

    def test_connection_lost_before_the_header(self) -> None:
        self.connect().protocol.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual((self.refusals, self.serving.protocols), ([], []))

    def test_refused_by_the_wrapped_factory(self) -> None:
        self.serving.refuses = True
        transport = self.connect()
        transport.protocol.dataReceived(HEADER)
        self.assertTrue(transport.disconnected)

    def test_tls_behind_the_header(self) -> None:
        """The innermost factory sees the client's address, and the rest of the segment starts the handshake."""
        listener = Listener(
            name="web",
            protocol=ListenerProtocol.HTTPS,
            binds=(Bind("127.0.0.1", 0),),
            default_action=FixedResponse(status=200),
            certificates=(Authority().certificate("example.com"),),
        )
        self.factory.wrapped_factory = TLSMemoryBIOFactory(ServerTls(listener), False, self.serving, self.clock)
        transport = self.connect()
        client = client_connection(b"example.com")
        self.assertRaises(SSL.WantReadError, client.do_handshake)
        transport.protocol.dataReceived(HEADER + client.bio_read(65536))
        client.bio_write(transport.value())
        client.do_handshake()
        client.send(b"hello")
        transport.protocol.dataReceived(client.bio_read(65536))
        served = self.serving.protocols[0]
        self.assertEqual((served.addr, served.data), (IPv4Address("TCP", "192.0.2.1", 56324), b"hello"))

    def test_start_and_stop_reach_the_wrapped_factory(self) -> None:
        verifyObject(IProtocolFactory, self.factory)
        self.factory.doStart()
        self.assertEqual(self.serving.numPorts, 1)
        self.factory.doStop()
        self.assertEqual(self.serving.numPorts, 0)
