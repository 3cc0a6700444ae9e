"""What is written while several connections are served in one turn of the loop arrives whole, in order, and once."""

from __future__ import annotations

import select
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet.error import ConnectionDone

from tests.native.harness import BUILDS, Recorder, World, reset
from tests.native.test_transport import received

BIG = bytes(range(256)) * 4096 * 8


@pytest.fixture(params=BUILDS)
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    world = World(request.param)
    yield world
    world.end()


class Many:
    """A factory whose connections all do the same when something comes."""

    def __init__(self, act: Any) -> None:
        self.act = act
        self.protocols: list[Recorder] = []

    def buildProtocol(self, addr: Any) -> Recorder:
        protocol = Recorder(data=self.act)
        self.protocols.append(protocol)
        return protocol


def together(world: World, act: Any, count: int = 5) -> tuple[list[socket.socket], list[Recorder]]:
    """Connections to which something has come, all of which is seen in one turn."""
    many = Many(act)
    _, port = world.acceptor(many)
    peers = [world.peer(port) for _ in range(count)]
    world.until(lambda: len([p for p in many.protocols if p.transport]) == count)
    for peer in peers:
        peer.sendall(b"?")
    return peers, many.protocols


def write_and_close(*pieces: bytes) -> Any:
    def act(protocol: Recorder) -> None:
        for piece in pieces:
            protocol.transport.write(piece)
        protocol.transport.loseConnection()

    return act


@pytest.mark.parametrize(
    "pieces",
    [(b"a",), (b"a", b"b", b"c"), (b"a", BIG), (BIG, b"a"), (b"a", b"x" * 16384, b"x" * 16385, b"b"), (b"", b"a", b"")],
    ids=["one", "three", "small, large", "large, small", "at the limit", "empty"],
)
def test_pieces_arrive_in_order_before_the_end(world: World, pieces: tuple[bytes, ...]) -> None:
    peers, protocols = together(world, write_and_close(*pieces))
    for peer in peers:
        assert received(peer, world) == b"".join(pieces)
    world.until(lambda: all(protocol.reason is not None for protocol in protocols))
    assert all(protocol.reason.check(ConnectionDone) for protocol in protocols)


def test_small_pieces_leave_when_all_are_served(world: World) -> None:
    """So that a peer is woken once, for all of them."""
    came_early: list[socket.socket] = []

    def act(protocol: Recorder) -> None:
        came_early.extend(select.select(peers, [], [], 0)[0])
        protocol.transport.write(b"a")
        protocol.transport.write(b"b")

    peers: list[socket.socket] = []
    connections, protocols = together(world, act)
    peers.extend(connections)
    world.until(lambda: all(protocol.data for protocol in protocols))
    if world.batches:
        assert came_early == []
        assert [peer.recv(10) for peer in peers] == [b"ab"] * len(peers)
    for protocol in protocols:
        protocol.transport.loseConnection()


def test_our_end_comes_after_what_was_written(world: World) -> None:
    def act(protocol: Recorder) -> None:
        protocol.transport.write(b"a")
        protocol.transport.loseWriteConnection()

    peers, _ = together(world, act)
    for peer in peers:
        assert received(peer, world) == b"a"
        peer.close()


def test_what_was_written_before_an_abort_is_dropped(world: World) -> None:
    def act(protocol: Recorder) -> None:
        protocol.transport.write(b"a")
        protocol.transport.abortConnection()

    peers, _ = together(world, act)
    for peer in peers:
        assert received_or_reset(peer, world) in (b"", b"a")


def received_or_reset(peer: socket.socket, world: World) -> bytes:
    try:
        return received(peer, world)
    except ConnectionResetError:
        return b""


def test_a_producer_is_paused_and_resumed(world: World) -> None:
    """A large piece behind a small one fills the queue, and what frees it sets the producer going again."""
    drained: list[Recorder] = []

    def act(protocol: Recorder) -> None:
        protocol.transport.registerProducer(protocol, True)
        protocol.transport.write(b"a")
        protocol.transport.write(BIG)

    def resumed(protocol: Recorder) -> None:
        drained.append(protocol)
        protocol.transport.unregisterProducer()
        protocol.transport.loseConnection()

    peers, protocols = together(world, act)
    for protocol in protocols:
        protocol.on["resume"] = resumed
    for peer in peers:
        assert received(peer, world) == b"a" + BIG
    assert sorted(map(id, drained)) == sorted(map(id, protocols))


def test_one_that_another_closes_sends_nothing_more(world: World) -> None:
    """The first to be served ends all the others, some of which have written in this turn."""
    ended: list[Recorder] = []

    def act(protocol: Recorder) -> None:
        protocol.transport.write(b"a")
        for other in many:
            if other is not protocol and other not in ended:
                ended.append(other)
                other.transport.abortConnection()

    many: list[Recorder] = []
    peers, protocols = together(world, act)
    many.extend(protocols)
    world.turn(10)
    for peer in peers:
        peer.close()
    world.until(lambda: all(protocol.reason is not None for protocol in protocols))


def test_a_failing_protocol_leaves_the_others_alone(world: World) -> None:
    def act(protocol: Recorder) -> None:
        protocol.transport.write(b"a")
        protocol.transport.loseConnection()

    peers, protocols = together(world, act)
    reset(peers.pop())
    for peer in peers:
        assert received(peer, world) == b"a"
    world.until(lambda: all(protocol.reason is not None for protocol in protocols))
