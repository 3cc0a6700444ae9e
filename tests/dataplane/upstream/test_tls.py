"""TLS towards targets: trust, identity, SNI, and what is said when it fails."""

from __future__ import annotations

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL
from twisted.internet import error
from twisted.internet.address import IPv4Address
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from twisted.test.iosim import FakeTransport, IOPump, makeFakeClient, makeFakeServer
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from lbproxy.dataplane.listener.tls import ServerTls, describe_connection
from lbproxy.dataplane.upstream.tls import CertificateRefused, ClientTls, explain_failure
from lbproxy.model.errors import InvalidModel
from lbproxy.model.listener import Bind, Certificate, Listener, ListenerProtocol
from lbproxy.model.rule import FixedResponse
from lbproxy.model.target import Target
from lbproxy.model.target_group import TargetTls
from tests.certificate_authority import Authority, key_pem, make_key

CA = Authority()


class End(Protocol):
    """Notes what happens to it."""

    failure: Failure | None = None
    received = b""

    def dataReceived(self, data: bytes) -> None:
        self.received += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.failure = reason


def target(host: str = "app.example.com") -> Target:
    return Target(host=host, port=443, address="127.0.0.1")


def listener(certificate: Certificate, policy: str) -> Listener:
    return Listener(
        name="target",
        protocol=ListenerProtocol.HTTPS,
        binds=(Bind("127.0.0.1", 0),),
        default_action=FixedResponse(status=200),
        certificates=(certificate,),
        tls_policy=policy,
    )


class Connection:
    """A handshake between `ClientTls` and a target with this certificate, in memory."""

    def __init__(
        self,
        settings: TargetTls,
        certificate: Certificate,
        host: str = "app.example.com",
        policy: str = "ELBSecurityPolicy-TLS13-1-2-2021-06",
    ) -> None:
        self.client, self.target = End(), End()
        address = IPv4Address("TCP", "127.0.0.1", 443)
        clock = Clock()
        creator = ClientTls(settings).creator_for(target(host))
        client = TLSMemoryBIOFactory(creator, True, Factory.forProtocol(lambda: self.client), clock)
        server = TLSMemoryBIOFactory(
            ServerTls(listener(certificate, policy)), False, Factory.forProtocol(lambda: self.target), clock
        )
        front, back = client.buildProtocol(address), server.buildProtocol(address)
        front_transport: FakeTransport = makeFakeClient(front)
        back_transport: FakeTransport = makeFakeServer(back)
        pump = IOPump(front, back, front_transport, back_transport, False, clock)
        back.makeConnection(back_transport)
        front.makeConnection(front_transport)
        self.client.transport.write(b"hello")
        self.server_connection = back.getHandle()
        for _ in range(10):
            clock.advance(0)
            pump.pump()

    @property
    def works(self) -> bool:
        return self.target.received == b"hello"

    @property
    def reason(self) -> str:
        assert self.client.failure is not None
        return explain_failure(self.client.failure)


TRUSTED = TargetTls(ca_pem=CA.root_pem)


