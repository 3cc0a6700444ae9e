"""Signals become calls in the reactor."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

import pytest

from lbproxy.controlplane.supervisor.signals import SignalHandlers


class FakeReactor:
    """Runs at once what is to run in the reactor."""

    def callWhenRunning(self, call: Callable[[], None]) -> None:
        call()

    def callFromThread(self, call: Callable[[], None]) -> None:
        call()


@pytest.fixture(autouse=True)
def _restored() -> Any:
    numbers = (signal.SIGUSR1, signal.SIGUSR2)
    before = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


def test_actions_are_called_until_the_service_stops() -> None:
    called: list[str] = []
    signal.signal(signal.SIGUSR2, lambda number, frame: called.append("before"))
    handlers = SignalHandlers(FakeReactor(), {signal.SIGUSR2: lambda: called.append("ours")})  # type: ignore[arg-type]
    handlers.startService()
    os.kill(os.getpid(), signal.SIGUSR2)
    handlers.stopService()
    os.kill(os.getpid(), signal.SIGUSR2)

    assert called == ["ours", "before"]


def test_twistds_own_log_is_reopened_too() -> None:
    called: list[str] = []
    signal.signal(signal.SIGUSR1, lambda number, frame: called.append("twistd"))
    handlers = SignalHandlers(FakeReactor(), {signal.SIGUSR1: lambda: called.append("ours")})  # type: ignore[arg-type]
    handlers.startService()
    os.kill(os.getpid(), signal.SIGUSR1)
    handlers.stopService()

    assert called == ["twistd", "ours"]
