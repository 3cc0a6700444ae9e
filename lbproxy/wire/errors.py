"""Protocol errors, told apart by whose fault they are."""

from __future__ import annotations


class ProtocolError(Exception):
    """A protocol's rules were broken."""


class LocalProtocolError(ProtocolError):
    """We broke the rules: a bug on our side."""


class RemoteProtocolError(ProtocolError):
    """The peer broke the rules.

    ``reason`` is a short stable name for logs and counters (for example
    ``BadContentLength``), ``status`` the answer that suits it when the peer is a client.
    """

    def __init__(self, message: str, *, reason: str, status: int = 400) -> None:
        super().__init__(message)
        self.reason = reason
        self.status = status
