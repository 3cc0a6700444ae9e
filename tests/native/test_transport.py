"""The TCP transports of both builds, on every reactor that may carry them: one set of tests for all."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import time
from collections.abc import Iterator

import pytest
from twisted.internet import interfaces
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.logger import LogEvent, LogLevel, globalLogPublisher
from twisted.python.failure import Failure
from zope.interface.verify import verifyObject

from tests.native.harness import BUILDS, HOST, HalfCloser, Recorder, World, descriptors, reset

_DONE = Failure(ConnectionDone())

BIG = bytes(range(256)) * 4096 * 8  # 8 MiB, more than the kernel takes at once


@pytest.fixture(params=BUILDS)
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    world = World(request.param)
    yield world
    world.end()


@pytest.fixture
def failures() -> Iterator[list[LogEvent]]:
    """What is logged as critical."""
    events: list[LogEvent] = []

    def observe(event: LogEvent) -> None:
        if event["log_level"] == LogLevel.critical:
            events.append(event)

    globalLogPublisher.addObserver(observe)
    yield events
    globalLogPublisher.removeObserver(observe)


def received(skt: socket.socket, world: World) -> bytes:
    """All that comes at the other end until its end, while the reactor turns."""
    skt.setblocking(False)
    data = bytearray()
    end = time.monotonic() + 20
    while time.monotonic() < end:
        world.reactor.iterate(0)
        try:
            more = skt.recv(1 << 20)
        except BlockingIOError:
            continue
        if not more:
            return bytes(data)
        data += more
    raise AssertionError("no end came")


def test_the_first_reads_are_small(world: World) -> None:
    """What is read for somebody who never takes it waits in memory, for each of hundreds."""
    sizes: list[int] = []
    protocol = Recorder(data=lambda protocol: sizes.append(len(protocol.data) - sum(sizes)))
    skt = world.pair(protocol)
    skt.setblocking(False)
    left = memoryview(BIG)
    while len(protocol.data) < len(BIG):
        with contextlib.suppress(BlockingIOError):
            left = left[skt.send(left) :]
        world.reactor.iterate(0)
    while sum(sizes) > 1 << 20:
        sizes.pop()
    assert max(sizes) <= 65536
    skt.close()


# Interfaces


def test_it_provides_the_interfaces_of_a_tcp_transport(world: World) -> None:
    protocol = Recorder()
    world.pair(protocol)
    for interface in (
        interfaces.ITCPTransport,
        interfaces.IConsumer,
        interfaces.IPushProducer,
        interfaces.ISystemHandle,
        interfaces.IReadWriteDescriptor,
        interfaces.IHalfCloseableDescriptor,
    ):
        assert interface.providedBy(protocol.transport), interface
        verifyObject(interface, protocol.transport)


def test_addresses(world: World) -> None:
    protocol = Recorder()
    skt = world.pair(protocol)
    assert (protocol.address.host, protocol.address.port) == skt.getsockname()
    assert protocol.transport.getPeer() == IPv4Address("TCP", *skt.getsockname())
    assert protocol.transport.getPeer().host == protocol.address.host
    assert protocol.transport.getHost() == IPv4Address("TCP", *skt.getpeername())


def test_ipv6(world: World) -> None:
    try:
        listening = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        pytest.skip("this machine has no IPv6 loopback address")
    server, client = Recorder(), Recorder()
    _, port = world.acceptor(server, listening)
    transport = world.transports.connect(world.reactor, "::1", port, client, client.failed)
    world.until(lambda: server.transport and client.transport)
    assert client.transport.getPeer() == IPv6Address("TCP", "::1", port)
    assert server.transport.getHost() == IPv6Address("TCP", "::1", port)
    assert server.transport.getPeer() == transport.getHost()
    assert (server.address.host, server.address.port) == (transport.getHost().host, transport.getHost().port)


def test_socket_options(world: World) -> None:
    protocol = Recorder()
    world.pair(protocol)
    transport = protocol.transport
    for enabled in (True, False, True):
        transport.setTcpNoDelay(enabled)
        transport.setTcpKeepAlive(enabled)
        assert transport.getTcpNoDelay() is enabled
        assert transport.getTcpKeepAlive() is enabled


def test_the_handle_is_a_socket_that_closes_with_the_connection(world: World) -> None:
    protocol = Recorder()
    skt = world.pair(protocol)
    handle = protocol.transport.getHandle()
    assert handle.getpeername() == skt.getsockname()
    assert protocol.transport.getHandle() is handle
    protocol.transport.loseConnection()
    assert received(skt, world) == b""
    assert handle.fileno() == -1
    assert protocol.transport.fileno() == -1 or not world.native


# Reading and writing


def test_a_write_is_sent_at_once(world: World) -> None:
    protocol = Recorder()
    skt = world.pair(protocol)
    protocol.transport.write(b"hello")
    assert skt.recv(100) == b"hello"


def test_several_pieces_are_sent_in_order(world: World) -> None:
    protocol = Recorder()
    skt = world.pair(protocol)
    protocol.transport.writeSequence([b"a", b"", b"bc"])
    protocol.transport.write(b"")
    assert skt.recv(100) == b"abc"


def test_only_bytes_are_written(world: World) -> None:
    protocol = Recorder()
    world.pair(protocol)
    for wrong in ("text", None, bytearray(b"x"), memoryview(b"x")):
        with pytest.raises(TypeError):
            protocol.transport.write(wrong)


def test_what_the_kernel_does_not_take_is_sent_later_and_in_order(world: World) -> None:
    protocol = Recorder()
    skt = world.pair(protocol)
    protocol.transport.write(BIG)
    for number in range(500):  # more pieces than go into one system call
        protocol.transport.write(b"%d," % number)
    protocol.transport.write(BIG)
    protocol.transport.loseConnection()
    assert received(skt, world) == BIG + b"".join(b"%d," % n for n in range(500)) + BIG
    assert protocol.reason.check(ConnectionDone)


def test_what_comes_is_given_to_the_protocol(world: World) -> None:
    protocol = Recorder()
    skt = world.pair(protocol)
    skt.sendall(b"one")
    world.until(lambda: protocol.data == b"one")
    skt.sendall(b"two")
    world.until(lambda: protocol.data == b"onetwo")


def test_much_comes_whole(world: World) -> None:
    protocol = Recorder()
    skt = world.pair(protocol)
    skt.setblocking(False)
    sent = 0
    while sent < len(BIG):
        try:
            sent += skt.send(BIG[sent:])
        except BlockingIOError:
            world.turn(1)
    skt.close()
    world.until(lambda: protocol.reason)
    assert protocol.data == BIG
    assert protocol.reason.check(ConnectionDone)


def test_data_and_end_that_come_together_are_both_seen(world: World) -> None:
    protocol = Recorder()
    skt = world.pair(protocol)
    skt.sendall(b"last words")
    skt.close()
    world.until(lambda: protocol.reason)
    assert protocol.data == b"last words"
    assert protocol.events[-1] == "lost"
    assert protocol.reason.check(ConnectionDone)


def test_nothing_is_read_while_paused(world: World) -> None:
    protocol = Recorder(made=lambda p: p.transport.pauseProducing())
    skt = world.pair(protocol)
    skt.sendall(b"x")
    world.turn(10)
    assert protocol.data == b""
    protocol.transport.resumeProducing()
    world.until(lambda: protocol.data == b"x")
    protocol.transport.pauseProducing()
    skt.sendall(b"y")
    skt.close()
    world.turn(10)
    assert protocol.data == b"x"
    assert protocol.reason is None
    protocol.transport.resumeProducing()
    world.until(lambda: protocol.reason)
    assert protocol.data == b"xy"


def test_a_protocol_that_pauses_within_its_data_gets_no_more(world: World) -> None:
    protocol = Recorder(data=lambda p: p.transport.pauseProducing())
    skt = world.pair(protocol)
    skt.sendall(b"a" * 200_000)
    skt.close()
    world.until(lambda: protocol.data)
    world.turn(10)
    assert protocol.pieces == 1
    while protocol.reason is None:
        protocol.transport.resumeProducing()
        world.turn(1)
    assert protocol.data == b"a" * 200_000


def test_pausing_costs_no_processor_time(world: World) -> None:
    """A paused connection with data waiting, or reset, must not wake the reactor again and again."""
    protocol = Recorder(made=lambda p: p.transport.pauseProducing())
    skt = world.pair(protocol)
    skt.sendall(b"x")
    reset(skt)
    world.turn(3)
    began = time.monotonic()
    world.reactor.iterate(0.2)
    world.reactor.iterate(0.2)
    assert time.monotonic() - began > 0.15
    assert protocol.reason is None


def test_the_protocol_may_be_replaced(world: World) -> None:
    first, second = Recorder(), Recorder()
    skt = world.pair(first)
    first.transport.protocol = second
    skt.sendall(b"x")
    skt.close()
    world.until(lambda: second.reason)
    assert (first.events, second.data) == (["made"], b"x")


# Producers


def test_a_push_producer_is_paused_and_resumed(world: World) -> None:
    protocol = Recorder()
    skt = world.pair(protocol)
    producer = Recorder()
    protocol.transport.registerProducer(producer, True)
    protocol.transport.write(b"small")
    assert producer.events == []
    protocol.transport.write(BIG)
    assert producer.events == ["pause"]
    skt.setblocking(False)
    count = 0
    while count < 5 + len(BIG):
        world.turn(1)
        try:
            count += len(skt.recv(1 << 20))
        except BlockingIOError:
            pass
    world.until(lambda: producer.events == ["pause", "resume"])
    protocol.transport.unregisterProducer()
    protocol.transport.registerProducer(Recorder(), True)


def test_a_pull_producer_is_asked_for_each_piece(world: World) -> None:
    protocol = Recorder()
    skt = world.pair(protocol)

    def produce(producer: Recorder) -> None:
        if len(producer.events) <= 5:
            protocol.transport.write(b"%d" % len(producer.events))
        else:
            protocol.transport.unregisterProducer()

    protocol.transport.registerProducer(Recorder(resume=produce), False)
    protocol.transport.loseConnection()
    assert received(skt, world) == b"12345"
    assert protocol.reason.check(ConnectionDone)


def test_a_second_producer_is_refused(world: World) -> None:
    protocol = Recorder()
    world.pair(protocol)
    protocol.transport.registerProducer(Recorder(), True)
    with pytest.raises(RuntimeError):
        protocol.transport.registerProducer(Recorder(), True)


def test_a_producer_is_stopped_with_the_connection(world: World) -> None:
    protocol, producer = Recorder(), Recorder()
    skt = world.pair(protocol)
    protocol.transport.registerProducer(producer, True)
    skt.close()
    world.until(lambda: protocol.reason)
    assert producer.events == ["stop"]
    late = Recorder()
    protocol.transport.registerProducer(late, True)
    assert late.events == ["stop"]


def test_a_paused_push_producer_may_say_more_before_the_connection_closes(world: World) -> None:
    protocol = Recorder()
    skt = world.pair(protocol)

    def resume(producer: Recorder) -> None:
        protocol.transport.write(b"end")
        protocol.transport.unregisterProducer()

    protocol.transport.registerProducer(Recorder(resume=resume), True)
    protocol.transport.write(BIG)
    protocol.transport.loseConnection()
    assert received(skt, world) == BIG + b"end"


# Ends


def test_to_lose_a_connection_is_told_later_and_once(world: World) -> None:
    protocol = Recorder()
    skt = world.pair(protocol)
    protocol.transport.write(b"bye")
    protocol.transport.loseConnection()
    protocol.transport.loseConnection()
    assert protocol.events == ["made"]
    assert protocol.transport.disconnecting
    world.until(lambda: protocol.reason)
    protocol.transport.loseConnection()
    protocol.transport.abortConnection()
    world.turn()
    assert protocol.events == ["made", "lost"]
    assert protocol.reason.check(ConnectionDone)
    assert skt.recv(100) == b"bye"
    assert skt.recv(100) == b""
    assert not protocol.transport.connected
    assert protocol.transport.disconnected


def test_what_is_written_right_after_losing_is_sent(world: World) -> None:
    protocol = Recorder()
    skt = world.pair(protocol)
    protocol.transport.loseConnection()
    protocol.transport.write(BIG)
    assert received(skt, world) == BIG


def test_nothing_is_read_after_losing(world: World) -> None:
    protocol = Recorder()
    skt = world.pair(protocol)
    protocol.transport.write(BIG)
    protocol.transport.loseConnection()
    skt.sendall(b"x")
    protocol.transport.resumeProducing()
    world.turn(5)
    assert protocol.data == b""


def test_to_abort_resets_and_is_told_later_and_once(world: World) -> None:
    protocol = Recorder()
    skt = world.pair(protocol)
    protocol.transport.write(BIG)
    protocol.transport.abortConnection()
    protocol.transport.abortConnection()
    protocol.transport.loseConnection()
    protocol.transport.resumeProducing()
    assert protocol.events == ["made"]
    world.until(lambda: protocol.reason)
    world.turn()
    assert protocol.events == ["made", "lost"]
    assert protocol.reason.check(ConnectionAborted)
    with pytest.raises(ConnectionResetError):
        while skt.recv(1 << 20):
            pass


def test_to_abort_after_losing_does_not_wait_for_a_peer_that_reads_nothing(world: World) -> None:
    protocol = Recorder()
    world.pair(protocol)
    protocol.transport.write(BIG)
    protocol.transport.loseConnection()
    world.turn()
    assert protocol.reason is None
    protocol.transport.abortConnection()
    world.until(lambda: protocol.reason)
    assert protocol.reason.check(ConnectionAborted)


def test_a_reset_is_a_loss(world: World) -> None:
    protocol = Recorder()
    skt = world.pair(protocol)
    reset(skt)
    world.until(lambda: protocol.reason)
    assert protocol.reason.check(ConnectionLost)


def test_a_reset_while_something_is_queued_is_a_loss(world: World) -> None:
    protocol = Recorder()
    skt = world.pair(protocol)
    protocol.transport.pauseProducing()
    protocol.transport.write(BIG)
    reset(skt)
    world.until(lambda: protocol.reason)
    assert protocol.reason.check(ConnectionLost)
    protocol.transport.write(b"x")
    protocol.transport.writeSequence([b"x"])
    protocol.transport.pauseProducing()
    protocol.transport.resumeProducing()
    protocol.transport.loseWriteConnection()
    protocol.transport.unregisterProducer()
    world.turn()
    assert protocol.events == ["made", "lost"]


def test_the_peers_end_closes_an_ordinary_protocols_connection(world: World) -> None:
    protocol = Recorder()
    skt = world.pair(protocol)
    skt.shutdown(socket.SHUT_WR)
    world.until(lambda: protocol.reason)
    assert protocol.reason.check(ConnectionDone)
    assert skt.recv(1) == b""


def test_a_half_closeable_protocol_goes_on_writing(world: World) -> None:
    protocol = HalfCloser()
    skt = world.pair(protocol)
    skt.sendall(b"question")
    skt.shutdown(socket.SHUT_WR)
    world.until(lambda: "read lost" in protocol.events)
    world.turn()
    assert protocol.data == b"question"
    assert protocol.events.count("read lost") == 1
    protocol.transport.write(b"answer")
    protocol.transport.loseConnection()
    assert received(skt, world) == b"answer"
    world.until(lambda: protocol.reason)
    assert protocol.reason.check(ConnectionDone)


def test_to_lose_the_write_direction_flushes_and_goes_on_reading(world: World) -> None:
    protocol = HalfCloser()
    skt = world.pair(protocol)
    protocol.transport.write(BIG)
    protocol.transport.loseWriteConnection()
    protocol.transport.loseWriteConnection()
    assert "write lost" not in protocol.events
    assert received(skt, world) == BIG
    assert protocol.events == ["made", "write lost"]
    protocol.transport.write(b"ignored")
    skt.setblocking(True)
    skt.sendall(b"still heard")
    world.until(lambda: protocol.data == b"still heard")
    protocol.transport.loseConnection()
    world.until(lambda: protocol.reason)
    assert protocol.reason.check(ConnectionDone)
    assert protocol.events.count("lost") == 1


def test_the_write_direction_of_a_quiet_connection_is_closed_in_the_next_turn(world: World) -> None:
    protocol = HalfCloser()
    skt = world.pair(protocol)
    protocol.transport.loseWriteConnection()
    world.until(lambda: "write lost" in protocol.events)
    assert skt.recv(1) == b""
    skt.close()
    world.until(lambda: "read lost" in protocol.events)


def test_quiet(world: World) -> None:
    protocol = Recorder()
    skt = world.pair(protocol)
    protocol.transport.pauseProducing()
    assert protocol.transport.is_quiet()
    skt.sendall(b"x")
    assert not protocol.transport.is_quiet()
    protocol.transport.resumeProducing()
    world.until(lambda: protocol.data)
    assert protocol.transport.is_quiet()
    skt.close()
    assert not protocol.transport.is_quiet()
    world.until(lambda: protocol.reason)
    assert not protocol.transport.is_quiet()


def test_what_the_peer_has_not_taken_is_known(world: World) -> None:
    protocol = Recorder()
    skt = world.pair(protocol)
    transport = protocol.transport
    assert transport.untaken() == 0
    transport.write(BIG)
    untaken = transport.untaken()
    assert 0 < untaken <= len(BIG)
    transport.loseConnection()
    assert received(skt, world) == BIG
    assert transport.untaken() == 0


# Callbacks that do something to connections


def test_a_protocol_may_abort_within_any_call(world: World) -> None:
    for what in ("made", "data", "read lost"):
        protocol = HalfCloser(**{what: lambda p: p.transport.abortConnection()})
        skt = world.pair(protocol)
        try:
            skt.sendall(b"x" * 300_000)
            skt.shutdown(socket.SHUT_WR)
        except OSError:
            pass
        world.until(lambda protocol=protocol: protocol.reason)
        assert protocol.reason.check(ConnectionAborted), what
        assert protocol.pieces <= (0 if what == "made" else 1 if what == "data" else 1000)


def test_a_protocol_may_close_and_write_within_any_call(world: World) -> None:
    def close(protocol: Recorder) -> None:
        protocol.transport.write(b"bye")
        protocol.transport.loseConnection()

    for what in ("made", "data", "read lost"):
        protocol = HalfCloser(**{what: close})
        skt = world.pair(protocol)
        if what != "made":
            skt.sendall(b"x")
            skt.shutdown(socket.SHUT_WR)
        assert received(skt, world) == b"bye", what
        world.until(lambda protocol=protocol: protocol.reason)


def test_one_connection_may_end_others_in_the_same_turn(world: World) -> None:
    """Their events may be in the same batch; and the numbers of their descriptors may be new connections' at once."""
    everyone: list[Recorder] = []
    ended: list[Recorder] = []
    elsewhere = world.listening().getsockname()[1]

    def end_all(first: Recorder) -> None:
        ended.extend(everyone)
        for protocol in ended:
            protocol.transport.connectionLost(_DONE)
        for _ in ended:
            world.connect(elsewhere, Recorder(data=_unexpected))

    class Factory:
        def buildProtocol(self, addr: object) -> Recorder:
            everyone.append(Recorder(data=end_all))
            return everyone[-1]

    _, port = world.acceptor(Factory())
    sockets = [world.peer(port) for _ in range(20)]
    world.until(lambda: len(everyone) == 20 and all(p.transport for p in everyone))
    for skt in sockets:
        skt.sendall(b"x")
    world.until(lambda: all(p.reason for p in everyone))
    world.turn(5)
    assert [p.events.count("lost") for p in everyone] == [1] * 20
    assert sum(p.pieces for p in everyone) == 1


