"""The control plane's one truth: what the operator wants and what health checks found.

`ControlState` turns both into complete snapshots.  A change of the configuration is published at once;
changes of health that come together are published together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import attrs
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from lbproxy.controlplane.state.journal import Journal
from lbproxy.controlplane.state.overrides import Overrides, apply
from lbproxy.controlplane.state.registration import (
    CellAllocator,
    CellBook,
    Cells,
    GroupRegistrations,
    cells_needed,
    used_groups,
)
from lbproxy.model.availability import is_fail_open, serving_group
from lbproxy.model.snapshot import Configuration, Snapshot
from lbproxy.model.target import Override, OverrideState, Target, TargetHealth, TargetState
from lbproxy.model.target_group import TargetGroup

_log = Logger()

HEALTH_PUBLICATION_GAP_SECONDS = 0.05
"""Least time between two snapshots for changes of health alone: at start a thousand targets change within
a second, and each snapshot is sent to each worker."""

SWEEP_INTERVAL_SECONDS = 1.0
"""How often draining targets, and those in slow start, are looked at."""

SOURCE_STATES = ("starting", "ok", "failing", "held")
"""What may be said of a source of targets, see `SourceStatus`."""

Subscriber = Callable[[Snapshot], object]


@attrs.frozen(kw_only=True)
class SourceStatus:
    """How one source of a target group's targets fares."""

    source: str
    """As configured, for example ``dns:app.internal:8080``."""
    state: str
    """``starting``, ``ok``, ``failing`` (its last good answer stays in force) or ``held`` (the same, for the latest one
    would take away more than `discovery-protect` allows)."""
    targets: int
    """How many of the group's targets are in force by this source."""
    problem: str = ""
    """Why it is not ``ok``."""
    updates: int = 0
    """Answers that changed something."""
    failures: int = 0
    """Answers that failed or were held back."""


