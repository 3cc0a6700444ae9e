"""The workers: one slot each, restarted when they end, replaced when they hang.

A `WorkerSlot` keeps a worker running and gives it its sockets and the latest snapshot; the
`WorkerPool` has the slots and changes their number.
"""

from __future__ import annotations

import enum
import os
import random
import signal
from collections.abc import Callable, Collection, Mapping
from itertools import count, islice
from typing import Any, Protocol

import attrs
from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from lbproxy.controlplane.supervisor.keyring import KeyRing
from lbproxy.controlplane.supervisor.launch import Launch, RunningWorker
from lbproxy.controlplane.supervisor.sockets import ListeningSockets
from lbproxy.ipc.cells import SLOT_LIMIT
from lbproxy.ipc.channel import MAX_FDS
from lbproxy.ipc.messages import (
    AddSockets,
    Applied,
    ApplySnapshot,
    DownMessage,
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
from lbproxy.model.listener import Bind
from lbproxy.model.snapshot import Snapshot

_log = Logger()

SILENCE_LIMIT_SECONDS = 10.0
"""A running worker reports about every second; one that is silent for this long hangs."""

STARTING_LIMIT_SECONDS = 60.0
"""From the start of the process to the first snapshot in force, on a very busy machine."""

APPLY_LIMIT_SECONDS = 30.0
"""After this a snapshot that was not answered is taken for lost.

A worker may be silent for as long over a new configuration: to compile tens of thousands of rules takes it seconds."""

BACK_OFF_FIRST_SECONDS = 0.05
BACK_OFF_LIMIT_SECONDS = 30.0
STEADY_SECONDS = 10.0
"""After running for this long a worker's end counts as its first."""

TICKET_KEY_SECONDS = 12 * 3600.0
"""A key for session tickets is used for so long, and for as long again to read old tickets.  Whoever gets hold of it
can read the TLS 1.2 sessions whose tickets it made, so it is never stored."""

KILL_GRACE_SECONDS = 2.0
"""Between asking and SIGKILL."""

_CHECK_INTERVAL_SECONDS = 1.0
_AWAY_SECONDS = 3.0
"""After such a gap between two checks it was us who were away (suspended, stopped), not the workers."""


class SlotState(enum.Enum):
    """What a slot's worker does."""

    STARTING = "starting"
    RUNNING = "running"
    DRAINING = "draining"
    BACKING_OFF = "backing-off"
    STOPPED = "stopped"


@attrs.frozen(kw_only=True)
class WorkerStatus:
    """A slot as the admin API shows it."""

    slot: int
    state: SlotState
    pid: int | None
    version: int
    """The snapshot in force, 0 before the first."""
    started_at: float
    """In the reactor's seconds, as is ``last_seen``."""
    last_seen: float
    """When its last message came."""
    restarts: int


class Metrics(Protocol):
    """What the pool needs of `lbproxy.controlplane.metrics.MetricsStore`."""

    def update(self, slot: int, incarnation: int, counters: Mapping[str, Any]) -> None: ...

    def retire(self, slot: int, incarnation: int | None = None) -> None: ...

    def worker_restarted(self, slot: int) -> None: ...

    def drained(self, slot: int, incarnation: int) -> None: ...

    requests_lost: int


class WorkerSlot:
    """One slot's worker, from start to stop, and its successors."""

    # of the present worker, see _forget_worker
    applied_version: int
    """The version in force, 0 before its first."""
    _said_hello: bool
    _condemned: bool
    _applying: bool
    _sent_version: int
    _sent_at: float
    _configuration_version: int
    _given: set[Bind]
    _last_seen: float
    _exit: str
    _channel_ended: bool

    def __init__(self, index: int, pool: WorkerPool) -> None:
        self.index = index
        self.state = SlotState.STOPPED
        self.started_at = 0.0
        self.restarts = 0
        self._pool = pool
        self._clock = pool.clock
        self._worker: RunningWorker | None = None
        self._incarnation = 0
        self._failures = 0
        self._forget_worker()
        self._drain_message: Drain | None = None
        self._timers: dict[str, IDelayedCall] = {}

    @property
    def pid(self) -> int | None:
        """The worker's process id, None while there is none."""
        return self._worker.pid if self._worker is not None else None

    def status(self) -> WorkerStatus:
        """Describe the slot."""
        return WorkerStatus(
            slot=self.index,
            state=self.state,
            pid=self.pid,
            version=self.applied_version,
            started_at=self.started_at,
            last_seen=self._last_seen,
            restarts=self.restarts,
        )

    # What the pool asks for

    def start(self) -> None:
        """Start a worker now."""
        self.state = SlotState.STARTING
        self.started_at = self._last_seen = self._clock.seconds()
        self._incarnation = self._pool.next_incarnation()
        self._forget_worker()
        try:
            worker = self._pool.launch(self.index, self._exited)
        except OSError as error:
            _log.error("worker {slot} cannot be started: {error}", slot=self.index, error=error)
            self._gone()
            return
        self._worker = worker
        worker.channel.on_lost = self._channel_lost
        worker.channel.on_message = self._receive

    @property
    def version_in_force(self) -> int:
        """The snapshot that the worker works from, or will at once; 0 while it has none."""
        return self.applied_version or self._sent_version

    def offer(self) -> None:
        """There is a new snapshot.

        A worker has one at a time to apply; what is published meanwhile is skipped, so that
        a slow worker gets the latest and not a queue.
        """
        snapshot = self._pool.snapshot
        if snapshot is None or snapshot.version <= self._sent_version:
            return
        if self._said_hello and self._is_serving and not self._applying:
            self._send_snapshot(snapshot)

    def send(self, message: DownMessage) -> None:
        """Send a message to the worker, if there is one."""
        if self._worker is not None and self._said_hello:
            self._worker.channel.send(message)

    def drain(self, timeout_seconds: float, close_sockets: bool) -> None:
        """Have the worker finish what it has; after the time-out and a little it is killed."""
        match self.state:
            case SlotState.STOPPED | SlotState.DRAINING:
                return
            case SlotState.BACKING_OFF:
                self._cancel_timers()
                self._stop()
                return
        self.state = SlotState.DRAINING
        self._drain_message = Drain(timeout_seconds=timeout_seconds, close_sockets=close_sockets)
        if self._said_hello:
            self.send(self._drain_message)
            self._after("drain", timeout_seconds + KILL_GRACE_SECONDS, self._drain_overdue)
        else:
            self.kill()  # it has no sockets yet

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal to the worker, if there is one."""
        if self._worker is not None:
            self._worker.kill(number)

    def check(self, now: float) -> None:
        """Replace a worker that hangs."""
        if self._applying and now - self._sent_at > APPLY_LIMIT_SECONDS:
            _log.error(
                "worker {slot} has not applied version {version} in {seconds:g} s",
                slot=self.index,
                version=self._sent_version,
                seconds=APPLY_LIMIT_SECONDS,
            )
            self._applying = False  # the next one may do better
            self.offer()
        quiet = now - self._last_seen
        if not self._is_serving or self._worker is None or self._condemned or quiet < self._patience:
            return
        self._condemned = True
        _log.error(
            "worker {slot} (pid {pid}) has been silent for {seconds:.0f} s; replacing it",
            slot=self.index,
            pid=self.pid,
            seconds=quiet,
        )
        self.kill(signal.SIGABRT)  # leaves a trace of where it hangs
        self._after("hang", KILL_GRACE_SECONDS, self.kill)

    @property
    def _patience(self) -> float:
        if self.state is SlotState.STARTING:
            return STARTING_LIMIT_SECONDS
        if self._applying and self._sent_configuration:
            return APPLY_LIMIT_SECONDS
        return SILENCE_LIMIT_SECONDS

    def seen(self, now: float) -> None:
        """Count the worker as alive at this time."""
        self._last_seen = now

    # What the worker says and does

    @property
    def _is_serving(self) -> bool:
        return self.state in (SlotState.STARTING, SlotState.RUNNING)

    def _receive(self, message: Message, fds: list[int]) -> None:
        self._last_seen = self._clock.seconds()
        match message:
            case Hello():
                self._welcome()
            case Applied(version=version, problems=problems):
                self._applied(version, problems)
            case Report(counters=counters):
                self._pool.metrics.update(self.index, self._incarnation, counters)
            case Suspect(group=group, target=target, failures=failures):
                self._pool.on_suspect(group, target, failures)
            case Drained(aborted=aborted):
                self._pool.metrics.drained(self.index, self._incarnation)
                if aborted:
                    _log.warn(
                        "worker {slot} ended {aborted} connections at the drain deadline",
                        slot=self.index,
                        aborted=aborted,
                    )
            case _:
                _log.error("worker {slot} sent {message}", slot=self.index, message=type(message).__name__)

    def _welcome(self) -> None:
        assert self._worker is not None
        self._said_hello = True
        self._worker.channel.send(Welcome(slot=self.index), [self._pool.cells_fd])
        self._worker.channel.send(TicketKeys(keys=self._pool.ticket_keys))
        self._worker.channel.send(StickinessKeys(keys=self._pool.stickiness.keys))
        self.offer()

    def _send_snapshot(self, snapshot: Snapshot) -> None:
        assert self._worker is not None
        channel = self._worker.channel
        binds = {bind for listener in snapshot.configuration.listeners for bind in listener.binds}
        self._given &= binds  # the worker closes the others itself
        mine = self._pool.sockets.for_slot(self.index)
        missing = iter([bind for bind in mine if bind in binds and bind not in self._given])
        while batch := tuple(islice(missing, MAX_FDS)):
            channel.send(AddSockets(binds=batch), [mine[bind].fileno() for bind in batch])
            self._given.update(batch)
        is_known = self._configuration_version == snapshot.configuration_version
        channel.send(
            ApplySnapshot(
                version=snapshot.version,
                configuration_version=snapshot.configuration_version,
                configuration=None if is_known else snapshot.configuration,
                groups=snapshot.groups,
                worker_slots=snapshot.worker_slots,
            )
        )
        self._sent_configuration = not is_known
        self._configuration_version = snapshot.configuration_version
        self._sent_version = snapshot.version
        self._sent_at = self._clock.seconds()
        self._applying = True

    def _applied(self, version: int, problems: tuple[str, ...]) -> None:
        for problem in problems:
            _log.error("worker {slot}: {problem}", slot=self.index, problem=problem)
        self.applied_version = max(version, self.applied_version)
        if version < self._sent_version:
            return
        self._applying = False
        if self.state is SlotState.STARTING:
            self.state = SlotState.RUNNING
            _log.debug("worker {slot} (pid {pid}) is running", slot=self.index, pid=self.pid)
        self.offer()
        self._pool.progressed()

    def _exited(self, how: str) -> None:
        """The process has ended; what it said last may still be in the channel."""
        self._exit = how
        if self._channel_ended:
            self._gone()
        else:
            self._after("eof", KILL_GRACE_SECONDS, self._gone)

    def _channel_lost(self) -> None:
        self._channel_ended = True
        if self._exit:
            self._gone()
        else:
            self._after("exit", KILL_GRACE_SECONDS, self.kill)  # it can be told nothing any more

    def _drain_overdue(self) -> None:
        _log.error("worker {slot} did not finish draining in time; killing it", slot=self.index)
        self.kill()

    def _gone(self) -> None:
        pid = self.pid
        if self._worker is not None:
            self._worker.channel.close()
            self._worker = None
        self._cancel_timers()
        self._pool.worker_gone(self.index, self._incarnation)
        if self.state is SlotState.DRAINING:
            _log.info("worker {slot} (pid {pid}) has gone: {how}", slot=self.index, pid=pid, how=self._exit)
            self._stop()
            return
        delay = self._back_off()
        self.state = SlotState.BACKING_OFF
        _log.error(
            "worker {slot} (pid {pid}) ended: {how}; starting another {when}",
            slot=self.index,
            pid=pid,
            how=self._exit or "it did not start",
            when=f"in {delay:.2f} s" if delay else "now",
        )
        self._after("restart", delay, self._restart)
        self._pool.progressed()

    def _restart(self) -> None:
        self.restarts += 1
        self._pool.metrics.worker_restarted(self.index)
        self.start()

    def _back_off(self) -> float:
        """Give the time to wait before the next start: none at first, then longer and longer."""
        if self._clock.seconds() - self.started_at >= STEADY_SECONDS:
            self._failures = 0
        self._failures += 1
        if self._failures == 1:
            return 0.0
        longest = min(BACK_OFF_LIMIT_SECONDS, BACK_OFF_FIRST_SECONDS * 2.0 ** min(self._failures - 2, 20))
        return longest * self._pool.random.uniform(0.5, 1.0)

    def _stop(self) -> None:
        self.state = SlotState.STOPPED
        self._pool.slot_stopped(self)

    def _forget_worker(self) -> None:
        """Nothing is known of the worker about to start."""
        self.applied_version = 0
        self._said_hello = False
        self._condemned = False
        self._applying = False
        self._sent_configuration = False
        self._sent_version = 0
        self._sent_at = 0.0
        self._configuration_version = 0
        self._given = set()
        self._last_seen = self._clock.seconds()
        self._exit = ""
        self._channel_ended = False

    def _after(self, name: str, seconds: float, call: Callable[[], None]) -> None:
        def due() -> None:
            del self._timers[name]
            call()

        self._timers[name] = self._clock.callLater(seconds, due)

    def _cancel_timers(self) -> None:
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()


def _new_ticket_key() -> bytes:
    return os.urandom(80)


class WorkerPool(Service):
    """All slots.

    A slot whose worker drains is not used again before it has gone; a growing pool takes the lowest free ones,
    so the indexes in use may have gaps for a while.
    """

    def __init__(
        self,
        clock: IReactorTime,
        launch: Launch,
        sockets: ListeningSockets,
        cells_fd: int,
        metrics: Metrics,
        clear_slot: Callable[[int], int],
        rng: random.Random | None = None,
        stickiness: KeyRing | None = None,
    ) -> None:
        """``clear_slot`` zeroes the shared cells of a slot whose worker has gone and gives what was in flight;
        ``stickiness`` has cookies' keys.
        """
        self.clock = clock
        self.launch = launch
        self.sockets = sockets
        self.cells_fd = cells_fd
        self.metrics = metrics
        self.random = rng or random.Random()
        self.snapshot: Snapshot | None = None
        self.on_change: Callable[[], None] = lambda: None
        """Called when a worker came or went."""
        self.on_suspect: Callable[[str, str, int], None] = lambda group, target, failures: None
        """Called when a worker has seen so many requests to a target fail in a row."""
        self._clear_slot = clear_slot
        self._slots: dict[int, WorkerSlot] = {}
        self._incarnations = count(1)
        self._waiting: list[tuple[Callable[[], bool], Deferred[None]]] = []
        self.ticket_keys: tuple[bytes, ...] = (_new_ticket_key(),)
        """For TLS session tickets: the present key, and the one before."""
        self._ticket_key_made = clock.seconds()
        self.stickiness = stickiness or KeyRing()
        self._last_check = 0.0
        self._checks = LoopingCall(self._check)
        self._checks.clock = clock

    def startService(self) -> None:
        super().startService()
        self._last_check = self.clock.seconds()
        self._checks.start(_CHECK_INTERVAL_SECONDS, now=False).addErrback(
            lambda failure: _log.failure("watching the workers failed", failure=failure)
        )

    def stopService(self) -> None:
        super().stopService()
        if self._checks.running:
            self._checks.stop()

    # What there is

    @property
    def active(self) -> tuple[int, ...]:
        """Slots that serve or soon will, in order."""
        return tuple(sorted(index for index, slot in self._slots.items() if slot.state is not SlotState.DRAINING))

    @property
    def pids(self) -> list[int]:
        """Process ids of all workers, draining ones too."""
        return sorted(slot.pid for slot in self._slots.values() if slot.pid)

    def statuses(self) -> list[WorkerStatus]:
        """Describe every slot, in order."""
        return [slot.status() for _, slot in sorted(self._slots.items())]

    def unready(self) -> list[WorkerStatus]:
        """Describe those that should serve and do not."""
        return [status for status in self.statuses() if status.state not in (SlotState.RUNNING, SlotState.DRAINING)]

    @property
    def is_ready(self) -> bool:
        """Whether there are workers and all have a snapshot in force."""
        return bool(self.active) and not self.unready()

    @property
    def version_in_force(self) -> int:
        """The oldest snapshot that a worker which takes new requests may work from."""
        serving = [s for s in self._slots.values() if s.state in (SlotState.STARTING, SlotState.RUNNING)]
        newest = self.snapshot.version if self.snapshot is not None else 0
        return min((slot.version_in_force for slot in serving if slot.version_in_force), default=newest)

    def plan(self, number: int) -> tuple[int, ...]:
        """Say which slots a pool of this many workers uses: those it has, then the lowest free ones."""
        active = self.active
        free = [index for index in range(SLOT_LIMIT) if index not in self._slots]
        planned = (*active, *free)[:number]
        if len(planned) < number:
            _log.warn("only {number} worker slots are free until others have drained", number=len(planned))
        return tuple(sorted(planned))

    def span(self, planned: Collection[int]) -> int:
        """Say how many cells of a target's run are in use with these slots and those that still drain."""
        return max([*planned, *self._slots], default=0) + 1

    # What happens

    def offer(self, snapshot: Snapshot) -> None:
        """Give every worker this snapshot."""
        self.snapshot = snapshot
        for slot in list(self._slots.values()):
            slot.offer()

    def set_active(self, planned: Collection[int], drain_timeout_seconds: float) -> None:
        """Start workers in new slots and drain those in slots that are not planned any more."""
        for index in self.active:
            if index not in planned:
                _log.info("worker {slot} is not needed any more; draining it", slot=index)
                self._slots[index].drain(drain_timeout_seconds, close_sockets=True)
        for index in sorted(planned):
            if index not in self._slots:
                self._slots[index] = WorkerSlot(index, self)
                self._slots[index].start()
        self.on_change()

    def reopen_logs(self) -> None:
        """Have every worker reopen its access log."""
        for slot in self._slots.values():
            slot.send(ReopenLogs())

    def rotate_ticket_keys(self) -> None:
        """Make a new key for session tickets; tickets made with the present one stay good until the next time."""
        self.ticket_keys = (_new_ticket_key(), self.ticket_keys[0])
        self._ticket_key_made = self.clock.seconds()
        for slot in self._slots.values():
            slot.send(TicketKeys(keys=self.ticket_keys))

    def drain(self, timeout_seconds: float, close_sockets: bool) -> Deferred[None]:
        """Drain every worker; fires when all have gone, at the latest soon after the time-out."""
        for slot in list(self._slots.values()):
            slot.drain(timeout_seconds, close_sockets)
        return self._when(lambda: not self._slots)

    def kill(self) -> None:
        """End every worker at once."""
        for slot in list(self._slots.values()):
            slot.kill()

    def ready(self) -> Deferred[None]:
        """Fire once every worker has a snapshot in force."""
        return self._when(lambda: self.is_ready)

    def applied(self, version: int) -> Deferred[None]:
        """Fire once no worker works from an older snapshot; one that has just ended has none."""
        return self._when(
            lambda: all(
                slot.applied_version >= version
                for slot in self._slots.values()
                if slot.state in (SlotState.STARTING, SlotState.RUNNING)
            )
        )

    # What slots tell

    def next_incarnation(self) -> int:
        """Give each worker ever started its number."""
        return next(self._incarnations)

    def worker_gone(self, index: int, incarnation: int) -> None:
        """What a worker had in flight is over."""
        self.metrics.requests_lost += self._clear_slot(index)
        self.metrics.retire(index, incarnation)
        self.on_change()

    def slot_stopped(self, slot: WorkerSlot) -> None:
        """A slot is free again."""
        if self._slots.get(slot.index) is slot:
            del self._slots[slot.index]
        self.on_change()
        self.progressed()

    def progressed(self) -> None:
        """Something that somebody may wait for has happened."""
        due = [(condition, waiter) for condition, waiter in self._waiting if condition()]
        self._waiting = [item for item in self._waiting if item not in due]
        for _, waiter in due:
            waiter.callback(None)

    def _when(self, condition: Callable[[], bool]) -> Deferred[None]:
        waiter: Deferred[None] = Deferred(self._give_up)
        self._waiting.append((condition, waiter))
        self.progressed()
        return waiter

    def _give_up(self, waiter: Deferred[None]) -> None:
        self._waiting = [item for item in self._waiting if item[1] is not waiter]

    def _check(self) -> None:
        now = self.clock.seconds()
        we_were_away = now - self._last_check > _AWAY_SECONDS
        self._last_check = now
        for slot in list(self._slots.values()):
            if we_were_away:
                slot.seen(now)
            slot.check(now)
        if now - self._ticket_key_made >= TICKET_KEY_SECONDS:
            self.rotate_ticket_keys()
        if self.stickiness.renew():
            for slot in self._slots.values():
                slot.send(StickinessKeys(keys=self.stickiness.keys))
