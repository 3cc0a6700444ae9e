"""Giving memory back to the system when a crowd of connections has gone.

The C library keeps what is freed between pieces in use: after 10,000 TLS connections some 200 MB, for good.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable

CROWD = 1000
"""Fewer connections that have gone are not worth the look through all free memory.  Giving 200 MB back takes 10 ms."""


def _nothing() -> None:
    pass


def find_trim() -> Callable[[], object]:
    """The C library's function for it; one that does nothing where there is none, as in musl."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    return _nothing if trim is None else lambda: trim(0)


class Crowd:
    """Notices that most of a crowd has gone, and calls ``give_back`` once for that."""

    def __init__(self, give_back: Callable[[], object]) -> None:
        self._give_back = give_back
        self._most = 0
        """Connections at once, since memory was last given back."""

    def look(self, connections: int) -> None:
        """Say how many are open now; meant for about once a second."""
        if connections > self._most:
            self._most = connections
        elif self._most - connections >= CROWD and connections < self._most // 2:
            self._most = connections
            self._give_back()
