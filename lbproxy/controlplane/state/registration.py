"""Registration of one target group's targets: who is in, who is draining, which shared cells they own.

A target enters when the configuration names it and leaves in two steps: it drains until nothing is in
flight or the deregistration delay is over, and then its run of shared cells stays reserved until no
worker can still be counting in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

import attrs

from lbproxy.controlplane.state.slowstart import SlowStart
from lbproxy.model.rule import Forward
from lbproxy.model.snapshot import Configuration, GroupState
from lbproxy.model.target import (
    Override,
    OverrideState,
    RegisteredTarget,
    Target,
    TargetHealth,
    TargetReason,
    TargetState,
)
from lbproxy.model.target_group import TargetGroup

SLOT_LIMIT = 64
"""Cells in a target's run, one for each worker slot that may ever exist (see `lbproxy.ipc.cells`)."""

GROUP_CELLS = 1 + 2 * SLOT_LIMIT
"""Cells in a group's run (see `lbproxy.ipc.cells`)."""

MINIMUM_DRAINING_SECONDS = 1.0
"""A target drains at least this long: what a worker was about to send by an older snapshot is counted by then."""

CELL_RESERVATION_SECONDS = 60.0
"""How long a departed target's cells stay reserved: a worker may still count down requests of an old snapshot."""

REGISTRATION_IN_PROGRESS = TargetHealth(
    state=TargetState.INITIAL,
    reason=TargetReason.REGISTRATION_IN_PROGRESS,
    description="Target registration is in progress",
)
NOT_IN_USE = TargetHealth(
    state=TargetState.UNUSED,
    reason=TargetReason.NOT_IN_USE,
    description="Target group is not configured to receive traffic from the load balancer",
)
HEALTH_CHECK_DISABLED = TargetHealth(
    state=TargetState.UNAVAILABLE,
    reason=TargetReason.HEALTH_CHECK_DISABLED,
    description="Health checks are disabled for this target group",
)
DEREGISTRATION_IN_PROGRESS = TargetHealth(
    state=TargetState.DRAINING,
    reason=TargetReason.DEREGISTRATION_IN_PROGRESS,
    description="Target deregistration is in progress",
)

FORCED = {
    OverrideState.UP: TargetHealth(state=TargetState.HEALTHY, description="An operator holds it up"),
    OverrideState.DOWN: TargetHealth(
        state=TargetState.UNUSED, reason=TargetReason.INVALID_STATE, description="An operator has taken it out"
    ),
}
"""The health of targets for which an operator has decided."""

PROBED_STATES = frozenset({TargetState.INITIAL, TargetState.HEALTHY, TargetState.UNHEALTHY})
"""States of the targets whose health is checked."""


class Cells(Protocol):
    """The shared counters (`lbproxy.ipc.cells.SharedCells`)."""

    @property
    def view(self) -> memoryview:
        """All cells as signed 64-bit integers, writable."""


class CellAllocator(Protocol):
    """Who owns which of the shared cells."""

    def run(self, key: str, length: int) -> int:
        """Reserve this many adjacent cells, all zero, under a name; return the index of the first."""

    def free(self, key: str) -> None:
        """Take back the cells of this name."""


def group_key(name: str) -> str:
    """Name the run of a group's own cells."""
    return f"group {name}"


def target_key(group: str, key: str) -> str:
    """Name the run of a target's in-flight counters."""
    return f"target {group} {key}"


def cells_needed(group: str, targets: Iterable[Target]) -> dict[str, int]:
    """List the runs that a group with these targets needs (key -> cells)."""
    return {group_key(group): GROUP_CELLS, **{target_key(group, target.key): SLOT_LIMIT for target in targets}}


def used_groups(configuration: Configuration) -> frozenset[str]:
    """Name the target groups that some listener's action forwards to, with any weight, and the backups of these."""
    actions = [
        action
        for listener in configuration.listeners
        for action in (listener.default_action, *(rule.action for rule in listener.rules))
    ]
    used = {share.group for action in actions if isinstance(action, Forward) for share in action.groups}
    backups = {group.name: group.backup for group in configuration.target_groups if group.backup}
    for name in tuple(used):
        while (name := backups.get(name, "")) and name not in used:
            used.add(name)
    return frozenset(used)


