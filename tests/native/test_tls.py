"""TLS straight on the socket, and Twisted's in its place: one set of tests for both, on every reactor.

The other end is the standard library's ``ssl``, which brings an OpenSSL of its own.
"""

from __future__ import annotations

import functools
import gc
import hashlib
import select
import socket
import ssl
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from OpenSSL import SSL
from twisted.internet import interfaces
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from zope.interface import implementer
from zope.interface.verify import verifyObject

from lbproxy.dataplane.listener.tls import ServerTls, describe
from lbproxy.dataplane.upstream.tls import CertificateRefused, ClientTls, explain_failure
from lbproxy.model.listener import Bind, Listener, ListenerProtocol
from lbproxy.model.target import Target
from lbproxy.model.target_group import TargetTls
from lbproxy.native import symbols, tls
from tests.certificate_authority import Authority
from tests.native.harness import BUILDS, HOST, HalfCloser, Recorder, World, descriptors, reset

BIG = bytes(range(256)) * 4096 * 4  # 4 MiB, more than the kernel takes at once


_ALSO_ABORTED: dict[bool, tuple[type[Exception], ...]] = {True: (), False: (ConnectionLost,)}
"""What Twisted's TLS says of an abort."""


@pytest.fixture(params=[*BUILDS, "native on ours, Twisted's TLS", "native on ours, callbacks in Python"])
def world(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    name, _, instead = request.param.partition(", ")
    if name not in BUILDS:
        pytest.skip("the compiled transports were not built")
    world = World(name)
    monkeypatch.setattr(tls, "direct", tls.direct and world.native and instead != "Twisted's TLS")
    monkeypatch.setattr(tls, "chooses", tls.chooses and instead != "callbacks in Python")
    yield world
    world.end()


@functools.lru_cache
def authority() -> Authority:
    return Authority()


@functools.lru_cache
def listener() -> Listener:
    return Listener(
        name="test",
        protocol=ListenerProtocol.HTTPS,
        binds=(Bind(host=HOST, port=1),),
        certificates=(authority().certificate("a.example"), authority().certificate("b.example", kind="rsa")),
        default_action=None,  # type: ignore[arg-type]
    )


def server_tls() -> ServerTls:
    return _server_tls(tls.chooses)


@functools.lru_cache
def _server_tls(_chooses: bool) -> ServerTls:
    return ServerTls(listener())


def client_context(**settings: Any) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=authority().root_pem.decode())
    context.check_hostname = False
    for name, value in settings.items():
        setattr(context, name, value)
    return context


@implementer(interfaces.IHandshakeListener)
class Listening(Recorder):
    """A recorder that is told of the handshake."""

    def handshakeCompleted(self) -> None:
        self._happened("secured")


@implementer(interfaces.IHandshakeListener)
class HalfListening(HalfCloser):
    """One that goes on with half a connection."""

    def handshakeCompleted(self) -> None:
        self._happened("secured")


