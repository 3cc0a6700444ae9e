"""The record of workers, and the relief of those that lost their supervisor."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lbproxy.controlplane.supervisor.orphans import Relief, StateDirectory
from lbproxy.ipc.channel import UnixChannel
from lbproxy.ipc.messages import Drain, Drained, Hello, Message
from lbproxy.model.listener import Bind
from tests.ipc.test_channel import PumpReactor

BIND = Bind("127.0.0.1", 8080)


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    child = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
    yield child
    child.kill()
    child.wait()
    assert child.stdin is not None
    child.stdin.close()


def dies(directory: StateDirectory) -> None:
    """As if the supervisor were killed: the lock goes, the record stays."""
    assert directory._lock is not None
    os.close(directory._lock)
    directory._lock = None


def test_a_successor_finds_living_workers_and_their_binds(tmp_path: Path, process: subprocess.Popen[bytes]) -> None:
    first = StateDirectory(tmp_path / "state")
    first.record([process.pid], [BIND])
    dies(first)

    assert StateDirectory(tmp_path / "state").orphans() == (frozenset({process.pid}), frozenset({BIND}))


def test_dead_workers_hold_nothing(tmp_path: Path, process: subprocess.Popen[bytes]) -> None:
    first = StateDirectory(tmp_path)
    first.record([process.pid], [BIND])
    dies(first)
    process.kill()
    process.wait()

    assert StateDirectory(tmp_path).orphans() == (frozenset(), frozenset())


def test_a_zombie_holds_nothing(tmp_path: Path, process: subprocess.Popen[bytes]) -> None:
    first = StateDirectory(tmp_path)
    first.record([process.pid], [BIND])
    dies(first)
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)

    assert StateDirectory(tmp_path).orphans()[0] == frozenset()


def test_another_process_with_the_same_id_is_not_taken_for_a_worker(tmp_path: Path) -> None:
    (tmp_path / "workers.json").write_text(
        json.dumps({"workers": [{"pid": os.getpid(), "started": 1}], "binds": [["127.0.0.1", 8080]]})
    )

    assert StateDirectory(tmp_path).orphans() == (frozenset(), frozenset())


@pytest.mark.parametrize("text", ["", "[]", '{"workers": 3}', "null"])
def test_a_damaged_record_is_no_record(tmp_path: Path, text: str) -> None:
    (tmp_path / "workers.json").write_text(text)

    assert StateDirectory(tmp_path).orphans() == (frozenset(), frozenset())


def test_the_directory_has_one_owner(tmp_path: Path, process: subprocess.Popen[bytes]) -> None:
    first = StateDirectory(tmp_path)
    first.record([process.pid], [BIND])
    second = StateDirectory(tmp_path)

    assert (first.is_ours, second.is_ours) == (True, False)
    assert second.orphans() == (frozenset(), frozenset())
    second.record([], [])
    assert json.loads((tmp_path / "workers.json").read_text())["workers"][0]["pid"] == process.pid
    first.close()
    assert StateDirectory(tmp_path).is_ours


def test_a_clean_end_leaves_no_record(tmp_path: Path) -> None:
    directory = StateDirectory(tmp_path)
    directory.record([os.getpid()], [BIND])
    directory.close()
    directory.close()

    assert not (tmp_path / "workers.json").exists()


class Orphan:
    """An orphan's side of the rendezvous."""

    def __init__(self, reactor: PumpReactor, path: str) -> None:
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(path)
        self.channel = UnixChannel(reactor, connection)
        self.heard: list[Message] = []
        self.channel.on_message = lambda message, _: self.heard.append(message)
        self.channel.send(Hello(pid=1))


def test_orphans_are_drained_once_there_is_somebody_in_their_place(tmp_path: Path) -> None:
    reactor = PumpReactor()
    relief = Relief(reactor, StateDirectory(tmp_path))
    relief.startService()
    early = Orphan(reactor, str(tmp_path / "supervisor.sock"))
    reactor.pump(3)
    assert early.heard == []

    relief.relieve(12.0)
    late = Orphan(reactor, str(tmp_path / "supervisor.sock"))
    reactor.pump(3)

    assert early.heard == late.heard == [Drain(timeout_seconds=12.0, close_sockets=True)]
    early.channel.send(Drained(aborted=0))
    early.channel.close()
    reactor.pump(3)
    relief.stopService()
    reactor.pump(1)
    late.channel.close()
    assert not (tmp_path / "supervisor.sock").exists()


def test_who_does_not_own_the_directory_leaves_the_rendezvous_alone(tmp_path: Path) -> None:
    owner = StateDirectory(tmp_path)
    relief = Relief(PumpReactor(), StateDirectory(tmp_path))
    relief.startService()
    relief.stopService()

    assert not (tmp_path / "supervisor.sock").exists()
    owner.close()


def test_a_path_that_is_too_long_for_a_socket_is_no_reason_not_to_serve(tmp_path: Path) -> None:
    relief = Relief(PumpReactor(), StateDirectory(tmp_path / ("x" * 120)))
    relief.startService()
    relief.stopService()
