"""Relays: what comes from one transport goes to the other, by itself where both are compiled, whatever the ends do."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest

from lbproxy.native import available
from lbproxy.native.clock import Clock
from tests.native.harness import BUILDS, Recorder, Relaying, World, descriptors, reset

if available:
    from lbproxy.native._relay import pipes_open

MIB = bytes(range(251)) * 4178  # about 1 MiB, of a length that shows a shift


@pytest.fixture(params=BUILDS)
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    count = descriptors()
    world = World(request.param)
    yield world
    world.end()
    del world
    assert descriptors() == count


class Pair:
    """A relay between two sockets, ``client`` and ``target``."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.client_side, self.target_side = Relaying(), Relaying()
        self.client, self.target = world.pair(self.client_side), world.pair(self.target_side)
        self.sides = (self.client_side, self.target_side)
        self.client_side.other, self.target_side.other = self.target_side, self.client_side
        for side in self.sides:
            assert side.other is not None
            side.transport.registerProducer(side.other, True)
        for side in self.sides:
            assert (side.relay(world) is not None) == world.native
        for skt in (self.client, self.target):
            skt.setblocking(False)

    def moved(self) -> tuple[int, int]:
        return self.client_side.flow.moved, self.target_side.flow.moved

    def fill(self, skt: socket.socket) -> int:
        """Send the pattern until nothing is taken any more; tell how much was."""
        sent = 0
        idle = 0
        while idle < 8:
            try:
                sent += skt.send(MIB[sent % len(MIB) :])
                idle = 0
            except BlockingIOError:
                idle += 1
                self.world.turn()
        return sent

    def take(self, skt: socket.socket, size: int) -> bytes:
        """This many bytes, or fewer when the end comes first."""
        data = bytearray()

        def more() -> bool:
            try:
                piece = skt.recv(min(1 << 20, size - len(data)))
            except BlockingIOError:
                return False
            data.extend(piece)
            return not piece or len(data) == size

        self.world.until(more)
        return bytes(data)

    def lost(self) -> bool:
        return all("lost" in side.events for side in self.sides)


def test_small_pieces_go_both_ways_and_are_counted(world: World) -> None:
    pair = Pair(world)
    for number in range(1, 4):
        pair.client.sendall(b"ping")
        assert pair.take(pair.target, 4) == b"ping"
        pair.target.sendall(b"pong!")
        assert pair.take(pair.client, 5) == b"pong!"
        if world.native:
            assert pair.moved() == (4 * number, 5 * number)
            assert (pair.client_side.flow.settle(), pair.target_side.flow.settle()) == (4, 5)
            assert pair.client_side.flow.settle() == 0
            assert time.monotonic() - 5 < pair.client_side.flow.last <= time.monotonic()
    assert pair.client_side.pieces == 0 or not world.native, "the protocol is not asked"


