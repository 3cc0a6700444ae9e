"""What the router needs to know of a request."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol


class RoutableRequest(Protocol):
    """The head of a request, whichever version of HTTP it came in."""

    method: bytes
    """As received; methods are case-sensitive (RFC 9110 section 9.1)."""
    host: bytes
    """Lower case, without the port; an IPv6 literal keeps its brackets.  Empty when there is none."""
    path: bytes
    """As received, without the query: neither decoded nor normalised."""
    query: bytes
    """What follows the first ``?``, without it; empty when there is none."""

    def field_values(self, name: bytes) -> list[bytes]:
        """Values of the fields of this lower-case name, in the order received."""
        ...


class PlainRequest:
    """A routable request put together from its parts, for questions rather than for traffic."""

    __slots__ = ("_fields", "host", "method", "path", "query")

    def __init__(
        self,
        *,
        method: bytes = b"GET",
        host: bytes = b"",
        path: bytes = b"/",
        query: bytes = b"",
        fields: Iterable[tuple[bytes, bytes]] = (),
    ) -> None:
        self.method = method
        self.host = host.lower()
        self.path = path
        self.query = query
        self._fields = [(name.lower(), value) for name, value in fields]

    def field_values(self, name: bytes) -> list[bytes]:
        return [value for field, value in self._fields if field == name]