def _unexpected(protocol: Recorder) -> None:
    raise AssertionError("an event for a connection that is gone reached another one")


def test_an_error_in_a_callback_ends_only_that_connection(world: World, failures: list[LogEvent]) -> None:
    def fail(protocol: Recorder) -> None:
        raise ZeroDivisionError

    for what in ("made", "data"):
        bad, good = Recorder(**{what: fail}), Recorder()
        other = world.pair(good)
        skt = world.pair(bad)
        if what == "data":
            skt.sendall(b"x")
        world.until(lambda bad=bad: bad.reason)
        assert bad.reason.check(ZeroDivisionError)
        assert bad.events.count("lost") == 1
        other.sendall(b"y")
        world.until(lambda good=good: good.data == b"y")
    assert len(failures) == 2


def test_an_error_in_the_last_callback_is_logged(world: World, failures: list[LogEvent]) -> None:
    def fail(protocol: Recorder) -> None:
        raise ZeroDivisionError

    protocol = Recorder(lost=fail)
    skt = world.pair(protocol)
    skt.close()
    world.until(lambda: failures)
    world.turn()
    assert len(failures) == 1
    assert protocol.events == ["made", "lost"]


# Connecting


def test_connecting_is_told_later(world: World) -> None:
    listening = world.listening()
    protocol = Recorder()
    transport = world.connect(listening.getsockname()[1], protocol)
    assert protocol.events == []
    assert not transport.connected
    world.until(lambda: protocol.transport)
    assert protocol.transport is transport
    assert transport.connected
    assert transport.getTcpNoDelay()
    assert transport.getPeer() == IPv4Address("TCP", *listening.getsockname())
    skt, address = listening.accept()
    assert transport.getHost() == IPv4Address("TCP", *address)
    with skt:
        transport.write(b"ping")
        assert skt.recv(10) == b"ping"
        skt.sendall(b"pong")
        world.until(lambda: protocol.data == b"pong")
    world.until(lambda: protocol.reason)
    assert protocol.events == ["made", "data", "lost"]


