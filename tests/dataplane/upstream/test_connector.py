"""Connecting to targets on loopback: TCP, the PROXY header, TLS, and everything that can go wrong."""

from __future__ import annotations

import os
import resource
import socket
import time
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
from twisted.internet.interfaces import IProtocol
from twisted.internet.protocol import Factory, Protocol
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from zope.interface.verify import verifyObject

from lbproxy.dataplane.deadlines import Deadlines
from lbproxy.dataplane.listener.proxyprotocol import ProxyProtocolFactory
from lbproxy.dataplane.listener.tls import ServerTls
from lbproxy.dataplane.proxy.faults import Fault
from lbproxy.dataplane.upstream.connector import Connector
from lbproxy.model.listener import Bind, Listener, ListenerProtocol
from lbproxy.model.rule import FixedResponse
from lbproxy.model.target import Target
from lbproxy.model.target_group import TargetGroup, TargetProtocol, TargetTls
from lbproxy.native.transport import Acceptor
from lbproxy.wire.proxyprotocol import encode_v1
from tests.certificate_authority import Authority
from tests.turning import Turning

HOST = "127.0.0.1"
HEADER = encode_v1(("192.0.2.7", 40000), ("198.51.100.1", 8080))


@cache
def authority() -> Authority:
    return Authority()


class Ours:
    """The protocol that wants a connection; notes what becomes of it."""

    def __init__(self) -> None:
        self.transport: Any = None
        self.received = b""
        self.lost: Failure | None = None
        self.fault: Fault | None = None
        self.detail = ""

    @property
    def settled(self) -> bool:
        return self.transport is not None or self.fault is not None

    def makeConnection(self, transport: Any) -> None:
        assert not self.settled
        self.transport = transport

    def dataReceived(self, data: bytes) -> None:
        self.received += data

    def connectionLost(self, reason: Failure) -> None:
        assert self.transport is not None
        self.lost = reason

    def connectFailed(self, fault: Fault, detail: str) -> None:
        assert not self.settled
        self.fault, self.detail = fault, detail


class Theirs(Protocol):
    """A target that notes what it gets and answers with the same in capitals."""

    def __init__(self, addr: Any) -> None:
        self.addr = addr
        self.received = b""
        self.lost: Failure | None = None

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        self.transport.write(data.upper())  # type: ignore[union-attr]

    def connectionLost(self, reason: Failure | None = None) -> None:  # type: ignore[override]
        self.lost = reason


class Targets(Factory):
    """Builds `Theirs`."""

    noisy = False

    def __init__(self) -> None:
        self.made: list[Theirs] = []

    def buildProtocol(self, addr: Any) -> Any:
        self.made.append(Theirs(addr))
        return self.made[-1]


class Scene:
    """A reactor, a connector and a target."""

    def __init__(self) -> None:
        self.turning = Turning()
        self.deadlines = Deadlines(self.turning.reactor.callLater, time.monotonic)
        self.connector = Connector(self.turning.reactor, self.deadlines)
        self.targets = Targets()
        self.ours = Ours()
        self.port = 9
        self.attempt: Any = None

    def listen(self, factory: Any = None) -> None:
        skt = socket.create_server((HOST, 0))
        self.port = skt.getsockname()[1]
        Acceptor(self.turning.reactor, skt, factory or self.targets).start()

    def listen_tls(self, name: str = "app.example.com", proxy_protocol: bool = False) -> None:
        listener = Listener(
            name="target",
            protocol=ListenerProtocol.TLS,
            binds=(Bind(HOST, 0),),
            default_action=FixedResponse(status=200),
            certificates=(authority().certificate(name),),
        )
        factory: Any = TLSMemoryBIOFactory(ServerTls(listener), False, self.targets, self.turning.reactor)
        if proxy_protocol:
            factory = ProxyProtocolFactory(factory, ("127.0.0.0/8",), 5.0, self.turning.reactor)
        self.listen(factory)

    def connect(self, protocol: TargetProtocol = TargetProtocol.HTTP, header: bytes = b"", **settings: Any) -> None:
        tls = TargetTls(
            verify=settings.pop("verify", True),
            server_name=settings.pop("server_name", "app.example.com"),
            ca_pem=authority().root_pem,
        )
        group = TargetGroup(name="app", protocol=protocol, tls=tls, **settings)
        target = Target(host=HOST, port=self.port, address=HOST)
        self.attempt = self.connector.connect(group, target, self.ours, header)
        assert not self.ours.settled, "not at once"

    def settle(self) -> None:
        self.turning.until(lambda: self.ours.settled)
        self.turning.turn()

    def talk(self) -> None:
        self.ours.transport.write(b"hello")
        self.turning.until(lambda: self.ours.received == b"HELLO")


@pytest.fixture
def scene() -> Iterator[Scene]:
    scene = Scene()
    yield scene
    scene.deadlines.stop()
    scene.turning.close()


def test_a_tcp_connection(scene: Scene) -> None:
    scene.listen()
    scene.connect()
    assert verifyObject(IProtocol, scene.attempt)
    scene.settle()
    scene.talk()
    scene.attempt.cancel()
    scene.turning.turn()
    assert scene.ours.lost is None, "it is too late to cancel"
    scene.ours.transport.loseConnection()
    scene.turning.until(lambda: scene.ours.lost)


