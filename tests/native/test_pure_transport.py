"""Transports, connecting and accepting on real loopback sockets, with a reactor that the test turns."""

from __future__ import annotations

import errno
import select
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IConsumer,
    IHalfCloseableDescriptor,
    IHalfCloseableProtocol,
    IPushProducer,
    IReadDescriptor,
    IReadWriteDescriptor,
    ITCPTransport,
)
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from lbproxy.native.pure.transport import Acceptor, StreamTransport, connect
from tests.native.harness import reset
from tests.turning import Turning

HOST = "127.0.0.1"


@pytest.fixture
def turning() -> Iterator[Turning]:
    turning = Turning()
    yield turning
    turning.close()


class Ends(Protocol):
    """Notes what happens to it."""

    def __init__(self) -> None:
        self.received = b""
        self.lost: list[Exception] = []
        self.paused = 0
        self.resumed = 0
        self.stopped = 0

    def dataReceived(self, data: bytes) -> None:
        self.received += data

    def connectionLost(self, reason: Failure = Failure(ConnectionDone())) -> None:  # noqa: B008
        assert reason.value is not None
        self.lost.append(reason.value)

    def pauseProducing(self) -> None:
        self.paused += 1

    def resumeProducing(self) -> None:
        self.resumed += 1

    def stopProducing(self) -> None:
        self.stopped += 1


@implementer(IHalfCloseableProtocol)
class HalfCloseable(Ends):
    """Hears of the end of each direction."""

    read_lost = 0
    write_lost = 0

    def readConnectionLost(self) -> None:
        self.read_lost += 1

    def writeConnectionLost(self) -> None:
        self.write_lost += 1


class Pair:
    """A transport and the plain socket at its other end."""

    def __init__(self, turning: Turning, protocol: Ends | None = None) -> None:
        with socket.create_server((HOST, 0)) as listening:
            self.peer = socket.create_connection(listening.getsockname())
            skt, address = listening.accept()
        skt.setblocking(False)
        skt.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 20_000)
        self.peer.settimeout(5)
        self.protocol: Any = protocol or Ends()
        self.transport: Any = StreamTransport(skt, self.protocol, turning.reactor, address)
        self.transport.made()

    def read_all(self, turning: Turning, size: int) -> bytes:
        """Read so much at the other end while the reactor turns."""
        data = b""
        end = time.monotonic() + 10
        while len(data) < size:
            assert time.monotonic() < end, f"{len(data)} of {size}"
            turning.reactor.iterate(0)
            if select.select([self.peer], [], [], 0.001)[0]:
                more = self.peer.recv(65536)
                if not more:
                    break
                data += more
        return data


@pytest.fixture
def pair(turning: Turning) -> Iterator[Pair]:
    pair = Pair(turning)
    yield pair
    pair.peer.close()


def test_the_interfaces(turning: Turning, pair: Pair) -> None:
    for interface in (ITCPTransport, IConsumer, IPushProducer, IHalfCloseableDescriptor, IReadWriteDescriptor):
        assert verifyObject(interface, pair.transport)
    with socket.create_server((HOST, 0)) as listening:
        assert verifyObject(IReadDescriptor, Acceptor(turning.reactor, listening, Serving()))


def test_the_addresses(pair: Pair) -> None:
    own, peer = pair.transport.getHost(), pair.transport.getPeer()
    assert (own.host, own.port) == pair.peer.getpeername()
    assert (peer.host, peer.port) == pair.peer.getsockname()


# Writing


def test_a_write_is_sent_at_once(turning: Turning, pair: Pair) -> None:
    pair.transport.write(b"hello ")
    pair.transport.writeSequence([b"wor", b"ld"])
    assert pair.peer.recv(100) == b"hello world"
    assert pair.transport not in turning.reactor.getWriters()


