"""What is given the bytes of a connection, many times."""

from __future__ import annotations


class Receiver:
    """A base, not a protocol, so that a compiled transport calls it directly."""

    __slots__ = ()

    def dataReceived(self, data: bytes) -> None:
        """Something has come."""
        raise NotImplementedError  # interface
