"""What a reload says it changed."""

from __future__ import annotations

import attrs

from lbproxy.controlplane.supervisor.changes import MAX_LINES, describe_changes
from lbproxy.model.health import HealthCheck
from lbproxy.model.rule import FixedResponse, PathCondition, Pattern, Rule
from lbproxy.model.snapshot import AccessLogSettings, Configuration
from tests.controlplane.fakes import make_configuration, make_group, make_target

ONE = make_configuration(make_group(make_target(1)))


def make_rule(name: str, priority: int, status: int = 404) -> Rule:
    action = FixedResponse(status=status, content_type="text/plain", body="")
    return Rule(name=name, priority=priority, conditions=(PathCondition((Pattern("/"),)),), action=action)


def with_rules(*rules: Rule) -> Configuration:
    return attrs.evolve(ONE, listeners=(attrs.evolve(ONE.listeners[0], rules=rules),))


def test_nothing() -> None:
    assert describe_changes(ONE, make_configuration(make_group(make_target(1)))) == ()


def test_target_groups() -> None:
    other = make_configuration(
        make_group(make_target(1), make_target(2), delay=5, health_check=HealthCheck(path="/up")),
        make_group(name="new"),
        used=("app",),
    )
    assert describe_changes(ONE, other) == (
        "target group app changed: targets, health-check, deregistration-delay",
        "target group new added",
    )
    assert describe_changes(other, ONE)[1:] == ("target group new removed",)


def test_rules_are_told_one_by_one() -> None:
    former = with_rules(make_rule("a", 1), make_rule("b", 2), make_rule("c", 3))
    present = with_rules(make_rule("b", 1), make_rule("c", 3, status=410), make_rule("d", 4))
    assert describe_changes(former, present) == (
        "rule b changed: priority",
        "rule c changed: action",
        "rule d added",
        "rule a removed",
    )


def test_listeners_and_settings() -> None:
    listener = attrs.evolve(ONE.listeners[0], idle_timeout_seconds=5.0)
    present = attrs.evolve(
        ONE, listeners=(listener,), access_log=AccessLogSettings(destination="stdout"), drain_timeout_seconds=1.0
    )
    assert describe_changes(ONE, present) == (
        "listener web changed: idle-timeout",
        "access-log changed",
        "drain-timeout changed",
    )
    assert describe_changes(Configuration(), ONE) == ("listener web added", "target group app added")


def test_thousands_are_not_told_one_by_one() -> None:
    lines = describe_changes(ONE, with_rules(*(make_rule(f"r{n}", n + 1) for n in range(1000))))
    assert len(lines) == MAX_LINES
    assert lines[-1] == f"and {1000 - MAX_LINES + 1} more changes"
