"""Channels: messages and descriptors between the supervisor and a worker, in order.

`UnixChannel` joins two processes; `MemoryChannel` joins the two ends within one
(``workers = 0`` and tests) with the same semantics, the codec included.
"""

from __future__ import annotations

import abc
import array
import contextlib
import errno
import os
import socket
from collections import deque
from collections.abc import Callable, Iterator, Sequence

from twisted.internet.interfaces import IReactorFDSet, IReactorTime, IReadDescriptor, IReadWriteDescriptor
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from lbproxy.ipc.codec import CodecError, FrameReader, encode
from lbproxy.ipc.messages import Message

_log = Logger()

MAX_FDS = 253
"""The kernel's limit for one message (SCM_MAX_FD)."""

_READ_BYTES = 256 << 10
_WRITE_BYTES = 256 << 10
_ANCILLARY_BYTES = socket.CMSG_SPACE(MAX_FDS * array.array("i").itemsize)
_CLOSE_ON_EXEC = getattr(socket, "MSG_CMSG_CLOEXEC", 0)  # Linux


class Channel(abc.ABC):
    """One end of a channel.

    ``on_message(message, fds)`` is called for each message with its descriptors, which the
    receiver then owns; until it is set, what arrives is held back.  ``on_lost()`` is called once when the
    peer has gone or the channel broke, not after `close`.
    """

    def __init__(self) -> None:
        self._on_message: Callable[[Message, list[int]], None] | None = None
        self.on_lost: Callable[[], None] = _do_nothing

    @property
    def on_message(self) -> Callable[[Message, list[int]], None] | None:
        """Called for each message; delivery begins when it is first set."""
        return self._on_message

    @on_message.setter
    def on_message(self, callback: Callable[[Message, list[int]], None]) -> None:
        first = self._on_message is None
        self._on_message = callback
        if first:
            self._begin_delivery()

    @property
    @abc.abstractmethod
    def queued_bytes(self) -> int:
        """Bytes that wait because the peer does not read; a sender of many messages watches it."""

    @abc.abstractmethod
    def send(self, message: Message, fds: Sequence[int] = ()) -> None:
        """Send a message, with duplicates of at most `MAX_FDS` descriptors: the caller keeps its own.

        Never blocks.  On a channel that is lost or closed it does nothing.
        """

    @abc.abstractmethod
    def close(self) -> None:
        """End the channel; nothing is delivered any more and the peer loses it once it read what was sent."""

    @abc.abstractmethod
    def _begin_delivery(self) -> None: ...

    def _deliver(self, message: Message, fds: list[int]) -> None:
        assert self._on_message is not None
        try:
            self._on_message(message, fds)
        except Exception:
            _log.failure("a message of type {type} could not be handled", type=type(message).__name__)


@implementer(IReadWriteDescriptor)
class UnixChannel(Channel):
    """A channel over a connected UNIX stream socket, which it owns.

    Descriptors travel with the first byte of their frame, and each frame says how many are its own;
    so they arrive with their message however the stream is split.
    """

    def __init__(self, reactor: IReactorFDSet, connection: socket.socket) -> None:
        super().__init__()
        connection.setblocking(False)
        connection.set_inheritable(False)
        self._reactor = reactor
        self._socket = connection
        self._reader = FrameReader()
        self._fds: deque[int] = deque()
        self._queue: deque[tuple[memoryview, list[int]]] = deque()
        self._open = True

    @property
    def queued_bytes(self) -> int:
        return sum(len(data) for data, _ in self._queue)

    def send(self, message: Message, fds: Sequence[int] = ()) -> None:
        if len(fds) > MAX_FDS:
            raise ValueError(f"{len(fds)} descriptors in one message, the limit is {MAX_FDS}")
        if not self._open:
            return
        frame = memoryview(encode(message, len(fds)))
        self._queue.append((frame, [os.dup(fd) for fd in fds]))
        if len(self._queue) == 1 and self.doWrite() is not None:
            self._reactor.addWriter(self)  # fails again there, where the reactor reports the loss

    def close(self) -> None:
        if not self._open:
            return
        self._open = False
        self._reactor.removeReader(self)
        self._reactor.removeWriter(self)
        self._socket.close()
        self._drop_queue()
        _close_all(self._fds)
        self._fds.clear()

    def _drop_queue(self) -> None:
        for _, fds in self._queue:
            _close_all(fds)
        self._queue.clear()

    def _begin_delivery(self) -> None:
        if self._open:
            self._reactor.addReader(self)

    # what the reactor calls

    def fileno(self) -> int:
        return self._socket.fileno()

    def logPrefix(self) -> str:
        return "channel"

    def doRead(self) -> Exception | None:  # type: ignore[override]  # Twisted's own return these constants too
        try:
            data, ancillary, flags, _ = self._socket.recvmsg(_READ_BYTES, _ANCILLARY_BYTES, _CLOSE_ON_EXEC)
        except (BlockingIOError, InterruptedError):
            return None
        except OSError:
            return CONNECTION_LOST
        self._fds.extend(_descriptors_in(ancillary))
        if flags & socket.MSG_CTRUNC:
            _log.error("descriptors were lost on their way: too many open files?")
            return CONNECTION_LOST
        if not data:
            return CONNECTION_DONE
        try:
            for message, fd_count in self._reader.receive_data(data):
                if fd_count > len(self._fds):
                    raise CodecError(f"{fd_count} descriptors announced, {len(self._fds)} came")
                self._deliver(message, [self._fds.popleft() for _ in range(fd_count)])
                if not self._open:
                    return None
        except CodecError as error:
            _log.error("the channel broke: {error}", error=error)
            return CONNECTION_LOST
        return None

    def doWrite(self) -> Exception | None:  # type: ignore[override]
        while self._queue:
            data, fds = self._queue[0]
            try:
                sent = self._socket.sendmsg([data[:_WRITE_BYTES]], _ancillary_for(fds))
            except (BlockingIOError, InterruptedError):
                self._reactor.addWriter(self)
                return None
            except OSError as error:
                if error.errno not in (errno.EPIPE, errno.ECONNRESET):
                    _log.error("the channel broke: {error}", error=error)
                    return CONNECTION_LOST
                # The peer has gone; what it said before that is still to be read, and then its end.
                self._drop_queue()
                break
            _close_all(fds)
            if sent == len(data):
                self._queue.popleft()
            else:
                self._queue[0] = data[sent:], []
        self._reactor.removeWriter(self)
        return None

    def connectionLost(self, reason: Failure) -> None:
        if self._open:
            self.close()
            self.on_lost()