def test_a_refused_connection_fails_later_and_once(world: World) -> None:
    listening = world.listening()
    port = listening.getsockname()[1]
    listening.close()
    protocol = Recorder()
    transport = world.connect(port, protocol)
    assert protocol.events == []
    world.until(lambda: protocol.failure)
    world.turn()
    transport.cancel()
    transport.abortConnection()
    world.turn()
    assert protocol.events == ["failed"]
    assert protocol.failure is not None
    assert protocol.failure.errno == errno.ECONNREFUSED


@pytest.mark.parametrize("host", ["256.1.1.1", "localhost", "", "1:2", "127.0.0.1%lo", "::g", "\N{SNOWMAN}"])
def test_what_is_no_address_fails_later(world: World, host: str) -> None:
    protocol = Recorder()
    world.transports.connect(world.reactor, host, 80, protocol, protocol.failed)
    assert protocol.events == []
    world.until(lambda: protocol.failure)


def test_cancelling_is_told_to_nobody(world: World) -> None:
    listening = world.listening()
    count = descriptors()
    protocol = Recorder()
    transport = world.connect(listening.getsockname()[1], protocol)
    transport.cancel()
    transport.cancel()
    world.turn(5)
    assert protocol.events == []
    assert descriptors() == count


def test_cancelling_an_attempt_that_hangs(world: World) -> None:
    listening = world.listening(backlog=0)
    fillers = [world.connect(listening.getsockname()[1], Recorder()) for _ in range(4)]
    world.turn(5)
    protocol = Recorder()
    transport = world.connect(listening.getsockname()[1], protocol)
    world.turn(5)
    assert protocol.events == []
    transport.cancel()
    world.turn()
    assert protocol.events == []
    for filler in fillers:
        filler.cancel()


