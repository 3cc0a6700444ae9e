"""Short ways to write listeners and rules."""

from __future__ import annotations

from lbproxy.model.listener import Listener, ListenerProtocol
from lbproxy.model.rule import (
    Action,
    Condition,
    FixedResponse,
    Forward,
    HostCondition,
    PathCondition,
    Pattern,
    Rule,
    WeightedGroup,
)

DEFAULT = FixedResponse(status=404)


def host(*patterns: str) -> HostCondition:
    return HostCondition(tuple(pattern(text) for text in patterns))


def path(*patterns: str) -> PathCondition:
    return PathCondition(tuple(pattern(text) for text in patterns))


def pattern(text: str) -> Pattern:
    if text.startswith("regex:"):
        return Pattern(text.removeprefix("regex:"), is_regex=True)
    return Pattern(text)


def rule(priority: int, *conditions: Condition, name: str | None = None, action: Action | None = None) -> Rule:
    return Rule(
        name=name or f"rule{priority}",
        priority=priority,
        conditions=conditions,
        action=action or Forward((WeightedGroup("app"),)),
    )


def listener(*rules: Rule, default: Action = DEFAULT) -> Listener:
    return Listener(name="web", protocol=ListenerProtocol.HTTP, binds=(), default_action=default, rules=rules)
