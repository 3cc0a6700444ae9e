"""Puts the control plane together: the one place that knows all of its parts."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from signal import SIGHUP, SIGINT, SIGTERM, SIGUSR1

from twisted.logger import Logger

from lbproxy.controlplane.api.admin import AdminService, why_not_unix
from lbproxy.controlplane.api.targets import TargetsApi
from lbproxy.controlplane.config.errors import ConfigurationError, Problem
from lbproxy.controlplane.config.load import Loaded, load
from lbproxy.controlplane.config.targets import parse_target
from lbproxy.controlplane.config.watch import FileWatch
from lbproxy.controlplane.discovery.base import Context
from lbproxy.controlplane.discovery.registry import Registry
from lbproxy.controlplane.discovery.resolver import Resolver
from lbproxy.controlplane.discovery.service import DiscoveryService
from lbproxy.controlplane.health.checker import HealthService
from lbproxy.controlplane.metrics import MetricsStore
from lbproxy.controlplane.outliers.service import OutlierService
from lbproxy.controlplane.state import ControlState, Journal, Overrides
from lbproxy.controlplane.supervisor.demo import DemoTargets
from lbproxy.controlplane.supervisor.keyring import FILE_NAME, KeyRing
from lbproxy.controlplane.supervisor.launch import (
    DEFAULT_WORKER_COMMAND,
    InProcessLauncher,
    InProcessWorker,
    ISupervisorReactor,
    Launch,
    ProcessLauncher,
)
from lbproxy.controlplane.supervisor.orphans import StateDirectory
from lbproxy.controlplane.supervisor.service import (
    ConfigurationRefused,
    Supervisor,
    number_of_workers,
    open_binds,
    runs_in_process,
)
from lbproxy.controlplane.supervisor.signals import SignalHandlers
from lbproxy.controlplane.supervisor.sockets import BindProblem, ListeningSockets, why_not
from lbproxy.controlplane.supervisor.systemd import Notifier, inherited_sockets, initial_environment, watchdog_seconds
from lbproxy.controlplane.supervisor.workers import WorkerPool
from lbproxy.ipc.cells import CellAllocator, SharedCells
from lbproxy.ipc.channel import Channel
from lbproxy.model.listener import Bind

_log = Logger()


class FileLoader:
    """Loads one configuration file, again and again."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        # absolute: a daemon changes its directory, and the file is to be found again at a reload
        self.path = os.path.abspath(path)

    def load(self, source: bytes | None = None) -> Loaded:
        """Read the file (or ``source``); blocks.  Raises `ConfigurationRefused`."""
        try:
            return load(self.path, create=True, source=source)
        except ConfigurationError as error:
            raise ConfigurationRefused([str(problem) for problem in error.problems]) from error

    def describe(self, problem: BindProblem, lines: Mapping[str, int]) -> str:
        """Give the line for a bind that failed, with its place in the file."""
        return self.mistake(lines, f"listener:{problem.listener}", "bind", str(problem.bind), problem.message)

    def mistake(self, lines: Mapping[str, int], section: str, option: str, value: str, message: str) -> str:
        """Give the line for a value that only now turns out to be unusable."""
        return str(
            Problem(
                file=self.path,
                line=lines.get(f"{section} {option}", lines.get(section)),
                section=section,
                option=option,
                value=value,
                message=message,
            )
        )


