"""How a worker finds a new supervisor after its own has died.

The worker goes on serving, and knocks every second at the *rendezvous*, the UNIX socket where a
supervisor listens in its state directory.  The new supervisor takes the worker's
place with workers of its own and then tells it to drain.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Sequence

from twisted.internet.interfaces import IReactorFDSet, IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from lbproxy.ipc.channel import Channel, UnixChannel
from lbproxy.ipc.messages import Applied, Hello, Message

_log = Logger()

RETRY_SECONDS = 1.0


class IRejoinReactor(IReactorTime, IReactorFDSet):
    """What a worker needs of the reactor to find its supervisor again."""


def reconnect(reactor: IRejoinReactor, path: str, on_channel: Callable[[UnixChannel], None]) -> LoopingCall:
    """Try to connect to ``path`` now and every second until it succeeds, then call ``on_channel`` once.

    Stop the returned call to give up.
    """

    def attempt() -> None:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.setblocking(False)
        try:
            connection.connect(path)
        except OSError:  # nobody there yet, or its backlog is full
            connection.close()
            return
        call.stop()
        on_channel(UnixChannel(reactor, connection))

    call = LoopingCall(attempt)
    call.clock = reactor
    call.start(RETRY_SECONDS).addErrback(
        lambda failure: _log.failure("cannot look for a new supervisor", failure=failure)
    )
    return call


class RejoiningChannel(Channel):
    """A worker's channel that outlives the supervisor.

    When the supervisor is gone it looks for another at the rendezvous and says `Hello` there.  In between,
    messages go nowhere: to the worker, a supervisor that died is one that has nothing to say.
    ``on_lost`` is called only where the supervisor dies before the worker has `Applied` a snapshot: it serves
    nobody, and the next supervisor will not miss it.
    """

    def __init__(self, reactor: IRejoinReactor, channel: Channel, rendezvous: str) -> None:
        super().__init__()
        self._reactor = reactor
        self._rendezvous = rendezvous
        self._channel: Channel | None = channel
        self._search: LoopingCall | None = None
        self._serves = False
        channel.on_lost = self._channel_lost

    @property
    def queued_bytes(self) -> int:
        return self._channel.queued_bytes if self._channel is not None else 0

    def send(self, message: Message, fds: Sequence[int] = ()) -> None:
        self._serves = self._serves or isinstance(message, Applied)
        if self._channel is not None:
            self._channel.send(message, fds)

    def close(self) -> None:
        if self._search is not None and self._search.running:
            self._search.stop()
        if self._channel is not None:
            self._channel.close()
            self._channel = None

    def _begin_delivery(self) -> None:
        if self._channel is not None:
            self._channel.on_message = self._deliver

    def _channel_lost(self) -> None:
        if not self._serves:
            _log.warn("the supervisor went before this worker could serve")
            self._channel = None
            self.on_lost()
            return
        _log.warn("the supervisor is gone; serving on, and looking for a new one at {path}", path=self._rendezvous)
        self._channel = None
        self._search = reconnect(self._reactor, self._rendezvous, self._rejoined)

    def _rejoined(self, channel: UnixChannel) -> None:
        _log.info("found a new supervisor")
        self._channel = channel
        channel.on_lost = self._channel_lost
        channel.on_message = self._deliver
        channel.send(Hello(pid=os.getpid()))
