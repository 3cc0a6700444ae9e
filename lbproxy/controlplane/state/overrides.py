"""What operators have decided for targets: kept over reloads and restarts, forgotten with the target."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import attrs
from twisted.logger import Logger

from lbproxy.controlplane.state.journal import Journal
from lbproxy.model.target import Override, OverrideState, Target

_log = Logger()

FORGET_SECONDS = 3600.0
"""A decision on a target that no source has named for this long is void: who comes back there may be another."""


class Overrides:
    """All decisions, by target group and target key."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._by_group = _read(journal)
        self._absent_since: dict[tuple[str, str], float] = {}

    def of(self, group: str) -> Mapping[str, Override]:
        """By target key; a new mapping after each change."""
        return self._by_group.get(group, {})

    def set(self, group: str, key: str, override: Override | None) -> None:
        """Decide; None takes a decision back."""
        decided = {name: value for name, value in self.of(group).items() if name != key}
        if override is not None and override != Override():
            decided[key] = override
        self._by_group = {**self._by_group, group: decided}
        self._absent_since.pop((group, key), None)
        self._journal.write(
            {
                name: {each: _as_json(value) for each, value in overrides.items()}
                for name, overrides in self._by_group.items()
                if overrides
            }
        )

    def named(self, group: str, keys: Collection[str], now: float) -> None:
        """These targets are named in a group now: forget decisions on those that were away for long."""
        for key in list(self.of(group)):
            if key not in keys:
                self._absent_since.setdefault((group, key), now)
            elif now - self._absent_since.pop((group, key), now) > FORGET_SECONDS:
                _log.info(
                    "target {target} of {group} is back: what was decided for it is void", target=key, group=group
                )
                self.set(group, key, None)


def apply(overrides: Mapping[str, Override], targets: Iterable[Target]) -> tuple[Target, ...]:
    """Leave out the targets that are to drain, and give others the weight that was decided."""
    wanted = []
    for target in targets:
        override = overrides.get(target.key, Override())
        if override.state is not OverrideState.DRAIN:
            weight = override.weight
            wanted.append(target if weight is None else attrs.evolve(target, weight=weight))
    return tuple(wanted)


def _as_json(override: Override) -> dict[str, Any]:
    return {"state": override.state.value if override.state is not None else None, "weight": override.weight}


def _read(journal: Journal) -> dict[str, dict[str, Override]]:
    value = journal.read() or {}
    try:
        return {
            group: {
                key: Override(state=OverrideState(each["state"]) if each["state"] else None, weight=each["weight"])
                for key, each in overrides.items()
            }
            for group, overrides in value.items()
        }
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        _log.error("what operators have decided for targets cannot be read: {error}", error=error)
        return {}