def make_supervisor(
    reactor: ISupervisorReactor,
    path: str | os.PathLike[str],
    make_worker: Callable[[Channel], InProcessWorker],
    *,
    environ: MutableMapping[str, str] = os.environ,
    worker_command: Sequence[str] = DEFAULT_WORKER_COMMAND,
) -> Supervisor:
    """Load the configuration, open its sockets and compose the service that does the rest.

    Blocks.  ``make_worker`` makes the worker for ``workers = 0``.  What the service manager handed over is taken out of
    ``environ``.  Raises `ConfigurationRefused` with every mistake.
    """
    notifier = Notifier.from_environment(environ)
    inherited = inherited_sockets({**initial_environment(), **environ}, os.getpid())
    watchdog = watchdog_seconds(environ, os.getpid())
    loader = FileLoader(path)
    loaded = loader.load()
    directory = _state_directory(loader, loaded)
    orphans, held_by_orphans = directory.orphans()
    if orphans:
        _log.info("{number} workers of an earlier supervisor still serve; they will be relieved", number=len(orphans))
    sockets = ListeningSockets(notifier, inherited, held_by_orphans)
    # the slots that an empty pool will plan
    open_binds(sockets, loaded, range(number_of_workers(loaded)), loader)
    _check_admin_address(loader, loaded)

    launch: Launch
    if runs_in_process(loaded):
        launch = InProcessLauncher(reactor, make_worker)
    else:
        launch = ProcessLauncher(reactor, worker_command, directory.rendezvous if directory.is_ours else None)
    cells = SharedCells.create()
    allocator = CellAllocator(cells)
    folder = directory.path if directory.is_ours else None
    state = ControlState(reactor, cells, allocator, Overrides(Journal(folder, "overrides.json")))
    metrics = MetricsStore(state)
    pool = WorkerPool(reactor, launch, sockets, cells.fd, metrics, allocator.zero_slot, stickiness=_key_ring(directory))
    state.version_in_force = lambda: pool.version_in_force
    registry = Registry(reactor, Journal(folder, "registrations.json"), state.fails_alone)
    discovery = DiscoveryService(
        state,
        Context(reactor=reactor, lookup=Resolver(reactor), parse_target=parse_target),
        Journal(folder, "discovered.json"),
        registry,
    )
    supervisor = Supervisor(
        reactor,
        loaded,
        loader=loader,
        state=state,
        metrics=metrics,
        pool=pool,
        sockets=sockets,
        directory=directory,
        demo=DemoTargets(reactor, worker_command),
        discovery=discovery,
        notifier=notifier,
        watchdog_seconds=watchdog,
    )
    discovery.setServiceParent(supervisor)
    HealthService(reactor, state).setServiceParent(supervisor)
    outliers = OutlierService(reactor, state, metrics.targets)
    outliers.setServiceParent(supervisor)
    pool.on_suspect = outliers.suspect
    if loaded.settings.admin is not None:
        targets = TargetsApi(state, metrics, registry, parse_target)
        admin = AdminService(reactor, loaded.settings.admin, state, metrics, supervisor, targets)
        admin.setServiceParent(supervisor)
        supervisor.admin_url = _url(str(loaded.settings.admin))
    watch = FileWatch(reactor, supervisor.reload_files)
    watch.setServiceParent(supervisor)
    supervisor.watch = watch
    SignalHandlers(
        reactor,
        {
            SIGHUP: supervisor.hang_up,
            SIGUSR1: supervisor.reopen_logs,
            SIGTERM: supervisor.terminate,
            SIGINT: supervisor.terminate,
        },
    ).setServiceParent(supervisor)
    return supervisor


def _state_directory(loader: FileLoader, loaded: Loaded) -> StateDirectory:
    try:
        return StateDirectory(loaded.settings.state_directory)
    except OSError as error:
        problem = loader.mistake(
            loaded.lines,
            "lbproxy",
            "state-directory",
            loaded.settings.state_directory,
            f"cannot be used: {error.strerror}",
        )
        raise ConfigurationRefused([problem]) from error


def _key_ring(directory: StateDirectory) -> KeyRing:
    return KeyRing(directory.path / FILE_NAME if directory.is_ours else None)


def _check_admin_address(loader: FileLoader, loaded: Loaded) -> None:
    """Refuse an address of the admin API that is taken, while there is somebody to tell."""
    admin = loaded.settings.admin
    if admin is None:
        return
    if admin.path is not None:
        message = why_not_unix(admin.path)
    else:
        message = why_not(Bind(admin.host or "", admin.port or 0))
    if message is not None:
        raise ConfigurationRefused([loader.mistake(loaded.lines, "lbproxy", "admin", str(admin), message)])


def _url(address: str) -> str:
    return address if address.startswith("unix:") else f"http://{address}/"
