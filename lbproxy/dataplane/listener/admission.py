"""Whether a connection is let in: asked when it is accepted, before a byte of it is read and before TLS."""

from __future__ import annotations

from collections.abc import Iterable

from lbproxy.dataplane.listener.census import Census, SharedCensus
from lbproxy.dataplane.proxy.faults import Fault
from lbproxy.dataplane.router.ingress import TCP, Networks, admitted
from lbproxy.model.listener import Listener
from lbproxy.model.security_group import SecurityGroup
from lbproxy.model.snapshot import Configuration
from lbproxy.telemetry.counters import ListenerCounters


class Admission:
    """What a listener asks at one bind of those that want in; one that asks nothing has none.

    Behind a PROXY protocol header the address is the one that the header gave.
    """

    def __init__(
        self, listener: Listener, counters: ListenerCounters, admitted: Networks | None, census: Census | None
    ) -> None:
        """``admitted`` are the addresses that security groups let in; None where there are no such groups."""
        self.census = census
        self._admitted = admitted
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
        if self._admitted is not None and host not in self._admitted:
            return Fault.SECURITY_GROUP
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
        self._configuration = Configuration()
        self._groups: dict[str, SecurityGroup] = {}
        self._admitted: dict[tuple[tuple[str, ...], int], Networks] = {}
        """By attached groups and port, for the present configuration."""

    def apply(self, configuration: Configuration, slots: int) -> None:
        """Follow this configuration, in one of ``slots`` workers."""
        if configuration is not self._configuration:
            self._configuration = configuration
            self._groups = {group.name: group for group in configuration.security_groups}
            self._admitted.clear()
        limited = {each.name for each in configuration.listeners if _is_limited(each)}
        for name in self._censuses.keys() - limited:
            del self._censuses[name]  # open connections of a listener that is gone still count in what they know
        for name in limited - self._censuses.keys():
            self._censuses[name] = Census(name, self._shared, self._slot)
        for census in self._censuses.values():
            census.slots = slots

    def make(self, listener: Listener, port: int, counters: ListenerCounters) -> Admission | None:
        """Make what this listener of the present configuration asks at this port; None for nothing."""
        census = self._censuses.get(listener.name)
        admitted = self._networks(listener.security_groups, port) if listener.security_groups else None
        if admitted is None and census is None:
            return None
        return Admission(listener, counters, admitted, census)

    def _networks(self, attached: tuple[str, ...], port: int) -> Networks:
        networks = self._admitted.get((attached, port))
        if networks is None:
            networks = self._admitted[attached, port] = admitted(self._groups, attached, TCP, port)
        return networks


def _is_limited(listener: Listener) -> bool:
    return bool(listener.max_connections or listener.max_connections_per_client)


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