def test_what_the_kernel_does_not_take_is_sent_later_in_order(turning: Turning, pair: Pair) -> None:
    pieces = [bytes([number]) * 40_000 for number in range(50)]
    for piece in pieces:
        pair.transport.write(piece)
    assert pair.transport in turning.reactor.getWriters()
    assert pair.read_all(turning, 2_000_000) == b"".join(pieces)
    turning.until(lambda: pair.transport not in turning.reactor.getWriters())
    pair.transport.write(b"at once again")
    assert pair.peer.recv(100) == b"at once again"


def test_a_producer_is_paused_while_much_waits_and_resumed_when_all_is_sent(turning: Turning, pair: Pair) -> None:
    pair.transport.registerProducer(pair.protocol, True)
    pair.transport.write(b"x" * 1000)
    assert pair.protocol.paused == 0
    pair.peer.recv(1000)
    while not pair.protocol.paused:
        pair.transport.write(b"x" * 50_000)
    waiting = 50_000 * 20
    for _ in range(20):
        pair.transport.write(b"y" * 50_000)
    assert pair.protocol.resumed == 0
    while pair.protocol.resumed == 0:
        turning.turn(1)
        if select.select([pair.peer], [], [], 0.001)[0]:
            waiting -= pair.peer.recv(65536).count(b"y")
    pair.transport.unregisterProducer()
    assert pair.read_all(turning, waiting).count(b"y") == waiting
    assert pair.protocol.resumed == 1


def test_a_write_to_a_reset_connection_is_reported_later(turning: Turning, pair: Pair) -> None:
    pair.transport.pauseProducing()
    reset(pair.peer)
    pair.transport.write(b"x")
    pair.transport.write(b"y")
    assert pair.protocol.lost == []
    turning.until(lambda: pair.protocol.lost)
    assert isinstance(pair.protocol.lost[0], ConnectionLost)
    pair.transport.write(b"z")


# Reading


def test_data_is_read_unless_paused(turning: Turning, pair: Pair) -> None:
    pair.peer.sendall(b"one")
    turning.until(lambda: pair.protocol.received == b"one")
    pair.transport.pauseProducing()
    pair.peer.sendall(b"two")
    turning.turn()
    assert pair.protocol.received == b"one"
    pair.transport.resumeProducing()
    turning.until(lambda: pair.protocol.received == b"onetwo")


def test_the_peers_end_is_the_connections(turning: Turning, pair: Pair) -> None:
    pair.transport.registerProducer(pair.protocol, True)
    pair.peer.close()
    turning.until(lambda: pair.protocol.lost)
    assert isinstance(pair.protocol.lost[0], ConnectionDone)
    assert pair.protocol.stopped == 1
    assert pair.transport not in turning.reactor.getReaders()


def test_a_reset_is_a_loss(turning: Turning, pair: Pair) -> None:
    reset(pair.peer)
    turning.until(lambda: pair.protocol.lost)
    assert isinstance(pair.protocol.lost[0], ConnectionLost)


# Half-close


def test_the_peers_half_close_leaves_the_way_back_open(turning: Turning) -> None:
    pair = Pair(turning, HalfCloseable())
    pair.peer.sendall(b"the end")
    pair.peer.shutdown(socket.SHUT_WR)
    turning.until(lambda: pair.protocol.read_lost)
    assert pair.protocol.received == b"the end"
    assert pair.protocol.lost == []
    pair.transport.write(b"answer")
    assert pair.peer.recv(100) == b"answer"
    turning.turn()
    assert pair.protocol.read_lost == 1
    pair.peer.close()


def test_our_half_close_comes_after_all_that_was_written(turning: Turning) -> None:
    pair = Pair(turning, HalfCloseable())
    pair.transport.write(b"x" * 1_000_000)
    pair.transport.loseWriteConnection()
    turning.turn()
    assert pair.protocol.write_lost == 0
    assert len(pair.read_all(turning, 1_000_001)) == 1_000_000
    turning.until(lambda: pair.protocol.write_lost)
    pair.transport.write(b"too late")
    assert pair.peer.recv(100) == b""
    pair.peer.sendall(b"still heard")
    turning.until(lambda: pair.protocol.received == b"still heard")
    pair.transport.loseConnection()
    turning.until(lambda: pair.protocol.lost)
    assert isinstance(pair.protocol.lost[0], ConnectionDone)
    pair.peer.close()


