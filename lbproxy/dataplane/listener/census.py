"""How many connections a listener has, and each of its clients, in all workers together."""

from __future__ import annotations

from typing import Protocol

from lbproxy.dataplane.router.addresses import client_key

Place = tuple[int, int]


class SharedCensus(Protocol):
    """Where each worker publishes its counts (`lbproxy.ipc.tables.CensusTable`)."""

    def place(self, key: bytes) -> Place: ...
    def add(self, slot: int, place: Place, count: int) -> None: ...
    def elsewhere(self, slot: int, slots: int, place: Place) -> int: ...


class Census:
    """One worker's count for one listener.

    What this worker has is known exactly, what the others have from the shared table.  Two workers
    that look at the same moment may each let one in.
    """

    def __init__(self, listener: str, shared: SharedCensus, slot: int) -> None:
        self.slots = 1
        """Workers that share the traffic, as the latest snapshot has it."""
        self._shared = shared
        self._slot = slot
        self._prefix = listener.encode() + b"\0"
        self._clients: dict[bytes, _Count] = {}
        self._all = _Count(shared.place(self._prefix))

    def connections(self) -> int:
        """How many connections the listener has."""
        return self._everywhere(self._all)

    def connections_of(self, host: str) -> int:
        """How many of them are of the client with this address (of IPv6 the /64)."""
        key = client_key(host)
        return self._everywhere(self._clients.get(key) or _Count(self._shared.place(self._prefix + key)))

    def entered(self, host: str) -> None:
        """A connection was accepted."""
        key = client_key(host)
        count = self._clients.get(key)
        if count is None:
            count = self._clients[key] = _Count(self._shared.place(self._prefix + key))
        self._add(count, 1)
        self._add(self._all, 1)

    def left(self, host: str) -> None:
        """A connection that had entered is closed."""
        key = client_key(host)
        count = self._clients.get(key)
        if count is None:
            return
        self._add(count, -1)
        self._add(self._all, -1)
        if not count.here:
            del self._clients[key]

    def _add(self, count: _Count, number: int) -> None:
        count.here += number
        self._shared.add(self._slot, count.place, number)

    def _everywhere(self, count: _Count) -> int:
        return count.here + self._shared.elsewhere(self._slot, self.slots, count.place)


class _Count:
    """Connections of one client, or of all, in this worker, and where that is published."""

    __slots__ = ("here", "place")

    def __init__(self, place: Place) -> None:
        self.here = 0
        self.place = place
