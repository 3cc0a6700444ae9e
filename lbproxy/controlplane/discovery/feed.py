"""One source of one group: what it said last, with the addresses of its names, and what of that is in force."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import attrs

from lbproxy.controlplane.discovery.base import Context, Factory
from lbproxy.controlplane.discovery.names import Name, Names
from lbproxy.controlplane.state import SourceStatus
from lbproxy.model.discovery import Source
from lbproxy.model.target import Target


class Feed:
    """A source and its answers.  ``changed`` is called when there is something new to `read`."""

    def __init__(
        self,
        settings: Source,
        make: Factory,
        context: Context,
        names: Names,
        group: str,
        known: Sequence[Target],
        changed: Callable[[Feed], None],
    ) -> None:
        """``known`` was in force in an earlier run and stays so until the source says something."""
        self.settings = settings
        self.in_force: tuple[Target, ...] = tuple(known)
        self.held = ""
        """Why the latest answer is not in force."""
        self.is_meant = False
        """Whether what the latest answer leaves out has asked for that."""
        self.updates = 0
        self.failures = 0
        self._answer: tuple[Target, ...] | None = None
        self._problem = ""
        self._names = names
        self._followed: dict[str, Name] = {}
        self._changed = changed
        self._source = make(settings, context, self, group)

    def start(self) -> None:
        self._source.start()

    def stop(self) -> None:
        self._source.stop()
        self._follow(())

    # What the source says

    def found(self, targets: Sequence[Target], is_meant: bool = False, problem: str = "") -> None:
        self.failures += bool(problem) and problem != self._problem
        self._answer, self._problem, self.is_meant = tuple(targets), problem, is_meant
        self._follow(tuple(dict.fromkeys(target.host for target in targets if not target.address)))
        self._changed(self)

    def failed(self, problem: str) -> None:
        self.failures += 1
        if problem != self._problem:
            self._problem = problem
            self._changed(self)

    def _follow(self, names: Sequence[str]) -> None:
        for name in self._followed.keys() - set(names):
            self._names.leave(name, self._name_changed)
            del self._followed[name]
        for name in names:
            if name not in self._followed:
                self._followed[name] = self._names.follow(name, self._name_changed)

    def _name_changed(self) -> None:
        self.failures += any(name.problem for name in self._followed.values())
        self._changed(self)

    # What follows from it

    @property
    def is_settled(self) -> bool:
        """Whether the source has said something, and every name of it has been asked for."""
        if self._answer is None:
            return bool(self._problem)
        return all(name.is_settled for name in self._followed.values())

    @property
    def problem(self) -> str:
        """Why the source, or one of its names, does not say how things are now; empty when they do."""
        return self._problem or next((name.problem for name in self._followed.values() if name.problem), "")

    def read(self) -> tuple[Target, ...]:
        """The latest answer by address, each target once; what is in force while there is none yet."""
        if self._answer is None:
            return self.in_force
        targets: dict[str, Target] = {}
        for target in self._answer:
            for each in self._by_address(target):
                targets.setdefault(each.key, each)
        return tuple(targets.values())

    def _by_address(self, target: Target) -> tuple[Target, ...]:
        if target.address:
            return (target,)
        addresses = self._followed[target.host].addresses
        return tuple(attrs.evolve(target, host=each, address=each, name=target.host) for each in addresses)

    def status(self) -> SourceStatus:
        """Show it to the operator."""
        if self.held:
            state, problem = "held", self.held
        elif self.problem:
            state, problem = "failing", self.problem
        else:
            state, problem = "ok" if self.is_settled else "starting", ""
        return SourceStatus(
            source=self.settings.text,
            state=state,
            targets=len(self.in_force),
            problem=problem,
            updates=self.updates,
            failures=self.failures,
        )
