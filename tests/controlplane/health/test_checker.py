"""Who is probed when, and what becomes of the results."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import attrs
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.logger import LogLevel, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from lbproxy.controlplane.health import checker
from lbproxy.controlplane.health.checker import HealthService
from lbproxy.controlplane.health.status import PASSED, TIMED_OUT, ProbeResult, wrong_status
from lbproxy.controlplane.state import ControlState
from lbproxy.model.health import HealthCheck, HealthCheckProtocol
from lbproxy.model.target import Target
from lbproxy.model.target_group import ProxyProtocolVersion, TargetGroup
from tests.controlplane.fakes import (
    FakeCells,
    make_configuration,
    make_group,
    make_target,
    registered,
    state_of,
    states,
)

CHECK = HealthCheck(interval_seconds=10, timeout_seconds=5, healthy_threshold=3, unhealthy_threshold=2)
ONE, TWO = make_target(1), make_target(2)


class FakeProbe:
    """Answers with ``result`` at once, or, when that is None, whenever the test says."""

    def __init__(self) -> None:
        self.result: ProbeResult | None = PASSED
        self.calls: list[tuple[float, str]] = []
        self.pending: list[Deferred[ProbeResult]] = []
        self.cancelled = 0

    def __call__(self, reactor: Any, group: TargetGroup, target: Target) -> Deferred[ProbeResult]:
        self.calls.append((reactor.seconds(), target.key))
        if self.result is not None:
            return succeed(self.result)
        probe: Deferred[ProbeResult] = Deferred(self._cancel)
        self.pending.append(probe)
        return probe

    def _cancel(self, probe: Deferred[ProbeResult]) -> None:
        self.cancelled += 1
        probe.callback(ProbeResult(TIMED_OUT.reason))

    def times(self, key: str = "10.0.0.1:80") -> list[float]:
        return [at for at, called in self.calls if called == key]


class CheckerTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        cells = FakeCells()
        self.state = ControlState(self.clock, cells, cells)
        self.probe = FakeProbe()
        self.service = HealthService(
            self.clock, self.state, dict.fromkeys(HealthCheckProtocol, self.probe), random.Random(1)
        )
        self.events: list[dict[str, Any]] = []
        globalLogPublisher.addObserver(self.events.append)
        self.addCleanup(globalLogPublisher.removeObserver, self.events.append)

    def tearDown(self) -> None:
        self.service.stopService()
        self.state.close()
        self.assertEqual(self.clock.getDelayedCalls(), [], "timers were left behind")

    def run_with(self, *targets: Target, check: HealthCheck = CHECK, **options: Any) -> None:
        self.configure(*targets, check=check, **options)
        if not self.service.running:
            self.service.startService()

    def configure(self, *targets: Target, check: HealthCheck = CHECK, **options: Any) -> None:
        self.state.configure(make_configuration(make_group(*targets, health_check=check), **options), 1)

    def advance(self, seconds: float) -> None:
        self.clock.pump([0.1] * round(seconds * 10))

    def logged(self, level: LogLevel) -> Iterator[str]:
        for event in self.events:
            if event["log_level"] is level and str(event.get("log_namespace", "")).endswith("checker"):
                yield event["log_format"].format(**event)

    # When

    def test_the_first_probe_comes_within_a_second_and_one_success_is_enough(self) -> None:
        self.run_with(ONE)
        self.assertEqual(state_of(self.state), "initial")
        self.advance(1.2)
        self.assertEqual(len(self.probe.calls), 1)
        self.assertEqual(state_of(self.state), "healthy")

    def test_once_probing_has_started_the_reason_says_so(self) -> None:
        self.probe.result = None
        self.run_with(ONE)
        self.advance(1.2)
        self.assertEqual(registered(self.state.snapshot).health.reason.value, "Elb.InitialHealthChecking")

    def test_many_targets_are_not_probed_all_at_once(self) -> None:
        self.run_with(*(make_target(number) for number in range(100)))
        self.advance(1.1)
        self.assertEqual(len(self.probe.calls), 100)
        turns = {at for at, _key in self.probe.calls}
        self.assertGreaterEqual(len(turns), 8, turns)

    def test_probes_follow_the_interval_within_a_tenth_of_it(self) -> None:
        self.run_with(ONE)
        self.advance(101)
        gaps = [later - earlier for earlier, later in zip(self.probe.times(), self.probe.times()[1:], strict=False)]
        self.assertEqual(len(gaps), 9)
        self.assertGreater(len({round(gap, 3) for gap in gaps}), 3, "there is jitter")
        for gap in gaps:
            self.assertTrue(8.8 <= gap <= 11.2, gaps)

    def test_probes_of_one_target_never_overlap(self) -> None:
        self.probe.result = None
        self.run_with(ONE)
        self.advance(35)
        self.assertEqual(len(self.probe.calls), 1)
        self.probe.pending.pop().callback(PASSED)
        self.advance(11)
        self.assertEqual(len(self.probe.calls), 2)

    def test_probes_under_way_are_bounded_over_all_targets(self) -> None:
        self.patch(checker, "MAX_CONCURRENT_PROBES", 3)
        self.service = HealthService(
            self.clock, self.state, dict.fromkeys(HealthCheckProtocol, self.probe), random.Random(1)
        )
        self.probe.result = None
        self.run_with(*(make_target(number) for number in range(10)))
        self.advance(2)
        self.assertEqual(len(self.probe.calls), 3)
        self.probe.pending.pop().callback(PASSED)
        self.assertEqual(len(self.probe.calls), 4)

    def test_a_stopped_service_cancels_what_is_under_way(self) -> None:
        self.probe.result = None
        self.run_with(ONE, TWO)
        self.advance(1.2)
        self.service.stopService()
        self.assertEqual(self.probe.cancelled, 2)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(set(states(self.state.snapshot).values()), {"initial"})

    def test_a_probe_that_breaks_its_promise_does_not_end_the_checks(self) -> None:
        def broken(reactor: Any, group: TargetGroup, target: Target) -> Deferred[ProbeResult]:
            self.probe(reactor, group, target)
            raise RuntimeError("bug")

        self.service = HealthService(self.clock, self.state, dict.fromkeys(HealthCheckProtocol, broken))
        self.run_with(ONE)
        self.advance(12.5)
        self.assertEqual(len(self.probe.calls), 2)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 2)

    # Who

    def test_unused_and_unchecked_targets_are_not_probed(self) -> None:
        self.run_with(ONE, used=())
        self.advance(20)
        self.configure(ONE, check=attrs.evolve(CHECK, enabled=False))
        self.advance(20)
        self.assertEqual(self.probe.calls, [])

    def test_a_group_that_comes_into_use_is_probed(self) -> None:
        self.run_with(ONE, used=())
        self.configure(ONE)
        self.advance(1.2)
        self.assertEqual(state_of(self.state), "healthy")

    def test_draining_targets_are_not_probed(self) -> None:
        self.run_with(ONE, TWO)
        self.advance(1.2)
        self.configure(TWO)
        self.advance(30)
        self.assertEqual(len(self.probe.times("10.0.0.1:80")), 1)

    def test_a_removed_group_is_not_probed(self) -> None:
        self.run_with(ONE)
        self.advance(1.2)
        self.state.configure(make_configuration(), 1)
        self.advance(30)
        self.assertEqual(len(self.probe.calls), 1)

    # Reloads

    def test_a_reload_keeps_the_schedule_and_the_counters_of_what_did_not_change(self) -> None:
        self.run_with(ONE)
        self.advance(1.2)
        self.probe.result = TIMED_OUT
        self.advance(11)
        self.assertEqual(state_of(self.state), "healthy", "one failure of two")
        self.configure(make_target(1, weight=5), TWO)
        self.advance(1.2)
        self.assertEqual(len(self.probe.times()), 2)
        self.advance(10)
        self.assertEqual(state_of(self.state), "unhealthy")

    def test_other_settings_start_a_new_checker_and_keep_the_state(self) -> None:
        self.run_with(ONE)
        self.advance(1.2)
        for check in (attrs.evolve(CHECK, path="/up"), attrs.evolve(CHECK, interval_seconds=20)):
            before = len(self.probe.calls)
            self.configure(ONE, check=check)
            self.assertEqual(state_of(self.state), "healthy")
            self.advance(1.2)
            self.assertEqual(len(self.probe.calls), before + 1)

    def test_another_address_of_the_same_name_is_probed_soon(self) -> None:
        self.run_with(ONE)
        self.advance(1.2)
        self.configure(make_target(1, address="10.9.9.9"))
        self.advance(1.2)
        self.assertEqual(len(self.probe.calls), 2)

    def test_proxy_protocol_switched_on_is_probed_soon(self) -> None:
        self.run_with(ONE)
        self.advance(1.2)
        group = attrs.evolve(make_group(ONE, health_check=CHECK), proxy_protocol=ProxyProtocolVersion.V2)
        self.state.configure(make_configuration(group), 1)
        self.advance(1.2)
        self.assertEqual(len(self.probe.calls), 2)

    # What is said

    def test_transitions_are_logged_with_their_reason(self) -> None:
        self.run_with(ONE)
        self.advance(1.2)
        self.probe.result = wrong_status(503)
        self.advance(22)
        self.assertIn(
            "target 10.0.0.1:80 in app is unhealthy: "
            "Target.ResponseCodeMismatch Health checks failed with these codes: [503]",
            list(self.logged(LogLevel.warn)),
        )
        self.assertEqual(list(self.logged(LogLevel.info)), ["target 10.0.0.1:80 in app is healthy"])

    def test_failing_open_is_logged_when_it_starts_and_when_it_ends(self) -> None:
        self.probe.result = TIMED_OUT
        self.run_with(ONE, TWO)
        self.advance(13)
        self.assertTrue(self.state.fail_open("app"))
        self.assertEqual(sum("fails open" in line for line in self.logged(LogLevel.warn)), 1)
        self.probe.result = PASSED
        self.advance(35)
        self.assertFalse(self.state.fail_open("app"))
        self.assertEqual(sum("no longer fails open" in line for line in self.logged(LogLevel.info)), 1)

    def test_a_backup_that_takes_over_is_logged_when_it_starts_and_when_it_ends(self) -> None:
        self.probe.result = TIMED_OUT
        spare = attrs.evolve(make_group(TWO, name="spare"), health_check=HealthCheck(enabled=False))
        app = attrs.evolve(make_group(ONE, health_check=CHECK), backup="spare")
        self.state.configure(make_configuration(app, spare), 1)
        self.service.startService()
        self.advance(13)
        self.assertFalse(self.state.fail_open("app"))
        self.assertEqual(sum("backup spare takes over" in line for line in self.logged(LogLevel.warn)), 1)
        self.probe.result = PASSED
        self.advance(35)
        self.assertEqual(sum("does its own work again" in line for line in self.logged(LogLevel.info)), 1)
