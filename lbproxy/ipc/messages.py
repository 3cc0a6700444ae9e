"""The messages between supervisor and worker.

A message may travel with file descriptors; which ones is said in its docstring.  Order is kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from lbproxy.model.listener import Bind
from lbproxy.model.snapshot import Configuration, GroupState

# From the supervisor to a worker


@attrs.frozen(kw_only=True)
class Welcome:
    """The first message.  With one descriptor: the shared cells (`lbproxy.ipc.cells`)."""

    slot: int
    """The worker's slot, from 0; also its index in every run of shared cells."""


@attrs.frozen(kw_only=True)
class AddSockets:
    """Listening sockets for this worker.  With one descriptor for each bind, in order.

    Sent before the first snapshot that uses them; a bind that no snapshot uses any more is
    closed by the worker, once its queue is empty.
    """

    binds: tuple[Bind, ...]


@attrs.frozen(kw_only=True)
class ApplySnapshot:
    """Work from this from now on.

    ``configuration`` is None when the worker has the one of ``configuration_version``
    already, as it is for changes of health: they stay small however many rules there are.
    """

    version: int
    configuration_version: int
    configuration: Configuration | None
    groups: Mapping[str, GroupState]
    worker_slots: int


@attrs.frozen(kw_only=True)
class Drain:
    """Accept what is queued, then no more; finish what is in flight; answer `Drained`."""

    timeout_seconds: float
    """After this what is left is ended and counted."""
    close_sockets: bool = True
    """False when a successor takes over the same listening sockets: leave their queues to it."""


@attrs.frozen
class ReopenLogs:
    """Close and reopen the access log (SIGUSR1, after logrotate)."""


@attrs.frozen(kw_only=True)
class TicketKeys:
    """What TLS session tickets are encrypted with, the same for all workers, so that any resumes what one began."""

    keys: tuple[bytes, ...] = attrs.field(repr=False)
    """Of 80 bytes each (name, cipher key, MAC key); the first is for new tickets, all are for old ones."""


@attrs.frozen(kw_only=True)
class StickinessKeys:
    """What stickiness cookies are sealed with, the same for all workers, so that any knows what another one gave."""

    keys: tuple[bytes, ...] = attrs.field(repr=False)
    """Of 40 bytes each (name, key); the first is for new cookies, all are for old ones."""


# From a worker to the supervisor


@attrs.frozen(kw_only=True)
class Hello:
    """The worker runs and can take messages."""

    pid: int


@attrs.frozen(kw_only=True)
class Applied:
    """The snapshot of this version is in force."""

    version: int
    problems: tuple[str, ...] = ()
    """What could not be applied, in words for the operator (a certificate OpenSSL refused, say)."""


@attrs.frozen(kw_only=True)
class Report:
    """Counters since the worker's start (`lbproxy.telemetry.counters.WorkerCounters.report`), about every second.

    Its regular arrival is also the sign of life that the supervisor watches.
    """

    counters: Mapping[str, Any]


@attrs.frozen(kw_only=True)
class Suspect:
    """Requests to a target have failed one after the other."""

    group: str
    target: str
    """Its ``host:port``."""
    failures: int
    """How many."""


@attrs.frozen(kw_only=True)
class Drained:
    """Nothing is in flight any more; the worker will exit."""

    aborted: int
    """Connections that the deadline ended."""


DownMessage = Welcome | AddSockets | ApplySnapshot | Drain | ReopenLogs | TicketKeys | StickinessKeys
UpMessage = Hello | Applied | Report | Suspect | Drained
Message = DownMessage | UpMessage
