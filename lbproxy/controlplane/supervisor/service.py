"""The supervisor's root service: start, reload, drain.

Every change of the configuration takes one road here: load it in a thread, open what sockets are missing,
publish the next snapshot.  Whatever fails on the way leaves everything as it was.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import attrs
from twisted.application.service import MultiService
from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.error import ReactorNotRunning
from twisted.internet.task import LoopingCall
from twisted.internet.threads import deferToThread
from twisted.logger import Logger
from twisted.python.failure import Failure

from lbproxy.controlplane.supervisor.changes import describe_changes
from lbproxy.controlplane.supervisor.demo import DemoTargets
from lbproxy.controlplane.supervisor.launch import ISupervisorReactor
from lbproxy.controlplane.supervisor.orphans import Relief, StateDirectory
from lbproxy.controlplane.supervisor.sockets import BindError, BindProblem, ListeningSockets
from lbproxy.controlplane.supervisor.systemd import Notifier, feed_watchdog
from lbproxy.controlplane.supervisor.workers import APPLY_LIMIT_SECONDS, WorkerPool
from lbproxy.ipc.cells import SLOT_LIMIT
from lbproxy.model.discovery import Discovery
from lbproxy.model.listener import Bind
from lbproxy.model.snapshot import Configuration, Snapshot
from lbproxy.model.target import Target

_log = Logger()


class Settings(Protocol):
    """The supervisor's own settings."""

    @property
    def workers(self) -> int | None: ...

    @property
    def admin(self) -> object: ...

    @property
    def state_directory(self) -> str: ...

    @property
    def admin_tokens(self) -> Sequence[str]: ...

    @property
    def resolver(self) -> Sequence[tuple[str, int]]: ...


class LoadedConfiguration(Protocol):
    """What the supervisor needs of `lbproxy.controlplane.config.load.Loaded`."""

    @property
    def configuration(self) -> Configuration: ...

    @property
    def settings(self) -> Settings: ...

    @property
    def demo(self) -> Mapping[str, int]: ...

    @property
    def discovery(self) -> Mapping[str, Discovery]: ...

    @property
    def files(self) -> Sequence[str]: ...

    @property
    def lines(self) -> Mapping[str, int]: ...

    @property
    def source(self) -> bytes: ...

    @property
    def warnings(self) -> Sequence[object]: ...


