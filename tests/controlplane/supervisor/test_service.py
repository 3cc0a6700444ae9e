"""Start, reload, drain: the supervisor's order of things, with everything around it scripted."""

from __future__ import annotations

import os
import random
import socket
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import pytest
from twisted.internet.defer import Deferred
from twisted.internet.error import ReactorNotRunning
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from lbproxy.controlplane.supervisor.demo import DemoTargets
from lbproxy.controlplane.supervisor.orphans import StateDirectory
from lbproxy.controlplane.supervisor.service import (
    ConfigurationRefused,
    ReloadResult,
    Supervisor,
    number_of_workers,
    open_binds,
)
from lbproxy.controlplane.supervisor.sockets import BindProblem, ListeningSockets
from lbproxy.controlplane.supervisor.systemd import Notifier
from lbproxy.controlplane.supervisor.workers import WorkerPool
from lbproxy.ipc.messages import ApplySnapshot, Drain
from lbproxy.model.discovery import Discovery, FileSource
from lbproxy.model.listener import Bind
from lbproxy.model.snapshot import AccessLogSettings, Configuration, Snapshot
from lbproxy.model.target import Target

from .fakes import FakeLauncher, FakeMetrics, configuration

ONE = Bind("127.0.0.1", 0)
TWO = Bind("127.0.0.2", 0)


@attrs.frozen
class FakeSettings:
    workers: int | None = 2
    admin: object = None
    state_directory: str = "/var/lib/lbproxy"
    resolver: tuple[tuple[str, int], ...] = ()
    admin_tokens: tuple[str, ...] = ()


@attrs.frozen
class FakeLoaded:
    configuration: Configuration
    settings: FakeSettings = FakeSettings()
    demo: Mapping[str, int] = attrs.Factory(dict)
    discovery: Mapping[str, Discovery] = attrs.Factory(dict)
    files: Sequence[str] = ()
    lines: Mapping[str, int] = attrs.Factory(dict)
    source: bytes = b"first"
    warnings: Sequence[object] = ()


class FakeReactor(Clock):
    """A clock that can be stopped and has no descriptors to offer."""

    stopped = 0
    is_running = True

    def stop(self) -> None:
        if not self.is_running:
            raise ReactorNotRunning
        self.stopped += 1

    def callWhenRunning(self, call: Callable[[], object]) -> None:
        self.is_running = True
        self.callLater(0, call)

    def addReader(self, reader: object) -> None: ...

    def removeReader(self, reader: object) -> None: ...


class FakeLoader:
    """Gives what ``next`` says; ``release`` lets a load in its thread end."""

    path = "/etc/lb.ini"

    def __init__(self) -> None:
        self.next: FakeLoaded | Exception | None = None
        self.sources: list[bytes | None] = []

    def load(self, source: bytes | None = None) -> Any:
        self.sources.append(source)
        if isinstance(self.next, Exception):
            raise self.next
        return self.next

    def describe(self, problem: BindProblem, lines: Mapping[str, int]) -> str:
        return str(problem)


class FakeState:
    """Publishes whatever it is told."""

    def __init__(self) -> None:
        self.snapshot = Snapshot(version=0, configuration_version=0, configuration=Configuration(), groups={})
        self.error: Exception | None = None
        self.closed = False
        self._subscribers: list[Callable[[Snapshot], Any]] = []

    def configure(
        self, configuration: Configuration, worker_slots: int, discovered: Mapping[str, Sequence[Target]]
    ) -> Snapshot:
        self.discovered = discovered
        if self.error is not None:
            raise self.error
        version = self.snapshot.version + 1
        self.snapshot = Snapshot(
            version=version,
            configuration_version=version,
            configuration=configuration,
            groups={},
            worker_slots=worker_slots,
        )
        for subscriber in self._subscribers:
            subscriber(self.snapshot)
        return self.snapshot

    def subscribe(self, callback: Callable[[Snapshot], Any]) -> None:
        self._subscribers.append(callback)

    def close(self) -> None:
        self.closed = True


class FakeDemo(DemoTargets):
    """Fills nothing in; fails when told to."""

    def __init__(self) -> None:
        super().__init__(None)  # type: ignore[arg-type]
        self.error: Exception | None = None

    async def fill(self, configuration: Configuration, demo: Mapping[str, int]) -> Configuration:
        if self.error is not None:
            raise self.error
        return configuration