def test_the_header_goes_first(scene: Scene) -> None:
    scene.listen()
    scene.connect(header=HEADER)
    scene.settle()
    scene.ours.transport.write(b"hello")
    scene.turning.until(lambda: scene.targets.made and scene.targets.made[0].received == HEADER + b"hello")


def test_a_refused_connection(scene: Scene) -> None:
    with socket.create_server((HOST, 0)) as listening:
        scene.port = listening.getsockname()[1]
    scene.connect()
    scene.settle()
    assert (scene.ours.fault, scene.ours.detail) == (Fault.CONNECT_REFUSED, "Connection refused")
    scene.attempt.cancel()
    scene.attempt.expired(0.0)


def test_a_target_that_does_not_answer_the_handshake_of_tcp(scene: Scene) -> None:
    with socket.create_server((HOST, 0), backlog=0) as listening:
        scene.port = listening.getsockname()[1]
        with socket.create_connection((HOST, scene.port)):  # nobody accepts it, and the queue is full
            scene.connect(connect_timeout_seconds=0.2)
            scene.settle()
    assert (scene.ours.fault, scene.ours.detail) == (Fault.CONNECT_TIMEOUT, "TCP connect timed out")


@pytest.mark.parametrize("when", ["at once", "connected", "late"])
@pytest.mark.parametrize("protocol", [TargetProtocol.HTTP, TargetProtocol.HTTPS])
def test_cancelling(scene: Scene, protocol: TargetProtocol, when: str) -> None:
    silent = Targets()
    scene.listen(silent)
    scene.connect(protocol, connect_timeout_seconds=0.2)
    if when == "connected":
        scene.turning.until(lambda: silent.made)
    if scene.ours.settled:
        return
    scene.attempt.cancel()
    scene.attempt.cancel()
    end = time.monotonic() + (0.4 if when == "late" else 0.05)
    while time.monotonic() < end:
        scene.turning.turn(1)
    assert not scene.ours.settled
    assert all(target.lost for target in silent.made)


# TLS


@pytest.mark.parametrize("header", [b"", HEADER], ids=["", "proxy"])
def test_a_tls_connection(scene: Scene, header: bytes) -> None:
    scene.listen_tls(proxy_protocol=bool(header))
    scene.connect(TargetProtocol.HTTPS, header)
    scene.settle()
    assert scene.ours.fault is None, scene.ours.detail
    scene.talk()
    [target] = scene.targets.made
    if header:
        assert (target.addr.host, target.addr.port) == ("192.0.2.7", 40000)
    scene.ours.transport.loseConnection()
    scene.turning.until(lambda: scene.ours.lost and target.lost)


def test_a_certificate_for_another_name(scene: Scene) -> None:
    scene.listen_tls("other.example.com")
    scene.connect(TargetProtocol.HTTPS)
    scene.settle()
    assert scene.ours.fault is Fault.TLS_FAILED
    assert "other.example.com" in scene.ours.detail
    assert not scene.targets.made[0].received


def test_a_certificate_for_another_name_where_none_is_verified(scene: Scene) -> None:
    scene.listen_tls("other.example.com")
    scene.connect(TargetProtocol.HTTPS, verify=False)
    scene.settle()
    scene.talk()


def test_a_target_that_does_not_speak_tls(scene: Scene) -> None:
    scene.listen()
    scene.connect(TargetProtocol.HTTPS)
    scene.settle()
    assert scene.ours.fault is Fault.TLS_FAILED
    assert "TLS handshake failed" in scene.ours.detail


def test_a_target_that_closes_instead(scene: Scene) -> None:
    class Closing(Targets):
        def buildProtocol(self, addr: Any) -> None:
            return None

    scene.listen(Closing())
    scene.connect(TargetProtocol.HTTPS)
    scene.settle()
    assert scene.ours.fault is Fault.TLS_FAILED
    assert "closed the connection" in scene.ours.detail


def test_a_target_that_is_silent_instead(scene: Scene) -> None:
    class Silent(Protocol):
        pass

    scene.listen(Factory.forProtocol(Silent))
    scene.connect(TargetProtocol.HTTPS, connect_timeout_seconds=0.2)
    scene.settle()
    assert (scene.ours.fault, scene.ours.detail) == (Fault.TLS_FAILED, "TLS handshake timed out")


@pytest.mark.parametrize("cancelled", [False, True])
def test_a_name_that_no_certificate_can_have(scene: Scene, cancelled: bool) -> None:
    """A failure like any other, told later: the next target may have a better one."""
    scene.connect(TargetProtocol.HTTPS, server_name="b\u00fccher..example.com")
    if cancelled:
        scene.attempt.cancel()
        scene.turning.turn(5)
        assert not scene.ours.settled
        return
    scene.settle()
    assert scene.ours.fault is Fault.TLS_FAILED
    assert "b\u00fccher..example.com" in scene.ours.detail


def test_no_descriptor_for_a_connection(scene: Scene) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        scene.connect()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    scene.settle()
    assert (scene.ours.fault, scene.ours.detail) == (Fault.CONNECT_REFUSED, "Too many open files")
