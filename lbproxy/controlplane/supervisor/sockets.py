"""The listening sockets: one for each bind and worker slot, owned by the supervisor.

Every slot has a socket of its own with SO_REUSEPORT, and the kernel spreads connections over
them.  The supervisor keeps each open and hands out duplicates, so that a dead worker's successor finds
what was queued.  Sockets may also be inherited: from a previous run by way of systemd's
descriptor store, or from socket activation, whose one socket all slots share.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Collection, Iterable, Mapping

import attrs
from twisted.logger import Logger

from lbproxy.controlplane.supervisor.systemd import InheritedSocket, Notifier
from lbproxy.model.listener import Bind

_log = Logger()

BACKLOG = 4096
"""Connections that may wait to be accepted; the kernel caps it at net.core.somaxconn."""


@attrs.frozen
class BindProblem:
    """Why one bind of a listener cannot be opened."""

    listener: str
    bind: Bind
    message: str

    def __str__(self) -> str:
        return f"listener {self.listener}: cannot listen on {self.bind}: {self.message}"


class BindError(Exception):
    """Some binds cannot be opened; nothing was changed."""

    def __init__(self, problems: tuple[BindProblem, ...]) -> None:
        super().__init__("; ".join(map(str, problems)))
        self.problems = problems


class ListeningSockets:
    """Every listening socket of this machine's lbproxy, by bind and slot."""

    def __init__(
        self,
        notifier: Notifier | None = None,
        inherited: Iterable[InheritedSocket] = (),
        held_by_orphans: Collection[Bind] = (),
    ) -> None:
        """``held_by_orphans``: binds (with real ports) that workers of a dead supervisor still serve."""
        self._notifier = notifier or Notifier()
        self._held_by_orphans = frozenset(held_by_orphans)
        self._sockets: dict[tuple[Bind, int], socket.socket] = {}
        self._shared: dict[Bind, socket.socket] = {}
        for item in inherited:
            self._adopt(item)

    def open(self, binds: Mapping[Bind, str], slots: Collection[int]) -> None:
        """Open what is missing for these binds (each with its listener's name) in these slots.

        All or nothing: raises `BindError` with every bind that failed and leaves things as they were.
        """
        opened: dict[tuple[Bind, int], socket.socket] = {}
        problems = []
        for bind, listener in binds.items():
            if bind in self._shared:
                continue
            try:
                self._open_bind(bind, slots, opened)
            except OSError as error:
                problems.append(BindProblem(listener, bind, _explain(error, bind)))
        if problems:
            for made in opened.values():
                made.close()
            raise BindError(tuple(problems))
        for key, made in opened.items():
            self._sockets[key] = made
            self._notifier.store_descriptor(_store_name(*key), made.fileno())

    def for_slot(self, slot: int) -> dict[Bind, socket.socket]:
        """Give the sockets that a worker in this slot accepts at; they stay ours."""
        return {bind: held for (bind, owner), held in self._sockets.items() if owner == slot} | self._shared

    def address(self, bind: Bind) -> Bind:
        """Give an open bind with its real port, where the kernel chose it."""
        for held in self._all_of(bind):
            return Bind(bind.host, held.getsockname()[1])
        raise KeyError(bind)

    @property
    def addresses(self) -> frozenset[Bind]:
        """All open binds with their real ports."""
        return frozenset(map(self.address, {bind for bind, _ in self._sockets} | set(self._shared)))

    def keep_only(self, binds: Collection[Bind], slots: Collection[int]) -> None:
        """Close our side of everything else.  A worker that still has a duplicate accepts what is queued."""
        for key in [key for key in self._sockets if key[0] not in binds or key[1] not in slots]:
            self._notifier.remove_descriptor(_store_name(*key))
            self._sockets.pop(key).close()
        for bind in [bind for bind in self._shared if bind not in binds]:
            self._shared.pop(bind).close()

    def close(self) -> None:
        """Close everything; what is in the service manager's store stays there for the next run."""
        for held in [*self._sockets.values(), *self._shared.values()]:
            held.close()
        self._sockets.clear()
        self._shared.clear()

    def _adopt(self, item: InheritedSocket) -> None:
        stored = _parse_store_name(item.name)
        try:
            is_listening = item.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
            host, port = item.socket.getsockname()[:2]
        except (OSError, ValueError):
            is_listening = 0
        if not is_listening or item.socket.family not in (socket.AF_INET, socket.AF_INET6):
            _log.warn("inherited socket {name} is not a listening TCP socket; closed", name=item.name)
            item.socket.close()
        elif stored is not None and stored not in self._sockets:
            self._sockets[stored] = item.socket
        elif stored is not None or Bind(host, port) in self._shared:
            item.socket.close()  # the store holds it twice
        else:
            item.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            item.socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            self._shared[Bind(host, port)] = item.socket

    def _open_bind(self, bind: Bind, slots: Collection[int], opened: dict[tuple[Bind, int], socket.socket]) -> None:
        port = bind.port
        for held in self._all_of(bind):
            port = held.getsockname()[1]
            break
        if port and not self._is_our_port(port):
            _probe(bind)
        for slot in sorted(slots):
            if (bind, slot) in self._sockets:
                continue
            made = _listen(bind.host, port)
            port = made.getsockname()[1]
            opened[bind, slot] = made

    def _is_our_port(self, port: int) -> bool:
        """Tell whether we, or orphans of ours, have sockets at this port.

        Then a probe would find those, also at another address (0.0.0.0 becomes 127.0.0.1).
        """
        ours = [*self._sockets.values(), *self._shared.values()]
        return any(held.getsockname()[1] == port for held in ours) or any(
            bind.port == port for bind in self._held_by_orphans
        )

    def _all_of(self, bind: Bind) -> list[socket.socket]:
        shared = [self._shared[bind]] if bind in self._shared else []
        return shared + [held for (other, _), held in self._sockets.items() if other == bind]


