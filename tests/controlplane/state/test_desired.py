"""Desired state becomes snapshots: versions, registration, draining and who owns which cells."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from lbproxy.controlplane.state import ControlState, Journal, Overrides
from lbproxy.model.health import HealthCheck
from lbproxy.model.snapshot import AccessLogSettings, Snapshot
from lbproxy.model.target import Override, OverrideState, TargetHealth, TargetReason, TargetState
from tests.controlplane.fakes import (
    HEALTHY,
    UNHEALTHY,
    FakeCells,
    StateBench,
    make_configuration,
    make_group,
    make_target,
    registered,
    state_of,
    states,
)

ONE, TWO, THREE = make_target(1), make_target(2), make_target(3)


class Bench(StateBench):
    """What these tests do with a state."""

    def configure(self, *groups: object, slots: int = 2, **options: object) -> Snapshot:
        return self.state.configure(make_configuration(*groups, **options), slots)  # type: ignore[arg-type]

    def make_healthy(self, *keys: str) -> None:
        for key in keys or ("10.0.0.1:80",):
            self.state.set_health("app", key, HEALTHY)
        self.clock.advance(0)

    def advance(self, seconds: int) -> None:
        self.clock.pump([1.0] * seconds)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_before_the_first_configuration_the_snapshot_is_empty(bench: Bench) -> None:
    assert bench.state.snapshot.version == 0
    assert bench.state.snapshot.groups == {}


def test_configure_publishes_at_once(bench: Bench) -> None:
    snapshot = bench.configure(make_group(ONE, TWO))
    assert bench.published == [snapshot]
    assert (snapshot.version, snapshot.configuration_version, snapshot.worker_slots) == (1, 1, 2)
    assert states(snapshot) == {"10.0.0.1:80": "initial", "10.0.0.2:80": "initial"}
    assert registered(snapshot).health.reason is TargetReason.REGISTRATION_IN_PROGRESS


def test_the_same_configuration_again_publishes_nothing(bench: Bench) -> None:
    bench.configure(make_group(ONE))
    bench.clock.advance(5)
    bench.configure(make_group(ONE))
    assert len(bench.published) == 1
    assert bench.state.configured_at == 5


def test_a_target_fails_alone_while_another_one_is_healthy(bench: Bench) -> None:
    bench.configure(make_group(ONE, TWO))
    bench.state.set_health("app", ONE.key, UNHEALTHY)
    bench.clock.advance(1)
    assert not bench.state.fails_alone("app", ONE.key)
    bench.state.set_health("app", TWO.key, HEALTHY)
    bench.clock.advance(1)
    assert bench.state.fails_alone("app", ONE.key)
    assert not bench.state.fails_alone("app", TWO.key)
    assert not bench.state.fails_alone("app", THREE.key)
    assert not bench.state.fails_alone("nobody", ONE.key)


def test_discovered_targets_join_the_configured_ones(bench: Bench) -> None:
    bench.configure(make_group(ONE))
    bench.make_healthy()
    bench.state.set_discovered("app", (TWO, make_target(1, weight=5)))
    bench.clock.advance(1)
    snapshot = bench.published[-1]
    assert states(snapshot) == {"10.0.0.1:80": "healthy", "10.0.0.2:80": "initial"}
    assert registered(snapshot).target.weight == 1, "what the configuration says of a target counts"
    assert snapshot.configuration_version == 1, "workers need not be sent the whole configuration"

    bench.state.set_discovered("app", ())
    bench.clock.advance(0.1)
    assert states(bench.state.snapshot) == {"10.0.0.1:80": "healthy", "10.0.0.2:80": "draining"}
    bench.advance(2)
    assert states(bench.state.snapshot) == {"10.0.0.1:80": "healthy"}


def test_what_was_discovered_counts_from_the_first_snapshot_of_a_configuration(bench: Bench) -> None:
    snapshot = bench.state.configure(make_configuration(make_group(ONE)), 1, {"app": (TWO,)})
    assert list(states(snapshot)) == ["10.0.0.1:80", "10.0.0.2:80"]
    snapshot = bench.state.configure(make_configuration(make_group(ONE)), 1, {})
    assert states(snapshot)["10.0.0.2:80"] == "draining"


def test_discovery_in_a_group_that_is_gone_changes_nothing(bench: Bench) -> None:
    bench.configure(make_group(ONE))
    bench.state.set_discovered("other", (TWO,))
    bench.clock.advance(1)
    assert len(bench.published) == 1


def test_more_discovered_targets_than_cells_change_nothing(bench: Bench) -> None:
    bench.configure(make_group(ONE))
    with pytest.raises(RuntimeError):
        bench.state.set_discovered("app", tuple(make_target(number) for number in range(2, 255)))
    bench.clock.advance(1)
    assert states(bench.state.snapshot) == {"10.0.0.1:80": "initial"}
    bench.state.set_discovered("app", (TWO,))
    bench.clock.advance(1)
    assert list(states(bench.state.snapshot)) == ["10.0.0.1:80", "10.0.0.2:80"]


def test_another_number_of_workers_keeps_the_configuration_version(bench: Bench) -> None:
    bench.configure(make_group(ONE), slots=2)
    snapshot = bench.configure(make_group(ONE), slots=4)
    assert (snapshot.version, snapshot.configuration_version, snapshot.worker_slots) == (2, 1, 4)


def test_health_changes_keep_the_configuration_and_its_version(bench: Bench) -> None:
    before = bench.configure(make_group(ONE))
    bench.make_healthy()
    after = bench.state.snapshot
    assert (after.version, after.configuration_version) == (2, 1)
    assert after.configuration is before.configuration
    assert state_of(bench.state) == "healthy"


def test_health_changes_of_one_turn_make_one_snapshot(bench: Bench) -> None:
    bench.configure(make_group(ONE, TWO))
    bench.make_healthy("10.0.0.1:80", "10.0.0.2:80")
    assert [snapshot.version for snapshot in bench.published] == [1, 2]


def test_a_burst_of_health_changes_is_published_at_most_twenty_times_a_second(bench: Bench) -> None:
    bench.configure(make_group(ONE))
    for turn in range(100):
        bench.state.set_health("app", "10.0.0.1:80", HEALTHY if turn % 2 else UNHEALTHY)
        bench.clock.advance(0.01)
    assert 15 <= len(bench.published) <= 22


def test_health_there_and_back_within_a_turn_publishes_nothing(bench: Bench) -> None:
    bench.configure(make_group(ONE))
    bench.make_healthy()
    bench.clock.advance(1)
    bench.state.set_health("app", "10.0.0.1:80", UNHEALTHY)
    bench.make_healthy()
    assert bench.state.snapshot.version == 2


def test_configure_takes_pending_health_along(bench: Bench) -> None:
    bench.configure(make_group(ONE))
    bench.state.set_health("app", "10.0.0.1:80", HEALTHY)
    snapshot = bench.configure(make_group(ONE, TWO))
    bench.clock.advance(1)
    assert states(snapshot) == {"10.0.0.1:80": "healthy", "10.0.0.2:80": "initial"}
    assert len(bench.published) == 2


def test_what_did_not_change_keeps_its_objects(bench: Bench) -> None:
    other = make_group(THREE, name="other")
    before = bench.configure(make_group(ONE, TWO), other)
    bench.make_healthy("10.0.0.1:80")
    after = bench.state.snapshot
    assert after.groups["other"] is before.groups["other"]
    assert registered(after, "10.0.0.2:80") is registered(before, "10.0.0.2:80")
    bench.state.configure(
        attrs.evolve(after.configuration, access_log=AccessLogSettings(destination="stdout")), worker_slots=2
    )
    assert bench.state.snapshot.groups["app"] is after.groups["app"]
    assert bench.state.snapshot.configuration_version == 2


def test_another_weight_keeps_health_and_cells(bench: Bench) -> None:
    before = registered(bench.configure(make_group(ONE)))
    bench.make_healthy()
    after = registered(bench.configure(make_group(make_target(1, weight=7))))
    assert after.target.weight == 7
    assert after.health is HEALTHY
    assert after.cell == before.cell


def test_targets_stand_in_the_configurations_order(bench: Bench) -> None:
    bench.configure(make_group(ONE, TWO, THREE))
    snapshot = bench.configure(make_group(THREE, ONE))
    assert list(states(snapshot)) == ["10.0.0.3:80", "10.0.0.1:80", "10.0.0.2:80"]


def test_each_target_and_group_has_its_own_cells(bench: Bench) -> None:
    snapshot = bench.configure(make_group(ONE, TWO), make_group(ONE, name="other"))
    runs = [one.cell for group in snapshot.groups.values() for one in group.targets]
    taken = [cell for first in runs for cell in range(first, first + 64)]
    taken += [group.cell for group in snapshot.groups.values()]
    assert len(taken) == len(set(taken))


# States that do not come from probes


def test_targets_of_a_group_that_nothing_forwards_to_are_unused(bench: Bench) -> None:
    snapshot = bench.configure(make_group(ONE), used=())
    assert registered(snapshot).health.state is TargetState.UNUSED
    assert registered(snapshot).health.reason is TargetReason.NOT_IN_USE


def test_a_group_that_comes_into_use_starts_its_checks(bench: Bench) -> None:
    bench.configure(make_group(ONE), used=())
    assert registered(bench.configure(make_group(ONE))).health.reason is TargetReason.REGISTRATION_IN_PROGRESS
    assert registered(bench.configure(make_group(ONE), used=())).health.state is TargetState.UNUSED


def test_targets_without_health_checks_are_unavailable(bench: Bench) -> None:
    snapshot = bench.configure(make_group(ONE, health_check=HealthCheck(enabled=False)))
    assert registered(snapshot).health.state is TargetState.UNAVAILABLE
    assert registered(snapshot).health.reason is TargetReason.HEALTH_CHECK_DISABLED


def test_switching_checks_off_and_on(bench: Bench) -> None:
    bench.configure(make_group(ONE))
    bench.make_healthy()
    bench.configure(make_group(ONE, health_check=HealthCheck(enabled=False)))
    assert state_of(bench.state) == "unavailable"
    bench.configure(make_group(ONE))
    assert state_of(bench.state) == "initial"


def test_health_of_unknown_unused_and_draining_targets_is_ignored(bench: Bench) -> None:
    bench.configure(make_group(ONE, TWO), make_group(ONE, name="spare"), used=("app",))
    bench.configure(make_group(ONE), make_group(ONE, name="spare"), used=("app",))
    before = bench.state.snapshot
    for group, key in [("no", "10.0.0.1:80"), ("app", "1:1"), ("app", "10.0.0.2:80"), ("spare", "10.0.0.1:80")]:
        bench.state.set_health(group, key, HEALTHY)
    bench.clock.advance(0.1)
    assert bench.state.snapshot is before


# Draining


def test_a_removed_target_drains_until_nothing_is_in_flight(bench: Bench) -> None:
    cell = registered(bench.configure(make_group(ONE, TWO))).cell
    bench.cells.view[cell] = 1
    bench.cells.view[cell + 63] = 1
    snapshot = bench.configure(make_group(TWO))
    assert registered(snapshot).health.reason is TargetReason.DEREGISTRATION_IN_PROGRESS
    bench.advance(10)
    assert bench.state.in_flight("app", "10.0.0.1:80") == 2
    bench.cells.view[cell] = bench.cells.view[cell + 63] = 0
    bench.advance(1)
    assert list(states(bench.state.snapshot)) == ["10.0.0.2:80"]


def test_an_idle_target_still_drains_for_a_second(bench: Bench) -> None:
    bench.configure(make_group(ONE, TWO))
    bench.configure(make_group(TWO))
    bench.clock.advance(0.9)
    assert state_of(bench.state) == "draining"
    bench.clock.advance(0.1)
    assert list(states(bench.state.snapshot)) == ["10.0.0.2:80"]


def test_the_deregistration_delay_ends_draining_whatever_is_in_flight(bench: Bench) -> None:
    cell = registered(bench.configure(make_group(ONE, TWO, delay=30))).cell
    bench.cells.view[cell] = 1
    bench.configure(make_group(TWO, delay=30))
    bench.advance(29)
    assert state_of(bench.state) == "draining"
    bench.advance(1)
    assert list(states(bench.state.snapshot)) == ["10.0.0.2:80"]


def test_no_deregistration_delay_means_no_draining(bench: Bench) -> None:
    bench.configure(make_group(ONE, TWO, delay=0))
    assert list(states(bench.configure(make_group(TWO, delay=0)))) == ["10.0.0.2:80"]


def test_a_target_that_comes_back_while_draining_is_registered_anew_in_place(bench: Bench) -> None:
    cell = registered(bench.configure(make_group(ONE))).cell
    bench.make_healthy()
    bench.cells.view[cell] = 1
    bench.configure(make_group())
    again = registered(bench.configure(make_group(ONE)))
    assert again.health.reason is TargetReason.REGISTRATION_IN_PROGRESS
    assert again.cell == cell
    assert bench.cells.view[cell] == 1
    bench.advance(400)
    assert state_of(bench.state) == "initial"


def test_a_removed_groups_targets_drain_and_then_the_group_goes(bench: Bench) -> None:
    cell = registered(bench.configure(make_group(ONE))).cell
    bench.cells.view[cell] = 1
    snapshot = bench.configure()
    assert snapshot.configuration.target_groups == ()
    assert states(snapshot) == {"10.0.0.1:80": "draining"}
    bench.cells.view[cell] = 0
    bench.advance(1)
    assert bench.state.snapshot.groups == {}


def test_a_group_that_comes_back_keeps_its_cell(bench: Bench) -> None:
    before = bench.configure(make_group(ONE)).groups["app"].cell
    bench.configure()
    bench.advance(5)
    assert bench.configure(make_group(ONE)).groups["app"].cell == before


# Cells after a target has gone


def test_a_departed_targets_cells_stay_reserved_for_a_minute(bench: Bench) -> None:
    cell = registered(bench.configure(make_group(ONE, TWO, delay=0))).cell
    bench.configure(make_group(TWO, delay=0))
    bench.advance(59)
    assert "target app 10.0.0.1:80" in bench.cells.runs
    bench.cells.view[cell + 3] = -1
    bench.advance(2)
    assert "target app 10.0.0.1:80" not in bench.cells.runs


def test_cells_with_something_in_flight_are_not_given_away(bench: Bench) -> None:
    cell = registered(bench.configure(make_group(ONE, TWO, delay=0))).cell
    bench.cells.view[cell] = 1
    bench.configure(make_group(TWO, delay=0))
    bench.advance(600)
    assert "target app 10.0.0.1:80" in bench.cells.runs
    bench.cells.view[cell] = 0
    bench.advance(1)
    assert "target app 10.0.0.1:80" not in bench.cells.runs


def test_a_target_that_returns_within_the_minute_has_its_cells_again(bench: Bench) -> None:
    cell = registered(bench.configure(make_group(ONE, delay=0))).cell
    bench.configure(make_group(delay=0))
    bench.advance(30)
    assert registered(bench.configure(make_group(ONE, delay=0))).cell == cell
    bench.advance(100)
    assert "target app 10.0.0.1:80" in bench.cells.runs


def test_too_few_cells_change_nothing(bench: Bench) -> None:
    before = bench.configure(make_group(ONE))
    bench.cells._next = len(bench.cells.view) - 70
    with pytest.raises(RuntimeError):
        bench.configure(make_group(ONE, TWO, THREE))
    assert bench.state.snapshot is before
    bench.make_healthy()
    assert states(bench.state.snapshot) == {"10.0.0.1:80": "healthy"}
    assert bench.configure(make_group(ONE, TWO)).version == 3, "what was reserved in vain can be had"


def test_no_timer_is_left_once_everything_has_drained(bench: Bench) -> None:
    bench.configure(make_group(ONE))
    bench.configure(make_group())
    bench.advance(70)
    assert bench.clock.getDelayedCalls() == []


def test_close_leaves_no_timer(bench: Bench) -> None:
    bench.configure(make_group(ONE, TWO))
    bench.configure(make_group(ONE))
    bench.state.set_health("app", "10.0.0.1:80", HEALTHY)
    bench.state.close()
    assert bench.clock.getDelayedCalls() == []


# Subscribers and fail-open


def test_unsubscribing_ends_the_calls(bench: Bench) -> None:
    seen: list[Snapshot] = []
    unsubscribe = bench.state.subscribe(seen.append)
    bench.configure(make_group(ONE))
    unsubscribe()
    unsubscribe()
    bench.configure(make_group(TWO))
    assert len(seen) == 1


@pytest.mark.parametrize(
    ("health", "fails_open"),
    [
        ((), False),
        (("unhealthy", "unhealthy"), True),
        (("unhealthy", "healthy"), False),
        (("unhealthy", None), False),
        ((None, None), False),
    ],
)
def test_fail_open_is_all_checked_and_none_healthy(
    bench: Bench, health: tuple[str | None, ...], fails_open: bool
) -> None:
    targets = [make_target(number) for number in range(len(health))]
    bench.configure(make_group(*targets))
    for target, state in zip(targets, health, strict=True):
        if state is not None:
            bench.state.set_health("app", target.key, TargetHealth(state=TargetState(state)))
    bench.clock.advance(1)
    assert bench.state.fail_open("app") is fails_open
    assert bench.state.fail_open("other") is False


class SubscriberFailureTests(SynchronousTestCase):
    """One part's bug must not keep a snapshot from the others."""

    def test_a_failing_subscriber_is_logged_and_the_next_one_called(self) -> None:
        bench = Bench()
        bench.state.subscribe(lambda snapshot: 1 // 0)
        later: list[Snapshot] = []
        bench.state.subscribe(later.append)
        bench.configure(make_group(ONE))
        self.assertEqual(len(later), 1)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


def test_a_backup_of_a_used_group_is_used(bench: Bench) -> None:
    app = attrs.evolve(make_group(ONE), backup="spare")
    spare = attrs.evolve(make_group(TWO, name="spare"), backup="last")
    last = make_group(THREE, name="last")
    other = attrs.evolve(make_group(make_target(4), name="other"), backup="app")
    snapshot = bench.state.configure(make_configuration(app, spare, last, other, used=("app",)), 1)
    found = {name: states(snapshot, name) for name in ("app", "spare", "last", "other")}
    assert [set(each.values()) for each in found.values()] == [{"initial"}, {"initial"}, {"initial"}, {"unused"}]


def test_the_state_says_who_serves(bench: Bench) -> None:
    bench.configure(attrs.evolve(make_group(ONE), backup="spare"), make_group(TWO, name="spare"))
    bench.make_healthy()
    assert bench.state.serving("app") == "app"
    bench.state.set_health("app", "10.0.0.1:80", UNHEALTHY)
    bench.state.set_health("spare", "10.0.0.2:80", HEALTHY)
    bench.clock.advance(1)
    assert (bench.state.serving("app"), bench.state.serving("spare")) == ("spare", "spare")


# What operators decide


def decide(bench: Bench, key: str = "10.0.0.1:80", state: str | None = None, weight: int | None = None) -> None:
    override = Override(state=OverrideState(state) if state else None, weight=weight)
    bench.state.override("app", key, override if override != Override() else None)
    bench.clock.advance(0.1)


def test_a_target_held_up_is_healthy_whatever_its_checks_say(bench: Bench) -> None:
    bench.configure(make_group(ONE))
    decide(bench, state="up")
    bench.state.set_health("app", "10.0.0.1:80", UNHEALTHY)
    bench.clock.advance(0.1)
    found = registered(bench.state.snapshot)
    assert (found.health.state, found.health.description) == (TargetState.HEALTHY, "An operator holds it up")
    assert found.probed == UNHEALTHY
    decide(bench)
    assert registered(bench.state.snapshot).health == UNHEALTHY


def test_a_target_taken_out_is_checked_on_and_comes_back_as_it_is(bench: Bench) -> None:
    bench.configure(make_group(ONE, TWO))
    bench.make_healthy("10.0.0.1:80")
    decide(bench, state="down")
    found = registered(bench.state.snapshot)
    assert (found.health.state, found.health.reason) == (TargetState.UNUSED, TargetReason.INVALID_STATE)
    assert found.probed == HEALTHY
    decide(bench)
    assert registered(bench.state.snapshot).health == HEALTHY
    assert registered(bench.state.snapshot).checked is None


def test_a_target_that_is_to_drain_is_deregistered_until_that_is_taken_back(bench: Bench) -> None:
    bench.configure(make_group(ONE, TWO))
    bench.make_healthy("10.0.0.1:80")
    decide(bench, state="drain")
    assert state_of(bench.state) == "draining"
    bench.advance(3)
    assert list(states(bench.state.snapshot)) == ["10.0.0.2:80"]
    bench.configure(make_group(ONE, TWO, THREE))
    assert list(states(bench.state.snapshot)) == ["10.0.0.2:80", "10.0.0.3:80"]
    decide(bench)
    assert state_of(bench.state) == "initial", "it has to be checked again"
    for _ in range(3):  # its cells are given back each time, and reserved again
        decide(bench, state="drain")
        bench.advance(100)
        assert "target app 10.0.0.1:80" not in bench.cells.runs
        decide(bench)


def test_a_weight_is_replaced_and_put_back(bench: Bench) -> None:
    bench.configure(make_group(make_target(1, weight=5)))
    decide(bench, weight=0)
    assert registered(bench.state.snapshot).target.weight == 0
    decide(bench)
    assert registered(bench.state.snapshot).target.weight == 5


def test_only_known_targets_can_be_decided_on(bench: Bench) -> None:
    bench.configure(make_group(ONE))
    for group, key in (("app", "10.0.0.2:80"), ("other", "10.0.0.1:80")):
        with pytest.raises(KeyError):
            bench.state.override(group, key, Override(state=OverrideState.UP))


def test_decisions_outlive_reloads_and_restarts(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "overrides.json")
    for number in range(2):
        cells = FakeCells()
        state = ControlState(Clock(), cells, cells, Overrides(journal))
        state.configure(make_configuration(make_group(ONE, TWO)), 1)
        if number == 0:
            state.override("app", "10.0.0.1:80", Override(state=OverrideState.DOWN, weight=7))
            state.override("app", "10.0.0.2:80", Override(state=OverrideState.DRAIN))
        state.configure(make_configuration(make_group(ONE, TWO, THREE)), 1)
    assert registered(state.snapshot).health.state is TargetState.UNUSED
    assert registered(state.snapshot).target.weight == 7
    assert list(states(state.snapshot)) == ["10.0.0.1:80", "10.0.0.3:80"]


def test_a_decision_is_void_for_a_target_that_was_away_for_long(bench: Bench) -> None:
    bench.configure(make_group(TWO))
    bench.state.set_discovered("app", (ONE,))
    decide(bench, state="drain")
    for seconds, stands in ((3000, True), (3700, False)):
        bench.state.set_discovered("app", ())
        bench.clock.advance(seconds)
        bench.state.set_discovered("app", (ONE,))
        assert bool(bench.state.overrides("app")) is stands, seconds


def test_a_spoilt_record_of_decisions_is_told_and_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "overrides.json").write_text('{"app": {"10.0.0.1:80": {"state": "sideways", "weight": null}}}')
    assert Overrides(Journal(tmp_path, "overrides.json")).of("app") == {}


def test_a_target_drains_until_every_worker_has_the_snapshot(bench: Bench) -> None:
    """One that is late may still pick it."""
    bench.configure(make_group(ONE, TWO))
    bench.state.version_in_force = lambda: 1
    bench.configure(make_group(TWO))
    bench.advance(10)
    assert states(bench.state.snapshot)["10.0.0.1:80"] == "draining"
    bench.state.version_in_force = lambda: 2
    bench.advance(1)
    assert "10.0.0.1:80" not in states(bench.state.snapshot)


def test_a_target_that_came_back_for_a_moment_drains_to_its_end(bench: Bench) -> None:
    bench.configure(make_group(TWO))
    bench.state.set_discovered("app", (ONE,))
    bench.clock.advance(0.1)
    bench.state.set_discovered("app", ())
    bench.clock.advance(0.1)
    bench.state.set_discovered("app", (ONE,))
    bench.state.set_discovered("app", ())
    bench.advance(3)
    assert list(states(bench.state.snapshot)) == ["10.0.0.2:80"]
