"""Lines of the access log, gathered until they are written together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lbproxy.native.choice import available
from lbproxy.telemetry.formats import http_json, tcp_json


class Lines:
    """Lines of ASCII text, each ending with a line feed."""

    __slots__ = ("_lines", "size")

    def __init__(self) -> None:
        self._lines: list[str] = []
        self.size = 0
        """Bytes of all of them."""

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self._lines)

    def append(self, line: str) -> None:
        """Add a line."""
        self._lines.append(line)
        self.size += len(line)

    def append_http_json(self, record: Any) -> None:
        """Add the ``json`` line of a request (`lbproxy.telemetry.records.HttpRecord`)."""
        self.append(http_json(record))

    def append_tcp_json(self, record: Any) -> None:
        """Add the ``json`` line of a connection (`lbproxy.telemetry.records.TcpRecord`)."""
        self.append(tcp_json(record))

    def take(self) -> bytes:
        """Give all of them; none is left."""
        taken = "".join(self._lines).encode("ascii")
        self._lines.clear()
        self.size = 0
        return taken


PureLines = Lines
"""The class of this module, whichever is in use."""

if not TYPE_CHECKING and available:
    from lbproxy.telemetry._jsonline import Lines
