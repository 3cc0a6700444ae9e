"""Demo targets: servers that lbproxy starts itself for groups with ``targets = demo:N``.

Each is a process (`lbproxy.testing.demo_target`) that keeps its port, so a configuration can be reloaded
around it.  One that ends is started again only after a while, long enough to see health checks act.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs
from twisted.application.service import Service
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IDelayedCall, IProcessTransport
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from lbproxy.controlplane.supervisor.launch import (
    DEFAULT_WORKER_COMMAND,
    ISupervisorReactor,
    child_environment,
    describe_exit,
)
from lbproxy.ipc.log import LogRelay
from lbproxy.model.snapshot import Configuration
from lbproxy.model.target import Target
from lbproxy.model.target_group import TargetGroup

_log = Logger()

RESTART_SECONDS = 10.0

RETIRE_SECONDS = 30.0
"""How long a demo target that left the configuration may finish what it answers."""

START_LIMIT_SECONDS = 30.0


class DemoTargets(Service):
    """All demo targets; they end with the service, and with this process however it ends."""

    def __init__(self, reactor: ISupervisorReactor, command: Sequence[str] = DEFAULT_WORKER_COMMAND) -> None:
        self._reactor = reactor
        self._command = command
        self._targets: dict[_Key, _DemoTarget] = {}

    async def fill(self, configuration: Configuration, demo: Mapping[str, int]) -> Configuration:
        """Give these groups this many demo targets each, started where they are not running yet.

        Raises TimeoutError if one does not start.
        """
        wanted = _keys(configuration, demo)
        for key in wanted:
            if key not in self._targets:
                self._targets[key] = _DemoTarget(self._reactor, self._command, key)
        await gatherResults([self._targets[key].port_known() for key in wanted], consumeErrors=True)
        return attrs.evolve(
            configuration,
            target_groups=tuple(
                attrs.evolve(group, targets=self._addresses(group, demo)) if group.name in demo else group
                for group in configuration.target_groups
            ),
        )

    def keep_only(self, configuration: Configuration, demo: Mapping[str, int]) -> None:
        """End those that this configuration does without, a little later."""
        wanted = _keys(configuration, demo)
        for key in self._targets.keys() - set(wanted):
            self._targets.pop(key).retire()

    def stopService(self) -> None:
        super().stopService()
        for target in self._targets.values():
            target.stop()
        self._targets.clear()

    def _addresses(self, group: TargetGroup, demo: Mapping[str, int]) -> tuple[Target, ...]:
        ports = [self._targets[key].port for key in _keys_of_group(group, demo)]
        return tuple(Target(host="127.0.0.1", port=port, address="127.0.0.1") for port in ports)


@attrs.frozen
class _Key:
    """Which demo target."""

    group: str
    number: int
    speaks_tcp: bool

    @property
    def name(self) -> str:
        return f"{self.group}-{self.number}"


def _keys(configuration: Configuration, demo: Mapping[str, int]) -> list[_Key]:
    return [key for group in configuration.target_groups for key in _keys_of_group(group, demo)]


def _keys_of_group(group: TargetGroup, demo: Mapping[str, int]) -> list[_Key]:
    return [_Key(group.name, number, not group.protocol.is_http) for number in range(1, demo.get(group.name, 0) + 1)]


class _DemoTarget:
    """One demo target and its successors at the same port."""

    def __init__(self, reactor: ISupervisorReactor, command: Sequence[str], key: _Key) -> None:
        self.port = 0
        self._reactor = reactor
        self._name = key.name
        self._arguments = [*command, "demo-target", "--name", key.name, *(["--tcp"] if key.speaks_tcp else [])]
        self._waiting: list[Deferred[None]] = []
        self._process: _DemoProcess | None = None
        self._timer: IDelayedCall | None = None
        self._stopped = False
        self._start()

    def port_known(self) -> Deferred[None]:
        """Fire once it has a port."""
        known: Deferred[None] = Deferred()
        if self.port:
            known.callback(None)
            return known
        self._waiting.append(known)
        return known.addTimeout(
            START_LIMIT_SECONDS,
            self._reactor,
            lambda *_: Failure(TimeoutError(f"demo target {self._name} did not start")),
        )

    def retire(self) -> None:
        """Stop a little later."""
        self._cancel_timer()
        self._timer = self._reactor.callLater(RETIRE_SECONDS, self.stop)

    def stop(self) -> None:
        """Stop now, for good."""
        self._stopped = True
        self._cancel_timer()
        if self._process is not None:
            self._process.stop()

    def started(self, port: int) -> None:
        """The process has told its port."""
        if not self.port:
            _log.info("demo target {name} listens on 127.0.0.1:{port}", name=self._name, port=port)
        self.port = port
        waiting, self._waiting = self._waiting, []
        for known in waiting:
            known.callback(None)

    def ended(self, how: str) -> None:
        """The process has gone."""
        self._process = None
        if self._stopped or self._timer is not None:
            return
        _log.warn(
            "demo target {name} (127.0.0.1:{port}) ended: {how}; starting it again in {seconds:.0f} s, "
            "so that health checks can be seen at work",
            name=self._name,
            port=self.port,
            how=how,
            seconds=RESTART_SECONDS,
        )
        self._timer = self._reactor.callLater(RESTART_SECONDS, self._start)

    def _start(self) -> None:
        self._timer = None
        self._process = _DemoProcess(self, self._name)
        self._reactor.spawnProcess(
            self._process,
            self._arguments[0],
            args=[*self._arguments, "--port", str(self.port)],
            env=child_environment(),
        )

    def _cancel_timer(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None


class _DemoProcess(ProcessProtocol):
    transport: IProcessTransport

    def __init__(self, target: _DemoTarget, name: str) -> None:
        self._target = target
        self._stdout = b""
        self._stderr = LogRelay(f"demo target {name}")

    def outReceived(self, data: bytes) -> None:
        self._stdout += data
        line, end, _ = self._stdout.partition(b"\n")
        if end:
            self._target.started(int(line))

    def errReceived(self, data: bytes) -> None:
        self._stderr.receive_data(data)

    def processEnded(self, reason: Failure) -> None:
        self._stderr.receive_eof()
        self._target.ended(describe_exit(reason))

    def stop(self) -> None:
        """The end of its stdin is the sign to stop."""
        self.transport.closeStdin()