def test_out_of_descriptors_connecting_fails_later(world: World) -> None:
    listening = world.listening()
    protocol = Recorder()
    with _no_descriptors():
        transport = world.connect(listening.getsockname()[1], protocol)
    assert protocol.events == []
    world.until(lambda: protocol.failure)
    assert protocol.failure is not None
    assert protocol.failure.errno == errno.EMFILE
    transport.cancel()


# Accepting


def test_many_connections_at_once_are_all_accepted(world: World) -> None:
    protocols: list[Recorder] = []

    class Factory:
        def buildProtocol(self, addr: object) -> Recorder:
            protocols.append(Recorder())
            return protocols[-1]

    _, port = world.acceptor(Factory())
    for number in range(100):
        world.peer(port).sendall(b"%d" % number)
    world.until(lambda: len(protocols) == 100 and all(p.data for p in protocols))
    assert {int(p.data) for p in protocols} == set(range(100))


def test_a_factory_may_refuse_or_fail(world: World, failures: list[LogEvent]) -> None:
    protocol = Recorder()
    answers = [lambda: None, lambda: 1 // 0, lambda: protocol]

    class Factory:
        def buildProtocol(self, addr: object) -> Recorder | None:
            return answers.pop(0)()  # type: ignore[return-value]

    _, port = world.acceptor(Factory())
    for _ in range(2):
        peer = world.peer(port)
        world.turn()
        assert _ended(peer)
    assert [event["log_failure"].type for event in failures] == [ZeroDivisionError]
    world.peer(port)
    world.until(lambda: protocol.transport)


def _ended(skt: socket.socket) -> bool:
    try:
        return skt.recv(1) == b""
    except ConnectionResetError:
        return True


def test_the_factory_may_be_replaced(world: World) -> None:
    first, second = Recorder(), Recorder()
    acceptor, port = world.acceptor(first)
    acceptor.set_factory(second)
    world.peer(port)
    world.until(lambda: second.transport)
    assert first.events == []


def test_a_closed_acceptor_accepts_no_more(world: World) -> None:
    acceptor, port = world.acceptor(Recorder())
    acceptor.close()
    acceptor.close()
    assert acceptor.fileno() == -1
    with pytest.raises(ConnectionRefusedError):
        world.peer(port)


def test_an_acceptor_closes_although_another_process_holds_its_socket(world: World) -> None:
    """The supervisor does; the kernel then goes on to report what happens to the socket, unless it is told not to."""
    skt = socket.create_server((HOST, 0))
    with socket.socket(fileno=os.dup(skt.fileno())) as other:
        acceptor, port = world.acceptor(Recorder(), skt)
        acceptor.close()
        world.peer(port)
        world.turn()
        began = time.monotonic()
        world.reactor.iterate(0.2)
        assert time.monotonic() - began > 0.15
        assert other.accept()[0].close() is None


def test_finishing_accepts_what_is_queued(world: World) -> None:
    protocols: list[Recorder] = []

    class Factory:
        def buildProtocol(self, addr: object) -> Recorder:
            protocols.append(Recorder())
            return protocols[-1]

    acceptor, port = world.acceptor(Factory())
    peers = [world.peer(port) for _ in range(70)]
    acceptor.finish()
    assert len(protocols) == len(peers)
    assert acceptor.fileno() == -1
    peers[69].sendall(b"x")
    world.until(lambda: any(p.data for p in protocols))


def test_a_protocol_may_close_its_acceptor(world: World) -> None:
    acceptor, port = world.acceptor(Recorder(made=lambda p: acceptor.close()))
    peers = [world.peer(port) for _ in range(3)]
    world.turn()
    assert acceptor.fileno() == -1
    assert len(peers) == 3


def test_out_of_descriptors_accepting_rests_and_goes_on(world: World) -> None:
    protocol = Recorder()
    acceptor, port = world.acceptor(protocol)
    world.peer(port)
    with _no_descriptors():
        world.turn()
    assert protocol.events == []
    began = time.monotonic()
    world.until(lambda: protocol.transport)
    assert time.monotonic() - began > 0.1
    acceptor.close()


def test_an_acceptor_closed_while_it_rests_stays_closed(world: World) -> None:
    acceptor, port = world.acceptor(Recorder())
    world.peer(port)
    with _no_descriptors():
        world.turn()
    acceptor.close()
    assert not world.reactor.getDelayedCalls()


class _no_descriptors:
    """No new file descriptor can be had."""

    def __enter__(self) -> None:
        import resource

        self._limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._fillers: list[int] = []
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, self._limits[1]))
        try:
            while True:
                self._fillers.append(os.dup(0))
        except OSError:
            pass

    def __exit__(self, *exc: object) -> None:
        import resource

        for filler in self._fillers:
            os.close(filler)
        resource.setrlimit(resource.RLIMIT_NOFILE, self._limits)


