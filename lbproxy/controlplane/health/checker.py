"""When to probe whom: one periodic checker for each target that is in use, whose findings go into the state."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from typing import Any

import attrs
from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, DeferredSemaphore
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import LoopingCall, deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from lbproxy.controlplane.health.probes import PROBES, Probe
from lbproxy.controlplane.health.status import INITIAL_HEALTH_CHECKING, HealthStatus, ProbeResult
from lbproxy.controlplane.state import PROBED_STATES, ControlState
from lbproxy.model.health import HealthCheckProtocol
from lbproxy.model.snapshot import GroupState, Snapshot
from lbproxy.model.target import RegisteredTarget, Target, TargetHealth, TargetState
from lbproxy.model.target_group import TargetGroup

_log = Logger()

MAX_CONCURRENT_PROBES = 256
"""Bounds the supervisor's sockets.  Generous, since targets that hang hold their place until their timeout."""

FIRST_PROBE_WITHIN_SECONDS = 1.0
"""New targets' first probes are spread over this time at most."""

FIRST_PROBE_SPACING_SECONDS = 0.01
"""What each new target of a group adds to that time: a few are known at once, many are not probed all at once."""

JITTER = 0.1
"""Largest deviation from the interval between two probes of a target, as a share of the interval."""


class HealthService(Service):
    """Probes every target whose group is in use and has health checks, and tells the state what follows.

    Follows the state's snapshots.  A reload that changes neither a target's address nor how it is probed
    leaves its checker alone, counters included.
    """

    def __init__(
        self,
        reactor: Any,
        state: ControlState,
        probes: Mapping[HealthCheckProtocol, Probe] = PROBES,
        random_source: random.Random | None = None,
    ) -> None:
        self._reactor = reactor
        self._state = state
        self._probes = probes
        self._random = random_source or random.Random()
        self._semaphore = DeferredSemaphore(MAX_CONCURRENT_PROBES)
        self._checkers: dict[str, dict[str, TargetChecker]] = {}
        """Group name -> target key -> checker."""
        self._seen: dict[str, tuple[TargetGroup | None, GroupState]] = {}
        """What the checkers of each group were made from."""
        self._failing_open: set[str] = set()
        self._serving: dict[str, str] = {}
        """Which backup does a group's work."""
        self._unsubscribe = lambda: None

    def startService(self) -> None:
        super().startService()
        self._unsubscribe = self._state.subscribe(self._follow)
        self._follow(self._state.snapshot)

    def stopService(self) -> None:
        """End all checks; probes under way are cancelled and their sockets closed."""
        super().stopService()
        self._unsubscribe()
        for checker in list(self._all_checkers()):
            checker.stop()
        self._checkers.clear()
        self._seen.clear()

    def _all_checkers(self) -> Iterator[TargetChecker]:
        for checkers in self._checkers.values():
            yield from checkers.values()

    def _follow(self, snapshot: Snapshot) -> None:
        configured = {group.name: group for group in snapshot.configuration.target_groups}
        for name in [name for name in self._seen if name not in snapshot.groups]:
            self._adjust(name, None, GroupState())
            del self._seen[name], self._checkers[name]
            self._failing_open.discard(name)
            self._serving.pop(name, None)
        for name, group_state in snapshot.groups.items():
            group = configured.get(name)
            seen_group, seen_state = self._seen.get(name, (None, None))
            if seen_state is group_state and seen_group is group:
                continue
            self._adjust(name, group, group_state)
            self._seen[name] = (group, group_state)
        for name in snapshot.groups:
            self._tell_fail_open(name, self._state.fail_open(name))
            self._tell_serving(name, self._state.serving(name))

    def _adjust(self, name: str, group: TargetGroup | None, state: GroupState) -> None:
        """Start, restart and stop the checkers of one group."""
        checkers = self._checkers.setdefault(name, {})
        wanted = {one.target.key: one for one in state.targets if one.probed.state in PROBED_STATES}
        for key in [key for key in checkers if key not in wanted]:
            checkers.pop(key).stop()
        if group is not None:
            within = FIRST_PROBE_SPACING_SECONDS * len(wanted.keys() - checkers.keys())
            for key, registered in wanted.items():
                self._ensure_checker(checkers, key, group, registered, within)

    def _ensure_checker(
        self,
        checkers: dict[str, TargetChecker],
        key: str,
        group: TargetGroup,
        registered: RegisteredTarget,
        within_seconds: float,
    ) -> None:
        present = checkers.get(key)
        if present is not None:
            if present.adopt(group, registered.target):
                return
            present.stop()
        checkers[key] = TargetChecker(
            clock=self._reactor,
            state=self._state,
            probe=self._probes[group.health_check.protocol],
            semaphore=self._semaphore,
            random_source=self._random,
            group=group,
            target=registered.target,
            status=HealthStatus(group.health_check, registered.probed),
        )
        checkers[key].start(within_seconds)

    def _tell_fail_open(self, name: str, fails_open: bool) -> None:
        if fails_open and name not in self._failing_open:
            self._failing_open.add(name)
            _log.warn(
                "target group {group} fails open: too few targets are healthy, so all of them are used", group=name
            )
        elif not fails_open and name in self._failing_open:
            self._failing_open.remove(name)
            _log.info("target group {group} no longer fails open", group=name)

    def _tell_serving(self, name: str, serving: str) -> None:
        if serving == self._serving.get(name, name):
            return
        self._serving[name] = serving
        if serving != name:
            _log.warn("target group {group}: its backup {backup} takes over", group=name, backup=serving)
        else:
            _log.info("target group {group} does its own work again", group=name)


