"""TCP transports that send at once, on Twisted's own: the pure Python twin of ``lbproxy.native._stream``.

`StreamTransport.write` sends first and leaves to Twisted's buffer only what the kernel did not take.  What is written
while the reactor serves events leaves when it has served them: a peer that waits is woken once, not for each piece.
Back-pressure, half-close and abort are Twisted's.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
import termios
from collections.abc import Callable
from typing import Any, Protocol, cast

from twisted.internet import abstract, interfaces, main, tcp
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IProtocol, IReactorFDSet
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from lbproxy.native.pure.clock import turns

_log = Logger()

_ACCEPT_BATCH = 64
"""Connections taken at one wake-up, so that a flood of them does not starve the others."""

_SMALL_READ = 4096
"""Room for most heads; to make room for more takes longer."""
_LARGE_READ = 65536
"""For a connection that fills what it is given."""
_KEPT_WRITE = 16384
"""What is longer is sent at once."""

_ACCEPT_PAUSE_SECONDS = 0.5
"""Rest after running out of descriptors or memory."""


_DONE = Failure(main.CONNECTION_DONE)


class Address(Protocol):
    """The other end of an accepted connection: Twisted's address, or a cheaper one that looks like it so far."""

    @property
    def host(self) -> str:
        """An IP literal, without brackets."""

    @property
    def port(self) -> int: ...


class Factory(Protocol):
    """The part of a Twisted factory that `Acceptor` needs."""

    def buildProtocol(self, addr: Address) -> IProtocol | None: ...


def stream_address(sockaddr: tuple[Any, ...]) -> IPv4Address | IPv6Address:
    """Turn what the socket module calls an address into Twisted's."""
    if len(sockaddr) == 2:
        return IPv4Address("TCP", sockaddr[0], sockaddr[1])
    return IPv6Address("TCP", *sockaddr)


