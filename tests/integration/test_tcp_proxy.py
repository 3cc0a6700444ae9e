"""The TCP proxy on real sockets."""

from __future__ import annotations

import hashlib
import socket
import struct
import time
from typing import Any

import attrs
import pytest
from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import ClientFactory, Factory, Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase
from zope.interface import implementer

from lbproxy.dataplane.deadlines import Deadlines
from lbproxy.dataplane.listener.tls import ServerTls
from lbproxy.dataplane.proxy.faults import Fault
from lbproxy.dataplane.upstream.connector import Connector
from lbproxy.dataplane.upstream.tls import ClientTls
from lbproxy.model.listener import Listener
from lbproxy.model.target import Target
from lbproxy.model.target_group import TargetTls
from lbproxy.native.transport import Acceptor
from lbproxy.telemetry.records import TcpRecord
from lbproxy.wire.proxyprotocol import ProxyHeaderReader
from tests.certificate_authority import Authority
from tests.dataplane.l4.doubles import FakeContext, TcpFactory

pytestmark = pytest.mark.integration

reactor: Any = _reactor
CA = Authority()


@implementer(IHalfCloseableProtocol)
class End(Protocol):
    """One end of the conversation: collects, and knows when the other has finished or gone."""

    transport: Any

    def __init__(self) -> None:
        self.received = bytearray()
        self.made: Deferred[End] = Deferred()
        self.finished: Deferred[bytes] = Deferred()
        self.lost: Deferred[Failure] = Deferred()

    def connectionMade(self) -> None:
        self.made.callback(self)

    def dataReceived(self, data: bytes) -> None:
        self.received += data

    def readConnectionLost(self) -> None:
        if not self.finished.called:
            self.finished.callback(bytes(self.received))

    def writeConnectionLost(self) -> None:
        pass

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.readConnectionLost()
        self.lost.callback(reason.type)


