"""Feeds the watch over each target group with what workers report, and carries out what it decides."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import attrs
from twisted.application.service import Service
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from lbproxy.controlplane.outliers.watch import Anomalies, Ejections, Seen
from lbproxy.controlplane.state import ControlState
from lbproxy.model.snapshot import GroupState, Snapshot
from lbproxy.model.target import TargetReason, TargetState
from lbproxy.model.target_group import TargetGroup

_log = Logger()

ANOMALY_INTERVAL_SECONDS = 10.0
"""How often the targets of a group with anomaly mitigation are compared."""

_TICK_SECONDS = 1.0


class Counted(Protocol):
    """What all workers together have counted of a target (`lbproxy.telemetry.counters.TargetCounters`)."""

    requests: int

    @property
    def responses(self) -> Any: ...

    @property
    def faults(self) -> Mapping[str, int]: ...

    @property
    def response_time(self) -> Any: ...


Counts = Callable[[], Mapping[tuple[str, str], Counted]]
"""By target group and target."""


@attrs.define(eq=False)
class _Watch:
    """One group with outlier detection, anomaly mitigation or both."""

    group: TargetGroup
    interval_seconds: float
    ejections: Ejections | None
    anomalies: Anomalies | None
    due: float
    before: dict[str, Seen] = attrs.field(factory=dict)
    """Totals at the last look."""
    shares: dict[str, tuple[int, str]] = attrs.field(factory=dict)
    """What the state was told."""


class OutlierService(Service):
    """Follows the state's snapshots; does nothing as long as no group asks for it."""

    def __init__(self, clock: IReactorTime, state: ControlState, counts: Counts) -> None:
        self._clock = clock
        self._state = state
        self._counts = counts
        self._watches: dict[str, _Watch] = {}
        self._followed: object = None
        self._unsubscribe: Callable[[], None] = lambda: None
        self._ticking = LoopingCall(self._tick)
        self._ticking.clock = clock
        self._return: IDelayedCall | None = None

    def startService(self) -> None:
        super().startService()
        self._unsubscribe = self._state.subscribe(self._follow)
        self._follow(self._state.snapshot)

    def stopService(self) -> None:
        super().stopService()
        self._unsubscribe()
        if self._ticking.running:
            self._ticking.stop()
        if self._return is not None and self._return.active():
            self._return.cancel()

    def suspect(self, group: str, key: str, failures: int) -> None:
        """A worker has seen so many requests to this target fail, one after the other."""
        watch = self._watches.get(group)
        if watch is None or watch.ejections is None:
            return
        if watch.ejections.suspect(key, failures, self._healthy(group), self._clock.seconds()):
            self._carry_out(watch)

    def _follow(self, snapshot: Snapshot) -> None:
        if self._followed is snapshot.configuration:
            return
        self._followed = snapshot.configuration
        now = self._clock.seconds()
        wanted = {group.name: group for group in snapshot.configuration.target_groups if _is_watched(group)}
        for name in [name for name in self._watches if name not in wanted]:
            self._drop(self._watches.pop(name))
        for name, group in wanted.items():
            watch = self._watches.get(name)
            if watch is None or (watch.group.outlier_detection, watch.group.anomaly_mitigation) != (
                group.outlier_detection,
                group.anomaly_mitigation,
            ):
                if watch is not None:
                    self._drop(watch)
                self._watches[name] = _watch(group, now)
            else:
                watch.group = group
        if self._watches and not self._ticking.running:
            self._ticking.start(_TICK_SECONDS, now=False).addErrback(
                lambda failure: _log.failure("watching for outliers failed", failure=failure)
            )
        elif not self._watches and self._ticking.running:
            self._ticking.stop()

    def _drop(self, watch: _Watch) -> None:
        for key in watch.shares:
            self._state.set_share(watch.group.name, key, 100, "")

    def _healthy(self, group: str) -> tuple[str, ...]:
        """Targets that would take traffic but for what is decided here."""
        state = self._state.snapshot.groups.get(group, GroupState())
        return tuple(
            registered.target.key
            for registered in state.targets
            if registered.target.weight > 0
            and (
                registered.health.state is TargetState.HEALTHY
                or registered.health.reason is TargetReason.HEALTH_CHECK_DISABLED
            )
        )

    def _tick(self) -> None:
        now = self._clock.seconds()
        due = [watch for watch in self._watches.values() if watch.due <= now]
        if due:
            totals = self._totals()
            for watch in due:
                watch.due = now + watch.interval_seconds
                self._judge(watch, totals.get(watch.group.name, {}), now)

    def _judge(self, watch: _Watch, totals: Mapping[str, Seen], now: float) -> None:
        healthy = self._healthy(watch.group.name)
        seen = {key: _since(total, watch.before.get(key)) for key, total in totals.items()}
        watch.before = dict(totals)
        if watch.ejections is not None:
            watch.ejections.judge(seen, healthy, now)
        if watch.anomalies is not None:
            watch.anomalies.judge(seen, healthy)
        self._carry_out(watch)

    def _totals(self) -> dict[str, dict[str, Seen]]:
        totals: dict[str, dict[str, Seen]] = {}
        for (group, key), counted in self._counts().items():
            if group in self._watches:
                totals.setdefault(group, {})[key] = Seen(
                    requests=counted.requests,
                    errors=counted.responses[5] + sum(counted.faults.values()),
                    answers=counted.response_time.count,
                    seconds=counted.response_time.sum,
                )
        return totals

    def _carry_out(self, watch: _Watch) -> None:
        """Tell the state of what has changed, and be back when the next ejection ends."""
        name = watch.group.name
        shares: dict[str, tuple[int, str]] = {}
        if watch.anomalies is not None:
            shares.update({key: (share, "anomalous") for key, share in watch.anomalies.shares.items()})
        if watch.ejections is not None:
            shares.update({key: (0, f"ejected: {reason}") for key, reason in watch.ejections.out.items()})
        for key in watch.shares.keys() - shares.keys():
            self._state.set_share(name, key, 100, "")
            _log.info("target {target} in {group} gets its full share again", target=key, group=name)
        for key, (share, reason) in shares.items():
            if watch.shares.get(key) != (share, reason):
                self._state.set_share(name, key, share, reason)
                if watch.shares.get(key, (100, ""))[1] != reason:
                    _log.warn("target {target} in {group} is {reason}", target=key, group=name, reason=reason)
        watch.shares = shares
        self._await_return()

    def _await_return(self) -> None:
        times = [watch.ejections.next_return() for watch in self._watches.values() if watch.ejections is not None]
        first = min((at for at in times if at is not None), default=None)
        if self._return is not None and self._return.active():
            self._return.cancel()
        self._return = None
        if first is not None:
            self._return = self._clock.callLater(max(0.0, first - self._clock.seconds()), self._let_back)

    def _let_back(self) -> None:
        now = self._clock.seconds()
        for watch in list(self._watches.values()):
            if watch.ejections is not None and watch.ejections.let_back(now):
                self._carry_out(watch)
        self._await_return()


def _is_watched(group: TargetGroup) -> bool:
    return group.outlier_detection is not None or group.anomaly_mitigation


def _watch(group: TargetGroup, now: float) -> _Watch:
    settings = group.outlier_detection
    interval = ANOMALY_INTERVAL_SECONDS if settings is None else settings.interval_seconds
    return _Watch(
        group=group,
        interval_seconds=interval,
        ejections=None if settings is None else Ejections(settings),
        anomalies=Anomalies() if group.anomaly_mitigation else None,
        due=now + interval,
    )


def _since(total: Seen, before: Seen | None) -> Seen:
    """What came since the last look; everything, where the counters have begun anew."""
    if before is None or total.requests < before.requests:
        return total
    return Seen(
        requests=total.requests - before.requests,
        errors=total.errors - before.errors,
        answers=total.answers - before.answers,
        seconds=total.seconds - before.seconds,
    )
