"""Many relayed connections whose ends do anything at any time: nothing is lost, changed, told twice or left behind."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator
from random import Random

import pytest

from tests.native.harness import BUILDS, HOST, Relaying, World, descriptors, reset

CONNECTIONS = 60
STEPS = 4000
CHUNK = bytes(range(251)) * 400  # about 100 kB, of a length that shows a shift


@pytest.fixture(params=[*BUILDS, *(f"{name}, relaying" for name in BUILDS if name.startswith("native"))])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    world = World(request.param.removesuffix(", relaying"))
    world.relaying = request.param.endswith("relaying")
    yield world
    world.end()


class Storm:
    def __init__(self, world: World, random: Random) -> None:
        self.world = world
        self.random = random
        self.relays: list[tuple[Relaying, Relaying]] = []
        self.clients: dict[socket.socket, int] = {}
        """Sockets and how much each has sent."""
        self.answered: dict[socket.socket, int] = {}
        self.target = world.listening()
        self.target.setblocking(False)
        self.acceptor, self.port = world.acceptor(self)

    def buildProtocol(self, addr: object) -> Relaying:
        client, target = Relaying(), Relaying()

        def connected(_: object) -> None:
            if client.reason is not None:
                target.transport.abortConnection()
                return
            client.other, target.other = target, client
            client.transport.registerProducer(target, True)
            target.transport.registerProducer(client, True)
            client.transport.resumeProducing()
            if self.world.relaying:
                assert client.relay(self.world)
                assert target.relay(self.world)

        def accepted(_: object) -> None:
            client.transport.pauseProducing()
            self.world.transports.connect(self.world.reactor, HOST, self.target.getsockname()[1], target, target.failed)

        client.on["made"] = accepted
        target.on["made"] = connected
        target.on["failed"] = lambda _: client.transport.abortConnection()
        self.relays.append((client, target))
        return client

    def step(self) -> None:
        random = self.random
        with contextlib.suppress(BlockingIOError):
            skt = self.target.accept()[0]
            skt.setblocking(False)
            self.answered[skt] = 0
        if len(self.relays) < CONNECTIONS and random.random() < 0.2:
            skt = socket.create_connection((HOST, self.port))
            skt.setblocking(False)
            self.clients[skt] = 0
        either = random.choice((self.clients, self.answered))
        if either:
            skt = random.choice(list(either))
            random.choices(ACTIONS, WEIGHTS)[0](self, skt, either)
        if self.relays and random.random() < 0.01:
            side = random.choice(random.choice(self.relays))
            if side.transport is not None:
                side.transport.unregisterProducer()
                random.choice((side.transport.abortConnection, side.transport.loseConnection))()
        self.world.reactor.iterate(0)

    def send(self, skt: socket.socket, sent: dict[socket.socket, int]) -> None:
        start = sent[skt] % len(CHUNK)
        with contextlib.suppress(OSError):
            sent[skt] += skt.send(CHUNK[start : start + self.random.choice((1, 100, 20000, len(CHUNK)))])

    def receive(self, skt: socket.socket, sent: dict[socket.socket, int]) -> None:
        """What comes must be the pattern, in any place of it: both ends send nothing else."""
        with contextlib.suppress(OSError):
            data = skt.recv(self.random.choice((1, 1000, 200000)))
            if data:
                place = data[0]
                assert data == (CHUNK * 3)[place : place + len(data)], "bytes were lost or changed"

    def half_close(self, skt: socket.socket, sent: dict[socket.socket, int]) -> None:
        with contextlib.suppress(OSError):
            skt.shutdown(socket.SHUT_WR)

    def close(self, skt: socket.socket, sent: dict[socket.socket, int]) -> None:
        del sent[skt]
        skt.close()

    def reset(self, skt: socket.socket, sent: dict[socket.socket, int]) -> None:
        del sent[skt]
        reset(skt)


ACTIONS: tuple[Callable[[Storm, socket.socket, dict[socket.socket, int]], None], ...] = (
    Storm.send,
    Storm.receive,
    Storm.half_close,
    Storm.close,
    Storm.reset,
)
WEIGHTS = (40, 45, 3, 2, 2)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_storm_leaves_nothing_behind(world: World, seed: int) -> None:
    count = descriptors()
    storm = Storm(world, Random(seed))
    for _ in range(STEPS):
        storm.step()
    storm.acceptor.close()
    for skt in (*storm.clients, *storm.answered):
        skt.close()
    with contextlib.suppress(BlockingIOError):
        while True:
            storm.target.accept()[0].close()
    storm.target.close()
    world.until(lambda: all(side.transport is None or side.reason for pair in storm.relays for side in pair))
    world.turn(5)
    for pair in storm.relays:
        for side in pair:
            assert side.events.count("lost") <= 1
            assert side.events.count("made") == side.events.count("lost")
            assert side.events.count("read lost") <= 1
    assert len(storm.relays) > 20
    del side, pair
    storm.relays.clear()
    assert descriptors() == count
