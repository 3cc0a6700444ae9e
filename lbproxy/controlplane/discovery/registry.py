"""Targets that register themselves, and are gone when they do not say again in time that they are there.

When many fall silent together it is more likely that they cannot reach us than that they are gone, even if their times
run out one after the other: so a registration runs out only while most others are renewed, or when health checks find
that the target fails.

Registrations are kept in the state directory; each starts its time anew when lbproxy does, for while that was away
nobody could renew.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterable, Mapping
from hashlib import sha256
from typing import Any

import attrs
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from lbproxy.controlplane.discovery.base import Context, Sink
from lbproxy.controlplane.state import Journal
from lbproxy.model.discovery import RegistrationSource
from lbproxy.model.target import Target

_log = Logger()

WRITE_DELAY_SECONDS = 0.5
"""Registrations that come together are written together."""

MAX_REGISTRATIONS = 10_000
"""In one group: more is a mistake, or somebody who has got hold of a token."""


class RegistryFull(OverflowError):
    """A group has `MAX_REGISTRATIONS` already."""


PROBLEM = (
    "registrations are not renewed, and so are less than half of the others; their targets stay while health checks "
    "succeed"
)


@attrs.define(eq=False)
class _Registration:
    target: Target
    ttl_seconds: float
    renewed: float
    timer: IDelayedCall
    """Fires when its time is over, and then each time that it would be again."""
    is_overdue: bool = False
    """Whether its time is over, but not for good."""

    def is_fresh(self, now: float) -> bool:
        """Tell whether it is renewed as it should be: three times in its time, so one may come late or get lost."""
        return now - self.renewed <= self.ttl_seconds / 2


class Registry:
    """The registrations of all groups."""

    def __init__(self, clock: IReactorTime, journal: Journal, fails_alone: Callable[[str, str], bool]) -> None:
        """``fails_alone`` tells whether health checks fail at a target of a group while they succeed at another."""
        self._clock = clock
        self._journal = journal
        self._fails_alone = fails_alone
        self._groups: dict[str, dict[str, _Registration]] = {}
        self._sources: dict[str, list[RegisteredTargets]] = {}
        """More than one of a group only while a reload is on its way."""
        self._writing: IDelayedCall | None = None
        self._kept = _read(journal)

    def begin(self) -> None:
        """Take up the registrations of earlier runs."""
        for group, targets in self._kept.items():
            for target, ttl in targets:
                self._set(group, target, ttl)
        self._kept = {}

    def stop(self) -> None:
        """Keep what there is for the next run, and leave no timer."""
        if self._writing is not None and self._writing.active():
            self._writing.cancel()
            self._write()
        for registrations in self._groups.values():
            for registration in registrations.values():
                registration.timer.cancel()
        self._groups.clear()

    def accepts(self, group: str) -> bool:
        """Tell whether a group takes registrations at all."""
        return bool(self._sources.get(group))

    def permits(self, group: str, token: str) -> bool:
        """Tell whether this token is one of the group's; takes the same time for all wrong ones."""
        given = sha256(token.encode("utf-8", "surrogateescape")).digest()
        known = [each for source in self._sources.get(group, ()) for each in source.digests]
        return sum(hmac.compare_digest(given, each) for each in known) > 0

    def register(self, group: str, target: Target, ttl_seconds: float) -> bool:
        """Register a target, or renew its registration, for this long; tell whether it is new.

        Raises `RegistryFull`.
        """
        registrations = self._groups.setdefault(group, {})
        former = registrations.get(target.key)
        if former is None and len(registrations) >= MAX_REGISTRATIONS:
            raise RegistryFull(f"{group} has {MAX_REGISTRATIONS} registrations, which is all it takes")
        self._set(group, target, ttl_seconds)
        if former is None or former.target != target:
            self._changed(group)
            _log.info("target {target} has registered in {group}", target=target.key, group=group)
        elif former.is_overdue:
            self._tell(group)
        return former is None

    def deregister(self, group: str, key: str) -> bool:
        """End a registration; tell whether there was one."""
        registration = self._groups.get(group, {}).pop(key, None)
        if registration is None:
            return False
        registration.timer.cancel()
        _log.info("target {target} has deregistered from {group}", target=key, group=group)
        self._changed(group, is_meant=True)
        return True

    def targets(self, group: str) -> list[Target]:
        """The registered targets of a group."""
        return [registration.target for registration in self._groups.get(group, {}).values()]

    def problem(self, group: str) -> str:
        """Say that some of them are overdue; empty when none is."""
        return PROBLEM if any(each.is_overdue for each in self._groups.get(group, {}).values()) else ""

    def attach(self, group: str, source: RegisteredTargets) -> None:
        """This source speaks for the group, until `detach`."""
        self._sources.setdefault(group, []).append(source)

    def detach(self, group: str, source: RegisteredTargets) -> None:
        """It does not any more."""
        self._sources[group].remove(source)

    def _set(self, group: str, target: Target, ttl_seconds: float) -> None:
        registrations = self._groups.setdefault(group, {})
        former = registrations.get(target.key)
        if former is not None and former.timer.active():
            former.timer.cancel()
        timer = self._clock.callLater(ttl_seconds, self._expired, group, target.key)
        registrations[target.key] = _Registration(target, ttl_seconds, self._clock.seconds(), timer)

    def _expired(self, group: str, key: str) -> None:
        registration = self._groups[group][key]
        is_kept = not self._may_run_out(group, key)
        if not registration.is_overdue or not is_kept:
            _log.warn(
                "target {target} has not renewed its registration in {group} for {seconds:.0f} s{stays}",
                target=key,
                group=group,
                seconds=self._clock.seconds() - registration.renewed,
                stays=", nor have most others theirs: it stays" if is_kept else "",
            )
        if not is_kept:
            del self._groups[group][key]
            self._changed(group)
            return
        registration.timer = self._clock.callLater(registration.ttl_seconds, self._expired, group, key)
        if not registration.is_overdue:
            registration.is_overdue = True
            self._tell(group)

    def _may_run_out(self, group: str, key: str) -> bool:
        """Tell whether it is this target's own fault that it is not renewed."""
        if not any(source.keeps for source in self._sources.get(group, ())):
            return True
        now = self._clock.seconds()
        others = [each for other, each in self._groups[group].items() if other != key]
        if others and 2 * sum(each.is_fresh(now) for each in others) >= len(others):
            return True
        return self._fails_alone(group, key)

    def _changed(self, group: str, is_meant: bool = False) -> None:
        if self._writing is None or not self._writing.active():
            self._writing = self._clock.callLater(WRITE_DELAY_SECONDS, self._write)
        self._tell(group, is_meant)

    def _tell(self, group: str, is_meant: bool = False) -> None:
        for source in tuple(self._sources.get(group, ())):
            source.tell(is_meant)

    def _write(self) -> None:
        self._journal.write(
            {
                group: [[attrs.asdict(each.target), each.ttl_seconds] for each in registrations.values()]
                for group, registrations in self._groups.items()
                if registrations
            }
        )


