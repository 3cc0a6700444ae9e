"""How a worker comes to life: as a process of its own, or inside the supervisor (``workers = 0``)."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from twisted.internet.defer import maybeDeferred
from twisted.internet.error import ProcessDone, ProcessExitedAlready, ProcessTerminated
from twisted.internet.interfaces import (
    IProcessTransport,
    IReactorCore,
    IReactorFDSet,
    IReactorFromThreads,
    IReactorProcess,
    IReactorTime,
)
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from lbproxy.ipc.channel import Channel, MemoryChannel, UnixChannel
from lbproxy.ipc.log import LogRelay

_log = Logger()

CHANNEL_FD = 3
"""Where a worker process finds its end of the channel."""

DEFAULT_WORKER_COMMAND = (sys.executable, "-m", "lbproxy")


class ISupervisorReactor(IReactorCore, IReactorTime, IReactorFDSet, IReactorProcess, IReactorFromThreads):
    """What the supervisor needs of the reactor."""


class RunningWorker(Protocol):
    """A worker that was launched."""

    @property
    def pid(self) -> int: ...

    @property
    def channel(self) -> Channel: ...

    def kill(self, number: signal.Signals) -> None:
        """Send a signal; a worker that has ended already is left alone."""


class Launch(Protocol):
    """Start a worker for a slot; ``on_exit(how)`` is called once when it has ended.  Raises OSError."""

    def __call__(self, slot: int, on_exit: Callable[[str], None]) -> RunningWorker: ...


class InProcessWorker(Protocol):
    """What `lbproxy.dataplane.worker.Worker` is to the supervisor, which may not import it."""

    on_finished: Callable[[], None] | None
    """Called when the worker has drained and would exit."""

    def startService(self) -> None: ...

    def stopService(self) -> object: ...


class ProcessLauncher:
    """Start workers as processes: ``<command> worker --channel-fd 3 --rendezvous PATH``."""

    def __init__(
        self,
        reactor: ISupervisorReactor,
        command: Sequence[str] = DEFAULT_WORKER_COMMAND,
        rendezvous: str | None = None,
    ) -> None:
        self._reactor = reactor
        self._arguments = [*command, "worker", "--channel-fd", str(CHANNEL_FD)]
        if rendezvous is not None:
            self._arguments += ["--rendezvous", rendezvous]

    def __call__(self, slot: int, on_exit: Callable[[str], None]) -> RunningWorker:
        ours, theirs = socket.socketpair()
        nothing = os.open(os.devnull, os.O_RDONLY)
        try:
            process = WorkerProcess(UnixChannel(self._reactor, ours), f"worker {slot}", on_exit)
            self._reactor.spawnProcess(
                process,
                self._arguments[0],
                args=self._arguments,
                env=child_environment(),
                childFDs={0: nothing, 1: 1, 2: "r", CHANNEL_FD: theirs.fileno()},
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
            os.close(nothing)
        return process


class WorkerProcess(ProcessProtocol):
    """A worker's process: tells how it ended and repeats in our log what it writes to its stderr."""

    transport: IProcessTransport

    def __init__(self, channel: Channel, name: str, on_exit: Callable[[str], None]) -> None:
        self.channel = channel
        self.pid = 0
        self._on_exit = on_exit
        self._stderr = LogRelay(name)

    def connectionMade(self) -> None:
        self.pid = self.transport.pid or 0

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        self._stderr.receive_data(data)

    def processExited(self, reason: Failure) -> None:
        self._on_exit(describe_exit(reason))

    def processEnded(self, reason: Failure) -> None:
        self._stderr.receive_eof()

    def kill(self, number: signal.Signals) -> None:
        signal_process(self.transport, number)


class InProcessLauncher:
    """Run the worker's service in this process, over a channel in memory."""

    def __init__(self, reactor: IReactorTime, make_worker: Callable[[Channel], InProcessWorker]) -> None:
        self._reactor = reactor
        self._make_worker = make_worker

    def __call__(self, slot: int, on_exit: Callable[[str], None]) -> RunningWorker:
        ours, theirs = MemoryChannel.pair(self._reactor)
        return _WorkerHere(self._make_worker(theirs), ours, theirs, on_exit)


class _WorkerHere:
    def __init__(
        self, worker: InProcessWorker, channel: Channel, their_channel: Channel, on_exit: Callable[[str], None]
    ) -> None:
        self.pid = os.getpid()
        self.channel = channel
        self._worker = worker
        self._their_channel = their_channel
        self._on_exit = on_exit
        self._ended = False
        worker.on_finished = lambda: self._end("it has finished")
        worker.startService()

    def kill(self, number: signal.Signals) -> None:
        """Stop the service, whichever signal is asked for."""
        self._end("it was stopped")

    def _end(self, how: str) -> None:
        if self._ended:
            return
        self._ended = True

        def stopped(result: object) -> None:
            if isinstance(result, Failure):
                _log.failure("the worker in this process did not stop well", failure=result)
            self._their_channel.close()
            self._on_exit(how)

        maybeDeferred(self._worker.stopService).addBoth(stopped)


def child_environment() -> dict[str, str]:
    """Our environment, with this very lbproxy importable wherever the child is started.

    A checkout is often found through ``PYTHONPATH=.``, which means nothing after a change of directory.
    """
    ours = str(Path(__file__).resolve().parents[3])  # the directory that holds the package
    inherited = [os.path.abspath(path) for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(dict.fromkeys([ours, *inherited])),
        "PYTHONSAFEPATH": "1",  # the working directory is no place to import from (Python 3.11)
        "PYTHONUNBUFFERED": "1",
    }


def signal_process(transport: IProcessTransport | None, number: signal.Signals) -> None:
    """Send a signal to a child, unless it has ended."""
    if transport is not None:
        with contextlib.suppress(ProcessExitedAlready):
            transport.signalProcess(number)


def describe_exit(reason: Failure) -> str:
    """Say how a process ended, for the log."""
    error = reason.value
    if isinstance(error, ProcessTerminated) and error.signal is not None:
        return f"it was ended by {signal.Signals(error.signal).name}"
    if isinstance(error, ProcessTerminated | ProcessDone):
        return f"it exited with status {error.exitCode}"
    return reason.getErrorMessage()