@attrs.define(eq=False)
class CellBook:
    """The shared cells of targets and groups, those included that have gone but may still be counted in."""

    _cells: Cells
    _allocator: CellAllocator
    _index: dict[str, tuple[int, int]] = attrs.field(factory=dict, init=False)
    """Key -> first cell, length."""
    _departed: dict[str, float] = attrs.field(factory=dict, init=False)
    """Key -> when its owner went."""

    @property
    def has_departed(self) -> bool:
        """Whether `sweep` may have something to free later."""
        return bool(self._departed)

    def reserve(self, runs: Mapping[str, int], now: float) -> None:
        """Make sure of these runs (key -> cells), all or none; a departed key gets back the run it had.

        Raises what the allocator raises when it has no more.
        """
        claimed = []
        try:
            for key, length in runs.items():
                if key not in self._index:
                    self._index[key] = (self._allocator.run(key, length), length)
                elif key not in self._departed:
                    continue
                claimed.append(key)
                self._departed.pop(key, None)
        except Exception:
            for key in claimed:
                self.depart(key, now)
            raise

    def first(self, key: str) -> int:
        """The first cell of a reserved run."""
        return self._index[key][0]

    def total(self, key: str, begin: int = 0, end: int = SLOT_LIMIT) -> int:
        """Sum a run over all worker slots, for slots that are going away may still have something in flight.

        Of a longer run the cells from ``begin`` up to ``end``.
        """
        first, _ = self._index[key]
        return sum(self._cells.view[first + begin : first + end])

    def depart(self, key: str, now: float) -> None:
        """Start the reservation after which `sweep` frees the run."""
        self._departed[key] = now

    def sweep(self, now: float) -> None:
        """Free what nobody can be counting in any more.

        A run of in-flight counters that is not back at zero stays reserved: some connection of an old snapshot lives
        on, and its end must not count down another target's requests.
        """
        for key, since in list(self._departed.items()):
            counts_requests = self._index[key][1] == SLOT_LIMIT
            if now - since < CELL_RESERVATION_SECONDS or (counts_requests and self.total(key) > 0):
                continue
            del self._departed[key], self._index[key]
            self._allocator.free(key)