# Closing


def test_closing_is_never_told_from_within(turning: Turning, pair: Pair) -> None:
    pair.transport.write(b"x")
    pair.transport.loseConnection()
    assert pair.protocol.lost == []
    pair.transport.loseConnection()
    turning.until(lambda: pair.protocol.lost)
    assert isinstance(pair.protocol.lost[0], ConnectionDone)
    assert (pair.peer.recv(10), pair.peer.recv(10)) == (b"x", b"")


def test_closing_waits_for_what_was_written(turning: Turning, pair: Pair) -> None:
    pair.transport.write(b"x" * 1_000_000)
    pair.transport.loseConnection()
    turning.turn()
    assert pair.protocol.lost == []
    assert len(pair.read_all(turning, 1_000_001)) == 1_000_000
    turning.until(lambda: pair.protocol.lost)
    assert isinstance(pair.protocol.lost[0], ConnectionDone)


def test_aborting_resets_and_drops_what_waits(turning: Turning, pair: Pair) -> None:
    pair.transport.write(b"x" * 1_000_000)
    pair.transport.abortConnection()
    assert pair.protocol.lost == []
    turning.until(lambda: pair.protocol.lost)
    assert isinstance(pair.protocol.lost[0], ConnectionAborted)
    received = 0
    try:
        while more := pair.peer.recv(65536):
            received += len(more)
    except ConnectionResetError:
        assert received < 1_000_000
    else:
        raise AssertionError("it ended in order")


def test_nothing_is_sent_after_an_abort(turning: Turning, pair: Pair) -> None:
    pair.transport.abortConnection()
    pair.transport.write(b"x")
    pair.peer.setblocking(False)
    with pytest.raises(BlockingIOError):
        pair.peer.recv(10)
    turning.until(lambda: pair.protocol.lost)


@pytest.mark.parametrize("waiting", [0, 1_000_000])
@pytest.mark.parametrize("half_closed", [False, True])
def test_an_abort_stays_one(turning: Turning, half_closed: bool, waiting: int) -> None:
    pair = Pair(turning, HalfCloseable())
    if half_closed:
        pair.transport.loseWriteConnection()
        turning.until(lambda: pair.protocol.write_lost)
    pair.transport.write(b"x" * waiting)
    pair.transport.abortConnection()
    pair.transport.loseConnection()
    assert pair.protocol.lost == []
    turning.until(lambda: pair.protocol.lost)
    assert isinstance(pair.protocol.lost[0], ConnectionAborted)
    pair.peer.close()


# Connecting


class Outcome:
    """What became of an attempt to connect."""

    def __init__(self) -> None:
        self.failure: OSError | None = None

    def failed(self, error: OSError) -> None:
        assert self.failure is None
        self.failure = error


def free_port() -> int:
    with socket.create_server((HOST, 0)) as listening:
        port: int = listening.getsockname()[1]
        return port


def test_connecting(turning: Turning) -> None:
    protocol, outcome = Ends(), Outcome()
    with socket.create_server((HOST, 0)) as listening:
        transport = connect(turning.reactor, HOST, listening.getsockname()[1], protocol, outcome.failed)
        assert not protocol.connected
        turning.until(lambda: protocol.connected)
        skt, _ = listening.accept()
    with skt:
        protocol.transport.write(b"hello")  # type: ignore[union-attr]
        assert skt.recv(100) == b"hello"
        skt.sendall(b"back")
        turning.until(lambda: protocol.received == b"back")
        assert transport.getTcpNoDelay()
        transport.cancel()
        turning.turn()
        assert protocol.lost == [], "it is too late to cancel"
        transport.loseConnection()
        turning.until(lambda: protocol.lost)
        assert skt.recv(100) == b""
    assert outcome.failure is None


def test_a_refused_connection(turning: Turning) -> None:
    protocol, outcome = Ends(), Outcome()
    transport = connect(turning.reactor, HOST, free_port(), protocol, outcome.failed)
    assert outcome.failure is None, "not at once"
    turning.until(lambda: outcome.failure)
    assert outcome.failure is not None
    assert outcome.failure.errno == errno.ECONNREFUSED
    assert not protocol.connected
    transport.cancel()
    assert transport.fileno() == -1


