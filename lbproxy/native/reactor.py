"""Twisted's epoll reactor, with native descriptors served without detours.

`install` chooses the best that is there: `NativeReactor`, whose poll loop is compiled and calls native transports
directly; without the compiled modules `LeanReactor`, which spares the transports of this package the log context that
Twisted puts around each event.  Everything else that a Twisted reactor does is inherited, and ordinary Twisted
descriptors are served exactly as by Twisted's own reactor.
"""

from __future__ import annotations

from select import EPOLLIN, EPOLLOUT
from typing import TYPE_CHECKING, Any

from twisted.internet.epollreactor import EPollReactor
from twisted.internet.main import installReactor
from twisted.python import log

from lbproxy.native.choice import available
from lbproxy.native.pure.clock import turns
from lbproxy.native.pure.transport import Acceptor, ConnectingTransport, StreamTransport

if TYPE_CHECKING or available:
    from lbproxy.native._loop import Descriptor, Loop


class NativeReactor(EPollReactor):
    """The epoll reactor on a compiled `Loop`."""

    def __init__(self) -> None:
        super().__init__()
        # Twisted has made an epoll instance and put its waker there; move that to ours.
        first = self._poller
        self._poller = self.native_loop = Loop(self._dispatch)
        for fd in self._selectables:
            interest = (EPOLLIN if fd in self._reads else 0) | (EPOLLOUT if fd in self._writes else 0)
            self.native_loop.register(fd, interest)
        first.close()

    def _dispatch(self, fd: int, event: int) -> None:
        """An ordinary descriptor has an event."""
        selectable = self._selectables.get(fd)
        if selectable is not None:
            log.callWithLogger(selectable, self._doReadOrWrite, selectable, fd, event)

    def doPoll(self, timeout: float | None) -> None:
        """Wait for events and serve them."""
        self.native_loop.poll(-1.0 if timeout is None else timeout)

    doIteration = doPoll

    def addReader(self, reader: Any) -> None:
        if isinstance(reader, Descriptor):
            reader.startReading()
        else:
            super().addReader(reader)

    def addWriter(self, writer: Any) -> None:
        if isinstance(writer, Descriptor):
            writer.startWriting()
        else:
            super().addWriter(writer)

    def removeReader(self, reader: Any) -> None:
        if isinstance(reader, Descriptor):
            reader.stopReading()
        else:
            super().removeReader(reader)

    def removeWriter(self, writer: Any) -> None:
        if isinstance(writer, Descriptor):
            writer.stopWriting()
        else:
            super().removeWriter(writer)

    def removeAll(self) -> list[Any]:
        return [*super().removeAll(), *self.native_loop.remove_all()]

    def getReaders(self) -> list[Any]:
        return [*super().getReaders(), *self.native_loop.descriptors(EPOLLIN)]

    def getWriters(self) -> list[Any]:
        return [*super().getWriters(), *self.native_loop.descriptors(EPOLLOUT)]


_STREAMS = (StreamTransport, ConnectingTransport)
_OWN = (StreamTransport, Acceptor)


class LeanReactor(EPollReactor):
    """The epoll reactor, without a log context around the events of this package's own transports.

    Nothing they log looks at it; setting it up costs as much as the event itself.
    """

    def doPoll(self, timeout: float | None) -> None:
        """Wait for events and serve them."""
        try:
            events = self._poller.poll(-1 if timeout is None else timeout, max(1, len(self._selectables)))
        except InterruptedError:
            return
        turns.begin()
        try:
            self._serve(events)
        finally:
            turns.finish()

    def _serve(self, events: list[tuple[int, int]]) -> None:
        serve = self._doReadOrWrite
        selectables = self._selectables
        for fd, event in events:
            selectable = selectables.get(fd)
            if event == EPOLLIN and type(selectable) in _STREAMS:
                # By far the most frequent; what remains of `_doReadOrWrite`.
                try:
                    why = selectable.doRead()  # type: ignore[union-attr]
                except Exception as failure:
                    log.err()
                    why = failure
                if why:
                    self._disconnectSelectable(selectable, why, True)
            elif isinstance(selectable, _OWN):
                try:
                    serve(selectable, fd, event)
                except Exception:
                    log.err()
            elif selectable is not None:
                log.callWithLogger(selectable, serve, selectable, fd, event)

    doIteration = doPoll


def make_reactor() -> EPollReactor:
    """Make the best reactor that is there, for a test or a program that passes its reactor on."""
    return NativeReactor() if available else LeanReactor()


def install() -> None:
    """Make it the process's reactor; call this before anything imports ``twisted.internet.reactor``."""
    installReactor(make_reactor())