@attrs.define(eq=False)
class GroupRegistrations:
    """One target group's registered and draining targets.

    ``state`` keeps its identity, and that of each `RegisteredTarget`, for as long as nothing in it changes,
    so that followers of snapshots can skip what is the same object.
    """

    name: str
    _book: CellBook
    state: GroupState = attrs.field(init=False)
    _order: list[str] = attrs.field(factory=list, init=False)
    """Keys of the desired targets in the order of the configuration and its sources."""
    _targets: dict[str, RegisteredTarget] = attrs.field(factory=dict, init=False)
    _draining_since: dict[str, float] = attrs.field(factory=dict, init=False)
    """Keys of the draining targets, first the one that drains longest."""
    _delay_seconds: float = attrs.field(default=0.0, init=False)
    _slow_start: SlowStart = attrs.field(factory=SlowStart, init=False)
    _founders: set[str] = attrs.field(factory=set, init=False)
    """Keys of targets that were registered while none was healthy, and have not been healthy themselves yet."""
    _in_service_since: float = attrs.field(default=0.0, init=False)
    """When one became healthy while no other was."""
    _limits: dict[str, tuple[int, str]] = attrs.field(factory=dict, init=False)
    """Shares below 100 % that somebody has decided on, with the reason."""
    _unchecked: TargetHealth | None = attrs.field(default=None, init=False)
    """The health of targets that are not checked; None in a group that is."""
    _overrides: Mapping[str, Override] = attrs.field(factory=dict, init=False)
    """By target key."""
    _versions: dict[str, int] = attrs.field(factory=dict, init=False)
    """Key of a draining target -> the first snapshot that shows it so."""

    def __attrs_post_init__(self) -> None:
        cell = self._book.first(group_key(self.name))
        self.state = GroupState(cell=cell, waiting=cell + 1, retrying=cell + 1 + SLOT_LIMIT)

    @property
    def is_draining(self) -> bool:
        return bool(self._draining_since)

    @property
    def is_changing(self) -> bool:
        """Whether `sweep` has something to do as time passes."""
        return self.is_draining or self._slow_start.is_active

    @property
    def is_empty(self) -> bool:
        return not self._targets

    def configure(
        self, group: TargetGroup, targets: Iterable[Target], overrides: Mapping[str, Override], in_use: bool, now: float
    ) -> None:
        """Register and deregister so that the targets are these; some may be forced up or down by an override."""
        self._delay_seconds = group.deregistration_delay_seconds
        self._unchecked = _unchecked(group, in_use)
        self._slow_start.configure(group.slow_start_seconds)
        self.set_targets(targets, overrides, now)

    def set_targets(self, targets: Iterable[Target], overrides: Mapping[str, Override], now: float) -> None:
        """The same in a group that is otherwise as before."""
        self._overrides = overrides
        desired = {target.key: target for target in targets}
        self._deregister_others(desired, now)
        for key, target in desired.items():
            self._targets[key] = self._register(key, target, self._unchecked)
        self._order = list(desired)
        self._share(now)
        self._build()

    def remove(self, now: float) -> None:
        """Deregister all targets, since the configuration has no such group any more."""
        self._deregister_others({}, now)
        self._order = []
        self._build()

    def set_health(self, key: str, health: TargetHealth, now: float) -> bool:
        """Record what checks found; tell whether it is news.

        Ignored for targets that are not checked (any more): a probe's answer may come late.
        """
        registered = self._targets.get(key)
        if registered is None or registered.probed.state not in PROBED_STATES or registered.probed == health:
            return False
        present = self._with_health(registered, registered.target, health)
        self._targets[key] = present
        if present.health.state is not registered.health.state:
            if present.health.state is TargetState.HEALTHY:
                self._came(key, now)
            else:
                self._slow_start.leave(key)
            self._share(now)
        self._build()
        return True

    def set_share(self, key: str, share: int, reason: str, now: float) -> bool:
        """Give a target at most this share of its weight from now on; tell whether that is news."""
        if key not in self._targets:
            return False
        before = self.state
        if share < 100:
            self._limits[key] = share, reason
        else:
            self._limits.pop(key, None)
        self._share(now)
        self._build()
        return self.state is not before

    def published(self, version: int) -> None:
        """A snapshot of this version shows the group as it is now."""
        for key in self._draining_since:
            self._versions.setdefault(key, version)

    def sweep(self, now: float, version_in_force: int) -> bool:
        """Drop targets that have drained and raise the shares of those in slow start; tell whether anything changed.

        ``version_in_force`` is the oldest snapshot that any worker may still choose targets by.
        """
        before = self.state
        drained = [
            key for key, since in self._draining_since.items() if self._has_drained(key, now - since, version_in_force)
        ]
        for key in drained:
            del self._draining_since[key], self._targets[key]
            self._limits.pop(key, None)
            self._versions.pop(key, None)
            self._book.depart(target_key(self.name, key), now)
        self._share(now)
        self._build()
        return self.state is not before

    def depart(self, now: float) -> None:
        """Give back the group's own cells; the group is empty and gone."""
        self._book.depart(group_key(self.name), now)

    def load(self, what: str) -> int:
        """How many ``requests`` are in flight to targets, wait in the ``queue``, or are in ``retries``, now."""
        if what == "requests":
            return sum(self.in_flight(key) for key in self._targets if key not in self._draining_since)
        first = 1 if what == "queue" else 1 + SLOT_LIMIT
        return self._book.total(group_key(self.name), first, first + SLOT_LIMIT)

    def in_flight(self, key: str) -> int:
        """Requests or connections in flight to this target over all workers; 0 for an unknown one."""
        return self._book.total(target_key(self.name, key)) if key in self._targets else 0

    def _register(self, key: str, target: Target, unchecked: TargetHealth | None) -> RegisteredTarget:
        known = self._targets.get(key)
        is_new = self._draining_since.pop(key, None) is not None
        self._versions.pop(key, None)
        if known is None:
            cell = self._book.first(target_key(self.name, key))
            known = RegisteredTarget(target=target, health=REGISTRATION_IN_PROGRESS, cell=cell)
            is_new = True
        if unchecked is not None:
            health = unchecked
        elif is_new or known.probed.state not in PROBED_STATES:
            health = REGISTRATION_IN_PROGRESS
            if self._has_others_healthy(key):
                self._founders.discard(key)
            else:
                self._founders.add(key)
        else:
            health = known.probed
        return self._with_health(known, target, health)

    def _with_health(self, known: RegisteredTarget, target: Target, health: TargetHealth) -> RegisteredTarget:
        """Give the target with this health of the checks, or the one that an operator has decided on."""
        override = self._overrides.get(target.key)
        forced = None
        if override is not None and override.state is not None and health is not NOT_IN_USE:
            forced = FORCED.get(override.state)
        present = attrs.evolve(known, target=target, health=forced or health, checked=health if forced else None)
        return known if present == known else present

    def _deregister_others(self, desired: dict[str, Target], now: float) -> None:
        for key, registered in self._targets.items():
            if key not in desired and key not in self._draining_since:
                self._targets[key] = attrs.evolve(registered, health=DEREGISTRATION_IN_PROGRESS)
                self._slow_start.leave(key)
                self._founders.discard(key)
                self._draining_since[key] = now

    def _came(self, key: str, now: float) -> None:
        """A target has become healthy: it starts slowly if it joins others, but not if it founds the group with them.

        AWS: "When you register targets with an empty target group, using one or more registration operations, these
        targets do not enter slow start mode."  Else the quickest would have to bear it all whenever lbproxy starts.
        """
        if not self._has_others_healthy(key):
            self._in_service_since = now
        founds = key in self._founders and now - self._in_service_since <= self._slow_start.duration_seconds
        self._founders.discard(key)
        if not founds and self._has_others_in_service(key):
            self._slow_start.enter(key, now)

    def _has_others_healthy(self, key: str) -> bool:
        return any(
            other != key and registered.health.state is TargetState.HEALTHY
            for other, registered in self._targets.items()
        )

    def _has_others_in_service(self, key: str) -> bool:
        """Whether another target is healthy and not in slow start."""
        return any(
            other != key and registered.health.state is TargetState.HEALTHY and other not in self._slow_start
            for other, registered in self._targets.items()
        )

    def _share(self, now: float) -> None:
        """Give each target the share of its weight that it has now."""
        for key, registered in self._targets.items():
            share = self._slow_start.share(key, now)
            reason = "" if share == 100 else "slow start"
            limit = self._limits.get(key)
            if limit is not None:
                share = max(1, share * limit[0] // 100) if limit[0] else 0
                reason = limit[1]
            if (share, reason) != (registered.share, registered.share_reason):
                self._targets[key] = attrs.evolve(registered, share=share, share_reason=reason)

    def _has_drained(self, key: str, age_seconds: float, version_in_force: int) -> bool:
        if age_seconds >= self._delay_seconds:
            return True
        nobody_picks_it = version_in_force >= self._versions.get(key, version_in_force + 1)
        return (
            nobody_picks_it
            and age_seconds >= MINIMUM_DRAINING_SECONDS
            and self._book.total(target_key(self.name, key)) <= 0
        )

    def _build(self) -> None:
        targets = tuple(self._targets[key] for key in (*self._order, *self._draining_since))
        if not _same_objects(targets, self.state.targets):
            self.state = attrs.evolve(self.state, targets=targets)


def _unchecked(group: TargetGroup, in_use: bool) -> TargetHealth | None:
    """Say what targets of this group are when they are not checked; None when they are."""
    if not in_use:
        return NOT_IN_USE
    if not group.health_check.enabled:
        return HEALTH_CHECK_DISABLED
    return None


def _same_objects(left: tuple[RegisteredTarget, ...], right: tuple[RegisteredTarget, ...]) -> bool:
    return len(left) == len(right) and all(one is other for one, other in zip(left, right, strict=True))