def test_cancelling(turning: Turning) -> None:
    protocol, outcome = Ends(), Outcome()
    with socket.create_server((HOST, 0)) as listening:
        for port in (listening.getsockname()[1], free_port()):
            transport = connect(turning.reactor, HOST, port, protocol, outcome.failed)
            transport.cancel()
            transport.cancel()
            turning.turn(5)
    assert outcome.failure is None
    assert not protocol.connected
    assert transport.fileno() == -1


def test_an_address_that_cannot_be_reached_at_all(turning: Turning) -> None:
    """connect(2) says so at once; the protocol is still told later."""
    for cancelled in (False, True):
        outcome = Outcome()
        transport = connect(turning.reactor, "::ffff:255.255.255.255", 9, Ends(), outcome.failed)
        assert outcome.failure is None
        if cancelled:
            transport.cancel()
        turning.turn(5)
        assert (outcome.failure is None) is cancelled


@pytest.mark.parametrize("cancelled", [False, True])
def test_no_descriptor_for_a_connection(turning: Turning, monkeypatch: pytest.MonkeyPatch, cancelled: bool) -> None:
    def fail(*args: Any) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    outcome = Outcome()
    with monkeypatch.context() as patched:
        patched.setattr(socket, "socket", fail)
        transport = connect(turning.reactor, HOST, 9, Ends(), outcome.failed)
    assert outcome.failure is None
    assert not transport.connected
    if cancelled:
        transport.cancel()
    turning.turn(5)
    assert (outcome.failure is None) is cancelled


# Accepting


class Serving:
    """A factory that keeps its protocols."""

    def __init__(self) -> None:
        self.protocols: list[Ends] = []

    def buildProtocol(self, addr: Any) -> Any:
        self.protocols.append(Ends())
        return self.protocols[-1]


class Refusing:
    def buildProtocol(self, addr: Any) -> None:
        return None


def clients(listening: socket.socket, count: int) -> list[socket.socket]:
    return [socket.create_connection(listening.getsockname(), 5) for _ in range(count)]


def test_connections_are_accepted_in_batches(turning: Turning) -> None:
    listening = socket.create_server((HOST, 0), backlog=200)
    serving = Serving()
    acceptor = Acceptor(turning.reactor, listening, serving)
    waiting = clients(listening, 100)
    turning.turn()
    assert serving.protocols == [], "not before start"
    acceptor.start()
    acceptor.doRead()
    assert len(serving.protocols) == 64
    turning.until(lambda: len(serving.protocols) == 100)
    waiting[-1].sendall(b"hello")
    turning.until(lambda: any(protocol.received == b"hello" for protocol in serving.protocols))
    acceptor.close()
    assert acceptor.fileno() == -1
    for client in waiting:
        client.close()
    turning.until(lambda: all(protocol.lost for protocol in serving.protocols))


def test_finish_takes_what_is_queued(turning: Turning) -> None:
    listening = socket.create_server((HOST, 0), backlog=200)
    serving = Serving()
    acceptor = Acceptor(turning.reactor, listening, serving)
    acceptor.start()
    waiting = clients(listening, 150)
    address = listening.getsockname()
    acceptor.finish()
    assert len(serving.protocols) == 150
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address, 5)
    for client in waiting:
        client.close()
    acceptor.finish()
    acceptor.close()


def test_a_factory_may_refuse_and_be_replaced(turning: Turning) -> None:
    listening = socket.create_server((HOST, 0))
    acceptor = Acceptor(turning.reactor, listening, Refusing())
    acceptor.start()
    [client] = clients(listening, 1)
    turning.turn()
    assert client.recv(1) == b""
    serving = Serving()
    acceptor.set_factory(serving)
    [other] = clients(listening, 1)
    turning.until(lambda: serving.protocols)
    acceptor.close()
    client.close()
    other.close()


