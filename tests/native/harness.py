"""A reactor that a test turns by hand, transports of either build on it, and raw sockets at the other end."""

from __future__ import annotations

import contextlib
import gc
import os
import socket
import struct
import time
from collections.abc import Callable
from typing import Any

from twisted.internet.epollreactor import EPollReactor
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.selectreactor import SelectReactor
from zope.interface import implementer

from lbproxy.native import available
from lbproxy.native.clock import Clock
from lbproxy.native.pure import transport as pure
from lbproxy.native.reactor import LeanReactor, NativeReactor

HOST = "127.0.0.1"

BUILDS = {
    "pure on Twisted's": (pure, EPollReactor),
    "pure on ours": (pure, LeanReactor),
}
if available:
    from lbproxy.native import transport as native
    from lbproxy.native._relay import pipes_open

    BUILDS |= {
        "native on ours": (native, NativeReactor),
        "native on Twisted's": (native, EPollReactor),
        "native on select": (native, SelectReactor),
        "pure on native": (pure, NativeReactor),
    }


class Recorder:
    """A protocol, a factory and a producer that remembers what happened; ``on`` holds what to do then."""

    def __init__(self, **on: Callable[[Recorder], None]) -> None:
        self.on = on
        self.transport: Any = None
        self.events: list[str] = []
        self.data = b""
        self.pieces = 0
        self.reason: Any = None
        self.failure: OSError | None = None
        self.address: Any = None

    def _happened(self, what: str) -> None:
        self.events.append(what)
        if what in self.on:
            self.on[what](self)

    def buildProtocol(self, addr: Any) -> Recorder:
        self.address = addr
        return self

    def makeConnection(self, transport: Any) -> None:
        self.transport = transport
        self._happened("made")

    def dataReceived(self, data: bytes) -> None:
        assert isinstance(data, bytes)
        assert data
        self.data += data
        self.pieces += 1
        self._happened("data")

    def connectionLost(self, reason: Any) -> None:
        self.reason = reason
        self._happened("lost")

    def failed(self, failure: OSError) -> None:
        self.failure = failure
        self._happened("failed")

    def pauseProducing(self) -> None:
        self._happened("pause")

    def resumeProducing(self) -> None:
        self._happened("resume")

    def stopProducing(self) -> None:
        self._happened("stop")


@implementer(IHalfCloseableProtocol)
class HalfCloser(Recorder):
    """One that goes on with half a connection."""

    def readConnectionLost(self) -> None:
        self._happened("read lost")

    def writeConnectionLost(self) -> None:
        self._happened("write lost")


class Relaying(HalfCloser):
    """One end of a relay; as a producer it is slowed down by the other."""

    other: Relaying | None = None
    flow: Any = None

    def relay(self, world: World) -> Any:
        """Have the transport give the other end what comes, if it can."""
        assert self.other is not None
        self.flow = world.transports.relay(self.transport, self.other.transport, Clock(time.monotonic))
        return self.flow

    def _happened(self, what: str) -> None:
        super()._happened(what)
        transport = self.transport
        if what == "pause":
            transport.pauseProducing()
        elif what == "resume" and "read lost" not in self.events:
            transport.resumeProducing()
        other = self.other
        if other is None or other.transport is None:
            return
        if what == "data":
            data, self.data = self.data, b""
            other.transport.write(data)
        elif what == "read lost":
            other.transport.unregisterProducer()
            if "read lost" in other.events:
                for side in (self, other):
                    side.transport.unregisterProducer()
                    side.transport.loseConnection()
            else:
                other.transport.loseWriteConnection()
        elif what == "lost" and other.reason is None:
            other.transport.unregisterProducer()
            other.transport.loseConnection()


class World:
    """One build of the transports, on a reactor of its own."""

    def __init__(self, name: str) -> None:
        self.transports, reactor = BUILDS[name]
        self.native = self.transports is not pure
        self.batches = name.endswith("on ours")
        """Whether what is written in a turn leaves at its end."""
        self.relaying = False
        """Whether a test has transports relay by themselves; for it to say."""
        self.reactor: Any = reactor()
        self._closing: list[Any] = []

    def turn(self, turns: int = 3) -> None:
        for _ in range(turns):
            self.reactor.iterate(0)

    def until(self, condition: Callable[[], Any], seconds: float = 10.0) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, "it did not happen"
            self.reactor.iterate(0.01)

    def listening(self, backlog: int = 128) -> socket.socket:
        skt = socket.create_server((HOST, 0), backlog=backlog)
        self._closing.append(skt)
        return skt

    def acceptor(self, factory: Any, skt: socket.socket | None = None) -> tuple[Any, int]:
        """An acceptor at work, and its port."""
        skt = skt or socket.create_server((HOST, 0))
        port: int = skt.getsockname()[1]
        acceptor = self.transports.Acceptor(self.reactor, skt, factory)
        acceptor.start()
        self._closing.append(acceptor)
        return acceptor, port

    def peer(self, port: int) -> socket.socket:
        skt = socket.create_connection((HOST, port), timeout=10)
        self._closing.append(skt)
        return skt

    def pair(self, protocol: Any) -> socket.socket:
        """The other end of an accepted connection that ``protocol`` has."""
        acceptor, port = self.acceptor(protocol)
        skt = self.peer(port)
        self.until(lambda: protocol.transport is not None)
        acceptor.close()
        return skt

    def connect(self, port: int, protocol: Any) -> Any:
        transport = self.transports.connect(self.reactor, HOST, port, protocol, protocol.failed)
        self._closing.append(transport)
        return transport

    def end(self) -> None:
        for each in self._closing:
            if hasattr(each, "cancel") and not each.connected:
                each.cancel()
            elif hasattr(each, "abortConnection"):
                each.abortConnection()
            else:
                with contextlib.suppress(OSError):
                    each.close()
        for reader in self.reactor.removeAll():
            if hasattr(reader, "abortConnection"):
                reader.abortConnection()
        self.turn()
        for call in self.reactor.getDelayedCalls():
            call.cancel()
        for internal in list(self.reactor._internalReaders):
            self.reactor.removeReader(internal)
            internal.connectionLost(None)
        poller = getattr(self.reactor, "_poller", None)
        if poller is not None:
            poller.close()


def reset(skt: socket.socket) -> None:
    """Close so that the other side gets a reset."""
    skt.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    skt.close()


def descriptors() -> int:
    """How many file descriptors this process has, besides those that only garbage holds and pipes kept for use."""
    gc.collect()
    return len(os.listdir("/proc/self/fd")) - (2 * pipes_open() if available else 0)