class StreamTransport(tcp.Connection):
    """A TCP connection, accepted or made, that writes at once when nothing is queued."""

    logstr = "tcp"
    reactor: Any

    def __init__(
        self, skt: socket.socket | None, protocol: IProtocol, reactor: IReactorFDSet, peer: tuple[Any, ...]
    ) -> None:
        abstract.FileDescriptor.__init__(self, reactor=reactor)
        if skt is not None:  # else the attempt to connect has failed already
            self.socket = skt
            self.fileno = skt.fileno
        self.protocol = protocol
        self._peer = peer
        self._read_size = _SMALL_READ
        self._kept = b""
        """Leaves at the end of the turn; nothing is queued before it."""

    def getPeer(self) -> IPv4Address | IPv6Address:
        """The other end's address."""
        return stream_address(self._peer)

    def getHost(self) -> IPv4Address | IPv6Address:
        """This end's address."""
        return stream_address(self.socket.getsockname())

    def doRead(self) -> Any:
        try:
            data = self.socket.recv(self._read_size)
        except BlockingIOError:
            return None
        except OSError:
            return main.CONNECTION_LOST
        if not data:
            return main.CONNECTION_DONE
        self._read_size = _SMALL_READ if len(data) < _SMALL_READ else _LARGE_READ
        self.protocol.dataReceived(data)
        return None

    def write(self, data: bytes) -> None:
        """Send what the kernel takes, at the latest when the reactor has served its events; queue the rest."""
        if not isinstance(data, bytes):
            raise TypeError("Data must be bytes")
        if self._tempDataBuffer or self.dataBuffer:
            abstract.FileDescriptor.write(self, data)
            return
        if not self.connected or self._writeDisconnected or not data:
            return
        kept = self._kept
        if kept:
            data = kept + data
        if turns.serving and len(data) <= _KEPT_WRITE:
            self._kept = data
            if not kept:
                turns.ending.append(self)
        else:
            self._kept = b""
            self._send(data)

    def turn_ended(self) -> None:
        """All events of this turn are served."""
        data, self._kept = self._kept, b""
        if data:
            self._send(data)

    def _send(self, data: bytes) -> None:
        try:
            sent = self.socket.send(data)
        except OSError:
            # EAGAIN, or an error that the next doWrite meets again and reports.
            sent = 0
        if sent < len(data):
            abstract.FileDescriptor.write(self, data[sent:] if sent else data)
        elif self.producer is not None and not self.streamingProducer:
            self.startWriting()  # a pull producer is asked for more when what it gave is sent

    def writeSequence(self, iovec: Any) -> None:
        self.write(b"".join(iovec))

    def abortConnection(self) -> None:
        """Reset the connection at the end of this reactor turn; nothing is sent or read any more."""
        self._kept = b""
        super().abortConnection()
        self._writeDisconnected = True

    def loseConnection(self, _connDone: Failure = _DONE) -> None:
        """Close once all that was written is sent; in the reactor's next turn if it is already."""
        if self.connected and not self.disconnecting and not self._aborting:
            self.turn_ended()
            self.disconnecting = 1
            self.stopReading()
            if self._tempDataBuffer or self.dataBuffer:
                self.startWriting()
            else:
                self.reactor.callLater(0, self._close_if_flushed, _connDone)

    def _close_if_flushed(self, reason: Failure) -> None:
        if not self.connected or self._aborting or self._tempDataBuffer or self.dataBuffer:
            return
        if self._writeDisconnected or self.producer is None or (self.streamingProducer and not self.producerPaused):
            self.connectionLost(reason)
        else:
            self.startWriting()  # Twisted asks the producer for the rest

    def loseWriteConnection(self) -> None:
        """Close the write direction once all that was written is sent; go on reading."""
        if self.connected and not self._writeDisconnecting:
            self.turn_ended()
            super().loseWriteConnection()

    def unregisterProducer(self) -> None:
        super().unregisterProducer()
        if self.connected and self._writeDisconnecting:
            self.startWriting()

    def resumeProducing(self) -> None:
        if not self._aborting:
            super().resumeProducing()

    def connectionLost(self, reason: Failure) -> None:
        """Close and tell the protocol, once.  Whatever the others raise is logged."""
        self._kept = b""
        try:
            super().connectionLost(reason)
        except Exception:
            _log.failure("unhandled error in a connection's protocol")

    def is_quiet(self) -> bool:
        """Tell whether the connection stands and nothing waits to be read, not even its end."""
        if not self.connected:
            return False
        try:
            self.socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            pass
        return False

    def untaken(self) -> int:
        """How many of the bytes written the peer has not acknowledged: what is queued here and in the kernel."""
        try:
            sent: int = struct.unpack("i", fcntl.ioctl(self.socket, termios.TIOCOUTQ, bytes(4)))[0]
        except (AttributeError, OSError):
            return 0  # it is closed
        return len(self._kept) + len(self.dataBuffer) - self.offset + self._tempDataLen + sent

    def made(self) -> None:
        """The connection stands: tell the protocol and read.  What the protocol raises is logged and ends it."""
        self.connected = 1
        self.startReading()
        try:
            self.protocol.makeConnection(cast(interfaces.ITransport, self))
        except BaseException:
            failure = Failure()
            _log.failure("unhandled error in a connection's protocol", failure=failure)
            self.connectionLost(failure)


@implementer(interfaces.IReadDescriptor)
class Acceptor:
    """Accept connections from a listening socket, which it owns.

    ``factory`` gives a protocol for each, or None to refuse it.
    """

    def __init__(self, reactor: Any, skt: socket.socket, factory: Factory) -> None:
        skt.setblocking(False)
        self._reactor = reactor
        self._socket: socket.socket | None = skt
        self._factory = factory
        self._resume: Any = None

    def fileno(self) -> int:
        return -1 if self._socket is None else self._socket.fileno()

    def logPrefix(self) -> str:
        return "accept"

    def connectionLost(self, reason: Failure) -> None:
        self.close()

    def start(self) -> None:
        """Begin to accept."""
        self._reactor.addReader(self)

    def doRead(self) -> None:
        self._accept(_ACCEPT_BATCH)

    def close(self) -> None:
        """Stop accepting and close the socket; the kernel resets what is queued on it."""
        if self._resume is not None:
            self._resume.cancel()
            self._resume = None
        if self._socket is not None:
            self._reactor.removeReader(self)
            self._socket.close()
            self._socket = None

    def finish(self) -> None:
        """Accept all that is queued, then close."""
        while self._socket is not None and self._accept(_ACCEPT_BATCH):
            pass
        self.close()

    def set_factory(self, factory: Factory) -> None:
        """Connections accepted from now on get their protocol from here."""
        self._factory = factory

    def _accept(self, limit: int) -> bool:
        """Accept up to this many connections; tell whether there may be more."""
        assert self._socket is not None
        for _ in range(limit):
            try:
                skt, sockaddr = self._socket.accept()
            except BlockingIOError:
                return False
            except OSError as failure:
                return self._accept_failed(failure)
            try:
                self._accepted(skt, sockaddr)
            except Exception:
                _log.failure("an accepted connection could not be begun")
                skt.close()
            if self._socket is None:
                return False
        return True

    def _accepted(self, skt: socket.socket, sockaddr: tuple[Any, ...]) -> None:
        skt.setblocking(False)
        protocol = self._factory.buildProtocol(stream_address(sockaddr))
        if protocol is None:
            skt.close()
        else:
            StreamTransport(skt, protocol, self._reactor, sockaddr).made()

    def _accept_failed(self, failure: OSError) -> bool:
        if failure.errno in (errno.ECONNABORTED, errno.EPERM, errno.EINTR):
            return True
        if self._resume is not None:
            return False
        _log.error(
            "cannot accept connections: {error}; trying again in {seconds} s",
            error=os.strerror(failure.errno or 0),
            seconds=_ACCEPT_PAUSE_SECONDS,
        )
        self._reactor.removeReader(self)
        self._resume = self._reactor.callLater(_ACCEPT_PAUSE_SECONDS, self._try_again)
        return False

    def _try_again(self) -> None:
        self._resume = None
        self._reactor.addReader(self)


