"""The conversation with systemd, against a notify socket of our own."""

from __future__ import annotations

import array
import os
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from twisted.internet.task import Clock

from lbproxy.controlplane.supervisor.systemd import (
    Notifier,
    feed_watchdog,
    inherited_sockets,
    initial_environment,
    watchdog_seconds,
)


class FakeManager:
    """The service manager's end."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self._socket.settimeout(5)

    def receive(self) -> tuple[list[str], list[int]]:
        data, ancillary, _, _ = self._socket.recvmsg(4096, socket.CMSG_SPACE(64))
        fds = array.array("i")
        for _, _, content in ancillary:
            fds.frombytes(content)
        return data.decode().split("\n"), list(fds)

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[FakeManager]:
    address = f"@lbproxy-{uuid.uuid4()}" if request.param == "abstract" else str(tmp_path / "notify")
    fake = FakeManager(address)
    yield fake
    fake.close()


def test_ready_reloading_stopping_and_alive(manager: FakeManager) -> None:
    notifier = Notifier(manager.address)

    notifier.ready("serving")
    assert manager.receive() == (["READY=1", "STATUS=serving"], [])
    notifier.reloading()
    first, second = manager.receive()[0]
    assert first == "RELOADING=1"
    assert second.startswith("MONOTONIC_USEC=")
    assert second.partition("=")[2].isdecimal()
    notifier.stopping("draining")
    assert manager.receive()[0] == ["STOPPING=1", "STATUS=draining"]
    notifier.alive()
    assert manager.receive()[0] == ["WATCHDOG=1"]


def test_descriptors_are_stored_under_their_name(manager: FakeManager) -> None:
    notifier = Notifier(manager.address, keeps_descriptors=True)
    read, write = os.pipe()

    notifier.store_descriptor("web", read)
    lines, fds = manager.receive()

    assert lines == ["FDSTORE=1", "FDNAME=web"]
    assert os.fstat(fds[0]).st_ino == os.fstat(read).st_ino
    notifier.remove_descriptor("web")
    assert manager.receive()[0] == ["FDSTOREREMOVE=1", "FDNAME=web"]
    for fd in (read, write, *fds):
        os.close(fd)


def test_without_a_store_nothing_is_stored(manager: FakeManager) -> None:
    notifier = Notifier(manager.address)
    notifier.store_descriptor("web", 0)
    notifier.remove_descriptor("web")
    notifier.alive()

    assert manager.receive()[0] == ["WATCHDOG=1"]


def test_the_environment_is_taken_not_passed_on() -> None:
    environ = {"NOTIFY_SOCKET": "@x", "FDSTORE": "512", "HOME": "/"}

    assert Notifier.from_environment(environ).keeps_descriptors
    assert environ == {"HOME": "/"}


def test_a_store_needs_a_manager() -> None:
    assert not Notifier.from_environment({"FDSTORE": "512"}).keeps_descriptors


def test_without_a_manager_every_call_does_nothing() -> None:
    Notifier().ready("serving")


def test_a_manager_that_is_gone_does_no_harm(tmp_path: Path) -> None:
    Notifier(str(tmp_path / "nobody")).ready("serving")


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"WATCHDOG_USEC": "3000000"}, 3.0),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "7"}, 3.0),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "8"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({}, None),
    ],
)
def test_watchdog_time(environ: dict[str, str], expected: float | None) -> None:
    assert watchdog_seconds(environ, 7) == expected
    assert environ == {}


def test_the_watchdog_is_fed_twice_in_its_time() -> None:
    clock, fed = Clock(), []

    class Counting(Notifier):
        def alive(self) -> None:
            fed.append(clock.seconds())

    call = feed_watchdog(clock, Counting(), 4.0)
    clock.pump([2.0, 2.0])
    call.stop()

    assert fed == [0.0, 2.0, 4.0]


def test_inherited_sockets_are_taken_with_their_names() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        fd = os.dup(server.fileno())
        os.set_inheritable(fd, True)
        environ = {"LISTEN_FDS": "1", "LISTEN_PID": "7", "LISTEN_FDNAMES": "web"}

        (item,) = inherited_sockets(environ, 7, first_fd=fd)

        assert item.name == "web"
        assert item.socket.getsockname() == server.getsockname()
        assert not item.socket.get_inheritable()
        assert environ == {}
        item.socket.close()


def test_a_descriptor_that_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)

    assert inherited_sockets({"LISTEN_FDS": "1", "LISTEN_PID": "7"}, 7, first_fd=fd) == []
    os.close(fd)


def test_the_initial_environment_outlives_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PATH")

    assert initial_environment()["PATH"]


def test_sockets_for_another_process_are_not_ours() -> None:
    environ = {"LISTEN_FDS": "1", "LISTEN_PID": "8"}

    assert inherited_sockets(environ, 7) == []
    assert environ == {}
