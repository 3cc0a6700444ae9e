"""What a reload changed, in lines for the log and for whoever asked for it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

import attrs

from lbproxy.model.listener import Listener
from lbproxy.model.rule import Rule
from lbproxy.model.security_group import SecurityGroup
from lbproxy.model.snapshot import Configuration
from lbproxy.model.target_group import TargetGroup

MAX_LINES = 100
"""A file with thousands of rules is not told one by one."""

_Named = TypeVar("_Named", Listener, Rule, TargetGroup, SecurityGroup)


def describe_changes(former: Configuration, present: Configuration) -> tuple[str, ...]:
    """Say what differs, one line for each listener, rule, target group and setting of the process."""
    listeners = {listener.name: listener for listener in former.listeners}
    lines = list(_compare("listener", former.listeners, present.listeners, besides=("rules",)))
    for listener in present.listeners:
        earlier = listeners.get(listener.name)
        rules = earlier.rules if earlier is not None else ()
        lines += _compare("rule", rules, listener.rules)
    lines += _compare("target group", former.target_groups, present.target_groups)
    lines += _compare("security group", former.security_groups, present.security_groups)
    settings = _differing(former, present, besides=("listeners", "target_groups", "security_groups"))
    lines += [f"{setting} changed" for setting in settings]
    if len(lines) > MAX_LINES:
        lines[MAX_LINES - 1 :] = [f"and {len(lines) - MAX_LINES + 1} more changes"]
    return tuple(lines)


def _compare(
    kind: str, former: Iterable[_Named], present: Iterable[_Named], besides: tuple[str, ...] = ()
) -> Iterator[str]:
    earlier = {value.name: value for value in former}
    for value in present:
        before = earlier.pop(value.name, None)
        if before is None:
            yield f"{kind} {value.name} added"
        elif differing := _differing(before, value, besides):
            yield f"{kind} {value.name} changed: {', '.join(differing)}"
    for name in earlier:
        yield f"{kind} {name} removed"


def _differing(former: Any, present: Any, besides: tuple[str, ...]) -> list[str]:
    """Names of the fields that differ, in the spelling of the configuration."""
    return [
        field.name.removesuffix("_seconds").replace("_", "-")
        for field in attrs.fields(type(present))
        if field.name not in besides and getattr(former, field.name) != getattr(present, field.name)
    ]
