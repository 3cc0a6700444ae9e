"""What a source of targets is, and the table of sources."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import attrs

from lbproxy.model.target import Target


class Sink(Protocol):
    """Who is told what a source finds."""

    def found(self, targets: Sequence[Target], is_meant: bool = False, problem: str = "") -> None:
        """Take the whole set; a target's host may be a name.

        ``is_meant`` says that those who are missing have asked for that, so nothing is to be protected.  ``problem`` is
        what the operator should know though this set is in force.
        """

    def failed(self, problem: str) -> None:
        """The source cannot say now; what it said last stays in force.  ``problem`` is one line for the operator."""


class Source(Protocol):
    """Finds targets.  Says at least once, soon after `start`, what it found or why it failed, then at each change."""

    def start(self) -> None: ...

    def stop(self) -> None:
        """Say nothing any more, and leave no timer and no socket behind."""


class Lookup(Protocol):
    """Looks names up in the DNS (`lbproxy.controlplane.discovery.resolver.Resolver`)."""

    def use(self, servers: Sequence[tuple[str, int]]) -> None:
        """Ask these servers from now on; none: those of the system."""

    async def addresses(self, name: str) -> tuple[tuple[str, ...], float]:
        """Give a name's addresses and for how many seconds they are good.  Raises `LookupFailed`."""

    async def services(self, name: str) -> tuple[tuple[Target, ...], float]:
        """Give the targets of a name's SRV records and for how many seconds.  Raises `LookupFailed`."""


class LookupFailed(Exception):
    """A name cannot be looked up; the message says why, in a few words."""


@attrs.frozen(kw_only=True)
class Context:
    """What sources work with."""

    reactor: Any
    lookup: Lookup
    parse_target: Callable[[str], Target]
    """Read a target as in the configuration: ``host:port weight=2``.  Raises ValueError with what would be right."""


Factory = Callable[[Any, Context, Sink, str], Source]
"""(settings, context, sink, target group) -> source, not started yet."""