def why_not(bind: Bind) -> str | None:
    """Say why this address cannot be listened at, in a person's words; None when it can."""
    try:
        _probe(bind)
    except OSError as error:
        return _explain(error, bind)
    return None


def _listen(host: str, port: int) -> socket.socket:
    made = _new_socket(host)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        # accepted sockets inherit these two on Linux, which saves a system call for each connection
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        made.setblocking(False)
        made.bind((host, port))
        made.listen(BACKLOG)
    except OSError:
        made.close()
        raise
    return made


def _probe(bind: Bind) -> None:
    """Fail if anybody has this port.

    Without SO_REUSEPORT on the probe, which would let us share the port silently with another process of this user.
    """
    with _new_socket(bind.host) as probe:
        probe.bind((bind.host, bind.port))


def _new_socket(host: str) -> socket.socket:
    is_ipv6 = ":" in host
    made = socket.socket(socket.AF_INET6 if is_ipv6 else socket.AF_INET, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if is_ipv6:
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    return made


def _explain(error: OSError, bind: Bind) -> str:
    reason = os.strerror(error.errno) if error.errno else str(error)
    match error.errno:
        case errno.EADDRINUSE:
            return f"{reason}; another process has the port (find it with: ss -ltnp 'sport = :{bind.port}')"
        case errno.EACCES if bind.port < 1024:
            return (
                f"{reason}; ports below 1024 need the capability CAP_NET_BIND_SERVICE "
                "(conf/lbproxy.service grants it) or a lower net.ipv4.ip_unprivileged_port_start"
            )
        case errno.EADDRNOTAVAIL:
            return f"{reason}; no network interface has the address {bind.host} (see: ip address)"
        case errno.EAFNOSUPPORT:
            return f"{reason}; this machine has no IPv6"
        case errno.EMFILE | errno.ENFILE:
            return f"{reason}; raise the limit of open files (LimitNOFILE=, ulimit -n)"
    return reason


def _store_name(bind: Bind, slot: int) -> str:
    """Name a socket in the store, where a colon is not allowed."""
    return f"lbproxy/{bind.host.replace(':', '_')}/{bind.port}/{slot}"


def _parse_store_name(name: str) -> tuple[Bind, int] | None:
    match name.split("/"):
        case ["lbproxy", host, port, slot] if port.isdecimal() and slot.isdecimal():
            return Bind(host.replace("_", ":"), int(port)), int(slot)
    return None
