"""From probe results to a target's health: ELB's thresholds as a pure state machine.

* ``initial``: the first success makes healthy, ``unhealthy_threshold`` failures make unhealthy;
* ``healthy``: ``unhealthy_threshold`` failures in a row make unhealthy;
* ``unhealthy``: ``healthy_threshold`` successes in a row make healthy.
"""

from __future__ import annotations

import attrs

from lbproxy.model.health import HealthCheck
from lbproxy.model.target import TargetHealth, TargetReason, TargetState


@attrs.frozen
class ProbeResult:
    """What one probe found: passed when ``reason`` is NONE, else why not."""

    reason: TargetReason = TargetReason.NONE
    description: str = ""

    @property
    def passed(self) -> bool:
        return self.reason is TargetReason.NONE


PASSED = ProbeResult()
TIMED_OUT = ProbeResult(TargetReason.TIMEOUT, "Request timed out")


def wrong_status(status: int) -> ProbeResult:
    """The target answered with a status that is no success."""
    return ProbeResult(TargetReason.RESPONSE_CODE_MISMATCH, f"Health checks failed with these codes: [{status}]")


def failed(detail: str) -> ProbeResult:
    """The target could not be asked, or its answer could not be read."""
    return ProbeResult(TargetReason.FAILED_HEALTH_CHECKS, f"Health checks failed: {detail}")


INITIAL_HEALTH_CHECKING = TargetHealth(
    state=TargetState.INITIAL,
    reason=TargetReason.INITIAL_HEALTH_CHECKING,
    description="Initial health checks in progress",
)
HEALTHY = TargetHealth(state=TargetState.HEALTHY)


@attrs.define(eq=False)
class HealthStatus:
    """One target's health as its probes' results come in, starting from ``health``."""

    _check: HealthCheck
    health: TargetHealth = INITIAL_HEALTH_CHECKING
    _in_a_row: int = attrs.field(default=0, init=False)
    """Results in a row that speak against the present state."""

    def record(self, result: ProbeResult) -> TargetHealth:
        """Take the next result; return the health that follows from it.

        While a target stays unhealthy its reason is that of the latest failure.
        """
        if self._confirms(result):
            self._in_a_row = 0
            if not result.passed:
                self.health = _unhealthy(result)
            return self.health
        self._in_a_row += 1
        if self._in_a_row >= self._needed(result.passed):
            self._in_a_row = 0
            self.health = HEALTHY if result.passed else _unhealthy(result)
        return self.health

    def _confirms(self, result: ProbeResult) -> bool:
        """Whether the result is what the present state says; nothing confirms ``initial``."""
        return self.health.state is (TargetState.HEALTHY if result.passed else TargetState.UNHEALTHY)

    def _needed(self, passed: bool) -> int:
        """Results like this in a row that change the state."""
        if not passed:
            return self._check.unhealthy_threshold
        return 1 if self.health.state is TargetState.INITIAL else self._check.healthy_threshold


def _unhealthy(result: ProbeResult) -> TargetHealth:
    return TargetHealth(state=TargetState.UNHEALTHY, reason=result.reason, description=result.description)
