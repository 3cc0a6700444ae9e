"""Stand-ins for what surrounds the supervisor's parts."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.task import Clock

from lbproxy.ipc.channel import MemoryChannel
from lbproxy.ipc.messages import Applied, ApplySnapshot, Drain, Drained, Hello, Message, Report
from lbproxy.model.listener import Bind, Listener, ListenerProtocol
from lbproxy.model.rule import FixedResponse
from lbproxy.model.snapshot import Configuration, Snapshot


class FakeWorker:
    """A scripted worker at the other end of a channel; ``alive`` False makes it ignore everything."""

    def __init__(self, clock: Clock, slot: int, pid: int, on_exit: Callable[[str], None]) -> None:
        self.channel, self._far = MemoryChannel.pair(clock)
        self.slot = slot
        self.pid = pid
        self.on_exit = on_exit
        self.messages: list[Message] = []
        self.descriptors: dict[Bind, int] = {}
        self.signals: list[signal.Signals] = []
        self.answers = True
        self.drains = True
        self._ended = False
        self._far.on_message = self._receive

    def of_type(self, kind: type) -> list[Any]:
        return [message for message in self.messages if isinstance(message, kind)]

    def hello(self) -> None:
        self.say(Hello(pid=self.pid))

    def say(self, message: Message) -> None:
        self._far.send(message)

    def report(self, counters: Mapping[str, Any] | None = None) -> None:
        self.say(Report(counters=counters or {}))

    def hang_up(self) -> None:
        self._far.close()

    def die(self, how: str = "it was ended by SIGKILL") -> None:
        if not self._ended:
            self._ended = True
            self._far.close()
            self.on_exit(how)

    def kill(self, number: signal.Signals) -> None:
        self.signals.append(number)
        if number == signal.SIGKILL:
            self.die()

    def _receive(self, message: Message, fds: list[int]) -> None:
        self.messages.append(message)
        for fd in fds:
            os.close(fd)
        if isinstance(message, ApplySnapshot) and self.answers:
            self.say(Applied(version=message.version))
        if isinstance(message, Drain) and self.drains:
            self.say(Drained(aborted=0))
            self.die("it exited with status 0")


class FakeLauncher:
    """Launches fake workers, which say hello by themselves while ``hello`` is True."""

    def __init__(self, clock: Clock) -> None:
        self.workers: list[FakeWorker] = []
        self.hello = True
        self.answers = True
        self.drains = True
        self.error: OSError | None = None
        self._clock = clock

    def __call__(self, slot: int, on_exit: Callable[[str], None]) -> FakeWorker:
        if self.error is not None:
            raise self.error
        worker = FakeWorker(self._clock, slot, 1000 + len(self.workers), on_exit)
        worker.answers, worker.drains = self.answers, self.drains
        self.workers.append(worker)
        if self.hello:
            worker.hello()
        return worker

    def latest(self, slot: int) -> FakeWorker:
        return [worker for worker in self.workers if worker.slot == slot][-1]


class FakeMetrics:
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.updates: list[tuple[int, int, Mapping[str, Any]]] = []
        self.retired: list[tuple[int, int | None]] = []
        self.restarts: list[int] = []
        self.reloads: list[bool] = []
        self.left_in_order: list[tuple[int, int]] = []
        self.requests_lost = 0

    def update(self, slot: int, incarnation: int, counters: Mapping[str, Any]) -> None:
        self.updates.append((slot, incarnation, counters))

    def retire(self, slot: int, incarnation: int | None = None) -> None:
        self.retired.append((slot, incarnation))

    def worker_restarted(self, slot: int) -> None:
        self.restarts.append(slot)

    def drained(self, slot: int, incarnation: int) -> None:
        self.left_in_order.append((slot, incarnation))

    def reloaded(self, success: bool, unix_time: float) -> None:
        self.reloads.append(success)


def configuration(*binds: Bind, **options: Any) -> Configuration:
    """One HTTP listener for each bind: web-0, web-1 and so on."""
    listeners = tuple(
        Listener(
            name=f"web-{number}",
            protocol=ListenerProtocol.HTTP,
            binds=(bind,),
            default_action=FixedResponse(status=404),
        )
        for number, bind in enumerate(binds)
    )
    return Configuration(listeners=listeners, **options)


def snapshot(version: int, of: Configuration, configuration_version: int = 1, worker_slots: int = 1) -> Snapshot:
    return Snapshot(
        version=version,
        configuration_version=configuration_version,
        configuration=of,
        groups={},
        worker_slots=worker_slots,
    )