# Descriptors


def test_no_descriptor_is_lost(world: World) -> None:
    """Connections that end in every way, at either side's wish."""
    ends = [
        lambda p, s: p.transport.loseConnection(),
        lambda p, s: p.transport.abortConnection(),
        lambda p, s: p.transport.loseWriteConnection(),
        lambda p, s: (p.transport.getHandle(), p.transport.abortConnection()),
        lambda p, s: reset(s),
        lambda p, s: s.close(),
        lambda p, s: (p.transport.write(BIG), reset(s)),
    ]
    waiting: list[Recorder] = []
    acceptor, port = world.acceptor(_Factory(waiting))
    count = descriptors()
    for number in range(70):
        with socket.create_connection((HOST, port)) as skt:
            world.until(lambda: waiting)
            protocol = waiting.pop()
            ends[number % len(ends)](protocol, skt)
            world.turn(2)
        world.until(lambda protocol=protocol: protocol.reason)
    del protocol
    world.turn()
    assert descriptors() == count
    acceptor.close()


class _Factory:
    def __init__(self, waiting: list[Recorder]) -> None:
        self._waiting = waiting

    def buildProtocol(self, addr: object) -> Recorder:
        self._waiting.append(Recorder())
        return self._waiting[-1]


def test_the_reactor_knows_who_reads_and_writes(world: World) -> None:
    protocol = Recorder()
    world.pair(protocol)
    transport = protocol.transport
    assert transport in world.reactor.getReaders()
    assert transport not in world.reactor.getWriters()
    transport.write(BIG)
    transport.pauseProducing()
    assert transport not in world.reactor.getReaders()
    assert transport in world.reactor.getWriters()
    assert transport in world.reactor.removeAll()
    assert transport not in world.reactor.getWriters()
