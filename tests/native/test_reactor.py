"""Our reactors: which one is taken, and that the compiled loop keeps descriptors apart."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest
from twisted.application.reactors import getReactorTypes
from twisted.internet.interfaces import IReactorFDSet
from zope.interface.verify import verifyObject

from lbproxy.native import available, describe, reason
from lbproxy.native.choice import choose
from lbproxy.native.reactor import LeanReactor, NativeReactor, make_reactor
from tests.native.harness import BUILDS, Recorder, World

if available:
    from lbproxy.native._loop import Loop

compiled = pytest.mark.skipif(not available, reason=reason)


def test_the_setting_chooses() -> None:
    assert choose("off") == (False, "LBPROXY_NATIVE=off")
    with pytest.raises(ValueError, match="LBPROXY_NATIVE"):
        choose("of")


def test_a_required_build_that_is_missing_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lbproxy.native.choice._MODULES", ("lbproxy.native.not_there",))
    with pytest.raises(ImportError):
        choose("require")
    assert choose("")[0] is False


def test_the_build_is_told() -> None:
    assert describe().startswith("native" if available else "pure Python")


def test_the_best_reactor_is_made() -> None:
    world = World(next(iter(BUILDS)))
    world.end()
    reactor: Any = make_reactor()
    assert type(reactor) is (NativeReactor if available else LeanReactor)
    assert verifyObject(IReactorFDSet, reactor)
    world.reactor = reactor
    world.end()


def test_twistd_knows_it() -> None:
    assert "lbproxy" in [each.shortName for each in getReactorTypes()]


@pytest.mark.parametrize("setting", ["", "off"])
def test_it_runs_as_the_process_reactor_and_ends_on_sigterm(setting: str) -> None:
    program = (
        "from lbproxy.native.reactor import install; install()\n"
        "from twisted.internet import reactor\n"
        "print(type(reactor).__name__, flush=True)\n"
        "reactor.callWhenRunning(print, 'running', flush=True)\n"
        "reactor.run()\n"
    )
    environment = {**os.environ, "LBPROXY_NATIVE": setting}
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, env=environment, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().strip() in ("NativeReactor", "LeanReactor")
        assert process.stdout.readline() == "running\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    one, other = socket.socketpair()
    with one, other:
        yield one, other


@compiled
def test_the_loop_watches_as_epoll_does(pair: tuple[socket.socket, socket.socket]) -> None:
    one, other = pair
    seen: list[tuple[int, int]] = []
    loop = Loop(lambda fd, event: seen.append((fd, event)))
    loop.register(one.fileno(), select.EPOLLIN)
    loop.poll(0)
    assert seen == []
    other.send(b"x")
    loop.poll(1)
    assert seen == [(one.fileno(), select.EPOLLIN)]
    loop.modify(one.fileno(), select.EPOLLOUT)
    loop.poll(1)
    assert seen[1:] == [(one.fileno(), select.EPOLLOUT)]
    loop.unregister(one.fileno())
    loop.poll(0)
    assert len(seen) == 2
    loop.close()
    loop.close()


@compiled
def test_the_loop_refuses_as_epoll_does(pair: tuple[socket.socket, socket.socket], tmp_path: Any) -> None:
    one, _ = pair
    loop = Loop(lambda fd, event: None)
    with pytest.raises(ValueError, match="-1"):
        loop.register(-1, select.EPOLLIN)
    for call in (
        lambda: loop.unregister(one.fileno()),
        lambda: loop.unregister(100_000),
        lambda: loop.unregister(-1),
        lambda: loop.modify(one.fileno(), select.EPOLLIN),
        lambda: loop.modify(-1, select.EPOLLIN),
        lambda: loop.register(100_000, select.EPOLLIN),
    ):
        with pytest.raises(OSError):
            call()
    with open(tmp_path / "file", "w") as file, pytest.raises(PermissionError):
        loop.register(file.fileno(), select.EPOLLIN)
    loop.register(one.fileno(), select.EPOLLIN)
    with pytest.raises(FileExistsError):
        loop.register(one.fileno(), select.EPOLLIN)


@compiled
def test_an_event_does_not_reach_a_later_registration_of_the_same_number() -> None:
    """Both have events in one batch; the first one's dispatch replaces the other by a new socket."""
    sockets = [socket.socketpair() for _ in range(2)]
    fresh: list[socket.socket] = []
    seen: list[int] = []

    def dispatch(fd: int, event: int) -> None:
        seen.append(fd)
        if fresh:
            return
        other = next(pair[0] for pair in sockets if pair[0].fileno() != fd)
        number = other.fileno()
        loop.unregister(number)
        other.close()
        fresh.extend(socket.socketpair())
        assert number in (fresh[0].fileno(), fresh[1].fileno())
        loop.register(number, select.EPOLLIN)

    loop = Loop(dispatch)
    for ours, theirs in sockets:
        loop.register(ours.fileno(), select.EPOLLIN)
        theirs.send(b"x")
    loop.poll(1)
    assert len(seen) == 1
    loop.close()
    for skt in (*fresh, *sockets[0], *sockets[1]):
        skt.close()


@compiled
@pytest.mark.parametrize(("timeout", "least", "most"), [(0.0, 0.0, 0.02), (0.0301, 0.03, 0.5), (0.02, 0.02, 0.5)])
def test_the_loop_waits_no_shorter_than_asked(timeout: float, least: float, most: float) -> None:
    loop = Loop(lambda fd, event: None)
    began = time.monotonic()
    loop.poll(timeout)
    assert least <= time.monotonic() - began < most


@compiled
def test_a_turn_that_is_due_keeps_the_loop_from_waiting() -> None:
    world = World("native on ours")
    protocol = Recorder()
    world.pair(protocol)
    protocol.transport.loseConnection()
    began = time.monotonic()
    world.reactor.doIteration(5)
    assert time.monotonic() - began < 1
    assert protocol.reason is not None
    world.end()


@compiled
def test_a_timed_call_made_in_a_deferred_turn_is_kept() -> None:
    """What is due runs after the wait, so that the reactor looks at its timed calls before the next one."""
    world = World("native on ours")
    calls: list[str] = []
    protocol = Recorder(lost=lambda p: world.reactor.callLater(0.01, calls.append, "called"))
    world.pair(protocol)
    protocol.transport.abortConnection()
    world.until(lambda: calls, seconds=2)
    world.end()
