"""One group's discovery: its sources together, and the protection of what is in force."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from twisted.logger import Logger

from lbproxy.controlplane.discovery.feed import Feed
from lbproxy.controlplane.state import SourceStatus
from lbproxy.model.discovery import Discovery, Source
from lbproxy.model.target import Target

_log = Logger()


class GroupDiscovery:
    """The sources of one target group.

    ``settings`` are those in force; sources of settings that are only being prepared have feeds already.
    """

    def __init__(self, name: str, make_feed: Callable[[str, Source, Callable[[Feed], None]], Feed]) -> None:
        self.name = name
        self.settings = Discovery(sources=())
        self.configured: Sequence[Target] = ()
        """The targets that the configuration names by address."""
        self.publish: Callable[[GroupDiscovery], None] = lambda _: None
        """Called when `targets` or `statuses` may have changed."""
        self._make_feed = make_feed
        self._feeds: dict[Source, Feed] = {}
        self._told: dict[Source, str] = {}

    def ensure(self, settings: Discovery) -> list[Feed]:
        """Have a feed for each source of these settings; give them."""
        new = []
        for source in settings.sources:
            if source not in self._feeds:
                self._feeds[source] = self._make_feed(self.name, source, self._changed)
                new.append(self._feeds[source])
        for feed in new:
            feed.start()
        return [self._feeds[source] for source in settings.sources]

    def use(self, settings: Discovery, configured: Sequence[Target]) -> None:
        """These settings are in force; sources that they do without end."""
        self.settings, self.configured = settings, configured
        for source in [source for source in self._feeds if source not in settings.sources]:
            self._feeds.pop(source).stop()
            self._told.pop(source, None)
        for feed in self._feeds.values():
            self._accept(feed)

    def stop(self) -> None:
        """End all sources; what is in force stays as it is."""
        for feed in self._feeds.values():
            feed.stop()
        self._feeds.clear()

    def targets(self, settings: Discovery | None = None) -> tuple[Target, ...]:
        """The targets in force, in the order of the sources, each once."""
        sources = (settings or self.settings).sources
        return _together(self._feeds[source].in_force for source in sources if source in self._feeds)

    def statuses(self) -> tuple[SourceStatus, ...]:
        return tuple(self._feeds[source].status() for source in self.settings.sources if source in self._feeds)

    def by_source(self) -> Mapping[str, Sequence[Target]]:
        """What is in force by each source, for the next run."""
        return {source.text: self._feeds[source].in_force for source in self.settings.sources if source in self._feeds}

    def _changed(self, feed: Feed) -> None:
        self._accept(feed)
        for other in self._feeds.values():  # what was too little may be enough now
            if other is not feed and other.held:
                self._accept(other)
        self.publish(self)

    def _accept(self, feed: Feed) -> None:
        """Put a feed's latest answer in force, unless it takes away too much."""
        wanted = feed.read()
        present = self._count(feed, feed.in_force)
        future = self._count(feed, wanted)
        if feed.is_meant or self.settings.protect.allows(present, future):
            if wanted != feed.in_force:
                self._tell_change(feed, wanted)
                feed.updates += 1
            feed.in_force, feed.held = wanted, ""
        elif not feed.held:
            feed.failures += 1
            feed.held = (
                f"it names {len(wanted)} targets now, which would leave {future} of {present} in the group; "
                f"discovery-protect holds that back"
            )
        self._tell_problem(feed)

    def _count(self, feed: Feed, targets: Sequence[Target]) -> int:
        others = (other.in_force for other in self._feeds.values() if other is not feed)
        return len(_together((self.configured, *others, targets)))

    def _tell_change(self, feed: Feed, wanted: Sequence[Target]) -> None:
        before, after = {each.key for each in feed.in_force}, {each.key for each in wanted}
        _log.info(
            "{source} of target group {group}: {count} targets, {added} new, {removed} gone",
            source=feed.settings.text,
            group=self.name,
            count=len(after),
            added=len(after - before),
            removed=len(before - after),
        )

    def _tell_problem(self, feed: Feed) -> None:
        """Say once that a source fails, and once that it no longer does."""
        problem = feed.held or feed.problem
        if problem == self._told.get(feed.settings, ""):
            return
        self._told[feed.settings] = problem
        if problem:
            _log.warn(
                "{source} of target group {group}: {problem}; {count} targets stay in force",
                source=feed.settings.text,
                group=self.name,
                problem=problem,
                count=len(feed.in_force),
            )
        else:
            _log.info("{source} of target group {group} is well again", source=feed.settings.text, group=self.name)


def _together(lists: Iterable[Sequence[Target]]) -> tuple[Target, ...]:
    targets: dict[str, Target] = {}
    for each in lists:
        for target in each:
            targets.setdefault(target.key, target)
    return tuple(targets.values())
