"""What the connections of a worker have in common; bases, so that the compiled build calls them directly."""

from __future__ import annotations

from typing import Any

from twisted.python.failure import Failure


class Expiring:
    """Something with a deadline (`lbproxy.dataplane.deadlines`)."""

    __slots__ = ("armed", "deadline")

    deadline: float
    """Time by the wheel's clock, infinite for none.  One that is set may be moved later by a plain store."""
    armed: int
    """The bucket that holds it, 0 for none; the wheel's own."""

    def expired(self, now: float) -> None:
        """The deadline has come.  Called once; set a new one to be called again."""
        raise NotImplementedError  # interface


class StreamProtocol(Expiring):
    """A Twisted protocol; one that implements ``IHalfCloseableProtocol`` is told of half-closed connections."""

    __slots__ = ()

    def makeConnection(self, transport: Any) -> None:
        raise NotImplementedError  # interface

    def dataReceived(self, data: bytes) -> None:
        raise NotImplementedError  # interface

    def readConnectionLost(self) -> None:
        """The peer sends no more."""
        raise NotImplementedError  # interface

    def writeConnectionLost(self) -> None:
        """All is sent, and our direction is closed."""
        raise NotImplementedError  # interface

    def connectionLost(self, reason: Failure) -> None:
        raise NotImplementedError  # interface
