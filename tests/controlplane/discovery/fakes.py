"""Stand-ins for what discovery asks and tells."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred

from lbproxy.controlplane.config.targets import parse_target
from lbproxy.controlplane.discovery.base import Context, LookupFailed
from lbproxy.controlplane.state import SourceStatus
from lbproxy.model.target import Target


def target(text: str) -> Target:
    return parse_target(text)


class FakeLookup:
    """A DNS by two dictionaries; a value that is text is why the question fails, None means no answer yet."""

    def __init__(self) -> None:
        self.names: dict[str, Sequence[str] | str | None] = {}
        self.srv: dict[str, Sequence[str] | str] = {}
        self.ttl = 30.0
        self.asked: list[str] = []
        self.servers: Sequence[tuple[str, int]] = ()

    def use(self, servers: Sequence[tuple[str, int]]) -> None:
        self.servers = servers

    async def addresses(self, name: str) -> tuple[tuple[str, ...], float]:
        self.asked.append(name)
        answer = self.names.get(name, f"{name} has no address")
        if answer is None:
            await Deferred()
        if isinstance(answer, str):
            raise LookupFailed(answer)
        assert answer is not None
        return tuple(answer), self.ttl

    async def services(self, name: str) -> tuple[tuple[Target, ...], float]:
        self.asked.append(name)
        answer = self.srv.get(name, f"{name} has no SRV record")
        if isinstance(answer, str):
            raise LookupFailed(answer)
        return tuple(map(target, answer)), self.ttl


class FakeSink:
    """Writes down what a source says: whole sets as lists, problems as text."""

    def __init__(self) -> None:
        self.told: list[list[str] | str] = []

    def found(self, targets: Sequence[Target], is_meant: bool = False, problem: str = "") -> None:
        self.told.append([f"{each.key}{'' if each.weight == 1 else f' weight={each.weight}'}" for each in targets])

    def failed(self, problem: str) -> None:
        self.told.append(problem)


class FakeState:
    """The part of the state that discovery tells."""

    def __init__(self) -> None:
        self.targets: dict[str, Sequence[Target]] = {}
        self.sources: dict[str, tuple[SourceStatus, ...]] = {}
        self.error: Exception | None = None
        self.failing: set[str] = set()
        """Targets at which health checks fail while they succeed at others."""

    def fails_alone(self, group: str, key: str) -> bool:
        return key in self.failing

    def set_discovered(self, group: str, targets: Sequence[Target]) -> None:
        if self.error is not None:
            raise self.error
        self.targets[group] = targets

    def set_sources(self, group: str, sources: tuple[SourceStatus, ...]) -> None:
        self.sources[group] = sources

    def keys(self, group: str = "app") -> list[str]:
        return [each.key for each in self.targets.get(group, ())]


def context(reactor: Any, lookup: FakeLookup | None = None) -> Context:
    return Context(reactor=reactor, lookup=lookup or FakeLookup(), parse_target=parse_target)
