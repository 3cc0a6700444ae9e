"""The control plane's state in the form that the admin API shows: JSON values, no keys, no secrets."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any

import attrs

from lbproxy.controlplane.state import ControlState
from lbproxy.model.listener import Bind, Certificate, Listener
from lbproxy.model.rule import Action, Condition
from lbproxy.model.snapshot import Configuration, GroupState
from lbproxy.model.target import RegisteredTarget, TargetHealth, TargetReason, TargetState

_LISTENER_COUNTERS: Mapping[str, Any] = {
    "connections": 0,
    "active": 0,
    "requests": 0,
    "requests_by_status": {},
    "faults": {},
    "received_bytes": 0,
    "sent_bytes": 0,
}
_TARGET_COUNTERS: Mapping[str, Any] = {"requests": 0, "connect_failures": 0, "faults": {}}
"""What is shown for a listener or target that no worker has reported on yet."""


def describe_status(state: ControlState, totals: Mapping[str, Any]) -> dict[str, Any]:
    """Show listeners, target groups and targets with their counters (`Metrics.totals`)."""
    snapshot = state.snapshot
    listeners, targets = totals.get("listeners", {}), totals.get("targets", {})
    groups = {group.name: group for group in snapshot.configuration.target_groups}
    return {
        "listeners": [
            _describe_listener(listener, listeners.get(listener.name, {}))
            for listener in snapshot.configuration.listeners
        ],
        "target_groups": [
            {
                "name": name,
                "protocol": groups[name].protocol.value if name in groups else None,
                "algorithm": groups[name].algorithm if name in groups else None,
                "fail_open": state.fail_open(name),
                "serving": state.serving(name),
                "removed": name not in groups,
                "circuits": {
                    what: {"now": now, "limit": limit, "open": now >= limit}
                    for what, (now, limit) in state.circuits(name).items()
                },
                "sources": [attrs.asdict(source) for source in state.sources(name)],
                "targets": _describe_targets(state, name, group, targets.get(name, {})),
            }
            for name, group in snapshot.groups.items()
        ],
    }


def _describe_listener(listener: Listener, counters: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **_LISTENER_COUNTERS,
        **counters,
        "name": listener.name,
        "protocol": listener.protocol.value,
        "binds": [str(bind) for bind in listener.binds],
    }


def describe_target(state: ControlState, group: str, key: str, totals: Mapping[str, Any]) -> dict[str, Any] | None:
    """Show one target as `describe_status` does; None if there is no such target."""
    group_state = state.snapshot.groups.get(group, GroupState())
    counters = totals.get("targets", {}).get(group, {})
    shown = _describe_targets(state, group, group_state, counters)
    return next((target for target in shown if target["target"] == key), None)


def _describe_targets(
    state: ControlState, group: str, group_state: GroupState, counters: Mapping[str, Any]
) -> list[dict[str, Any]]:
    overrides = state.overrides(group)

    def describe(registered: RegisteredTarget) -> dict[str, Any]:
        target, health = registered.target, registered.health
        return {
            **_TARGET_COUNTERS,
            **counters.get(target.key, {}),
            "target": target.key,
            "address": target.address,
            "name": target.name,
            "weight": target.weight,
            "zone": target.zone,
            "priority": target.priority,
            "share": registered.share,
            "share_reason": registered.share_reason,
            "state": health.state.value,
            "reason": health.reason.value,
            "description": health.description,
            "in_flight": state.in_flight(group, target.key),
            "override": _describe(overrides.get(target.key)),
            "checked": registered.checked.state.value if registered.checked is not None else None,
        }

    present = {registered.target.key for registered in group_state.targets}
    drained = [
        describe(RegisteredTarget(target=target, health=_DRAINED, cell=0))
        for target in state.drained(group)
        if target.key not in present
    ]
    return [*map(describe, group_state.targets), *drained]


_DRAINED = TargetHealth(
    state=TargetState.UNUSED, reason=TargetReason.NOT_REGISTERED, description="An operator has drained it"
)


def describe_configuration(configuration: Configuration) -> Any:
    """Show the whole configuration; of certificates only where they came from."""
    return _describe(configuration)


def _describe(value: Any) -> Any:
    """Turn model values into what JSON knows; an action or condition says which kind it is."""
    if isinstance(value, Certificate):
        return {"source": value.source}
    if isinstance(value, Bind):
        return str(value)
    if isinstance(value, bytes):
        return f"({len(value)} bytes)"
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, (tuple, list)):
        return [_describe(one) for one in value]
    if attrs.has(type(value)):
        kind = {"kind": type(value).__name__} if isinstance(value, (Action, Condition)) else {}
        return {**kind, **{field.name: _describe(getattr(value, field.name)) for field in attrs.fields(type(value))}}
    return value
