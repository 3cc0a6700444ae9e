"""A real reactor for one test, which turns when the test says so."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from twisted.internet.epollreactor import EPollReactor
from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure


class Turning:
    """A reactor of one's own, not installed anywhere."""

    def __init__(self) -> None:
        self.reactor: Any = EPollReactor()

    def until(self, condition: Callable[[], Any], seconds: float = 5.0) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, "not in time"
            self.reactor.iterate(0.01)

    def turn(self, times: int = 3) -> None:
        for _ in range(times):
            self.reactor.iterate(0)

    def close(self) -> None:
        for selectable in self.reactor.removeAll():
            selectable.connectionLost(Failure(ConnectionDone()))
        self.turn()
        waker = self.reactor.waker
        self.reactor._poller.close()
        for name in ("i", "o"):
            descriptor = getattr(waker, name)
            descriptor.close() if hasattr(descriptor, "close") else None