class FakeListening:
    """A listening socket whose accept gives what it is told."""

    def __init__(self, *outcomes: Any) -> None:
        self.outcomes = list(outcomes)
        self.closed = False

    def setblocking(self, flag: bool) -> None:
        assert not flag

    def fileno(self) -> int:
        return 99

    def accept(self) -> Any:
        if not self.outcomes:
            raise BlockingIOError
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, int):
            raise OSError(outcome, "as the test says")
        return outcome

    def close(self) -> None:
        self.closed = True


class FakeReactor(Clock):
    """Knows who reads."""

    def __init__(self) -> None:
        super().__init__()
        self.readers: set[Any] = set()

    def addReader(self, reader: Any) -> None:
        assert reader.fileno() >= 0
        self.readers.add(reader)

    def removeReader(self, reader: Any) -> None:
        self.readers.discard(reader)

    def removeWriter(self, writer: Any) -> None: ...


class AcceptorTests(SynchronousTestCase):
    def accepted(self) -> tuple[socket.socket, Any]:
        ours, theirs = socket.socketpair()
        self.addCleanup(ours.close)
        self.addCleanup(theirs.close)
        return ours, ("192.0.2.7", 4000)

    def test_a_rest_when_descriptors_have_run_out(self) -> None:
        for number in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
            reactor, serving = FakeReactor(), Serving()
            acceptor = Acceptor(reactor, FakeListening(number, self.accepted()), serving)  # type: ignore[arg-type]
            acceptor.start()
            acceptor.doRead()
            self.assertEqual(reactor.readers, set())
            reactor.advance(0.4)
            self.assertEqual(reactor.readers, set())
            reactor.advance(0.2)
            self.assertEqual(reactor.readers, {acceptor})
            acceptor.doRead()
            self.assertEqual(len(serving.protocols), 1)

    def test_closing_during_the_rest(self) -> None:
        reactor = FakeReactor()
        listening = FakeListening(errno.EMFILE)
        acceptor = Acceptor(reactor, listening, Serving())  # type: ignore[arg-type]
        acceptor.start()
        acceptor.doRead()
        acceptor.close()
        reactor.advance(1)
        self.assertEqual(reactor.readers, set())
        self.assertTrue(listening.closed)

    def test_a_connection_that_was_reset_in_the_queue_is_passed_over(self) -> None:
        reactor, serving = FakeReactor(), Serving()
        listening = FakeListening(errno.ECONNABORTED, self.accepted(), errno.ECONNABORTED, self.accepted())
        acceptor = Acceptor(reactor, listening, serving)  # type: ignore[arg-type]
        acceptor.finish()
        self.assertEqual(len(serving.protocols), 2)
        self.assertTrue(listening.closed)

    def test_finishing_during_the_rest(self) -> None:
        reactor = FakeReactor()
        listening = FakeListening(errno.EMFILE, errno.EMFILE)
        acceptor = Acceptor(reactor, listening, Serving())  # type: ignore[arg-type]
        acceptor.start()
        acceptor.doRead()
        acceptor.finish()
        self.assertTrue(listening.closed)
        self.assertEqual(reactor.getDelayedCalls(), [])

    def test_a_connection_that_cannot_be_served_costs_only_itself(self) -> None:
        class Failing(Serving):
            def buildProtocol(self, addr: Any) -> Any:
                protocol = super().buildProtocol(addr)
                if len(self.protocols) == 1:
                    raise ValueError("cannot be built")
                if len(self.protocols) == 2:
                    protocol.connectionMade = self.fail
                return protocol

            def fail(self) -> None:
                raise ValueError("cannot begin")

        reactor, serving = FakeReactor(), Failing()
        accepted = [self.accepted() for _ in range(3)]
        acceptor = Acceptor(reactor, FakeListening(*accepted), serving)  # type: ignore[arg-type]
        acceptor.start()
        acceptor.doRead()
        reactor.advance(0)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 2)
        self.assertEqual([skt.fileno() >= 0 for skt, _ in accepted], [False, False, True])
        self.assertIn(acceptor, reactor.readers)