def test_a_reader_that_stops_stops_the_sender_and_gets_everything_later(world: World) -> None:
    pair = Pair(world)
    sent = pair.fill(pair.client)
    assert "pause" in pair.client_side.events
    assert pair.fill(pair.client) == 0
    if world.native:
        assert pair.target_side.transport.untaken() < 1 << 24
    assert pair.take(pair.target, sent) == (MIB * (sent // len(MIB) + 1))[:sent]
    events = pair.client_side.events
    world.until(lambda: events.count("resume") == events.count("pause"))
    pair.client.sendall(b"more")
    assert pair.take(pair.target, 4) == b"more"
    if world.native:
        assert pair.moved() == (sent + 4, 0)


def test_what_is_on_its_way_comes_before_the_end(world: World) -> None:
    pair = Pair(world)
    sent = pair.fill(pair.client)
    pair.client.shutdown(socket.SHUT_WR)
    world.turn(10)
    assert pair.take(pair.target, sent + 1) == (MIB * (sent // len(MIB) + 1))[:sent]
    pair.target.sendall(b"the way back stays open")
    assert pair.take(pair.client, 23) == b"the way back stays open"
    pair.target.close()
    world.until(pair.lost)
    assert pair.take(pair.client, 1) == b""


def test_a_close_right_after_much_data_loses_nothing(world: World) -> None:
    pair = Pair(world)
    pair.client.setblocking(True)
    pair.client.sendall(MIB[:200_000])
    pair.client.close()
    assert pair.take(pair.target, 300_000) == MIB[:200_000]
    pair.target.close()
    world.until(pair.lost)


def test_an_abort_lets_go_of_what_is_on_its_way(world: World) -> None:
    for doomed in range(2):
        pair = Pair(world)
        pair.fill(pair.client)
        for side in pair.sides[doomed:]:
            side.transport.unregisterProducer()
            side.transport.abortConnection()
        reset(pair.client)
        reset(pair.target)
        world.until(pair.lost)


def test_a_reset_is_told_once(world: World) -> None:
    pair = Pair(world)
    pair.fill(pair.client)
    reset(pair.target)
    world.until(pair.lost)
    for side in pair.sides:
        assert side.events.count("lost") == 1


def test_a_sink_that_is_gone_swallows_what_comes(world: World) -> None:
    """Between the loss of one end and what the protocol does about the other."""
    pair = Pair(world)
    pair.target_side.on["lost"] = lambda side: setattr(side, "other", None)
    reset(pair.target)
    world.until(lambda: "lost" in pair.target_side.events)
    pair.client_side.other = None
    pair.client.sendall(MIB[:100_000])
    world.turn(20)
    reset(pair.client)
    world.until(pair.lost)


def test_many_stalled_relays_use_few_pipes(world: World) -> None:
    pairs = [Pair(world) for _ in range(36)]
    for pair in pairs:
        pair.client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
        pair.target.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 262144)
    sent = [pair.fill(pair.client) for pair in pairs]
    if world.native:
        assert 0 < pipes_open() <= 32
    for pair, size in zip(pairs, sent, strict=True):
        assert pair.take(pair.target, size) == (MIB * (size // len(MIB) + 1))[:size]
        pair.client.close()
        pair.target.close()
    world.until(lambda: all(pair.lost() for pair in pairs))
    if world.native:
        assert pipes_open() <= 32


@pytest.mark.parametrize("limit", [1, 1000, 16384, 65536, 300_000, 1_000_000])
def test_after_its_limit_the_protocol_has_its_say_again(world: World, limit: int) -> None:
    """Exactly so much is relayed, whatever the pieces; what follows is given to the protocol."""
    if not world.native:
        pytest.skip("only compiled transports relay by themselves")
    pair = Pair(world)
    side = pair.client_side
    side.flow = world.transports.relay(side.transport, pair.target_side.transport, Clock(time.monotonic), limit)
    size = limit + 5000
    data = (MIB * 2)[:size]
    sent = 0
    received = bytearray()

    def done() -> bool:
        nonlocal sent
        for skt, act in ((pair.client, "send"), (pair.target, "recv")):
            try:
                if act == "send" and sent < size:
                    sent += skt.send(data[sent:])
                elif act == "recv":
                    received.extend(skt.recv(1 << 20))
            except BlockingIOError:
                pass
        return len(received) == size

    world.until(done)
    assert bytes(received) == data
    assert side.flow.moved == limit
    assert side.pieces > 0, "the end goes through the protocol"
    assert world.transports.relay(side.transport, pair.target_side.transport, Clock(time.monotonic), 0) is None


class Beginner(Recorder):
    """Has the rest relayed once it has been given something; passes on itself what it is given."""

    sink: Recorder
    world: World
    limit = 0
    flow: Any = None

    def dataReceived(self, data: bytes) -> None:
        super().dataReceived(data)
        self.sink.transport.write(data)
        if self.flow is None:
            self.flow = self.world.transports.relay(
                self.transport, self.sink.transport, Clock(time.monotonic), self.limit
            )


@pytest.mark.parametrize("limit", [20_000, 65536, 100_000])
def test_a_relay_that_begins_when_all_has_come_with_the_end(world: World, limit: int) -> None:
    """The read that is known to be followed by the end goes on by relay, and then to the protocol."""
    if not world.native:
        pytest.skip("only compiled transports relay by themselves")
    source, sink = Beginner(), Recorder()
    source.sink, source.world, source.limit = sink, world, limit
    client, target = world.pair(source), world.pair(sink)
    source.transport.pauseProducing()
    world.turn()
    data = (MIB * 2)[: 16384 + limit + 5000]
    client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    client.sendall(data)
    client.close()
    world.turn()
    source.transport.resumeProducing()
    target.setblocking(False)
    received = bytearray()

    def done() -> bool:
        with contextlib.suppress(BlockingIOError):
            received.extend(target.recv(1 << 20))
        return len(received) == len(data)

    world.until(done)
    assert bytes(received) == data
    assert source.flow.moved == limit
    assert len(source.data) == len(data) - limit, "what is relayed is not given to the protocol"
    world.until(lambda: "lost" in source.events)


def test_only_transports_of_ones_own_kind_relay(world: World) -> None:
    one, other = Recorder(), Recorder()
    world.pair(one)
    world.pair(other)
    for pair in ((one.transport, object()), (object(), other.transport)):
        assert world.transports.relay(*pair, None) is None
