"""Whether a connection is let in: asked when it is accepted, before a byte of it is read and before TLS."""

from __future__ import annotations

from collections.abc import Iterable

from lbproxy.dataplane.listener.census import Census, SharedCensus
from lbproxy.dataplane.proxy.faults import Fault
from lbproxy.model.listener import Listener
from lbproxy.telemetry.counters import ListenerCounters


class Admission:
    """What a listener asks of those that want in; one that asks nothing has none.

    Behind a PROXY protocol header the address is the one that the header gave.
    """

    def __init__(self, listener: Listener, counters: ListenerCounters, census: Census | None) -> None:
        self.census = census
        self._counters = counters
        self._most = listener.max_connections
        self._most_of_a_client = listener.max_connections_per_client

    def refuses(self, host: str) -> bool:
        """Tell whether a connection from this address is to be closed, and count it then."""
        fault = self._verdict(host)
        if fault is None:
            return False
        self._counters.faults[fault.reason] += 1
        return True

    def entered(self, host: str) -> None:
        """A connection from this address is open."""
        if self.census is not None:
            self.census.entered(host)

    def left(self, host: str) -> None:
        """It is closed."""
        if self.census is not None:
            self.census.left(host)

    def _verdict(self, host: str) -> Fault | None:
        census = self.census
        if census is not None:
            if 0 < self._most <= census.connections():
                return Fault.CONNECTION_LIMIT
            if 0 < self._most_of_a_client <= census.connections_of(host):
                return Fault.CLIENT_CONNECTION_LIMIT
        return None


class Admissions:
    """The admissions of all listeners, with their censuses, which go on when a snapshot changes the limits."""

    def __init__(self, shared: SharedCensus, slot: int) -> None:
        self._shared = shared
        self._slot = slot
        self._censuses: dict[str, Census] = {}

    def make(self, listener: Listener, counters: ListenerCounters, slots: int) -> Admission | None:
        """Make what this listener asks, in a worker of ``slots``; None for nothing."""
        name = listener.name
        if listener.max_connections or listener.max_connections_per_client:
            census = self._censuses.get(name)
            if census is None:
                census = self._censuses[name] = Census(name, self._shared, self._slot)
            census.slots = slots
            return Admission(listener, counters, census)
        self._censuses.pop(name, None)
        return None

    def keep_only(self, names: Iterable[str]) -> None:
        """Forget listeners that are gone; their last connections still count in what they know."""
        for name in self._censuses.keys() - set(names):
            del self._censuses[name]


def replace(former: Admission | None, admission: Admission | None, hosts: Iterable[str]) -> None:
    """Let ``admission`` take the place of ``former`` for open connections of these clients."""
    before = former.census if former is not None else None
    after = admission.census if admission is not None else None
    if before is after:
        return
    for host in hosts:
        if before is not None:
            before.left(host)
        if after is not None:
            after.entered(host)