class ConfigurationRefused(Exception):
    """A configuration with mistakes; each problem is one line."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


class Loader(Protocol):
    """Loads the configuration file, and puts a bind that cannot be opened in the words of its mistakes."""

    @property
    def path(self) -> str:
        """The file, absolute."""

    def load(self, source: bytes | None = None) -> LoadedConfiguration:
        """Read the file (or ``source`` in its place) and what it refers to.

        Blocks.  Raises `ConfigurationRefused`.
        """

    def describe(self, problem: BindProblem, lines: Mapping[str, int]) -> str:
        """Give the line for a bind that failed, with the place in the file."""


class State(Protocol):
    """What the supervisor needs of `lbproxy.controlplane.state.ControlState`."""

    @property
    def snapshot(self) -> Snapshot: ...

    def configure(
        self, configuration: Configuration, worker_slots: int, discovered: Mapping[str, Sequence[Target]]
    ) -> Snapshot: ...

    def subscribe(self, callback: Callable[[Snapshot], Any]) -> object: ...

    def close(self) -> None: ...


class Discoverer(Protocol):
    """What the supervisor needs of `lbproxy.controlplane.discovery.service.DiscoveryService`."""

    async def prepare(
        self, wanted: Mapping[str, Discovery], resolver: Sequence[tuple[str, int]]
    ) -> Mapping[str, Sequence[Target]]:
        """Start what sources are new; give all targets in force by group."""

    def use(self, wanted: Mapping[str, Discovery], configuration: Configuration) -> None:
        """This is in force: end all sources that are not wanted."""

    def problems(self) -> Iterable[str]:
        """A line for each source that does not work now."""


class ReloadMetrics(Protocol):
    """Counts the loads."""

    def reloaded(self, success: bool, unix_time: float) -> None: ...


class Watch(Protocol):
    """Watches the files that the configuration refers to."""

    def set_files(self, files: Sequence[str]) -> None: ...


@attrs.frozen(kw_only=True)
class ReloadResult:
    """How a reload went."""

    ok: bool
    version: int
    """Of the snapshot in force: the new one, or the old one when it was refused."""
    problems: tuple[str, ...] = ()
    """One line each."""
    warnings: tuple[str, ...] = ()
    """What in the configuration has no effect, or not before a restart."""
    changes: tuple[str, ...] = ()
    """What is different now."""


class Supervisor(MultiService):
    """Runs the workers and has them work from the configuration.

    Its children (health checks, admin API and so on) are added by whoever composes it.
    """

    def __init__(
        self,
        reactor: ISupervisorReactor,
        loaded: LoadedConfiguration,
        *,
        loader: Loader,
        state: State,
        metrics: ReloadMetrics,
        pool: WorkerPool,
        sockets: ListeningSockets,
        directory: StateDirectory,
        demo: DemoTargets,
        discovery: Discoverer,
        notifier: Notifier,
        watchdog_seconds: float | None = None,
        in_thread: Callable[..., Deferred[LoadedConfiguration]] = deferToThread,
    ) -> None:
        """``sockets`` has those of ``loaded`` open already."""
        super().__init__()
        self.loaded = loaded
        """The configuration in force."""
        self.watch: Watch | None = None
        """Told which files to watch; calls `reload_files`."""
        self.admin_url: str | None = None
        """For the line in the log."""
        self.started_at = reactor.seconds()
        """In the reactor's seconds."""
        self._reactor = reactor
        self._loader = loader
        self._state = state
        self._metrics = metrics
        self._pool = pool
        self._sockets = sockets
        self._directory = directory
        self._demo = demo
        self._discovery = discovery
        self._notifier = notifier
        self._watchdog_seconds = watchdog_seconds
        self._watchdog: LoopingCall | None = None
        self._in_thread = in_thread
        self._relief = Relief(reactor, directory)
        self._in_process = runs_in_process(loaded)
        self._settings_in_force = loaded.settings
        self._planned: Collection[int] = ()
        self._announced = False
        self._begun: Deferred[None] | None = None
        self._stopped: Deferred[None] | None = None
        self._reloading = False
        self._waiting: list[Deferred[ReloadResult]] = []
        self._waiting_for_file = False
        for child in (pool, self._relief, demo):
            child.setServiceParent(self)
        state.subscribe(self._publish)
        pool.on_change = self._record

    @property
    def configuration_file(self) -> str:
        """Its absolute path."""
        return self._loader.path

    @property
    def admin_tokens(self) -> Sequence[str]:
        """Who sends one of these may change things by the admin API."""
        return self.loaded.settings.admin_tokens

    @property
    def ready(self) -> str | None:
        """Why not every worker serves; None when all do."""
        if self._is_stopping:
            return "draining"
        waiting = [f"worker {slot.slot} is {slot.state.value}" for slot in self._pool.unready()]
        if not self._pool.active:
            return "starting"
        return ", ".join(waiting) or None

    def workers_status(self) -> list[dict[str, Any]]:
        """Describe each worker slot for the admin API."""
        now = self._reactor.seconds()
        return [
            {
                "slot": status.slot,
                "pid": status.pid,
                "state": status.state.value,
                "version": status.version,
                "restarts": status.restarts,
                "uptime_seconds": round(now - status.started_at, 3) if status.pid else None,
                "last_report_seconds": round(now - status.last_seen, 3) if status.pid else None,
            }
            for status in self._pool.statuses()
        ]

    @property
    def addresses(self) -> Mapping[Bind, Bind]:
        """Each configured bind with its real port."""
        return {bind: self._sockets.address(bind) for bind in binds_of(self.loaded.configuration)}

    @property
    def _is_stopping(self) -> bool:
        return self._stopped is not None

    # Start

    def startService(self) -> None:
        super().startService()
        if self._watchdog_seconds is not None:
            self._watchdog = feed_watchdog(self._reactor, self._notifier, self._watchdog_seconds)
        self._begun = Deferred.fromCoroutine(self._begin())
        self._begun.addErrback(self._begin_failed)

    async def _begin(self) -> None:
        loaded = self.loaded
        _log_lines((*loaded.warnings, *_lost_output(loaded)))
        configuration = await self._demo.fill(loaded.configuration, loaded.demo)
        discovered = await self._discovery.prepare(loaded.discovery, loaded.settings.resolver)
        if self._is_stopping:
            return
        self._planned = self._pool.plan(number_of_workers(loaded))
        self._state.configure(configuration, self._pool.span(self._planned), discovered)
        self._discovery.use(loaded.discovery, configuration)
        self._pool.set_active(self._planned, configuration.drain_timeout_seconds)
        self._watch(loaded)
        self._metrics.reloaded(True, time.time())
        self._pool.ready().addCallback(self._announce)

    def _begin_failed(self, failure: Failure) -> None:
        if not self._is_stopping:
            _log.failure("lbproxy cannot start", failure=failure)
            self._stop_reactor()

    def _announce(self, _: None) -> None:
        """Every worker serves, for the first time."""
        if self._is_stopping:
            return
        self._announced = True
        _log.info("{description}", description=self._describe())
        self._notifier.ready(self._describe())
        self._relief.relieve(self.loaded.configuration.drain_timeout_seconds)

    # Change

    def reload(self) -> Deferred[ReloadResult]:
        """Load the configuration file anew and apply it, or say why not.

        Reloads run one after the other; those asked for while one runs become one.  The Deferred never fails.
        """
        return self._enqueue(is_for_file=True)

    def reload_files(self) -> Deferred[ReloadResult]:
        """Read the files that the configuration refers to anew, as for a renewed certificate.

        The configuration file itself is taken as it was: what was edited since waits for `reload`.
        """
        return self._enqueue(is_for_file=False)

    def _enqueue(self, is_for_file: bool) -> Deferred[ReloadResult]:
        done: Deferred[ReloadResult] = Deferred()
        self._waiting.append(done)
        self._waiting_for_file |= is_for_file
        if not self._reloading:
            self._reloading = True
            Deferred.fromCoroutine(self._run_reloads()).addErrback(
                lambda failure: _log.failure("reloading failed", failure=failure)
            )
        return done

    async def _run_reloads(self) -> None:
        try:
            while self._waiting:
                waiting, self._waiting = self._waiting, []
                source = None if self._waiting_for_file else self.loaded.source
                self._waiting_for_file = False
                result = await self._reload_once(source)
                for done in waiting:
                    done.callback(result)
        finally:
            self._reloading = False

    async def _reload_once(self, source: bytes | None) -> ReloadResult:
        if self._begun is not None:
            await _fired(self._begun)
        if self._is_stopping:
            return self._refusal(("lbproxy is stopping",))
        _log.info(
            "reading {file} again", file=self._loader.path if source is None else "changed certificates and files"
        )
        self._notifier.reloading()
        try:
            result = await self._apply(await self._in_thread(self._loader.load, source))
        except ConfigurationRefused as refused:
            result = self._refusal(refused.problems)
        except Exception as error:
            _log.failure("the configuration could not be applied")
            result = self._refusal((f"the configuration could not be applied: {error}",))
        self._demo.keep_only(self.loaded.configuration, self.loaded.demo)
        self._discovery.use(self.loaded.discovery, self._state.snapshot.configuration)
        self._metrics.reloaded(result.ok, time.time())
        if self._announced and not self._is_stopping:
            self._notifier.ready(self._describe())
        return result

    def _refusal(self, problems: tuple[str, ...]) -> ReloadResult:
        for problem in problems:
            _log.error("{problem}", problem=problem)
        version = self._state.snapshot.version
        _log.error("nothing was changed; version {version} stays in force", version=version)
        return ReloadResult(ok=False, problems=problems, version=version)

    async def _apply(self, loaded: LoadedConfiguration) -> ReloadResult:
        """Put a configuration in force; done once every worker works from it."""
        number = number_of_workers(loaded)
        if runs_in_process(loaded) != self._in_process:
            number = len(self._planned)
        configuration = await self._demo.fill(loaded.configuration, loaded.demo)
        discovered = await self._discovery.prepare(loaded.discovery, loaded.settings.resolver)
        if self._is_stopping:
            raise ConfigurationRefused(("lbproxy is stopping",))
        former_slots = self._planned
        former = self._state.snapshot.configuration
        slots = self._pool.plan(number)
        open_binds(self._sockets, loaded, slots, self._loader)
        self._planned = slots
        try:
            snapshot = self._state.configure(configuration, self._pool.span(slots), discovered)
        except BaseException:
            self._planned = former_slots
            self._sockets.keep_only(binds_of(self.loaded.configuration), former_slots)
            raise
        self.loaded = loaded
        self._discovery.use(loaded.discovery, configuration)
        warnings = (
            *map(str, loaded.warnings),
            *_lost_output(loaded),
            *self._waiting_for_restart(loaded),
            *self._discovery.problems(),
        )
        changes = describe_changes(former, configuration)
        if len(slots) != len(former_slots):
            changes += (f"workers changed from {len(former_slots)} to {len(slots)}",)
        _log_lines(warnings, changes)
        self._sockets.keep_only(binds_of(configuration), slots)
        self._pool.set_active(slots, configuration.drain_timeout_seconds)
        self._watch(loaded)
        await self._wait_for_workers(snapshot.version)
        return ReloadResult(ok=True, version=snapshot.version, warnings=warnings, changes=changes)

    def _waiting_for_restart(self, loaded: LoadedConfiguration) -> Iterator[str]:
        """Say which settings of a configuration only the next start can put in force."""
        present, wanted = self._settings_in_force, loaded.settings
        if runs_in_process(loaded) != self._in_process:
            yield "workers: 0 and other numbers take each other's place only in a restart"
        if wanted.admin != present.admin:
            where = f"at {present.admin}" if present.admin is not None else "off"
            yield f"admin: the admin API stays {where} until a restart"
        if wanted.state_directory != present.state_directory:
            yield f"state-directory: {present.state_directory} is used until a restart"

    async def _wait_for_workers(self, version: int) -> None:
        applied = self._pool.applied(version)
        applied.addTimeout(APPLY_LIMIT_SECONDS, self._reactor)
        try:
            await applied
        except DeferredTimeout:
            _log.warn("version {version} is not in force in every worker yet", version=version)
        else:
            _log.info("version {version} is in force", version=version)

    def _publish(self, snapshot: Snapshot) -> None:
        """Hand a new snapshot to the workers.

        Our side of the sockets that it does without is closed first: a worker accepts what is queued on
        its own side before it closes, and nothing may be queued after that.
        """
        self._sockets.keep_only(binds_of(snapshot.configuration), self._planned)
        self._pool.offer(snapshot)
        self._record()

    def _watch(self, loaded: LoadedConfiguration) -> None:
        if self.watch is not None:
            self.watch.set_files(loaded.files)

    def _record(self) -> None:
        if not self._in_process and not self._is_stopping:
            self._directory.record(self._pool.pids, self._sockets.addresses)

    # What signals ask for

    def hang_up(self) -> None:
        """SIGHUP: reload."""
        self.reload()

    def reopen_logs(self) -> None:
        """SIGUSR1: have every worker reopen its access log."""
        _log.info("reopening logs")
        self._pool.reopen_logs()

    def terminate(self) -> None:
        """SIGTERM, SIGINT: drain; when draining already, stop at once."""
        if self._is_stopping:
            _log.warn("stopping at once")
            self._pool.kill()
        else:
            self._stop_reactor()

    def _stop_reactor(self) -> None:
        try:
            self._reactor.stop()
        except ReactorNotRunning:  # not yet
            self._reactor.callWhenRunning(self._reactor.stop)

    # Stop

    def stopService(self) -> Deferred[None]:
        """Drain; fires when the last worker has gone."""
        if self._stopped is None:
            self._stopped = Deferred()
            Deferred.fromCoroutine(self._stop()).chainDeferred(self._stopped)
            self._stopped.addErrback(lambda failure: _log.failure("stopping failed", failure=failure))
        return _fired(self._stopped)

    async def _stop(self) -> None:
        timeout = self.loaded.configuration.drain_timeout_seconds
        keep = self._notifier.keeps_descriptors
        _log.info("draining for up to {seconds:g} s; a second signal stops at once", seconds=timeout)
        self._notifier.stopping("draining")
        if not keep:
            self._sockets.close()  # the workers' side is left, which they accept from until it is empty
        await self._pool.drain(timeout, close_sockets=not keep)
        self._sockets.close()
        self._state.close()
        self._directory.close()
        await super().stopService()
        if self._watchdog is not None:
            self._watchdog.stop()
        _log.info("stopped")

    def _describe(self) -> str:
        addresses = self.addresses
        listeners = [
            f"{listener.name} {listener.protocol.value} {addresses[bind]}"
            for listener in self.loaded.configuration.listeners
            for bind in listener.binds
        ]
        number = len(self._pool.active)
        workers = "1 worker in this process" if self._in_process else f"{number} worker{'s' * (number != 1)}"
        parts = [", ".join(listeners) or "no listeners", workers]
        if self.admin_url is not None:
            parts.append(f"admin {self.admin_url}")
        return "serving: " + "; ".join(parts)