class FakeDiscovery:
    """Finds what it is told; writes down what is in force."""

    def __init__(self) -> None:
        self.found: Mapping[str, Sequence[Target]] = {}
        self.used: list[Mapping[str, Discovery]] = []
        self.failing: list[str] = []

    async def prepare(self, wanted: Mapping[str, Discovery], resolver: object) -> Mapping[str, Sequence[Target]]:
        return {name: self.found.get(name, ()) for name in wanted}

    def use(self, wanted: Mapping[str, Discovery], configuration: Configuration) -> None:
        self.used.append(wanted)

    def problems(self) -> list[str]:
        return self.failing


class FakeNotifier(Notifier):
    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []

    def ready(self, status: str) -> None:
        self.said.append("ready")

    def reloading(self) -> None:
        self.said.append("reloading")

    def stopping(self, status: str) -> None:
        self.said.append("stopping")

    def alive(self) -> None:
        self.said.append("alive")


class FakeWatch:
    def __init__(self) -> None:
        self.files: Sequence[str] = ()

    def set_files(self, files: Sequence[str]) -> None:
        self.files = files


class SupervisorTestCase(SynchronousTestCase):
    @pytest.fixture(autouse=True)
    def _directory(self, tmp_path: Path) -> None:
        self.path = tmp_path / "state"

    def setUp(self) -> None:
        self.reactor = FakeReactor()
        self.launcher = FakeLauncher(self.reactor)
        self.metrics = FakeMetrics()
        self.loader = FakeLoader()
        self.state = FakeState()
        self.demo = FakeDemo()
        self.discovery = FakeDiscovery()
        self.notifier = FakeNotifier()
        self.sockets = ListeningSockets(self.notifier)
        self.watch = FakeWatch()
        self.loads: list[Deferred[None]] = []
        self.hold_loads = False
        cells = os.open(os.devnull, os.O_RDONLY)
        self.addCleanup(os.close, cells)
        self.pool = WorkerPool(
            self.reactor, self.launcher, self.sockets, cells, self.metrics, lambda slot: 0, random.Random(1)
        )

    def in_thread(self, load: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        thread: Deferred[None] = Deferred()
        self.loads.append(thread)
        if not self.hold_loads:
            thread.callback(None)
        return thread.addCallback(lambda _: load(*arguments))

    def start(self, loaded: FakeLoaded, watchdog_seconds: float | None = None) -> Supervisor:
        open_binds(self.sockets, loaded, range(number_of_workers(loaded)), self.loader)
        supervisor = Supervisor(
            self.reactor,  # type: ignore[arg-type]
            loaded,
            loader=self.loader,
            state=self.state,
            metrics=self.metrics,
            pool=self.pool,
            sockets=self.sockets,
            directory=StateDirectory(self.path),
            demo=self.demo,
            discovery=self.discovery,
            notifier=self.notifier,
            watchdog_seconds=watchdog_seconds,
            in_thread=self.in_thread,
        )
        supervisor.watch = self.watch
        supervisor.startService()
        self.addCleanup(self.end, supervisor)
        self.turn()
        return supervisor

    def end(self, supervisor: Supervisor) -> None:
        stopped = supervisor.stopService()
        self.pool.kill()
        self.turn()
        self.successResultOf(stopped)
        self.assertEqual([call for call in self.reactor.getDelayedCalls() if call.active()], [])

    def turn(self, turns: int = 10) -> None:
        for _ in range(turns):
            self.reactor.advance(0)

    def reload(self, supervisor: Supervisor, loaded: FakeLoaded | Exception) -> ReloadResult:
        self.loader.next = loaded
        reloaded = supervisor.reload()
        self.turn()
        return self.successResultOf(reloaded)


class StartTests(SupervisorTestCase):
    def test_ready_is_said_when_every_worker_serves(self) -> None:
        self.launcher.hello = False
        supervisor = self.start(FakeLoaded(configuration(ONE), files=["a.pem"]))
        self.assertEqual(self.notifier.said, [])
        self.assertEqual(supervisor.ready, "worker 0 is starting, worker 1 is starting")
        for worker in self.launcher.workers:
            worker.hello()
        self.turn()

        self.assertEqual(self.notifier.said, ["ready"])
        self.assertIsNone(supervisor.ready)
        self.assertEqual((self.watch.files, self.metrics.reloads), (["a.pem"], [True]))
        self.assertEqual([worker["state"] for worker in supervisor.workers_status()], ["running", "running"])

    def test_workers_and_ports_are_written_down_for_a_successor(self) -> None:
        supervisor = self.start(FakeLoaded(configuration(ONE)))

        record = (self.path / "workers.json").read_text()
        self.assertIn(f'["127.0.0.1", {supervisor.addresses[ONE].port}]', record)
        self.assertIn('"pid": 1000', record)

    def test_a_failed_start_stops_the_reactor(self) -> None:
        self.demo.error = TimeoutError("demo target app-1 did not start")
        self.reactor.is_running = False
        self.start(FakeLoaded(configuration(ONE)))

        self.assertEqual(self.reactor.stopped, 1)
        self.assertEqual(len(self.flushLoggedErrors(TimeoutError)), 1)

    def test_the_watchdog_is_fed(self) -> None:
        self.start(FakeLoaded(configuration(ONE)), watchdog_seconds=4)
        self.reactor.advance(2)

        self.assertEqual(self.notifier.said.count("alive"), 2)

    def test_the_number_of_workers(self) -> None:
        for asked, given in ((None, len(os.sched_getaffinity(0))), (0, 1), (3, 3), (1000, 64)):
            with self.subTest(asked=asked):
                self.assertEqual(number_of_workers(FakeLoaded(configuration(), FakeSettings(workers=asked))), given)


class ReloadTests(SupervisorTestCase):
    def test_a_changed_file_is_applied_in_every_worker(self) -> None:
        supervisor = self.start(FakeLoaded(configuration(ONE)))
        result = self.reload(supervisor, FakeLoaded(configuration(ONE, TWO), files=["b.pem"]))

        self.assertEqual(result, ReloadResult(ok=True, version=2, changes=("listener web-1 added",)))
        self.assertEqual(set(self.sockets.for_slot(1)), {ONE, TWO})
        self.assertEqual(
            [[message.version for message in worker.of_type(ApplySnapshot)] for worker in self.launcher.workers],
            [[1, 2], [1, 2]],
        )
        self.assertEqual(self.notifier.said, ["ready", "reloading", "ready"])
        self.assertEqual((self.watch.files, self.metrics.reloads), (["b.pem"], [True, True]))

    def test_what_is_discovered_comes_with_the_configuration(self) -> None:
        found = Target(host="10.0.0.1", port=80, address="10.0.0.1")
        discovery = {"app": Discovery(sources=(FileSource(path="/targets.yaml", text="file:targets.yaml"),))}
        self.discovery.failing = ["file:targets.yaml of target group app: no such file"]
        supervisor = self.start(FakeLoaded(configuration(ONE)))
        self.discovery.found = {"app": (found,)}
        result = self.reload(supervisor, FakeLoaded(configuration(ONE), discovery=discovery))

        self.assertEqual(self.state.discovered, {"app": (found,)})
        self.assertEqual(self.discovery.used[-1], discovery)
        self.assertEqual(result.warnings, ("file:targets.yaml of target group app: no such file",))

    def test_sources_of_a_configuration_that_was_refused_are_not_used(self) -> None:
        supervisor = self.start(FakeLoaded(configuration(ONE)))
        self.state.error = RuntimeError("no more shared cells")
        discovery = {"app": Discovery(sources=(FileSource(path="/targets.yaml", text="file:targets.yaml"),))}
        result = self.reload(supervisor, FakeLoaded(configuration(ONE), discovery=discovery))
        self.flushLoggedErrors(RuntimeError)

        self.assertFalse(result.ok)
        self.assertEqual(self.discovery.used[-1], {})

    def test_what_waits_for_a_restart_is_told_each_time(self) -> None:
        supervisor = self.start(FakeLoaded(configuration(ONE)))
        other = FakeSettings(workers=0, admin="127.0.0.1:1", state_directory="/elsewhere")
        for _ in range(2):
            result = self.reload(supervisor, FakeLoaded(configuration(ONE), other))
            self.assertEqual(
                result.warnings,
                (
                    "workers: 0 and other numbers take each other's place only in a restart",
                    "admin: the admin API stays off until a restart",
                    "state-directory: /var/lib/lbproxy is used until a restart",
                ),
            )

    def test_an_access_log_that_nobody_can_read_is_told(self) -> None:
        logged = attrs.evolve(configuration(ONE), access_log=AccessLogSettings(destination="stdout"))
        supervisor = self.start(FakeLoaded(configuration(ONE)))
        stdout, nothing = os.dup(1), os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(nothing, 1)
            (warning,) = self.reload(supervisor, FakeLoaded(logged)).warnings
        finally:
            os.dup2(stdout, 1)
            os.close(stdout)
            os.close(nothing)

        self.assertIn("access-log = stdout: stdout leads nowhere", warning)

    def test_another_number_of_workers_is_a_change(self) -> None:
        supervisor = self.start(FakeLoaded(configuration(ONE)))
        result = self.reload(supervisor, FakeLoaded(configuration(ONE), FakeSettings(workers=3)))

        self.assertEqual(result.changes, ("workers changed from 2 to 3",))

    def test_it_ends_only_when_every_worker_has_applied_it(self) -> None:
        supervisor = self.start(FakeLoaded(configuration(ONE)))
        self.launcher.workers[1].answers = False
        self.loader.next = FakeLoaded(configuration(ONE, TWO))
        reloaded = supervisor.reload()
        self.turn()
        self.assertNoResult(reloaded)
        for _ in range(31):
            for worker in self.launcher.workers:
                worker.report()
            self.reactor.advance(1)
        self.turn()

        self.assertTrue(self.successResultOf(reloaded).ok)

    def test_sockets_of_a_removed_listener_are_closed(self) -> None:
        supervisor = self.start(FakeLoaded(configuration(ONE, TWO)))
        held = self.sockets.for_slot(0)[TWO]
        self.reload(supervisor, FakeLoaded(configuration(ONE)))

        self.assertEqual((held.fileno(), set(self.sockets.for_slot(0))), (-1, {ONE}))

    def test_a_bad_file_changes_nothing_and_says_why(self) -> None:
        supervisor = self.start(FakeLoaded(configuration(ONE)))
        result = self.reload(supervisor, ConfigurationRefused(["lb.ini:3: no", "lb.ini:7: nor this"]))

        self.assertEqual(result, ReloadResult(ok=False, version=1, problems=("lb.ini:3: no", "lb.ini:7: nor this")))
        self.assertEqual(self.notifier.said, ["ready", "reloading", "ready"])
        self.assertEqual(self.metrics.reloads, [True, False])

    def test_a_port_in_use_changes_nothing(self) -> None:
        supervisor = self.start(FakeLoaded(configuration(ONE)))
        with socket.create_server(("127.0.0.1", 0)) as server:
            taken = Bind(*server.getsockname())
            result = self.reload(supervisor, FakeLoaded(configuration(ONE, TWO, taken)))

        self.assertEqual(len(result.problems), 1)
        self.assertIn("web-2", result.problems[0])
        self.assertEqual(set(self.sockets.for_slot(0)), {ONE})
        self.assertEqual(self.state.snapshot.version, 1)

    def test_what_the_state_refuses_changes_nothing(self) -> None:
        supervisor = self.start(FakeLoaded(configuration(ONE)))
        self.state.error = RuntimeError("no room for 64 more shared cells")
        result = self.reload(supervisor, FakeLoaded(configuration(TWO), FakeSettings(workers=3)))

        self.assertIn("no room", result.problems[0])
        self.assertEqual(set(self.sockets.for_slot(0)), {ONE})
        self.assertEqual((self.sockets.for_slot(2), self.pool.active), ({}, (0, 1)))
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_an_unexpected_error_changes_nothing_and_the_next_reload_works(self) -> None:
        supervisor = self.start(FakeLoaded(configuration(ONE)))
        self.assertFalse(self.reload(supervisor, KeyError("x")).ok)
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)

        self.assertTrue(self.reload(supervisor, FakeLoaded(configuration(ONE))).ok)

    def test_reloads_asked_for_meanwhile_become_one_and_the_last_file_wins(self) -> None:
        supervisor = self.start(FakeLoaded(configuration(ONE)))
        self.hold_loads = True
        self.loader.next = FakeLoaded(configuration(ONE))
        first = supervisor.reload()
        second, third = supervisor.reload(), supervisor.reload_files()
        self.loads[0].callback(None)
        self.turn()
        self.assertEqual(self.successResultOf(first).version, 2)
        self.assertNoResult(second)
        self.loader.next = FakeLoaded(configuration(TWO))
        self.loads[1].callback(None)
        self.turn()

        self.assertEqual(self.successResultOf(second).version, 3)
        self.assertEqual(self.successResultOf(third).version, 3)
        self.assertEqual(self.loader.sources, [None, None])
        self.assertEqual(self.state.snapshot.configuration, configuration(TWO))

    def test_a_renewed_certificate_does_not_bring_unconfirmed_edits_along(self) -> None:
        supervisor = self.start(FakeLoaded(configuration(ONE)))
        self.loader.next = FakeLoaded(configuration(ONE))
        reloaded = supervisor.reload_files()
        self.turn()

        self.assertTrue(self.successResultOf(reloaded).ok)
        self.assertEqual(self.loader.sources, [b"first"])

    def test_the_number_of_workers_follows(self) -> None:
        supervisor = self.start(FakeLoaded(configuration(ONE)))
        self.reload(supervisor, FakeLoaded(configuration(ONE), FakeSettings(workers=3)))
        self.assertEqual((self.pool.active, self.state.snapshot.worker_slots), ((0, 1, 2), 3))
        self.reload(supervisor, FakeLoaded(configuration(ONE), FakeSettings(workers=1)))

        self.assertEqual((self.pool.active, self.sockets.for_slot(1)), ((0,), {}))
        self.assertEqual([len(worker.of_type(Drain)) for worker in self.launcher.workers], [0, 1, 1])

    def test_processes_and_one_process_do_not_change_places(self) -> None:
        supervisor = self.start(FakeLoaded(configuration(ONE)))
        self.assertTrue(self.reload(supervisor, FakeLoaded(configuration(ONE), FakeSettings(workers=0))).ok)

        self.assertEqual(self.pool.active, (0, 1))

    def test_a_hang_up_reloads(self) -> None:
        supervisor = self.start(FakeLoaded(configuration(ONE)))
        self.loader.next = FakeLoaded(configuration(TWO))
        supervisor.hang_up()
        self.turn()

        self.assertEqual(self.state.snapshot.configuration, configuration(TWO))


