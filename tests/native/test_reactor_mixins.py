"""Twisted's own tests for reactors, from the installed Twisted, with the reactor that this build has.

The tests that Twisted makes for its epoll reactor are made again for ours.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from lbproxy.native import available
from lbproxy.native.reactor import LeanReactor, NativeReactor

pytestmark = pytest.mark.integration

MODULES = ("core", "fdset", "newtls", "process", "socket", "tcp", "threads", "time", "tls", "udp", "unix")
"""The parts of ``twisted.internet.test`` that are for every reactor."""

_UNFIT = {"test_changeUID": None}
"""Run as root it starts this very Python as another user, who may not be able to read it."""

_TWIN = "_EPollReactorTests"


class EPollReactor(NativeReactor if available else LeanReactor):  # type: ignore[misc]
    """Under the name by which some tests make allowance for epoll(7)."""


def _cases() -> dict[str, type[Any]]:
    cases: dict[str, type[Any]] = {}
    for part in MODULES:
        for name, case in vars(import_module(f"twisted.internet.test.test_{part}")).items():
            if name.endswith(_TWIN):
                ours = f"Test{name.removesuffix(_TWIN)}"
                body = {"reactorFactory": EPollReactor, "__module__": __name__, "__qualname__": ours, **_UNFIT}
                cases[ours] = type(ours, (case,), body)
    return cases


globals().update(_cases())


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trial's mktemp writes into the working directory."""
    monkeypatch.chdir(tmp_path)


def test_every_part_has_tests() -> None:
    assert len(_cases()) >= 25