class ControlState:
    """The desired configuration and the health of each registered target, published as snapshots.

    Draining differs from ELB in one point: a target whose last request has ended is gone at once instead of
    being shown as draining until the end of the deregistration delay.
    """

    def __init__(
        self, clock: IReactorTime, cells: Cells, allocator: CellAllocator, overrides: Overrides | None = None
    ) -> None:
        """``overrides`` are those of earlier runs, and where new ones are kept; without, none are kept."""
        self.version_in_force: Callable[[], int] = lambda: self._snapshot.version
        """Gives the oldest snapshot that a worker may still work from."""
        self._clock = clock
        self._overrides = overrides or Overrides(Journal(None, ""))
        self._book = CellBook(cells, allocator)
        self._groups: dict[str, GroupRegistrations] = {}
        self._desired_groups: set[str] = set()
        self._discovered: Mapping[str, Sequence[Target]] = {}
        self._sources: dict[str, tuple[SourceStatus, ...]] = {}
        self._subscribers: list[Subscriber] = []
        self._publication: IDelayedCall | None = None
        self._last_health_publication = float("-inf")
        self._sweeping = LoopingCall(self._sweep)
        self._sweeping.clock = clock
        self._snapshot = Snapshot(version=0, configuration_version=0, configuration=Configuration(), groups={})
        self._configured_at = 0.0
        self._groups_of: Configuration | None = None
        self._groups_by_name: dict[str, TargetGroup] = {}

    @property
    def snapshot(self) -> Snapshot:
        """The latest published snapshot; version 0 and empty before the first `configure`."""
        return self._snapshot

    @property
    def configured_at(self) -> float:
        """When `configure` was last called, in the clock's seconds; 0 before."""
        return self._configured_at

    def configure(
        self, configuration: Configuration, worker_slots: int, discovered: Mapping[str, Sequence[Target]] | None = None
    ) -> Snapshot:
        """Work towards this configuration; publish and return the snapshot with it.

        ``discovered`` are the targets that discovery adds to those of the configuration, by target group.
        What is the same as before is left alone; if all is, nothing is published.  If there are not enough
        shared cells for all targets, the allocator's error is raised and nothing changes.
        """
        now = self._clock.seconds()
        discovered = discovered or {}
        desired = {
            group.name: self._desired(group, discovered.get(group.name, ()), now)
            for group in configuration.target_groups
        }
        self._book.reserve(
            {key: cells for name, targets in desired.items() for key, cells in cells_needed(name, targets).items()}, now
        )
        self._configured_at = now
        self._discovered = dict(discovered)
        self._register(configuration, desired, now)
        self._drop_drained(now)
        self._publish(configuration, worker_slots)
        self._sweep_while_needed()
        return self._snapshot

    def set_discovered(self, group: str, targets: Sequence[Target]) -> None:
        """Register and deregister so that discovery adds these targets to those of the group's configuration.

        Published with other changes of this reactor turn.  Ignored for a group that the configuration does not have.
        If there are not enough shared cells, the allocator's error is raised and nothing changes.
        """
        configured = {each.name: each for each in self._snapshot.configuration.target_groups}.get(group)
        if configured is None or tuple(self._discovered.get(group, ())) == tuple(targets):
            return
        self._set_targets(configured, targets)
        self._discovered = {**self._discovered, group: tuple(targets)}

    def override(self, group: str, key: str, override: Override | None) -> None:
        """Have an operator's decision on a target stand until it is taken back (None), restarts included.

        Published with other changes of this reactor turn.  Raises KeyError for a group that there is not, or a target
        that is not `named`; what was decided for a target that has gone can be taken back.
        """
        if override is not None and key not in self.named(group):
            raise KeyError(key)
        configured = {each.name: each for each in self._snapshot.configuration.target_groups}[group]
        former = self._overrides.of(group).get(key)
        self._overrides.set(group, key, override)
        try:
            self._set_targets(configured, self._discovered.get(group, ()))
        except Exception:
            self._overrides.set(group, key, former)
            raise

    def overrides(self, group: str) -> Mapping[str, Override]:
        """What operators have decided for targets of a group, by key."""
        return self._overrides.of(group)

    def named(self, group: str) -> Mapping[str, Target]:
        """The targets that a group has by its configuration and its sources, drained ones included, by key.

        Raises KeyError for a group that the configuration does not have.
        """
        configured = {each.name: each for each in self._snapshot.configuration.target_groups}[group]
        return {target.key: target for target in _named(configured, self._discovered.get(group, ()))}

    def drained(self, group: str) -> tuple[Target, ...]:
        """The targets that the group would have but for an operator's decision to drain them."""
        drained = {key for key, each in self.overrides(group).items() if each.state is OverrideState.DRAIN}
        if not drained or group not in self._desired_groups:
            return ()
        return tuple(target for key, target in self.named(group).items() if key in drained)

    def set_sources(self, group: str, sources: tuple[SourceStatus, ...]) -> None:
        """Note how a group's discovery fares, for those who show it."""
        self._sources[group] = sources

    def sources(self, group: str) -> tuple[SourceStatus, ...]:
        """How the sources of a group's targets fare; empty where there are none."""
        return self._sources.get(group, ())

    def set_health(self, group: str, target_key: str, health: TargetHealth) -> None:
        """Record a target's health, published with other changes of this reactor turn.

        Ignored when the target is not registered (any more) or is not checked.
        """
        registrations = self._groups.get(group)
        if registrations is not None and registrations.set_health(target_key, health, self._clock.seconds()):
            self._publish_soon()
            self._sweep_while_needed()

    def set_share(self, group: str, target_key: str, share: int, reason: str) -> None:
        """Let a target have at most this per cent of its weight, 0 for nothing; 100 takes it back.

        Published as `set_health` does.
        """
        registrations = self._groups.get(group)
        if registrations is not None and registrations.set_share(target_key, share, reason, self._clock.seconds()):
            self._publish_soon()

    def subscribe(self, callback: Subscriber) -> Callable[[], None]:
        """Call back with each snapshot published from now on; return what ends that."""
        self._subscribers.append(callback)

        def unsubscribe() -> None:
            if callback in self._subscribers:
                self._subscribers.remove(callback)

        return unsubscribe

    def in_flight(self, group: str, key: str) -> int:
        """Requests or TCP connections in flight to a target now, over all workers."""
        registrations = self._groups.get(group)
        return registrations.in_flight(key) if registrations is not None else 0

    def circuits(self, group: str) -> dict[str, tuple[int, int]]:
        """What of a group is bounded: (how many now, the limit) of ``requests``, ``queue`` and ``retries``."""
        configured = self._configured_groups.get(group)
        registrations = self._groups.get(group)
        if configured is None or registrations is None:
            return {}
        limits = {
            "requests": configured.circuit_breaker_max_requests,
            "queue": configured.queue_length if configured.max_concurrent_requests else 0,
            "retries": configured.retry.most_at_once,
        }
        return {name: (registrations.load(name), limit) for name, limit in limits.items() if limit}

    def fails_alone(self, group: str, key: str) -> bool:
        """Tell whether health checks fail at this target of the group while they succeed at another."""
        state = self._snapshot.groups.get(group)
        found = {each.target.key: each.probed.state for each in state.targets} if state is not None else {}
        return found.get(key) is TargetState.UNHEALTHY and TargetState.HEALTHY in found.values()

    def fail_open(self, group: str) -> bool:
        """Tell whether the group has too few healthy targets and so is served by its unhealthy ones, too."""
        state = self._snapshot.groups.get(group)
        configured = self._configured_groups.get(group)
        return (
            state is not None
            and configured is not None
            and self.serving(group) == group
            and is_fail_open(configured, state, self._snapshot.configuration.zone)
        )

    def serving(self, group: str) -> str:
        """Name the group that does this one's work: itself, or a backup."""
        snapshot = self._snapshot
        return serving_group(group, self._configured_groups, snapshot.groups, snapshot.configuration.zone)

    @property
    def _configured_groups(self) -> dict[str, TargetGroup]:
        configuration = self._snapshot.configuration
        if self._groups_of is not configuration:
            self._groups_of = configuration
            self._groups_by_name = {group.name: group for group in configuration.target_groups}
        return self._groups_by_name

    def close(self) -> None:
        """Publish no more and leave no timer behind."""
        self._subscribers.clear()
        if self._publication is not None:
            self._publication.cancel()
            self._publication = None
        if self._sweeping.running:
            self._sweeping.stop()

    def _register(self, configuration: Configuration, desired: Mapping[str, Sequence[Target]], now: float) -> None:
        in_use = used_groups(configuration)
        self._desired_groups = {group.name for group in configuration.target_groups}
        for group in configuration.target_groups:
            if group.name not in self._groups:
                self._groups[group.name] = GroupRegistrations(group.name, self._book)
            overrides = self._overrides.of(group.name)
            self._groups[group.name].configure(group, desired[group.name], overrides, group.name in in_use, now)
        for name, registrations in self._groups.items():
            if name not in self._desired_groups:
                registrations.remove(now)

    def _desired(self, group: TargetGroup, discovered: Sequence[Target], now: float) -> tuple[Target, ...]:
        named = _named(group, discovered)
        self._overrides.named(group.name, {target.key for target in named}, now)
        return apply(self._overrides.of(group.name), named)

    def _set_targets(self, group: TargetGroup, discovered: Sequence[Target]) -> None:
        """Change one group's targets between two configurations."""
        now = self._clock.seconds()
        desired = self._desired(group, discovered, now)
        self._book.reserve(cells_needed(group.name, desired), now)
        self._groups[group.name].set_targets(desired, self._overrides.of(group.name), now)
        self._sweep_while_needed()
        self._publish_soon()

    def _drop_drained(self, now: float) -> bool:
        changed = False
        version = self.version_in_force()
        for name, registrations in list(self._groups.items()):
            changed |= registrations.sweep(now, version)
            if registrations.is_empty and name not in self._desired_groups:
                registrations.depart(now)
                del self._groups[name]
                changed = True
        return changed

    def _sweep(self) -> None:
        now = self._clock.seconds()
        if self._drop_drained(now):
            self._publish(self._snapshot.configuration, self._snapshot.worker_slots)
        self._book.sweep(now)
        self._sweep_while_needed()

    def _sweep_while_needed(self) -> None:
        needed = self._book.has_departed or any(group.is_changing for group in self._groups.values())
        if needed and not self._sweeping.running:
            self._sweeping.start(SWEEP_INTERVAL_SECONDS, now=False).addErrback(self._sweep_failed)
        elif not needed and self._sweeping.running:
            self._sweeping.stop()

    def _sweep_failed(self, failure: Failure) -> None:
        _log.failure("looking after changing targets failed", failure)

    def _publish_soon(self) -> None:
        if self._publication is None:
            gap = HEALTH_PUBLICATION_GAP_SECONDS - (self._clock.seconds() - self._last_health_publication)
            self._publication = self._clock.callLater(max(0.0, gap), self._publish_health)

    def _publish_health(self) -> None:
        self._last_health_publication = self._clock.seconds()
        self._publish(self._snapshot.configuration, self._snapshot.worker_slots)

    def _publish(self, configuration: Configuration, worker_slots: int) -> None:
        """Publish all that is known, unless it is what the latest snapshot says."""
        if self._publication is not None:
            if self._publication.active():
                self._publication.cancel()
            self._publication = None
        previous = self._snapshot
        same_configuration = previous.version > 0 and configuration == previous.configuration
        groups = {name: registrations.state for name, registrations in self._groups.items()}
        if same_configuration and worker_slots == previous.worker_slots and groups == previous.groups:
            self._note_published()
            return
        self._snapshot = Snapshot(
            version=previous.version + 1,
            configuration_version=previous.configuration_version + (not same_configuration),
            configuration=previous.configuration if same_configuration else configuration,
            groups=groups,
            worker_slots=worker_slots,
        )
        self._note_published()
        self._notify(self._snapshot)

    def _note_published(self) -> None:
        for registrations in self._groups.values():
            registrations.published(self._snapshot.version)

    def _notify(self, snapshot: Snapshot) -> None:
        for callback in tuple(self._subscribers):
            try:
                callback(snapshot)
            except Exception:
                _log.failure("a subscriber failed on snapshot {version}", version=snapshot.version)


def _named(group: TargetGroup, discovered: Sequence[Target]) -> tuple[Target, ...]:
    """The configured targets, then the discovered ones; of a target that is named twice the first counts."""
    desired: dict[str, Target] = {}
    for target in (*group.targets, *discovered):
        desired.setdefault(target.key, target)
    return tuple(desired.values())