class StopTests(SupervisorTestCase):
    def test_workers_are_drained_after_our_side_of_the_sockets_is_closed(self) -> None:
        supervisor = self.start(FakeLoaded(configuration(ONE, drain_timeout_seconds=7.0)))
        stopped = supervisor.stopService()
        self.assertEqual(self.sockets.for_slot(0), {})
        self.assertEqual(supervisor.ready, "draining")
        self.turn()

        self.successResultOf(stopped)
        self.assertEqual(self.launcher.workers[0].of_type(Drain), [Drain(timeout_seconds=7.0, close_sockets=True)])
        self.assertEqual(self.notifier.said[-1], "stopping")
        self.assertTrue(self.state.closed)
        self.assertFalse((self.path / "workers.json").exists())

    def test_with_a_descriptor_store_the_queues_are_left_to_the_next_run(self) -> None:
        self.notifier.keeps_descriptors = True
        supervisor = self.start(FakeLoaded(configuration(ONE)))
        self.launcher.workers[0].drains = self.launcher.workers[1].drains = False
        supervisor.stopService()
        self.turn()

        self.assertFalse(self.launcher.workers[0].of_type(Drain)[0].close_sockets)
        self.assertEqual(set(self.sockets.for_slot(0)), {ONE})

    def test_the_first_signal_stops_the_reactor_and_the_second_the_workers(self) -> None:
        self.launcher.drains = False
        supervisor = self.start(FakeLoaded(configuration(ONE)))
        supervisor.terminate()
        self.assertEqual(self.reactor.stopped, 1)
        stopped = supervisor.stopService()
        self.turn()
        self.assertNoResult(stopped)
        supervisor.terminate()
        self.turn()

        self.successResultOf(stopped)

    def test_no_reload_once_it_stops(self) -> None:
        self.launcher.drains = False
        supervisor = self.start(FakeLoaded(configuration(ONE)))
        supervisor.stopService()

        self.assertEqual(self.reload(supervisor, FakeLoaded(configuration(TWO))).problems, ("lbproxy is stopping",))