class ConnectingTransport(StreamTransport):
    """A connection that is being made."""

    _connecting = True

    def __init__(
        self,
        skt: socket.socket | None,
        protocol: IProtocol,
        reactor: IReactorFDSet,
        peer: tuple[Any, ...],
        failed: Callable[[OSError], None],
    ) -> None:
        super().__init__(skt, protocol, reactor, peer)
        self._failed: Callable[[OSError], None] | None = failed

    def doWrite(self) -> Any:
        if not self._connecting:
            return super().doWrite()
        number = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if number:
            self._fail(OSError(number, os.strerror(number)))
            return None
        self._connecting = False
        self._failed = None
        self.stopWriting()
        self.made()
        return None

    def connectionLost(self, reason: Failure) -> None:
        """The reactor saw an error event, which on a connecting socket is the failure to connect."""
        if not self._connecting:
            super().connectionLost(reason)
            return
        number = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) if hasattr(self, "socket") else 0
        number = number or errno.ECONNABORTED
        self._fail(OSError(number, os.strerror(number)))

    def cancel(self) -> None:
        """Give up connecting; nobody is told."""
        if self._connecting:
            self._failed = None
            self._close()

    def _fail(self, failure: OSError) -> None:
        failed, self._failed = self._failed, None
        self._close()
        if failed is not None:
            failed(failure)

    def _close(self) -> None:
        if hasattr(self, "socket"):
            self.stopWriting()
            self.disconnected = 1
            self.socket.close()
            del self.socket, self.fileno


class Flow(Protocol):
    """What one direction of a relay has moved."""

    moved: int
    """Bytes."""
    last: float
    """When it moved some, by the clock."""

    def settle(self) -> int:
        """Give how many bytes have moved since this was asked before."""


def relay(source: Any, sink: Any, clock: Any, limit: int = -1) -> Flow | None:
    """Only compiled transports relay by themselves: what comes from others goes through their protocols."""
    return None


def connect(
    reactor: Any, host: str, port: int, protocol: IProtocol, failed: Callable[[OSError], None]
) -> ConnectingTransport:
    """Connect to an IP literal.

    Later exactly one of ``protocol.makeConnection`` and ``failed(error)`` is called, unless the
    returned transport's ``cancel()`` comes first.  There is no timeout: cancel.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    peer: tuple[Any, ...] = (host, port) if family == socket.AF_INET else (host, port, 0, 0)
    skt = None
    number = 0
    try:
        if family == socket.AF_INET6:
            socket.inet_pton(family, host.partition("%")[0])
        else:
            socket.inet_pton(family, host)
        skt = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        skt.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        number = skt.connect_ex(peer)
    except (OSError, OverflowError) as failure:
        number = getattr(failure, "errno", None) or errno.EINVAL
    transport = ConnectingTransport(skt, protocol, reactor, peer, failed)
    if number in (0, errno.EINPROGRESS):
        transport.startWriting()
    else:
        reactor.callLater(0, transport._fail, OSError(number, os.strerror(number)))
    return transport