class ClientTlsTests(SynchronousTestCase):
    def test_trusted_certificate_for_the_targets_name(self) -> None:
        connection = Connection(TRUSTED, CA.certificate("app.example.com"))
        self.assertTrue(connection.works)
        self.assertEqual(describe_connection(connection.server_connection).server_name, "app.example.com")

    def test_wildcard_certificate(self) -> None:
        self.assertTrue(Connection(TRUSTED, CA.certificate("*.example.com")).works)

    def test_address_in_the_certificate_and_no_server_name_sent(self) -> None:
        """RFC 6066 section 3: an address is no server name."""
        for host in ("127.0.0.1", "::1"):
            with self.subTest(host=host):
                connection = Connection(TRUSTED, CA.certificate(host), host)
                self.assertTrue(connection.works)
                self.assertEqual(describe_connection(connection.server_connection).server_name, "")

    def test_certificate_for_another_name_is_refused(self) -> None:
        connection = Connection(TRUSTED, CA.certificate("b.example.com", "c.example.com", "192.0.2.1"))
        self.assertFalse(connection.works)
        self.assertEqual(
            connection.reason, "certificate is for b.example.com, c.example.com, 192.0.2.1, wanted app.example.com"
        )

    def test_certificate_without_names_is_refused(self) -> None:
        """RFC 9525 section 6.3: the common name does not count."""
        connection = Connection(TRUSTED, CA.certificate(common_name="app.example.com"))
        self.assertEqual(connection.reason, "certificate is for no host, wanted app.example.com")

    def test_certificate_for_another_address_is_refused(self) -> None:
        connection = Connection(TRUSTED, CA.certificate("127.0.0.2"), "127.0.0.1")
        self.assertEqual(connection.reason, "certificate is for 127.0.0.2, wanted 127.0.0.1")

    def test_many_names_are_cut_short(self) -> None:
        names = [f"{letter}.example.com" for letter in "bcdefgh"]
        self.assertIn("f.example.com and 2 more, wanted", Connection(TRUSTED, CA.certificate(*names)).reason)

    def test_untrusted_authority_is_refused(self) -> None:
        connection = Connection(TRUSTED, Authority("Other").certificate("app.example.com"))
        self.assertFalse(connection.works)
        self.assertEqual(connection.reason, "certificate verify failed: unable to get local issuer certificate")

    def test_self_signed_certificate_is_refused(self) -> None:
        pem = CA.root_pem + key_pem(CA.root_key)
        connection = Connection(TargetTls(ca_pem=Authority("Other").root_pem), Certificate(source="x", pem=pem))
        self.assertFalse(connection.works)
        self.assertRegex(connection.reason, "^certificate verify failed: self.signed certificate$")

    def test_system_trust_does_not_know_our_authority(self) -> None:
        connection = Connection(TargetTls(), CA.certificate("app.example.com"))
        self.assertFalse(connection.works)
        self.assertRegex(connection.reason, "^certificate verify failed: ")

    def test_expired_certificate_is_refused(self) -> None:
        connection = Connection(TRUSTED, CA.certificate("app.example.com", days=-1))
        self.assertEqual(connection.reason, "certificate verify failed: certificate has expired")

    def test_an_intermediate_or_the_leaf_itself_may_be_trusted(self) -> None:
        certificate = CA.certificate("app.example.com")
        leaf = x509.load_pem_x509_certificate(certificate.pem)
        for trusted in (CA.middle, leaf):
            settings = TargetTls(ca_pem=trusted.public_bytes(Encoding.PEM))
            self.assertTrue(Connection(settings, certificate).works)
            # Trust in a certificate is no licence to be anyone.
            self.assertRegex(Connection(settings, certificate, "b.example.com").reason, "wanted b.example.com")

    def test_server_name_replaces_the_host(self) -> None:
        settings = TargetTls(ca_pem=CA.root_pem, server_name="inner.example.com")
        connection = Connection(settings, CA.certificate("inner.example.com"), "127.0.0.1")
        self.assertTrue(connection.works)
        self.assertEqual(describe_connection(connection.server_connection).server_name, "inner.example.com")
        self.assertFalse(Connection(settings, CA.certificate("127.0.0.1"), "127.0.0.1").works)

    def test_international_name(self) -> None:
        connection = Connection(TRUSTED, CA.certificate("xn--bcher-kva.example"), "bücher.example")
        self.assertTrue(connection.works)

    def test_without_verification_anything_goes_but_the_name_is_sent(self) -> None:
        connection = Connection(TargetTls(verify=False), Authority("Other").certificate("x.org", days=-1))
        self.assertTrue(connection.works)
        self.assertEqual(describe_connection(connection.server_connection).server_name, "app.example.com")

    def test_the_context_is_shared_by_the_targets(self) -> None:
        tls = ClientTls(TRUSTED)
        one, two = (tls.creator_for(target(host)).clientConnectionForTLS(None) for host in ("a.com", "b.com"))
        self.assertIs(one.get_context(), two.get_context())

    def test_bad_trust_is_named(self) -> None:
        with self.assertRaises(InvalidModel) as caught:
            ClientTls(TargetTls(ca_pem=b"nonsense"))
        self.assertEqual(caught.exception.field, "ca_pem")

    def test_a_host_that_is_no_name_is_named(self) -> None:
        with self.assertRaises(InvalidModel) as caught:
            ClientTls(TRUSTED).creator_for(target("a b"))
        self.assertEqual(caught.exception.field, "server_name")

    def test_provides_twisteds_interface(self) -> None:
        verifyObject(IOpenSSLClientConnectionCreator, ClientTls(TRUSTED).creator_for(target()))


class ExplainFailureTests(SynchronousTestCase):
    def test_reasons(self) -> None:
        closed = "the target closed the connection during the TLS handshake"
        for exception, expected in (
            (CertificateRefused("certificate is for x, wanted y"), "certificate is for x, wanted y"),
            (
                SSL.Error([("SSL routines", "", "tlsv1 alert protocol version")]),
                "TLS handshake failed: tlsv1 alert protocol version",
            ),
            (SSL.Error(), "TLS handshake failed: unexpected end"),
            (SSL.SysCallError(-1, "Unexpected EOF"), closed),
            (error.ConnectionDone(), closed),
            (error.ConnectionLost(), closed),
            (ValueError("first\nsecond"), "first"),
            (ValueError(), "ValueError"),
        ):
            with self.subTest(exception=exception):
                self.assertEqual(explain_failure(Failure(exception)), expected)


def test_keys_are_made_once() -> None:
    assert make_key("ec") is make_key("ec")