class MemoryChannel(Channel):
    """One end of a channel within the process; see `pair`."""

    def __init__(self, clock: IReactorTime) -> None:
        super().__init__()
        self._clock = clock
        self._peer: MemoryChannel | None = None
        self._arrived: deque[tuple[bytes, list[int]]] = deque()
        self._peer_gone = False

    @classmethod
    def pair(cls, clock: IReactorTime) -> tuple[MemoryChannel, MemoryChannel]:
        """Make two ends; each message is delivered in a later turn of the reactor."""
        one, other = cls(clock), cls(clock)
        one._peer, other._peer = other, one
        return one, other

    @property
    def queued_bytes(self) -> int:
        return sum(len(frame) for frame, _ in self._peer._arrived) if self._peer is not None else 0

    def send(self, message: Message, fds: Sequence[int] = ()) -> None:
        if len(fds) > MAX_FDS:
            raise ValueError(f"{len(fds)} descriptors in one message, the limit is {MAX_FDS}")
        if self._peer is None or self._peer_gone:
            return
        self._peer._arrived.append((encode(message, len(fds)), [os.dup(fd) for fd in fds]))
        self._clock.callLater(0, self._peer._deliver_next)

    def close(self) -> None:
        peer, self._peer = self._peer, None
        if peer is None:
            return
        for _, fds in self._arrived:
            _close_all(fds)
        self._arrived.clear()
        peer._peer_gone = True
        self._clock.callLater(0, peer._lose)

    def _begin_delivery(self) -> None:
        for _ in self._arrived:
            self._clock.callLater(0, self._deliver_next)
        if self._peer_gone:
            self._clock.callLater(0, self._lose)

    def _deliver_next(self) -> None:
        if self._on_message is None or not self._arrived:
            return
        frame, fds = self._arrived.popleft()
        for message, _ in FrameReader().receive_data(frame):
            self._deliver(message, fds)

    def _lose(self) -> None:
        if self._on_message is not None and self._peer is not None:
            self._peer = None
            self.on_lost()


@implementer(IReadDescriptor)
class ChannelListener:
    """Accept channels at a UNIX socket that only this user can connect to (mode 0600)."""

    def __init__(self, reactor: IReactorFDSet, path: str, on_channel: Callable[[UnixChannel], None]) -> None:
        """Listen at ``path``, in place of what a dead process left there.  Raises OSError."""
        self._reactor = reactor
        self._path = path
        self._on_channel = on_channel
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            # the mode is set before anybody can connect: between bind and listen
            self._socket.bind(path)
            os.chmod(path, 0o600)
            self._socket.listen(128)
        except OSError:
            self._socket.close()
            raise
        reactor.addReader(self)

    def close(self) -> None:
        """Stop listening and remove the socket's name.  May be called again."""
        if self._socket.fileno() < 0:
            return
        self._reactor.removeReader(self)
        self._socket.close()
        with contextlib.suppress(OSError):
            os.unlink(self._path)

    def fileno(self) -> int:
        return self._socket.fileno()

    def logPrefix(self) -> str:
        return "channel listener"

    def doRead(self) -> None:
        try:
            connection, _ = self._socket.accept()
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.ECONNABORTED, errno.EINTR):
                _log.error("cannot accept at {path}: {error}", path=self._path, error=error)
            return
        self._on_channel(UnixChannel(self._reactor, connection))

    def connectionLost(self, reason: Failure) -> None:
        self.close()


def _ancillary_for(fds: list[int]) -> list[tuple[int, int, array.array[int]]]:
    return [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []


def _descriptors_in(ancillary: list[tuple[int, int, bytes]]) -> Iterator[int]:
    """Yield the received descriptors, close-on-exec also where the kernel cannot make them so."""
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds = array.array("i")
            fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
            for fd in fds:
                if not _CLOSE_ON_EXEC:
                    os.set_inheritable(fd, False)
                yield fd


def _close_all(fds: Sequence[int] | deque[int]) -> None:
    for fd in fds:
        os.close(fd)


def _do_nothing() -> None:
    pass