@attrs.define(eq=False, kw_only=True)
class TargetChecker:
    """Probes one target of one group, one probe at a time, until it is stopped."""

    _clock: Any
    """The reactor: probes connect with it, too."""
    _state: ControlState
    _probe: Probe
    _semaphore: DeferredSemaphore
    _random_source: random.Random
    _group: TargetGroup
    _target: Target
    _status: HealthStatus
    _first: IDelayedCall | None = attrs.field(default=None, init=False)
    _loop: LoopingCall | None = attrs.field(default=None, init=False)
    _round: Deferred[None] | None = attrs.field(default=None, init=False)
    _is_stopped: bool = attrs.field(default=False, init=False)

    def start(self, within_seconds: float) -> None:
        """Make the first probe within this time, but not together with those of all other targets."""
        within = min(FIRST_PROBE_WITHIN_SECONDS, within_seconds, self._group.health_check.interval_seconds)
        self._first = self._clock.callLater(within * self._random_source.random(), self._begin)

    def stop(self) -> None:
        """Probe no more; a probe under way is cancelled and its result ignored."""
        self._is_stopped = True
        if self._first is not None and self._first.active():
            self._first.cancel()
        if self._loop is not None and self._loop.running:
            self._loop.stop()
        if self._round is not None:
            self._round.cancel()

    def adopt(self, group: TargetGroup, target: Target) -> bool:
        """Go on with these values if they make no difference to the probes; tell whether that is so."""
        if group is self._group and target is self._target:
            return True
        if _probed(group, target) != _probed(self._group, self._target):
            return False
        self._group, self._target = group, target
        return True

    def _begin(self) -> None:
        if self._status.health.state is TargetState.INITIAL:
            self._status.health = INITIAL_HEALTH_CHECKING
            self._state.set_health(self._group.name, self._target.key, INITIAL_HEALTH_CHECKING)
        self._loop = LoopingCall(self._start_round)
        self._loop.clock = self._clock
        self._loop.start(self._group.health_check.interval_seconds).addErrback(self._loop_failed)

    def _start_round(self) -> Deferred[None]:
        self._round = Deferred.fromCoroutine(self._run_round(self._jitter_seconds()))
        return self._round

    def _jitter_seconds(self) -> float:
        """How long after its regular time this round's probe starts; the first one is on time."""
        if self._round is None:
            return 0.0
        return self._random_source.random() * JITTER * self._group.health_check.interval_seconds

    async def _run_round(self, delay_seconds: float) -> None:
        try:
            await deferLater(self._clock, delay_seconds)
            await self._semaphore.run(self._probe_once)
        except CancelledError:
            return
        except Exception:
            _log.failure("checking target {target} in {group} failed", target=self._target.key, group=self._group.name)

    def _probe_once(self) -> Deferred[None]:
        return self._probe(self._clock, self._group, self._target).addCallback(self._record)

    def _record(self, result: ProbeResult) -> None:
        if self._is_stopped:
            return
        before = self._status.health
        after = self._status.record(result)
        if after == before:
            return
        self._state.set_health(self._group.name, self._target.key, after)
        if after.state is not before.state:
            self._log_transition(after)

    def _log_transition(self, health: TargetHealth) -> None:
        names = {"target": self._target.key, "group": self._group.name, "state": health.state.value}
        if health.state is TargetState.HEALTHY:
            _log.info("target {target} in {group} is {state}", **names)
        else:
            _log.warn(
                "target {target} in {group} is {state}: {reason} {description}",
                reason=health.reason.value,
                description=health.description,
                **names,
            )

    def _loop_failed(self, failure: Failure) -> None:
        _log.failure(
            "the checks of {target} in {group} ended", failure, target=self._target.key, group=self._group.name
        )


def _probed(group: TargetGroup, target: Target) -> tuple[object, ...]:
    """All that a probe depends on."""
    return (group.health_check, group.proxy_protocol, group.tls.server_name, target.key, target.address, target.name)