def runs_in_process(loaded: LoadedConfiguration) -> bool:
    """Tell whether ``workers = 0``."""
    return loaded.settings.workers == 0


def number_of_workers(loaded: LoadedConfiguration) -> int:
    """Say how many workers there shall be: as configured, or one for each CPU that we may use."""
    number = loaded.settings.workers
    if number is None:
        number = len(os.sched_getaffinity(0))
    return min(max(number, 1), SLOT_LIMIT)


def binds_of(configuration: Configuration) -> frozenset[Bind]:
    """Give every bind of every listener."""
    return frozenset(bind for listener in configuration.listeners for bind in listener.binds)


def open_binds(sockets: ListeningSockets, loaded: LoadedConfiguration, slots: Collection[int], loader: Loader) -> None:
    """Open what sockets a configuration needs.  Raises `ConfigurationRefused`, and opens none then."""
    listeners = loaded.configuration.listeners
    try:
        sockets.open({bind: listener.name for listener in listeners for bind in listener.binds}, slots)
    except BindError as error:
        raise ConfigurationRefused([loader.describe(problem, loaded.lines) for problem in error.problems]) from error


def _log_lines(warnings: Iterable[object], changes: Iterable[str] = ()) -> None:
    for warning in warnings:
        _log.warn("{warning}", warning=warning)
    for change in changes:
        _log.info("{change}", change=change)


def _lost_output(loaded: LoadedConfiguration) -> Iterator[str]:
    """Say so when the access log goes to a stdout that leads nowhere, as a daemon's does."""
    if loaded.configuration.access_log.destination != "stdout":
        return
    try:
        is_lost = os.path.samestat(os.fstat(1), os.stat(os.devnull))
    except OSError:
        is_lost = True  # it is closed
    if is_lost:
        yield "access-log = stdout: stdout leads nowhere, as for a daemon; name a file, or start with twistd -n"


def _fired(deferred: Deferred[Any]) -> Deferred[None]:
    """Give a Deferred that fires when this one has, and leaves it its result."""
    waiter: Deferred[None] = Deferred()

    def pass_on(result: Any) -> Any:
        waiter.callback(None)
        return result

    deferred.addBoth(pass_on)
    return waiter
