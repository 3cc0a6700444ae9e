"""Follows all sources of all target groups, and has the state register what they find.

What is in force is written to the state directory, so that a restart while a source cannot be reached goes on with
the targets of before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

import attrs
from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from lbproxy.controlplane.discovery.base import Context, Factory
from lbproxy.controlplane.discovery.docker import DockerTargets
from lbproxy.controlplane.discovery.etcd import EtcdTargets
from lbproxy.controlplane.discovery.feed import Feed
from lbproxy.controlplane.discovery.file import FileTargets
from lbproxy.controlplane.discovery.groups import GroupDiscovery
from lbproxy.controlplane.discovery.names import NamedTargets, Names, SrvTargets
from lbproxy.controlplane.discovery.registry import Registry, source_of
from lbproxy.controlplane.state import Journal, SourceStatus
from lbproxy.model.discovery import (
    Discovery,
    DockerSource,
    EtcdSource,
    FileSource,
    NamesSource,
    RegistrationSource,
    Source,
    SrvSource,
)
from lbproxy.model.snapshot import Configuration
from lbproxy.model.target import Target

_log = Logger()

SOURCES: Mapping[type, Factory] = {
    NamesSource: NamedTargets,
    SrvSource: SrvTargets,
    FileSource: FileTargets,
    EtcdSource: EtcdTargets,
    DockerSource: DockerTargets,
}
"""Settings of a source -> who makes it; `Registry` adds its own."""

FIRST_ANSWERS_SECONDS = 5.0
"""How long a start or reload waits for what new sources say first; then it goes on with what is known."""

WRITE_DELAY_SECONDS = 0.5
"""Changes that come together are written together."""


class State(Protocol):
    """What discovery needs of `lbproxy.controlplane.state.ControlState`."""

    def set_discovered(self, group: str, targets: Sequence[Target]) -> None: ...

    def set_sources(self, group: str, sources: tuple[SourceStatus, ...]) -> None: ...


class DiscoveryService(Service):
    """All sources.

    A change of the configuration takes two steps, for it may still be refused in between: `prepare` starts the sources
    that are new and gives everything found, `use` ends those that are not needed (any more).
    """

    def __init__(
        self,
        state: State,
        context: Context,
        journal: Journal,
        registry: Registry,
        factories: Mapping[type, Factory] = SOURCES,
    ) -> None:
        self._state = state
        self._registry = registry
        self._context = context
        self._journal = journal
        self._factories = {**factories, RegistrationSource: source_of(registry)}
        self._groups: dict[str, GroupDiscovery] = {}
        self._known = _read(journal)
        """By target group and source: what was in force in an earlier run."""
        self._names = Names(context.reactor, context.lookup, _addresses(self._known))
        self._waiting: list[tuple[Callable[[], bool], Deferred[None]]] = []
        self._writing: IDelayedCall | None = None

    def startService(self) -> None:
        super().startService()
        self._registry.begin()

    async def prepare(
        self, wanted: Mapping[str, Discovery], resolver: Sequence[tuple[str, int]]
    ) -> dict[str, tuple[Target, ...]]:
        """Start what sources are new, wait a little for what they say first; give all targets in force by group.

        ``resolver`` are the name servers to ask; none: those of the system.
        """
        self._context.lookup.use(resolver)
        feeds = []
        for name, settings in wanted.items():
            if name not in self._groups:
                self._groups[name] = GroupDiscovery(name, self._make_feed)
            feeds += self._groups[name].ensure(settings)
        await self._settled(feeds)
        return {name: self._groups[name].targets(settings) for name, settings in wanted.items()}

    def use(self, wanted: Mapping[str, Discovery], configuration: Configuration) -> None:
        """This configuration is in force: end all sources that are not wanted, and go by its settings."""
        configured = {group.name: group.targets for group in configuration.target_groups}
        for name in [name for name in self._groups if name not in wanted]:
            self._groups.pop(name).stop()
            self._state.set_sources(name, ())
        for name, settings in wanted.items():
            group = self._groups.get(name)
            if group is not None:
                group.publish = self._publish
                group.use(settings, configured.get(name, ()))
                self._publish(group)

    def problems(self) -> Iterator[str]:
        """A line for each source that does not work now."""
        for group in self._groups.values():
            for status in group.statuses():
                if status.problem:
                    yield f"{status.source} of target group {group.name}: {status.problem}"

    def stopService(self) -> None:
        super().stopService()
        if self._writing is not None and self._writing.active():
            self._writing.cancel()
            self._write()
        for group in self._groups.values():
            group.stop()
        self._groups.clear()
        self._registry.stop()

    def _make_feed(self, group: str, settings: Source, changed: Callable[[Feed], None]) -> Feed:
        def told(feed: Feed) -> None:
            changed(feed)
            self._wake()

        known = self._known.get(group, {}).get(settings.text, ())
        return Feed(settings, self._factories[type(settings)], self._context, self._names, group, known, told)

    def _publish(self, group: GroupDiscovery) -> None:
        self._state.set_sources(group.name, group.statuses())
        try:
            self._state.set_discovered(group.name, group.targets())
        except Exception as error:  # no cells left
            _log.error("the targets of {group} stay as they are: {error}", group=group.name, error=error)
        if self._writing is None or not self._writing.active():
            self._writing = self._context.reactor.callLater(WRITE_DELAY_SECONDS, self._write)

    def _write(self) -> None:
        self._known = {name: group.by_source() for name, group in self._groups.items()}
        self._journal.write(
            {
                group: {source: [attrs.asdict(target) for target in targets] for source, targets in sources.items()}
                for group, sources in self._known.items()
            }
        )

    async def _settled(self, feeds: Sequence[Feed]) -> None:
        def is_settled() -> bool:
            return all(feed.is_settled for feed in feeds)

        if is_settled():
            return
        waiter: Deferred[None] = Deferred()
        self._waiting.append((is_settled, waiter))
        timer = self._context.reactor.callLater(FIRST_ANSWERS_SECONDS, self._give_up, waiter)
        await waiter
        if timer.active():
            timer.cancel()

    def _give_up(self, waiter: Deferred[None]) -> None:
        self._waiting = [each for each in self._waiting if each[1] is not waiter]
        waiter.callback(None)

    def _wake(self) -> None:
        due = [waiter for is_settled, waiter in self._waiting if is_settled()]
        for waiter in due:
            self._give_up(waiter)


def _read(journal: Journal) -> Mapping[str, Mapping[str, Sequence[Target]]]:
    value = journal.read() or {}
    try:
        return {
            group: {source: tuple(Target(**target) for target in targets) for source, targets in sources.items()}
            for group, sources in value.items()
        }
    except (TypeError, AttributeError) as error:
        _log.warn("what was discovered in the last run cannot be used: {error}", error=error)
        return {}


def _addresses(known: Mapping[str, Mapping[str, Sequence[Target]]]) -> dict[str, list[str]]:
    """The addresses by which names were known."""
    names: dict[str, list[str]] = {}
    for sources in known.values():
        for targets in sources.values():
            for target in targets:
                if target.name and target.address not in names.setdefault(target.name, []):
                    names[target.name].append(target.address)
    return names
