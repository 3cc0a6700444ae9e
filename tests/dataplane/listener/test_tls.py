"""TLS towards clients: which certificate, which protocol, which version."""

from __future__ import annotations

import attrs
import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.x509 import DNSName, SubjectAlternativeName
from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from zope.interface.verify import verifyObject

from lbproxy.dataplane.listener.tls import ServerTls, TlsDetails, describe_connection
from lbproxy.model.errors import InvalidModel
from lbproxy.model.listener import Bind, Certificate, Listener, ListenerProtocol
from lbproxy.model.rule import FixedResponse
from lbproxy.model.tls_policy import TLS_POLICIES
from lbproxy.native import tls as native
from tests.certificate_authority import Authority
from tests.tls_pair import client_connection, move, shuttle

CA = Authority()

DEFAULT = CA.certificate("default.example.com")
EXACT = CA.certificate("www.example.com", kind="rsa")
EXACT_ECDSA = CA.certificate("www.example.com")
WILD = CA.certificate("*.example.com", common_name="wild")


@pytest.fixture(autouse=True, params=["compiled", "in Python"])
def choosing(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Certificates and protocols are chosen by compiled callbacks where there are any, else in Python."""
    if request.param == "in Python":
        monkeypatch.setattr(native, "chooses", False)
    elif not native.chooses:
        pytest.skip("the compiled callbacks were not built")


def listener(*certificates: Certificate, policy: str = "", protocol: str = "HTTPS") -> Listener:
    return Listener(
        name="web",
        protocol=ListenerProtocol(protocol),
        binds=(Bind("127.0.0.1", 0),),
        default_action=FixedResponse(status=200),
        certificates=certificates,
        **({"tls_policy": policy} if policy else {}),
    )


def handshake(tls: ServerTls, client: SSL.Connection) -> SSL.Connection:
    server = tls.serverConnectionForTLS(None)
    server.set_accept_state()
    shuttle(client, server)
    return server


def served(tls: ServerTls, name: bytes | None, **client: object) -> str:
    """The subject and kind of the certificate that a client gets."""
    connection = client_connection(name, **client)
    handshake(tls, connection)
    leaf, *rest = (each.to_cryptography() for each in connection.get_peer_cert_chain())
    assert rest == [CA.middle]
    names = leaf.extensions.get_extension_for_class(SubjectAlternativeName).value
    kind = "rsa" if isinstance(leaf.public_key(), RSAPublicKey) else "ec"
    return f"{names.get_values_for_type(DNSName)[0]} {kind}"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (b"www.example.com", "www.example.com rsa"),
        (b"WWW.EXAMPLE.COM", "www.example.com rsa"),
        (b"a.example.com", "*.example.com ec"),
        (b"A.Example.Com", "*.example.com ec"),
        (b"a.b.example.com", "default.example.com ec"),
        (b"example.com", "default.example.com ec"),
        (b"other.org", "default.example.com ec"),
        (b"localhost", "default.example.com ec"),
        (b"\xff\xfe", "default.example.com ec"),
        (None, "default.example.com ec"),
    ],
)
def test_certificate_by_server_name(name: bytes | None, expected: str) -> None:
    rsa = {"ciphers": b"ECDHE-RSA-AES128-GCM-SHA256", "maximum": SSL.TLS1_2_VERSION} if expected.endswith("rsa") else {}
    assert served(ServerTls(listener(DEFAULT, EXACT, WILD)), name, **rsa) == expected


@pytest.mark.parametrize("order", [(EXACT, EXACT_ECDSA), (EXACT_ECDSA, EXACT)])
def test_ecdsa_is_preferred_and_rsa_given_to_clients_without_it(order: tuple[Certificate, ...]) -> None:
    tls = ServerTls(listener(*order))
    for name in (b"www.example.com", None):
        assert served(tls, name) == "www.example.com ec"
        assert served(tls, name, maximum=SSL.TLS1_2_VERSION) == "www.example.com ec"
        only_rsa = {"ciphers": b"ECDHE-RSA-AES128-GCM-SHA256", "maximum": SSL.TLS1_2_VERSION}
        assert served(tls, name, **only_rsa) == "www.example.com rsa"


def test_details_of_a_handshake() -> None:
    server = handshake(ServerTls(listener(DEFAULT)), client_connection(b"Www.Example.com", alpn=[b"h2", b"http/1.1"]))
    assert describe_connection(server) == TlsDetails(
        "TLSv1.3", "TLS_AES_256_GCM_SHA384", "www.example.com", b"http/1.1", False
    )


def test_details_without_extensions() -> None:
    client = client_connection(maximum=SSL.TLS1_2_VERSION)
    server = handshake(ServerTls(listener(DEFAULT)), client)
    assert describe_connection(server) == TlsDetails("TLSv1.2", "ECDHE-ECDSA-AES128-GCM-SHA256", "", b"", False)


@pytest.mark.parametrize(
    ("seen", "host", "misdirected"),
    [
        (b"www.example.com", b"www.example.com", False),
        (b"a.example.com", b"b.example.com", False),  # one certificate for both
        (b"a.example.com", b"www.example.com", False),  # the wildcard is good for it, too
        (b"www.example.com", b"other.org", True),
        (b"other.org", b"www.example.com.", True),
        (b"other.org", b"a.example.com", True),
        (b"a.example.com", b"default.example.com.", False),
        (b"", b"default.example.com", False),
        (b"", b"www.example.com", True),
        (b"", b"a.example.com", True),
        (b"", b"127.0.0.1", False),  # has no certificate, so there is none to prefer
        (b"www.example.com", b"third.org", False),
        (b"www.example.com", b"\xff", False),
    ],
)
def test_a_host_with_another_certificate_is_misdirected(seen: bytes, host: bytes, misdirected: bool) -> None:
    tls = ServerTls(listener(DEFAULT, EXACT, WILD, CA.certificate("other.org")))
    assert tls.is_misdirected(seen.decode(), host) == misdirected


def test_http2_is_offered_where_it_is_on() -> None:
    for http2, expected in ((True, b"h2"), (False, b"http/1.1")):
        tls = ServerTls(attrs.evolve(listener(DEFAULT), http2=http2))
        assert describe_connection(handshake(tls, client_connection(alpn=[b"http/1.1", b"h2"]))).alpn == expected
        assert not tls.same_as(attrs.evolve(listener(DEFAULT), http2=not http2))


@pytest.mark.parametrize(
    ("ours", "offered", "expected"),
    [
        (None, [b"http/1.1"], b"http/1.1"),
        (None, [b"h2"], b""),
        ((b"h2", b"http/1.1"), [b"http/1.1", b"h2"], b"h2"),
        ((b"h2", b"http/1.1"), [b"http/1.1"], b"http/1.1"),
        ((), [b"http/1.1"], b""),
    ],
)
def test_alpn_takes_our_order_and_no_overlap_is_no_alpn(
    ours: tuple[bytes, ...] | None, offered: list[bytes], expected: bytes
) -> None:
    tls = ServerTls(listener(DEFAULT, EXACT), alpn=ours)
    for name in (None, b"www.example.com"):
        assert describe_connection(handshake(tls, client_connection(name, alpn=offered))).alpn == expected


def test_tls_listeners_offer_no_alpn() -> None:
    server = handshake(ServerTls(listener(DEFAULT, protocol="TLS")), client_connection(alpn=[b"http/1.1"]))
    assert describe_connection(server).alpn == b""


@pytest.mark.parametrize("policy", TLS_POLICIES)
@pytest.mark.parametrize("maximum", [SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION])
def test_versions_of_a_policy(policy: str, maximum: int) -> None:
    tls = ServerTls(listener(DEFAULT, policy=policy))
    wanted = "TLSv1.3" if maximum == SSL.TLS1_3_VERSION else "TLSv1.2"
    client = client_connection(maximum=maximum)
    if wanted < TLS_POLICIES[policy].minimum_version:
        with pytest.raises(SSL.Error):
            handshake(tls, client)
    else:
        server = handshake(tls, client)
        assert describe_connection(server).version == min(wanted, TLS_POLICIES[policy].maximum_version)


def test_our_cipher_order_counts() -> None:
    client = client_connection(
        ciphers=b"ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-ECDSA-AES128-GCM-SHA256", maximum=SSL.TLS1_2_VERSION
    )
    server = handshake(ServerTls(listener(DEFAULT)), client)
    assert describe_connection(server).cipher == "ECDHE-ECDSA-AES128-GCM-SHA256"


@pytest.mark.parametrize("maximum", [SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION])
@pytest.mark.parametrize("name", [None, b"www.example.com"])
def test_sessions_are_resumed_by_ticket(maximum: int, name: bytes | None) -> None:
    tls = ServerTls(listener(DEFAULT, EXACT_ECDSA))
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_max_proto_version(maximum)
    first = client_connection(name, context=context)
    server = handshake(tls, first)
    server.send(b"x")
    move(server, first)
    first.recv(1)  # TLS 1.3 sends tickets after the handshake
    second = client_connection(name, context=context)
    second.set_session(first.get_session())
    assert describe_connection(handshake(tls, second)).resumed


def test_names_of_one_certificate_share_a_context() -> None:
    tls = ServerTls(listener(CA.certificate("a.com", "b.com"), WILD))
    assert tls.context_for("a.com") is tls.context_for("B.com.") is tls.context
    assert tls.context_for("x.example.com") is not tls.context


def test_same_as_compares_certificates_policy_and_protocol() -> None:
    tls = ServerTls(listener(DEFAULT, EXACT))
    assert tls.same_as(listener(DEFAULT, EXACT))
    assert not tls.same_as(listener(EXACT, DEFAULT))
    assert not tls.same_as(listener(DEFAULT, EXACT, protocol="TLS"))
    assert not tls.same_as(listener(DEFAULT, EXACT, policy="ELBSecurityPolicy-TLS13-1-3-2021-06"))


def test_provides_twisteds_interface() -> None:
    tls = ServerTls(listener(DEFAULT))
    assert verifyObject(IOpenSSLServerConnectionCreator, tls.connection_creator)


@pytest.mark.parametrize(
    ("certificates", "policy", "field"),
    [
        ((), "", "certificates"),
        ((DEFAULT,), "ELBSecurityPolicy-2016-08", "tls_policy"),
        ((DEFAULT, Certificate(source="b.pem", pem=b"")), "", "b.pem"),
    ],
)
def test_what_cannot_be_served_is_named(certificates: tuple[Certificate, ...], policy: str, field: str) -> None:
    with pytest.raises(InvalidModel) as caught:
        ServerTls(listener(*certificates, policy=policy))
    assert caught.value.field == field
