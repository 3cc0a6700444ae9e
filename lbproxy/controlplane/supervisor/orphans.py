"""Workers that outlived their supervisor, and how the next supervisor relieves them.

While a supervisor runs it keeps a record of its workers and their ports in the state directory.  When it is
killed the workers go on serving.  The next supervisor reads the record, and so knows that these ports
are its own to join; it listens at the rendezvous, where the orphans knock, and once its
own workers are ready it has the orphans drain.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Collection
from functools import partial
from pathlib import Path

from twisted.application.service import Service
from twisted.internet.interfaces import IReactorFDSet
from twisted.logger import Logger

from lbproxy.ipc.channel import ChannelListener, UnixChannel
from lbproxy.ipc.messages import Drain, Drained, Hello, Message
from lbproxy.model.listener import Bind

_log = Logger()

RENDEZVOUS = "supervisor.sock"
RECORD = "workers.json"
LOCK = "supervisor.lock"


class StateDirectory:
    """The state directory as the supervisor uses it.

    One supervisor at a time has it; a second one with the same directory serves too, but
    without a record and rendezvous (``is_ours`` is False).
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Make and lock the directory.  Raises OSError if it cannot be made."""
        self.path = Path(path).resolve()
        self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock: int | None = os.open(self.path / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._recorded = ""
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            self._lock = None

    @property
    def is_ours(self) -> bool:
        """Whether no other supervisor uses this directory."""
        return self._lock is not None

    @property
    def rendezvous(self) -> str:
        """Where workers knock."""
        return str(self.path / RENDEZVOUS)

    def orphans(self) -> tuple[frozenset[int], frozenset[Bind]]:
        """Give the workers of a dead supervisor that still live, and the binds that they hold."""
        if not self.is_ours:
            return frozenset(), frozenset()
        try:
            record = json.loads((self.path / RECORD).read_text())
            pids = frozenset(
                worker["pid"] for worker in record["workers"] if _started(worker["pid"]) == worker["started"]
            )
            binds = frozenset(Bind(host, port) for host, port in record["binds"])
        except FileNotFoundError:
            return frozenset(), frozenset()
        except (OSError, ValueError, KeyError, TypeError) as error:
            _log.warn("{path} cannot be used: {error}", path=str(self.path / RECORD), error=error)
            return frozenset(), frozenset()
        return pids, binds if pids else frozenset()

    def record(self, pids: Collection[int], binds: Collection[Bind]) -> None:
        """Write down who serves what, where that has changed."""
        if not self.is_ours:
            return
        workers = [{"pid": pid, "started": _started(pid)} for pid in sorted(pids)]
        text = json.dumps({"workers": workers, "binds": sorted((bind.host, bind.port) for bind in binds)})
        if text == self._recorded:
            return
        target = self.path / RECORD
        temporary = target.with_suffix(".new")
        try:
            temporary.write_text(text + "\n")
            temporary.replace(target)
        except OSError as error:
            _log.warn("cannot write {path}: {error}", path=str(target), error=error)
        else:
            self._recorded = text

    def close(self) -> None:
        """Forget the record, for the workers have gone, and give the directory up.  May be called again."""
        if self._lock is not None:
            with contextlib.suppress(OSError):
                (self.path / RECORD).unlink(missing_ok=True)
            os.close(self._lock)
            self._lock = None


class Relief(Service):
    """Listens at the rendezvous and drains the orphans that come, once there is somebody in their place."""

    def __init__(self, reactor: IReactorFDSet, directory: StateDirectory) -> None:
        self._reactor = reactor
        self._directory = directory
        self._listener: ChannelListener | None = None
        self._orphans: set[UnixChannel] = set()
        self._drain: Drain | None = None

    def startService(self) -> None:
        super().startService()
        if not self._directory.is_ours:
            _log.warn(
                "another supervisor uses {path}; if this one is killed, its workers end with it",
                path=str(self._directory.path),
            )
            return
        try:
            self._listener = ChannelListener(self._reactor, self._directory.rendezvous, self._arrived)
        except OSError as error:
            _log.warn(
                "cannot listen at {path}: {error}; if this supervisor is killed, its workers will find no successor",
                path=self._directory.rendezvous,
                error=error,
            )

    def stopService(self) -> None:
        super().stopService()
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        for orphan in self._orphans:
            orphan.close()
        self._orphans.clear()

    def relieve(self, timeout_seconds: float) -> None:
        """From now on others serve in the orphans' place: drain those that came and those that come."""
        self._drain = Drain(timeout_seconds=timeout_seconds, close_sockets=True)
        for orphan in self._orphans:
            orphan.send(self._drain)

    def _arrived(self, channel: UnixChannel) -> None:
        self._orphans.add(channel)
        channel.on_lost = partial(self._orphans.discard, channel)
        channel.on_message = self._receive
        if self._drain is not None:
            channel.send(self._drain)

    def _receive(self, message: Message, fds: list[int]) -> None:
        match message:
            case Hello(pid=pid):
                _log.info("worker with pid {pid} of an earlier supervisor has come; it is relieved", pid=pid)
            case Drained(aborted=aborted):
                _log.info("a worker of an earlier supervisor has drained, {aborted} connections ended", aborted=aborted)


def _started(pid: int) -> int | None:
    """Give a process's start time in clock ticks since boot, which tells it from a later one with its id."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    name_end = stat.rindex(")")
    state, *fields = stat[name_end + 2 :].split()
    return None if state == "Z" else int(fields[18])
