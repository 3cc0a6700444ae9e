"""A worker's root service: follows the supervisor's messages and reports to it."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import Any

from twisted.application.service import Service
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from lbproxy.dataplane.memory import Crowd, find_trim
from lbproxy.dataplane.serving import Serving
from lbproxy.ipc.cells import SharedCells
from lbproxy.ipc.channel import Channel
from lbproxy.ipc.messages import (
    AddSockets,
    Applied,
    ApplySnapshot,
    Drain,
    Drained,
    Hello,
    Message,
    ReopenLogs,
    Report,
    StickinessKeys,
    Suspect,
    TicketKeys,
    Welcome,
)
from lbproxy.model.snapshot import Configuration, Snapshot
from lbproxy.native.tls import use_ticket_keys

_log = Logger()

REPORT_SECONDS = 1.0
_DRAIN_LOOK_SECONDS = 0.05
_PART_SECONDS = 1.0
"""How long, after the drain deadline, clients and targets may take to read how their WebSockets ended; less than the
supervisor waits before it kills."""


class Worker(Service):
    """Serves clients as the supervisor says.

    When the supervisor is gone the worker goes on with what it knows.  ``on_finished`` is
    called when a drain is over and the process may exit.
    """

    def __init__(self, reactor: Any, channel: Channel) -> None:
        self._reactor = reactor
        self._channel = channel
        self._cells: SharedCells | None = None
        self._serving: Serving | None = None
        self._configuration: tuple[int, Configuration] | None = None
        self._reporting = LoopingCall(self._report)
        self._reporting.clock = reactor
        self._draining: LoopingCall | None = None
        self._drain_until = 0.0
        self._parting = False
        """Whether the drain deadline has come."""
        self._aborted = 0
        self._crowd = Crowd(find_trim())
        self.on_finished: Callable[[], None] | None = None

    def startService(self) -> None:
        super().startService()
        self._channel.send(Hello(pid=os.getpid()))
        self._channel.on_message = self._received
        self._reporting.start(REPORT_SECONDS, now=False)

    def stopService(self) -> None:
        """End at once; `Drain` is the gentle way."""
        super().stopService()
        for call in (self._reporting, self._draining):
            if call is not None and call.running:
                call.stop()
        if self._serving is not None:
            self._serving.drain(False)
            self._serving.end()
            self._serving.close()

    def _received(self, message: Message, fds: list[int]) -> None:
        match message:
            case Welcome():
                self._cells = SharedCells.attach(fds[0])
                self._serving = Serving(
                    self._reactor, self._cells.view, self._cells.tables, message.slot, self._suspect
                )
            case AddSockets():
                assert self._serving is not None
                for bind, fd in zip(message.binds, fds, strict=True):
                    self._serving.add_socket(bind, socket.socket(fileno=fd))
            case TicketKeys():
                use_ticket_keys(message.keys)
            case StickinessKeys():
                assert self._serving is not None
                self._serving.seal.use(message.keys)
            case ApplySnapshot():
                self._apply(message)
            case Drain():
                self._drain(message)
            case ReopenLogs():
                if self._serving is not None:
                    self._serving.reopen_log()
            case _:
                _log.error("unexpected message {message}", message=type(message).__name__)

    def _apply(self, message: ApplySnapshot) -> None:
        assert self._serving is not None
        configuration = message.configuration
        if configuration is not None:
            self._configuration = (message.configuration_version, configuration)
        assert self._configuration is not None
        assert self._configuration[0] == message.configuration_version
        snapshot = Snapshot(
            version=message.version,
            configuration_version=message.configuration_version,
            configuration=self._configuration[1],
            groups=message.groups,
            worker_slots=message.worker_slots,
        )
        problems = self._serving.apply(snapshot)
        self._channel.send(Applied(version=message.version, problems=tuple(problems)))

    def _report(self) -> None:
        if self._serving is not None:
            self._channel.send(Report(counters=self._serving.report()))
            self._crowd.look(self._serving.open_connections())

    def _suspect(self, group: str, target: str, failures: int) -> None:
        self._channel.send(Suspect(group=group, target=target, failures=failures))

    def _drain(self, message: Drain) -> None:
        if self._draining is not None:
            return
        if self._serving is not None:
            self._serving.drain(message.close_sockets)
        self._drain_until = self._reactor.seconds() + message.timeout_seconds
        self._draining = LoopingCall(self._look_whether_drained)
        self._draining.clock = self._reactor
        self._draining.start(_DRAIN_LOOK_SECONDS)

    def _is_busy(self, serving: Serving) -> bool:
        return serving.open_connections() > 0 or (self._parting and serving.closing_target_connections() > 0)

    def _look_whether_drained(self) -> None:
        assert self._draining is not None
        if self._serving is not None and self._is_busy(self._serving):
            now = self._reactor.seconds()
            if now < self._drain_until:
                return
            self._aborted += self._serving.end()
            if not self._parting:
                self._parting = True
                self._drain_until = now + _PART_SECONDS
                if self._is_busy(self._serving):
                    return
        self._draining.stop()
        if self._reporting.running:
            self._reporting.stop()
        self._report()
        self._channel.send(Drained(aborted=self._aborted))
        if self._serving is not None:
            self._serving.close()
            self._serving = None
        if self.on_finished is not None:
            self.on_finished()
