"""A client's connection inside TLS: what is counted, when it waits, and how it ends."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

import pytest
from OpenSSL import SSL
from twisted.internet.interfaces import IProtocolFactory
from twisted.protocols.tls import TLSMemoryBIOFactory
from zope.interface import implementer

from lbproxy.dataplane.listener.http1 import DRAIN_GRACE_SECONDS
from lbproxy.dataplane.listener.tls import ServerTls, describe
from lbproxy.model.listener import Certificate, ListenerProtocol
from tests.certificate_authority import Authority
from tests.dataplane.doubles import CLIENT, FakeTransport, World, answer, request
from tests.dataplane.listener.http2_client import Http2Client
from tests.tls_pair import client_connection


@cache
def certificate() -> Certificate:
    return Authority().certificate("example.com")


@implementer(IProtocolFactory)
class _Front:
    noisy = False

    def __init__(self, front: Any) -> None:
        self.buildProtocol = front.buildProtocol

    def doStart(self) -> None: ...

    def doStop(self) -> None: ...


class SecureWorld(World):
    """A world whose listener speaks HTTPS."""

    def __init__(self, **settings: Any) -> None:
        settings = {"certificates": (certificate(),), **settings}
        super().__init__(protocol=ListenerProtocol.HTTPS, **settings)
        self.front.describe_tls = describe
        tls = self.front.certificates = ServerTls(self.listener)
        self._factory = TLSMemoryBIOFactory(tls, False, _Front(self.front), self.clock)

    def secure_client(self, handshake: bool = True, alpn: list[bytes] | None = None) -> SecureClient:
        protocol: Any = self._factory.buildProtocol(CLIENT)
        transport = FakeTransport(self.clock, protocol)
        protocol.makeConnection(transport)
        client = SecureClient(self, transport, alpn)
        if handshake:
            client.handshake()
        return client


class SecureClient:
    """A client with an OpenSSL of its own."""

    def __init__(self, world: SecureWorld, transport: FakeTransport, alpn: list[bytes] | None = None) -> None:
        self.world = world
        self.transport = transport
        self.ssl = client_connection(b"example.com", alpn=alpn)
        self.received = b""
        self.closed = False
        """close_notify has come."""

    def handshake(self) -> None:
        for _ in range(3):
            try:
                self.ssl.do_handshake()
            except SSL.WantReadError:
                self.exchange()
        self.exchange()

    def exchange(self) -> None:
        """Carry bytes both ways and read what is there."""
        for _ in range(3):
            try:
                while True:
                    self.transport.deliver(self.ssl.bio_read(65536))
            except SSL.WantReadError:
                pass
            self.world.turn()
            sent = self.transport.take()
            if sent:
                self.ssl.bio_write(sent)
            try:
                while True:
                    self.received += self.ssl.recv(65536)
            except SSL.ZeroReturnError:
                self.closed = True
            except SSL.WantReadError:
                pass

    def send(self, data: bytes) -> None:
        self.ssl.send(data)
        self.exchange()


def test_a_request_inside_tls() -> None:
    world = SecureWorld()
    client = world.secure_client()
    for _ in range(2):
        client.send(request())
    assert world.counters.tls_handshakes == 1
    target = world.target()
    assert b"X-Forwarded-Proto: https\r\n" in target.sent
    target.deliver(answer(b"first"))
    target.deliver(answer(b"second"))
    client.exchange()
    assert client.received.count(b"HTTP/1.1 200 OK") == 2
    assert client.received.endswith(b"second")
    [record, _] = world.log.records
    assert (record.kind, record.scheme, record.server_name) == ("https", "https", "example.com")
    assert re.fullmatch(r"TLSv1\.[23]", record.tls_version)
    assert record.tls_cipher


def test_connection_close_ends_tls_in_order() -> None:
    world = SecureWorld()
    client = world.secure_client()
    client.send(request("/fixed", "Connection: close"))
    assert client.received.endswith(b"fixed\n")
    assert client.closed
    client.ssl.shutdown()
    client.exchange()
    assert client.transport.ended == "closed"
    assert world.counters.active == 0


def test_a_client_that_does_not_answer_close_notify_is_dropped_in_the_end() -> None:
    world = SecureWorld(idle_timeout_seconds=20.0)
    client = world.secure_client()
    client.send(request("/fixed", "Connection: close"))
    assert client.closed
    world.wait(15)
    assert not client.transport.ended
    world.wait(10)
    assert client.transport.ended == "aborted"


def test_a_cut_answer_does_not_end_with_close_notify() -> None:
    """An answer up to the close would pass for whole (RFC 9112 section 9.8)."""
    world = SecureWorld()
    client = world.secure_client()
    client.send(request(version="1.0"))
    target = world.target()
    target.deliver(b"HTTP/1.0 200 OK\r\n\r\nnot all")
    client.exchange()
    assert client.received.endswith(b"not all")
    target.reset()
    client.exchange()
    assert not client.closed
    assert client.transport.ended == "aborted"


@pytest.mark.parametrize("how", ["garbage", "silence", "leaves"])
def test_a_handshake_that_fails_is_counted(how: str) -> None:
    world = SecureWorld(request_header_timeout_seconds=5.0)
    client = world.secure_client(handshake=False)
    if how == "garbage":
        client.transport.deliver(b"GET / HTTP/1.1\r\n\r\n")
    elif how == "silence":
        world.wait(5.2)
    else:
        client.transport.deliver_eof()
    world.turn()
    assert client.transport.ended
    assert (world.counters.tls_handshakes, world.counters.tls_failures, world.counters.active) == (0, 1, 0)


def test_a_handshake_that_succeeds_is_no_failure_and_may_resume() -> None:
    world = SecureWorld()
    world.secure_client().transport.reset()
    assert (world.counters.tls_handshakes, world.counters.tls_failures, world.counters.tls_resumed) == (1, 0, 0)
    world.front.describe_tls = lambda handle: describe(handle)._replace(resumed=True)
    world.secure_client().transport.reset()
    assert (world.counters.tls_handshakes, world.counters.tls_failures, world.counters.tls_resumed) == (2, 0, 1)


@pytest.mark.parametrize("begun", [False, True])
def test_a_connection_whose_handshake_ends_while_draining_is_closed_soon(begun: bool) -> None:
    world = SecureWorld()
    if not begun:
        world.front.drain("Drain")
    client = world.secure_client(handshake=False)
    if begun:
        world.front.drain("Drain")
    client.handshake()
    world.wait(DRAIN_GRACE_SECONDS + 0.2)
    client.exchange()
    assert client.closed


def test_a_paused_client_is_heard_again_when_its_tunnel_ends() -> None:
    """Its close_notify is awaited."""
    world = SecureWorld()
    client = world.secure_client()
    client.send(request("/", "Connection: upgrade", "Upgrade: websocket"))
    target = world.target()
    target.deliver(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
    target.full = True
    client.send(b"more than it takes")
    assert not client.transport.reading
    target.deliver_eof()
    client.exchange()
    assert client.closed
    client.ssl.shutdown()
    client.exchange()
    assert client.transport.ended == "closed"


# HTTP/2


class SecureHttp2Client(Http2Client):
    """A client of HTTP/2 inside TLS."""

    def __init__(self, world: SecureWorld) -> None:
        self.secure = world.secure_client(alpn=[b"h2", b"http/1.1"])
        assert self.secure.ssl.get_alpn_proto_negotiated() == b"h2"
        super().__init__(world, self.secure.transport)

    def send_raw(self, data: bytes) -> None:
        self.secure.send(data)

    def take_raw(self) -> bytes:
        self.secure.exchange()
        received, self.secure.received = self.secure.received, b""
        return received


def test_http2_by_alpn() -> None:
    world = SecureWorld(http2=True)
    client = SecureHttp2Client(world)
    stream = client.request()
    target = world.target()
    assert b"X-Forwarded-Proto: https\r\n" in target.sent
    target.deliver(answer(b"hello"))
    assert client.answer_to(stream).body == b"hello"
    [record] = world.log.records
    assert (record.kind, record.version, record.tls_version) == ("https", b"HTTP/2.0", "TLSv1.3")
    assert record.server_name == "example.com"
    assert (world.counters.connections, world.counters.active, world.counters.tls_handshakes) == (1, 1, 1)
    assert world.counters.tls_failures == 0


def test_a_client_may_go_on_with_http1() -> None:
    world = SecureWorld(http2=True)
    client = world.secure_client(alpn=[b"http/1.1"])
    client.send(request("/fixed"))
    assert client.received.startswith(b"HTTP/1.1 200 ")


def test_http2_without_alpn_is_not_spoken_inside_tls() -> None:
    """RFC 9113 section 3.2."""
    world = SecureWorld(http2=True)
    client = world.secure_client()
    client.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
    assert client.received.startswith(b"HTTP/1.1 505 ")


def test_a_host_of_another_certificate_is_misdirected() -> None:
    """RFC 9113 section 9.1.1: clients may use one connection for many hosts, and learn so where they may not."""
    authority = Authority()
    world = SecureWorld(
        http2=True, certificates=(authority.certificate("example.com"), authority.certificate("other.example"))
    )
    client = SecureHttp2Client(world)
    stream = client.request("/fixed", authority=b"other.example")
    assert client.answer_to(stream).status == 421
    stream = client.request("/fixed", authority=b"example.com:443")
    assert client.answer_to(stream).status == 200
    assert [record.error_reason for record in world.log.records] == ["MisdirectedRequest", ""]


def test_an_http2_connection_inside_tls_ends_with_close_notify() -> None:
    world = SecureWorld(http2=True, idle_timeout_seconds=5.0)
    client = SecureHttp2Client(world)
    world.wait(5.2)
    client.move()
    assert client.goaways == [(0, 0)]
    assert client.secure.closed
