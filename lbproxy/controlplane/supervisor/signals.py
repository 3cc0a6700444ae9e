"""Signals of the supervisor, handled in the reactor's own time.

SIGTERM and SIGINT drain, a second one stops at once; SIGHUP reloads; SIGUSR1 reopens the logs.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping
from types import FrameType
from typing import Any

from twisted.application.service import Service

from lbproxy.controlplane.supervisor.launch import ISupervisorReactor


class SignalHandlers(Service):
    """Call an action in the reactor for each signal, while the service runs.

    A handler that was there before runs first where ``chained`` says so: twistd reopens its own log on SIGUSR1.
    """

    def __init__(
        self,
        reactor: ISupervisorReactor,
        actions: Mapping[signal.Signals, Callable[[], None]],
        chained: frozenset[signal.Signals] = frozenset({signal.SIGUSR1}),
    ) -> None:
        self._reactor = reactor
        self._actions = actions
        self._chained = chained
        self._previous: dict[signal.Signals, Any] = {}

    def startService(self) -> None:
        super().startService()
        self._reactor.callWhenRunning(self._install)  # the reactor installs its own before that

    def stopService(self) -> None:
        super().stopService()
        for number, handler in self._previous.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
        self._previous.clear()

    def _install(self) -> None:
        if not self.running:
            return
        for number in self._actions:
            self._previous[number] = signal.signal(number, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        arrived = signal.Signals(number)
        previous = self._previous.get(arrived)
        if arrived in self._chained and callable(previous):
            previous(number, frame)
        self._reactor.callFromThread(self._actions[arrived])
