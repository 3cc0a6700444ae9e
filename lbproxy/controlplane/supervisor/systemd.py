"""What systemd and the supervisor tell each other (sd_notify(3), sd_listen_fds(3)).

Readiness, reloads and the watchdog go to ``NOTIFY_SOCKET``; listening sockets come from socket
activation and from the file descriptor store, which keeps them over a restart.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import MutableMapping
from pathlib import Path

import attrs
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

_log = Logger()

FIRST_FD = 3
"""Where inherited descriptors begin (SD_LISTEN_FDS_START)."""


@attrs.frozen
class InheritedSocket:
    """A listening socket that the service manager handed over."""

    name: str
    """Its FDNAME; from the store it is what `Notifier.store_descriptor` was given."""
    socket: socket.socket


class Notifier:
    """Tell the service manager how we are.  Without one (no address) every call does nothing."""

    def __init__(self, address: str | None = None, *, keeps_descriptors: bool = False) -> None:
        """``address`` is a path, or with a leading ``@`` a name in the abstract namespace."""
        self._address = "\0" + address[1:] if address and address.startswith("@") else address
        self.keeps_descriptors = keeps_descriptors and address is not None
        """Whether listening sockets survive a restart in the manager's store."""

    @classmethod
    def from_environment(cls, environ: MutableMapping[str, str]) -> Notifier:
        """Take ``NOTIFY_SOCKET`` and ``FDSTORE`` out of the environment: they are not for our children.

        systemd sets ``FDSTORE`` from version 254 on; before that our unit file does.
        """
        capacity = environ.pop("FDSTORE", "0")
        return cls(
            environ.pop("NOTIFY_SOCKET", None),
            keeps_descriptors=capacity.isdecimal() and int(capacity) > 0,
        )

    def ready(self, status: str) -> None:
        """Say that we serve; also the end of a reload."""
        self._send(f"READY=1\nSTATUS={status}")

    def reloading(self) -> None:
        """Say that a reload begins; `ready` ends it."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self, status: str) -> None:
        """Say that we stop."""
        self._send(f"STOPPING=1\nSTATUS={status}")

    def alive(self) -> None:
        """Feed the watchdog."""
        self._send("WATCHDOG=1")

    def store_descriptor(self, name: str, fd: int) -> None:
        """Have a duplicate of a descriptor kept over a restart, where there is a store."""
        if self.keeps_descriptors:
            self._send(f"FDSTORE=1\nFDNAME={name}", fd)

    def remove_descriptor(self, name: str) -> None:
        """Have it kept no longer."""
        if self.keeps_descriptors:
            self._send(f"FDSTOREREMOVE=1\nFDNAME={name}")

    def _send(self, text: str, *fds: int) -> None:
        if self._address is None:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.connect(self._address)
                socket.send_fds(sender, [text.encode()], fds)
        except OSError as error:
            _log.warn("cannot notify the service manager at {address}: {error}", address=self._address, error=error)


def watchdog_seconds(environ: MutableMapping[str, str], pid: int) -> float | None:
    """Take the watchdog's time-out out of the environment; None when nobody watches us."""
    microseconds = environ.pop("WATCHDOG_USEC", "")
    watched = environ.pop("WATCHDOG_PID", str(pid))
    if not microseconds.isdecimal() or int(microseconds) == 0 or watched != str(pid):
        return None
    return int(microseconds) / 1e6


def feed_watchdog(clock: IReactorTime, notifier: Notifier, timeout_seconds: float) -> LoopingCall:
    """Say that we are alive twice in each time-out.  Stop the returned call to end it."""
    call = LoopingCall(notifier.alive)
    call.clock = clock
    call.start(timeout_seconds / 2).addErrback(lambda failure: _log.failure("watchdog", failure=failure))
    return call


def initial_environment() -> dict[str, str]:
    """Give the environment that this process was started with, as far as the system tells.

    Loading Twisted's plug-ins, which twistd does before it comes to us, takes ``LISTEN_*`` out of
    ``os.environ`` for the sake of ``systemd:`` endpoints.
    """
    try:
        content = Path("/proc/self/environ").read_bytes()
    except OSError:
        return {}
    pairs = (os.fsdecode(entry).partition("=") for entry in content.split(b"\0") if entry)
    return {name: value for name, _, value in pairs}


def inherited_sockets(environ: MutableMapping[str, str], pid: int, first_fd: int = FIRST_FD) -> list[InheritedSocket]:
    """Take over the listening sockets that ``LISTEN_FDS`` speaks of, and the variables with them.

    Empty when they are meant for another process (``LISTEN_PID``).
    """
    count = environ.pop("LISTEN_FDS", "")
    meant_for = environ.pop("LISTEN_PID", "")
    names = environ.pop("LISTEN_FDNAMES", "").split(":")
    if meant_for != str(pid) or not count.isdecimal():
        return []
    inherited = []
    for index in range(int(count)):
        fd = first_fd + index
        try:
            taken = socket.socket(fileno=fd)
        except OSError as error:
            _log.warn("inherited descriptor {fd} is not a socket: {error}", fd=fd, error=error)
            continue
        taken.set_inheritable(False)
        taken.setblocking(False)
        inherited.append(InheritedSocket(names[index] if index < len(names) else "unknown", taken))
    return inherited