class Peer:
    """The other end: ``ssl`` over a socket that never blocks, turning the reactor while it waits."""

    def __init__(
        self, world: World, skt: socket.socket, context: ssl.SSLContext, name: str | None = None, server: bool = False
    ) -> None:
        skt.setblocking(False)
        self.world = world
        self.skt = skt
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._incoming, self._outgoing, server_side=server, server_hostname=name)
        self._waiting = b""

    def step(self, read: bool = True, piece: int = 1 << 20) -> None:
        self._waiting += self._outgoing.read()
        try:
            if self._waiting:
                self._waiting = self._waiting[self.skt.send(self._waiting[:piece]) :]
        except BlockingIOError:
            pass
        if read:
            try:
                data = self.skt.recv(1 << 20)
                if data:
                    self._incoming.write(data)
                else:
                    self._incoming.write_eof()
            except BlockingIOError:
                pass
        self.world.turn(1)

    def do(self, call: Callable[..., Any], *arguments: Any, piece: int = 1 << 20) -> Any:
        end = time.monotonic() + 20
        while time.monotonic() < end:
            try:
                result = call(*arguments)
            except ssl.SSLWantReadError:
                self.step(piece=piece)
                continue
            while self._outgoing.pending or self._waiting:
                self.step(piece=piece)
            return result
        raise AssertionError("it did not happen")

    def shake_hands(self, piece: int = 1 << 20) -> None:
        self.do(self.tls.do_handshake, piece=piece)

    def send(self, data: bytes) -> None:
        self.do(self.tls.write, data)

    def receive(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            more = self.do(self.tls.read, 1 << 16)
            assert more, "an early end"
            data += more
        return bytes(data)

    def ended(self) -> bool:
        """Whether close_notify comes."""
        try:
            return self.do(self.tls.read, 1) == b""
        except ssl.SSLZeroReturnError:
            return True
        except ssl.SSLEOFError:
            return False

    def say_end(self) -> None:
        """Send close_notify; do not wait for the other's."""
        try:
            self.tls.unwrap()
        except ssl.SSLWantReadError:
            pass
        self.step(read=False)


def accepted(world: World, protocol: Any) -> socket.socket:
    """A socket whose other end is ``protocol``'s, in TLS."""
    acceptor, port = world.acceptor(tls.ServerTlsFactory(server_tls(), protocol))
    skt = world.peer(port)
    world.until(lambda: protocol.transport is not None)
    acceptor.close()
    return skt


def secured(world: World, protocol: Any, **settings: Any) -> Peer:
    peer = Peer(world, accepted(world, protocol), client_context(**settings), "a.example")
    peer.shake_hands()
    world.until(lambda: "secured" in protocol.events)
    return peer


@pytest.fixture
def half_closing(world: World) -> None:
    if not tls.direct:
        pytest.skip("Twisted's TLS, which stands in here, has no half-closed connections")


# The handshake


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_handshake_and_bytes_both_ways(world: World, version: ssl.TLSVersion) -> None:
    protocol = Listening(data=lambda self: self.transport.write(self.data.upper()))
    peer = secured(world, protocol, minimum_version=version, maximum_version=version)
    peer.send(b"hello")
    assert peer.receive(5) == b"HELLO"
    assert protocol.events == ["made", "secured", "data"]


def test_it_provides_the_interfaces_of_a_tls_transport(world: World) -> None:
    protocol = Listening()
    secured(world, protocol)
    transport = protocol.transport
    for interface in (interfaces.ISSLTransport, interfaces.INegotiated, interfaces.IPushProducer, interfaces.IConsumer):
        assert interface.providedBy(transport) or interface is interfaces.IConsumer, interface
    verifyObject(interfaces.ISSLTransport, transport)
    assert transport.getPeer().host == transport.getHost().host == HOST
    assert transport.getPeerCertificate() is None
    assert isinstance(transport.getHandle(), SSL.Connection)
    assert transport.wrappedProtocol is protocol
    assert transport.connected
    assert not transport.disconnecting


def test_the_server_name_chooses_the_certificate_and_alpn_is_agreed_on(world: World) -> None:
    for name, kind in (("a.example", "ec"), ("b.example", "rsa")):
        protocol = Listening()
        context = client_context(check_hostname=True)
        context.set_alpn_protocols(["h9", "http/1.1"])
        peer = Peer(world, accepted(world, protocol), context, name)
        peer.shake_hands()
        world.until(lambda: "secured" in protocol.events)  # noqa: B023
        assert peer.tls.selected_alpn_protocol() == "http/1.1"
        assert protocol.transport.negotiatedProtocol == b"http/1.1"
        details = describe(protocol.transport)
        assert (details.server_name, details.alpn, details.resumed) == (name, b"http/1.1", False), kind


def test_a_client_that_sends_one_byte_at_a_time(world: World) -> None:
    protocol = Listening()
    peer = Peer(world, accepted(world, protocol), client_context(), "a.example")
    peer.shake_hands(piece=1)
    peer.do(peer.tls.write, b"slowly", piece=1)
    world.until(lambda: protocol.data == b"slowly")


def test_what_is_written_before_the_handshake_is_sent_after_it(world: World) -> None:
    protocol = Listening(made=lambda self: self.transport.write(b"early"))
    peer = secured(world, protocol)
    assert peer.receive(5) == b"early"


def test_what_was_read_already_is_part_of_the_handshake(world: World) -> None:
    """As behind a PROXY header, with which the ClientHello came."""

    class Header(Recorder):
        def dataReceived(self, data: bytes) -> None:
            assert data.startswith(b"header")
            wrapped = factory.buildProtocol(None)
            self.transport.protocol = wrapped
            wrapped.makeConnection(self.transport)
            if len(data) > 6:
                wrapped.dataReceived(data[6:])

    for piece in (1 << 20, 6, 7, 100):
        protocol = Listening()
        factory = tls.ServerTlsFactory(server_tls(), protocol)
        skt = world.pair(Header())
        peer = Peer(world, skt, client_context(), "a.example")
        peer._waiting = b"header"
        with pytest.raises(ssl.SSLWantReadError):
            peer.tls.do_handshake()
        peer.step(piece=piece)
        world.turn()
        peer.shake_hands()
        peer.send(b"x" * 20000)
        world.until(lambda: protocol.data == b"x" * 20000)  # noqa: B023
        protocol.transport.write(b"back")
        assert peer.receive(4) == b"back"
        assert protocol.events[:2] == ["made", "secured"]


def test_garbage_behind_a_header_is_refused(world: World) -> None:
    class Header(Recorder):
        def dataReceived(self, data: bytes) -> None:
            wrapped = tls.ServerTlsFactory(server_tls(), protocol).buildProtocol(None)
            self.transport.protocol = wrapped
            wrapped.makeConnection(self.transport)
            wrapped.dataReceived(data)

    protocol = Listening()
    skt = world.pair(Header())
    skt.sendall(b"\x16\x03\x01\x00\x05hello")
    world.until(lambda: protocol.reason)
    assert protocol.reason.check(SSL.Error), protocol.reason
    assert skt.recv(100)[:1] == b"\x15"


def test_garbage_instead_of_a_client_hello(world: World) -> None:
    protocol = Listening()
    skt = accepted(world, protocol)
    skt.sendall(b"\x80" * 5000)
    world.until(lambda: protocol.reason)
    assert protocol.reason.check(SSL.Error), protocol.reason
    assert protocol.events == ["made", "lost"]
    assert explain_failure(protocol.reason).startswith("TLS handshake failed: ")
    skt.settimeout(5)
    assert skt.recv(100)[:1] in (b"\x15", b"")


@pytest.mark.parametrize("sent", [b"", b"\x16\x03\x01"])
def test_an_end_during_the_handshake(world: World, sent: bytes) -> None:
    protocol = Listening()
    skt = accepted(world, protocol)
    skt.sendall(sent)
    skt.close()
    world.until(lambda: protocol.reason)
    assert protocol.reason.check(ConnectionLost, ConnectionDone), protocol.reason
    assert protocol.events == ["made", "lost"]


def test_a_reset_during_the_handshake(world: World) -> None:
    protocol = Listening()
    skt = accepted(world, protocol)
    skt.sendall(b"\x16\x03\x01")
    world.turn()
    reset(skt)
    world.until(lambda: protocol.reason)
    assert protocol.reason.check(ConnectionLost)


@pytest.mark.parametrize("method", ["abortConnection", "loseConnection"])
def test_an_abort_during_the_handshake(world: World, method: str) -> None:
    protocol = Listening()
    skt = accepted(world, protocol)
    skt.sendall(b"\x16\x03\x01")
    world.turn()
    getattr(protocol.transport, method)()
    assert protocol.reason is None, "it is told later"
    world.until(lambda: protocol.reason)
    assert protocol.reason.check(ConnectionAborted, *_ALSO_ABORTED[tls.direct])
    skt.settimeout(5)
    try:
        assert skt.recv(10) in (b"", b"\x15\x03\x01\x00\x02\x02\x5a")
    except ConnectionResetError:
        pass


def test_an_abort_from_within_makeConnection(world: World) -> None:
    protocol = Listening(made=lambda self: self.transport.abortConnection())
    accepted(world, protocol)
    world.until(lambda: protocol.reason)
    assert protocol.events == ["made", "lost"]


# Data


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_big_transfers_both_ways_at_once(world: World, version: ssl.TLSVersion) -> None:
    protocol = Listening()
    peer = secured(world, protocol, minimum_version=version, maximum_version=version)
    for start in range(0, len(BIG), 100_003):
        protocol.transport.write(BIG[start : start + 100_003])
    back = bytearray()
    view = memoryview(BIG)
    while view or len(back) < len(BIG):
        if view:
            view = view[peer.tls.write(view[:100_000]) :]
        peer.step()
        try:
            back += peer.tls.read(1 << 20)
        except ssl.SSLWantReadError:
            pass
    world.until(lambda: (peer.step(), len(protocol.data) == len(BIG))[1])
    assert hashlib.sha256(back).digest() == hashlib.sha256(BIG).digest()
    assert hashlib.sha256(protocol.data).digest() == hashlib.sha256(BIG).digest()


def test_small_writes_that_had_to_wait_arrive_in_order(world: World) -> None:
    protocol = Listening()
    peer = secured(world, protocol)
    protocol.transport.write(BIG)
    pieces = [b"%d," % number for number in range(20_000)]
    for piece in pieces:
        protocol.transport.write(piece)
    protocol.transport.writeSequence([b"the ", b"end"])
    tail = b"".join(pieces) + b"the end"
    assert peer.receive(len(BIG) + len(tail)) == BIG + tail


def test_a_peer_that_does_not_read_slows_the_producer_down(world: World) -> None:
    protocol = Listening()
    peer = secured(world, protocol)
    protocol.transport.registerProducer(protocol, True)
    sent = 0
    while "pause" not in protocol.events:
        protocol.transport.write(b"x" * 65536)
        sent += 65536
        world.turn(1)
        assert sent < 100 << 20
    assert "resume" not in protocol.events
    assert peer.receive(sent) == b"x" * sent
    world.until(lambda: "resume" in protocol.events)
    protocol.transport.unregisterProducer()


def test_a_pull_producer(world: World) -> None:
    chunks = [bytes([65 + number]) * 50_000 for number in range(20)]

    class Pulled(Listening):
        def resumeProducing(self) -> None:
            if left:
                self.transport.write(left.pop(0))
            else:
                self.transport.unregisterProducer()
                self.transport.loseConnection()

    left = list(chunks)
    protocol = Pulled()
    peer = secured(world, protocol)
    if not tls.direct:
        pytest.skip("Twisted's TLS, which stands in here, serves pull producers by the global reactor only")
    protocol.transport.registerProducer(protocol, False)
    assert peer.receive(20 * 50_000) == b"".join(chunks)
    assert peer.ended()


def test_a_protocol_that_pauses_is_given_nothing(world: World) -> None:
    protocol = Listening(data=lambda self: self.transport.pauseProducing())
    peer = secured(world, protocol)
    peer.send(b"a" * 100_000)
    world.turn(10)
    first = len(protocol.data)
    assert 0 < first < 200_000
    count = protocol.pieces
    world.turn(10)
    if tls.direct:
        assert protocol.pieces == count
    end = time.monotonic() + 10
    while len(protocol.data) < 100_000:
        assert time.monotonic() < end
        protocol.transport.resumeProducing()
        peer.step()
    assert protocol.data == b"a" * 100_000


def test_a_client_that_never_reads_can_be_aborted(world: World) -> None:
    protocol = Listening()
    secured(world, protocol)
    protocol.transport.write(BIG)
    protocol.transport.loseConnection()
    world.turn(10)
    assert protocol.reason is None
    protocol.transport.abortConnection()
    world.until(lambda: protocol.reason)
    assert protocol.reason.check(ConnectionAborted, *_ALSO_ABORTED[tls.direct])


def test_a_reset_while_there_is_something_to_send(world: World) -> None:
    protocol = Listening()
    peer = secured(world, protocol)
    protocol.transport.write(BIG)
    world.turn()
    reset(peer.skt)
    world.until(lambda: protocol.reason)
    assert protocol.reason.check(ConnectionLost), protocol.reason
    protocol.transport.write(b"late")


def test_a_record_that_was_tampered_with(world: World) -> None:
    protocol = Listening()
    peer = secured(world, protocol)
    peer.skt.send(b"\x17\x03\x03\x00\x20" + b"?" * 32)
    world.until(lambda: protocol.reason)
    assert protocol.reason.check(SSL.Error), protocol.reason


def test_a_protocol_that_raises_loses_the_connection(world: World) -> None:
    def fail(self: Recorder) -> None:
        raise ZeroDivisionError

    protocol = Listening(data=fail)
    peer = secured(world, protocol)
    peer.tls.write(b"x")
    world.until(lambda: (peer.step(read=False), protocol.reason)[1])


# Ends


def test_close_notify_ends_the_connection(world: World) -> None:
    protocol = Listening()
    peer = secured(world, protocol)
    peer.tls.write(b"last")
    peer.say_end()
    world.until(lambda: protocol.reason)
    assert protocol.data == b"last"
    assert protocol.reason.check(ConnectionDone), protocol.reason
    assert peer.ended()


def test_close_notify_behind_much_data(world: World) -> None:
    protocol = Listening()
    peer = secured(world, protocol)
    peer.tls.write(BIG[:500_000])
    peer.say_end()
    world.until(lambda: (peer.step(read=False), protocol.reason)[1])
    assert protocol.data == BIG[:500_000]
    assert protocol.reason.check(ConnectionDone), protocol.reason


def test_an_end_without_close_notify_is_a_loss(world: World) -> None:
    protocol = Listening()
    peer = secured(world, protocol)
    peer.send(b"x")
    peer.skt.shutdown(socket.SHUT_WR)
    world.until(lambda: protocol.reason)
    assert protocol.reason.check(ConnectionLost), protocol.reason


def test_loseConnection_sends_all_and_close_notify_and_waits_for_the_peers(world: World) -> None:
    protocol = Listening()
    peer = secured(world, protocol)
    protocol.transport.write(BIG)
    protocol.transport.loseConnection()
    assert protocol.transport.disconnecting
    protocol.transport.write(b"too late")
    assert peer.receive(len(BIG)) == BIG
    assert peer.ended()
    assert protocol.reason is None
    peer.say_end()
    world.until(lambda: protocol.reason)
    assert protocol.reason.check(ConnectionDone), protocol.reason


def test_finish_sends_all_and_close_notify_and_waits_for_nobody(world: World) -> None:
    protocol = Listening()
    peer = secured(world, protocol)
    transport = protocol.transport
    transport.write(BIG)
    tls.finish(transport)
    assert peer.receive(len(BIG)) == BIG
    assert peer.ended()
    if tls.direct:
        world.until(lambda: protocol.reason)
        assert protocol.reason.check(ConnectionDone), protocol.reason
    else:
        assert protocol.reason is None


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_tickets_leave_with_the_first_answer(world: World, version: ssl.TLSVersion) -> None:
    """Those of TLS 1.3; in TLS 1.2 they are a part of the handshake, which the client waits for."""
    protocol = Listening()
    peer = secured(world, protocol, minimum_version=version, maximum_version=version)
    transport = protocol.transport

    def kept() -> bool:
        with socket.fromfd(transport.fileno(), socket.AF_INET, socket.SOCK_STREAM) as skt:
            return bool(skt.getsockopt(socket.IPPROTO_TCP, socket.TCP_CORK))

    if tls.direct and tls.chooses:
        assert kept() == (version is ssl.TLSVersion.TLSv1_3)
    transport.write(b"answer")
    world.turn()
    assert tls.direct is False or not kept()
    assert peer.receive(6) == b"answer"
    assert peer.tls.session.has_ticket


def test_tickets_come_soon_without_an_answer(world: World) -> None:
    peer = secured(world, Listening(), minimum_version=ssl.TLSVersion.TLSv1_3)
    world.until(lambda: select.select([peer.skt], [], [], 0)[0])


def test_loseConnection_and_a_peer_that_just_closes(world: World) -> None:
    protocol = Listening()
    peer = secured(world, protocol)
    protocol.transport.write(b"bye")
    protocol.transport.loseConnection()
    assert peer.receive(3) == b"bye"
    peer.skt.close()
    world.until(lambda: protocol.reason)


def test_loseConnection_waits_for_the_producer(world: World) -> None:
    protocol = Listening()
    peer = secured(world, protocol)
    protocol.transport.registerProducer(protocol, True)
    protocol.transport.loseConnection()
    protocol.transport.write(b"still")
    protocol.transport.unregisterProducer()
    assert peer.receive(5) == b"still"
    assert peer.ended()


@pytest.mark.usefixtures("half_closing")
def test_a_protocol_can_go_on_writing_after_close_notify(world: World) -> None:
    protocol = HalfListening()
    peer = secured(world, protocol)
    peer.send(b"question")
    peer.say_end()
    world.until(lambda: "read lost" in protocol.events)
    world.turn()
    protocol.transport.write(BIG)
    protocol.transport.loseConnection()
    assert peer.receive(len(BIG)) == BIG
    assert peer.ended()
    world.until(lambda: protocol.reason)
    assert protocol.reason.check(ConnectionDone), protocol.reason


@pytest.mark.usefixtures("half_closing")
def test_a_protocol_can_go_on_reading_after_its_close_notify(world: World) -> None:
    protocol = HalfListening()
    peer = secured(world, protocol)
    protocol.transport.write(b"last")
    protocol.transport.loseWriteConnection()
    assert peer.receive(4) == b"last"
    assert peer.ended()
    assert "write lost" in protocol.events
    peer.send(b"more")
    world.until(lambda: protocol.data == b"more")
    peer.say_end()
    world.until(lambda: protocol.reason)
    assert protocol.events[-2:] == ["read lost", "lost"]
    assert protocol.reason.check(ConnectionDone), protocol.reason


# As a client


def target_context(*names: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    import tempfile

    with tempfile.NamedTemporaryFile() as file:
        file.write(authority().pem(*names))
        file.flush()
        context.load_cert_chain(file.name)
    return context


class Connects(Listening):
    """Speaks TLS as soon as the connection stands, to a target that must be ``name``."""

    def __init__(self, name: str, ca: bytes | None, header: bytes = b"") -> None:
        super().__init__()
        settings = TargetTls(server_name=name, verify=True, ca_pem=ca)
        self.creator = ClientTls(settings).creator_for(Target(host=HOST, port=1, address=HOST))
        self.header = header
        self.inner = Listening()

    def makeConnection(self, transport: Any) -> None:
        if self.header:
            transport.write(self.header)
        self.transport = tls.start_client_tls(transport, self.creator, self.inner)


def connected(world: World, protocol: Connects) -> socket.socket:
    listening = world.listening()
    world.connect(listening.getsockname()[1], protocol)
    skt, _ = listening.accept()
    world.until(lambda: protocol.inner.transport is not None)
    return skt


@pytest.mark.parametrize("header", [b"", b"PROXY UNKNOWN\r\n"])
def test_a_client_with_a_header_ahead(world: World, header: bytes) -> None:
    protocol = Connects("a.example", authority().root_pem, header)
    skt = connected(world, protocol)
    if header:
        world.turn()
        assert skt.recv(len(header)) == header
    peer = Peer(world, skt, target_context("a.example"), server=True)
    peer.shake_hands()
    world.until(lambda: "secured" in protocol.inner.events)
    assert protocol.inner.transport is protocol.transport
    protocol.transport.write(b"ping")
    assert peer.receive(4) == b"ping"
    successor = Recorder()
    protocol.transport.wrappedProtocol = successor
    peer.send(b"pong")
    world.until(lambda: successor.data == b"pong")
    protocol.transport.loseConnection()
    assert peer.ended()
    peer.say_end()
    world.until(lambda: successor.reason)
    assert successor.reason.check(ConnectionDone)


@pytest.mark.parametrize(
    ("name", "trusted", "said"),
    [
        ("b.example", True, "certificate is for a.example, wanted b.example"),
        ("a.example", False, "certificate verify failed: "),
    ],
)
def test_a_certificate_that_is_refused(world: World, name: str, trusted: bool, said: str) -> None:
    protocol = Connects(name, authority().root_pem if trusted else Authority("Other").root_pem)
    peer = Peer(world, connected(world, protocol), target_context("a.example"), server=True)
    try:
        peer.shake_hands()
    except (ssl.SSLError, OSError):
        pass
    world.until(lambda: protocol.inner.reason)
    assert protocol.inner.reason.check(CertificateRefused), protocol.inner.reason
    assert explain_failure(protocol.inner.reason).startswith(said)
    assert protocol.inner.events == ["made", "lost"]


def test_a_target_that_speaks_no_tls(world: World) -> None:
    protocol = Connects("a.example", authority().root_pem)
    connected(world, protocol).sendall(b"220 ready\r\n")
    world.until(lambda: protocol.inner.reason)
    assert protocol.inner.reason.check(SSL.Error)
    assert explain_failure(protocol.inner.reason).startswith("TLS handshake failed: ")


def test_a_target_that_closes(world: World) -> None:
    protocol = Connects("a.example", authority().root_pem)
    connected(world, protocol).close()
    world.until(lambda: protocol.inner.reason)
    assert explain_failure(protocol.inner.reason) == "the target closed the connection during the TLS handshake"


# Session tickets


def resumes(world: World, context: ssl.SSLContext, session: Any) -> tuple[bool, Any]:
    """Connect to a server that has just been made; tell whether the session was resumed, and give the next."""
    _server_tls.cache_clear()
    protocol = Listening()
    skt = accepted(world, protocol)
    peer = Peer(world, skt, context, "a.example")
    if session is not None:
        peer.tls.session = session
    peer.shake_hands()
    world.until(lambda: "secured" in protocol.events)
    protocol.transport.write(b"x")  # the tickets come ahead of it
    peer.receive(1)
    resumed = describe(protocol.transport).resumed
    assert resumed == peer.tls.session_reused
    return resumed, peer.tls.session


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_servers_with_the_same_ticket_keys_resume_each_others_sessions(world: World, version: ssl.TLSVersion) -> None:
    if not tls.shares_tickets:
        pytest.skip("the OpenSSL in use lets nobody set ticket keys, or nothing is compiled to set them")
    first, second, third = (bytes([number]) * 80 for number in (1, 2, 3))
    context = client_context(minimum_version=version, maximum_version=version)
    tls.use_ticket_keys((first,))
    resumed, session = resumes(world, context, None)
    assert not resumed
    resumed, another = resumes(world, context, session)
    assert resumed
    if version is ssl.TLSVersion.TLSv1_3:
        assert another.id != session.id, "RFC 8446 appendix C.4: a ticket is for one use"
    session = another
    tls.use_ticket_keys((second, first))
    resumed, renewed = resumes(world, context, session)
    assert resumed
    tls.use_ticket_keys((third, second))
    assert resumes(world, context, session)[0] is False
    assert resumes(world, context, renewed)[0] is True


@pytest.mark.parametrize("keys", [(), (b"short",), (bytes(80),) * 5])
def test_ticket_keys_of_the_wrong_shape(keys: tuple[bytes, ...]) -> None:
    if not tls.shares_tickets:
        pytest.skip("the OpenSSL in use lets nobody set ticket keys, or nothing is compiled to set them")
    with pytest.raises(ValueError, match="one to four keys of 80 bytes"):
        tls.use_ticket_keys(keys)


# Cost


def test_no_descriptor_is_left(world: World) -> None:
    count = 1000 if tls.direct and hasattr(world.reactor, "native_loop") else 50
    protocols: list[Listening] = []

    class Building:
        def buildProtocol(self, addr: Any) -> Listening:
            protocols.append(Listening())
            return protocols[-1]

    _, port = world.acceptor(tls.ServerTlsFactory(server_tls(), Building()))
    context = client_context()
    before = descriptors()
    for number in range(count):
        skt = socket.create_connection((HOST, port))
        peer = Peer(world, skt, context, "a.example")
        if number % 4 == 0:
            with pytest.raises(ssl.SSLWantReadError):
                peer.tls.do_handshake()
            peer.step(piece=100)
        else:
            peer.shake_hands()
        if number % 4 == 1:
            peer.say_end()
        if number % 4 == 2:
            reset(skt)
        skt.close()
    world.until(lambda: len(protocols) == count and all(protocol.reason for protocol in protocols))
    world.turn()
    assert descriptors() == before


@pytest.mark.parametrize("state", ["handshake", "idle", "paused", "blocked", "half-closed", "closing"])
def test_a_waiting_connection_costs_nothing(world: World, state: str) -> None:
    protocol = HalfListening() if state == "half-closed" and tls.direct else Listening()
    if state == "handshake":
        accepted(world, protocol).sendall(b"\x16\x03\x01\x02")
    else:
        peer = secured(world, protocol)
        if state == "paused":
            protocol.transport.pauseProducing()
            peer.send(b"x" * 50_000)
        elif state == "blocked":
            protocol.transport.write(BIG)
        elif state == "half-closed":
            peer.say_end()
        elif state == "closing":
            protocol.transport.loseConnection()
    world.turn(50)
    turns = 0
    end = time.monotonic() + 0.3
    while time.monotonic() < end:
        world.reactor.iterate(0.1)
        turns += 1
    assert turns <= 6


@pytest.mark.parametrize("asked", [False, True])
def test_a_closed_connection_leaves_nothing(world: World, asked: bool) -> None:
    """Whether or not somebody has asked for pyOpenSSL's connection."""
    protocol = Listening()
    peer = secured(world, protocol)
    transport = protocol.transport
    handle = transport.getHandle() if asked else None
    peer.say_end()
    world.until(lambda: protocol.reason is not None)
    if tls.direct:
        assert transport.getHandle() is None
        left = weakref.ref(handle) if asked else None
        del handle
        assert left is None or left() is None


def test_closed_connections_leave_nothing_to_the_collector(world: World) -> None:
    """A worker's collector seldom looks."""
    if not tls.direct:
        pytest.skip("Twisted's TLS, which stands in here, waits for the peer before it lets go")

    protocols: list[Listening] = []

    class Building:
        def buildProtocol(self, addr: Any) -> Listening:
            protocols.append(Listening())
            return protocols[-1]

    acceptor, port = world.acceptor(tls.ServerTlsFactory(server_tls(), Building()))
    context = client_context()

    def connect_and_close() -> None:
        peer = Peer(world, world.peer(port), context, "a.example")
        peer.shake_hands()
        protocol = protocols.pop()
        tls.finish(protocol.transport)
        assert peer.ended()
        world.until(lambda: protocol.reason is not None)

    connect_and_close()
    gc.collect()
    gc.disable()
    try:
        for _ in range(10):
            connect_and_close()
        assert gc.collect() < 10
    finally:
        gc.enable()
        acceptor.close()


def test_a_connection_outlives_the_contexts_of_its_listener(world: World) -> None:
    """A reload replaces them while a handshake has only begun."""
    server = ServerTls(listener())
    protocol = Listening()
    acceptor, port = world.acceptor(tls.ServerTlsFactory(server, protocol))
    skt = world.peer(port)
    world.until(lambda: protocol.transport is not None)
    acceptor.close()
    del server, acceptor
    gc.collect()
    Peer(world, skt, client_context(), "b.example").shake_hands()
    world.until(lambda: "secured" in protocol.events)
    assert describe(protocol.transport).server_name == "b.example"


# Where OpenSSL's functions are


def test_functions_that_are_bound_are_found() -> None:
    assert symbols.bound(["SSL_read", "SSL_nonsense"]).keys() == {"SSL_read"}


def test_functions_that_are_not_bound_are_found_all_or_none() -> None:
    found = symbols.unbound(["SSL_has_pending", "SSL_set_read_ahead"])
    assert found.keys() in ({"SSL_has_pending", "SSL_set_read_ahead"}, set())
    assert symbols.unbound(["SSL_has_pending", "SSL_nonsense"]) == {}