class RegisteredTargets:
    """The registrations of one group, as a source."""

    def __init__(self, registry: Registry, settings: RegistrationSource, sink: Sink, group: str) -> None:
        self.digests = [sha256(token.encode()).digest() for token in settings.tokens]
        self.keeps = settings.keeps
        self._registry = registry
        self._sink = sink
        self._group = group

    def start(self) -> None:
        self._registry.attach(self._group, self)
        self.tell()

    def stop(self) -> None:
        self._registry.detach(self._group, self)

    def tell(self, is_meant: bool = False) -> None:
        """Pass on who is registered; ``is_meant`` when who is missing has deregistered."""
        self._sink.found(self._registry.targets(self._group), is_meant, self._registry.problem(self._group))


def source_of(registry: Registry) -> Callable[[RegistrationSource, Context, Sink, str], RegisteredTargets]:
    """Give the factory of sources that this registry feeds."""
    return lambda settings, context, sink, group: RegisteredTargets(registry, settings, sink, group)


def _read(journal: Journal) -> Mapping[str, Iterable[tuple[Target, float]]]:
    value: Any = journal.read() or {}
    try:
        return {
            group: [(Target(**target), float(ttl)) for target, ttl in registrations]
            for group, registrations in value.items()
        }
    except (AttributeError, TypeError, ValueError) as error:
        _log.warn("the registrations of the last run cannot be used: {error}", error=error)
        return {}
