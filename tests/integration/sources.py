"""What tests of sources with the real reactor have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.task import deferLater

from tests.controlplane.discovery.fakes import FakeSink


async def told(reactor: Any, sink: FakeSink, expected: Callable[[Any], bool], seconds: float = 10.0) -> None:
    """Wait until the last thing that a source said is as expected."""
    for _ in range(int(seconds / 0.02)):
        if sink.told and expected(sink.told[-1]):
            return
        await deferLater(reactor, 0.02)
    raise AssertionError(f"the source said {sink.told}")