class Context(FakeContext):
    """Tells when a record was logged."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.logged: Deferred[TcpRecord] = Deferred()

    def log(self, record: TcpRecord) -> None:
        super().log(record)
        self.logged.callback(record)


class Ends(ClientFactory):
    """Gives one `End`."""

    noisy = False

    def __init__(self) -> None:
        self.end = End()

    def buildProtocol(self, addr: Any) -> End:
        return self.end


def with_certificate(listener: Listener, *names: str) -> Listener:
    return attrs.evolve(listener, certificates=(CA.certificate(*names),))


class TcpProxyTests(TestCase):
    timeout = 20

    def setUp(self) -> None:
        self.deadlines = Deadlines(reactor.callLater, time.monotonic)
        self.addCleanup(self.deadlines.stop)

    def accept(self, factory: Any) -> int:
        """Listen as a worker does."""
        skt = socket.create_server(("127.0.0.1", 0))
        acceptor = Acceptor(reactor, skt, factory)
        acceptor.start()
        self.addCleanup(acceptor.close)
        return int(skt.getsockname()[1])

    def listen(self, factory: Any) -> int:
        port = reactor.listenTCP(0, factory, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        return int(port.getHost().port)

    def unused_port(self) -> int:
        """A port at which nobody listens."""
        with socket.socket() as skt:
            skt.bind(("127.0.0.1", 0))
            return int(skt.getsockname()[1])

    def target(self, tls: ServerTls | None = None) -> tuple[End, Target]:
        ends: Any = Ends()
        factory = Factory.forProtocol(lambda: ends.end)
        port = self.listen(factory if tls is None else TLSMemoryBIOFactory(tls, False, factory))
        return ends.end, Target(host="127.0.0.1", port=port, address="127.0.0.1")

    async def relay(self, *, tls: bool = False, target_tls: bool = False, **options: Any) -> tuple[End, End]:
        """Set up a client and a target that are joined by the proxy."""
        server = None
        if target_tls:
            options["target_protocol"] = "TLS"
            server = ServerTls(with_certificate(Context([]).listener, "127.0.0.1"))
        end, target = self.target(server)
        return await self.join(end, [target], tls=tls, **options)

    async def join(self, target_end: End, targets: list[Target], tls: bool = False, **options: Any) -> tuple[End, End]:
        protocol = "TLS" if tls else "TCP"
        connector = Connector(reactor, self.deadlines)
        self.context = context = Context(
            targets,
            protocol=protocol,
            connector=connector,
            deadlines=self.deadlines,
            target_tls=TargetTls(ca_pem=CA.root_pem),
            **options,
        )
        factory: Any = TcpFactory(context)
        if tls:
            factory = TLSMemoryBIOFactory(ServerTls(with_certificate(context.listener, "127.0.0.1")), False, factory)
        client: Any = Ends()
        outer = client
        port = self.accept(factory)
        if tls:
            me = Target(host="127.0.0.1", port=port, address="127.0.0.1")
            creator = ClientTls(TargetTls(ca_pem=CA.root_pem)).creator_for(me)
            outer = TLSMemoryBIOFactory(creator, True, client)
        reactor.connectTCP("127.0.0.1", port, outer)
        await client.end.made
        await target_end.made
        while not any(connection._relaying for connection in context.connections):
            await deferLater(reactor, 0.01)
        return client.end, target_end

    async def concluded(self, reason: str = "") -> TcpRecord:
        record = await self.context.logged
        self.assertEqual(record.error_reason, reason)
        self.assertEqual(sum(self.context.cells), 0)
        self.assertEqual(self.context.counters.active, 0)
        self.assertEqual(len(self.context.records), 1)
        return record

    async def test_half_close_is_carried_both_ways(self) -> None:
        client, target = await self.relay()
        client.transport.write(b"question")
        client.transport.loseWriteConnection()
        self.assertEqual(await target.finished, b"question")
        target.transport.write(b"answer")
        target.transport.loseWriteConnection()
        self.assertEqual(await client.finished, b"answer")
        client.transport.loseConnection()
        target.transport.loseConnection()
        await client.lost
        await target.lost
        record = await self.concluded()
        self.assertEqual((record.received_bytes, record.sent_bytes), (8, 6))

    async def test_a_large_answer_meets_a_slow_reader(self) -> None:
        """More than all buffers hold: back-pressure, and nothing is lost or reordered at the end."""
        for tls, target_tls in ((False, False), (True, False), (False, True), (True, True)):
            with self.subTest(tls=tls, target_tls=target_tls):
                client, target = await self.relay(tls=tls, target_tls=target_tls)
                data = b"".join(struct.pack("!I", number) for number in range(2_000_000))
                client.transport.pauseProducing()
                target.transport.write(data)
                target.transport.loseConnection()
                await deferLater(reactor, 0.2)
                relay = next(iter(self.context.connections))
                self.assertLess(relay._record.sent_bytes, len(data))
                client.transport.resumeProducing()
                received = await client.finished
                self.assertEqual(len(received), len(data))
                self.assertEqual(hashlib.sha256(received).digest(), hashlib.sha256(data).digest())
                client.transport.loseConnection()
                await client.lost
                await target.lost
                await self.concluded()

    async def test_a_large_upload_then_the_end(self) -> None:
        for tls, target_tls in ((False, False), (True, False), (False, True)):
            with self.subTest(tls=tls, target_tls=target_tls):
                client, target = await self.relay(tls=tls, target_tls=target_tls)
                data = bytes(5_000_000)
                client.transport.write(data)
                client.transport.loseConnection()
                self.assertEqual(len(await target.finished), len(data))
                target.transport.loseConnection()
                await client.lost
                await target.lost
                await self.concluded()

    async def test_reset_of_the_target_reaches_the_client(self) -> None:
        client, target = await self.relay()
        target.transport.abortConnection()
        self.assertIsNot(await client.lost, ConnectionDone)
        await target.lost
        await self.concluded("TargetReset")

    async def test_reset_of_the_client_reaches_the_target(self) -> None:
        client, target = await self.relay()
        client.transport.abortConnection()
        self.assertIsNot(await target.lost, ConnectionDone)
        await client.lost
        await self.concluded("ClientClosed")

    async def test_next_target_when_one_refuses(self) -> None:
        target_end, target = self.target()
        dead = Target(host="127.0.0.1", port=self.unused_port(), address="127.0.0.1")
        client, _ = await self.join(target_end, [dead, target])
        client.transport.write(b"hello")
        client.transport.loseConnection()
        self.assertEqual(await target_end.finished, b"hello")
        target_end.transport.loseConnection()
        await client.lost
        await target_end.lost
        self.assertEqual((await self.concluded()).target, target.key)
        self.assertEqual(dict(self.context.by_target[dead.key].faults), {"ConnectRefused": 1})

    async def test_proxy_header_comes_first(self) -> None:
        client, target = await self.relay(proxy_protocol="v2")
        client.transport.write(b"data")
        client.transport.loseWriteConnection()
        reader = ProxyHeaderReader()
        header = reader.receive_data(await target.finished)
        assert header is not None
        address = client.transport.getHost()
        self.assertEqual((header.source, reader.rest), ((address.host, address.port), b"data"))
        target.transport.loseConnection()
        client.transport.loseConnection()
        await client.lost
        await target.lost
        await self.concluded()

    async def test_abort_ends_both(self) -> None:
        for tls in (False, True):
            with self.subTest(tls=tls):
                client, target = await self.relay(tls=tls)
                next(iter(self.context.connections)).abort(Fault.DRAIN_DEADLINE)
                await client.lost
                await target.lost
                await self.concluded("DrainDeadline")
