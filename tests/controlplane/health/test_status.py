"""ELB's thresholds: a table of sequences, and every sequence against a naive model."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from lbproxy.controlplane.health.status import (
    HEALTHY,
    INITIAL_HEALTH_CHECKING,
    PASSED,
    TIMED_OUT,
    HealthStatus,
    failed,
    wrong_status,
)
from lbproxy.model.health import HealthCheck
from lbproxy.model.target import TargetReason, TargetState
from tests.controlplane.fakes import UNHEALTHY

START = {"initial": INITIAL_HEALTH_CHECKING, "healthy": HEALTHY, "unhealthy": UNHEALTHY}


@pytest.mark.parametrize(
    ("start", "results", "expected"),
    [
        ("initial", "", "initial"),
        ("initial", "+", "healthy"),
        ("initial", "-", "initial"),
        ("initial", "-+", "healthy"),
        ("initial", "--", "unhealthy"),
        ("initial", "--+", "unhealthy"),
        ("initial", "--+++", "healthy"),
        ("initial", "-+-", "healthy"),
        ("healthy", "+", "healthy"),
        ("healthy", "-", "healthy"),
        ("healthy", "-+-", "healthy"),
        ("healthy", "--", "unhealthy"),
        ("unhealthy", "-", "unhealthy"),
        ("unhealthy", "++", "unhealthy"),
        ("unhealthy", "++-++", "unhealthy"),
        ("unhealthy", "++-+++", "healthy"),
        ("unhealthy", "+++-", "healthy"),
        ("unhealthy", "+++--", "unhealthy"),
    ],
)
def test_thresholds(start: str, results: str, expected: str) -> None:
    """Two failures in a row make unhealthy, three successes healthy, the first success on registration."""
    status = HealthStatus(HealthCheck(healthy_threshold=3, unhealthy_threshold=2), START[start])
    for result in results:
        status.record(PASSED if result == "+" else TIMED_OUT)
    assert status.health.state.value == expected


@pytest.mark.parametrize(
    ("result", "reason", "description"),
    [
        (wrong_status(503), "Target.ResponseCodeMismatch", "Health checks failed with these codes: [503]"),
        (TIMED_OUT, "Target.Timeout", "Request timed out"),
        (failed("connection refused"), "Target.FailedHealthChecks", "Health checks failed: connection refused"),
    ],
)
def test_an_unhealthy_target_says_why_in_elbs_words(result: object, reason: str, description: str) -> None:
    status = HealthStatus(HealthCheck(unhealthy_threshold=1))
    health = status.record(result)  # type: ignore[arg-type]
    assert (health.reason.value, health.description) == (reason, description)


def test_an_unhealthy_targets_reason_is_that_of_the_latest_failure() -> None:
    status = HealthStatus(HealthCheck(), UNHEALTHY)
    assert status.record(wrong_status(500)).description == "Health checks failed with these codes: [500]"


def test_a_healthy_target_has_no_reason() -> None:
    assert HealthStatus(HealthCheck()).record(PASSED).reason is TargetReason.NONE


@given(st.lists(st.booleans()), st.integers(1, 5), st.integers(1, 5))
def test_a_state_only_changes_after_its_threshold_of_equal_results(results: list[bool], up: int, down: int) -> None:
    status = HealthStatus(HealthCheck(healthy_threshold=up, unhealthy_threshold=down))
    for index, passed in enumerate(results):
        before = status.health.state
        after = status.record(PASSED if passed else TIMED_OUT).state
        if before is not after and before is not TargetState.INITIAL:
            needed = up if passed else down
            assert results[index + 1 - needed : index + 1] == [passed] * needed


class StatusMachine(RuleBasedStateMachine):
    """The status beside a model that looks back over all results."""

    @initialize(up=st.integers(1, 4), down=st.integers(1, 4))
    def start(self, up: int, down: int) -> None:
        self.up, self.down = up, down
        self.status = HealthStatus(HealthCheck(healthy_threshold=up, unhealthy_threshold=down))
        self.expected = "initial"
        self.since_change: list[bool] = []

    @rule(passed=st.booleans())
    def probe(self, passed: bool) -> None:
        self.status.record(PASSED if passed else TIMED_OUT)
        self.since_change.append(passed)
        streak = 0
        for result in reversed(self.since_change):
            if result is not passed:
                break
            streak += 1
        needed = self.down if not passed else (1 if self.expected == "initial" else self.up)
        if streak >= needed and self.expected != ("healthy" if passed else "unhealthy"):
            self.expected = "healthy" if passed else "unhealthy"
            self.since_change = []

    @invariant()
    def agrees_with_the_model(self) -> None:
        if hasattr(self, "status"):
            assert self.status.health.state.value == self.expected
            assert (self.status.health.reason is TargetReason.NONE) is (self.expected == "healthy")


TestStatusMachine = StatusMachine.TestCase
