"""Readiness, descriptor store, socket activation and signals, with a fake systemd and real processes."""

from __future__ import annotations

import array
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.harness import HOST, free_port, talk, wait_until

pytestmark = pytest.mark.integration

ROOT = Path(__file__).resolve().parent.parent.parent

# What systemd does between fork and exec: descriptors from 3 on, and the process id that they are meant for.
EXEC = """
import fcntl, os, sys
count = int(sys.argv[1])
high = [fcntl.fcntl(int(fd), fcntl.F_DUPFD, 100) for fd in sys.argv[2:2 + count]]
for index, fd in enumerate(high):
    os.dup2(fd, 3 + index)
    os.close(fd)
os.environ["LISTEN_PID"] = str(os.getpid())
os.execv(sys.executable, [sys.executable, "-m", "lbproxy", "run", "-c", sys.argv[2 + count]])
"""


class Manager:
    """Runs lbproxy as systemd would."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.path = folder / "lb.ini"
        self.log_path = folder / "log"
        self.processes: list[subprocess.Popen[bytes]] = []
        self.stored: dict[str, int] = {}
        self.said: list[str] = []
        self._notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notify.bind(str(folder / "notify"))
        self._notify.settimeout(0.05)
        self.write("first")

    def write(self, text: str) -> None:
        self.path.write_text(
            "[lbproxy]\nworkers = 2\nadmin = off\naccess-log = off\ndrain-timeout = 5s\n"
            f"[listener:web]\nprotocol = HTTP\nbind = {HOST}:{self.port}\n"
            f'default-action = fixed-response 200 text/plain "{text}"\n'
        )

    def start(self, named: dict[str, int] | None = None, **environ: str) -> subprocess.Popen[bytes]:
        named = named or {}
        with self.log_path.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-c", EXEC, str(len(named)), *map(str, named.values()), str(self.path)],
                stdout=log,
                stderr=log,
                pass_fds=list(named.values()),
                env={
                    **os.environ,
                    "PYTHONPATH": str(ROOT),
                    "NOTIFY_SOCKET": self._notify.getsockname(),
                    "LISTEN_FDS": str(len(named)),
                    "LISTEN_FDNAMES": ":".join(named),
                    **environ,
                },
                start_new_session=True,
            )
        self.processes.append(process)
        return process

    def wait_for(self, line: str) -> None:
        """Listen until lbproxy has said this, keeping what it wants stored."""
        wait_until(lambda: self._hears(line), 30, f"{line}; said: {self.said}; log: {self.log_path.read_text()}")

    def _hears(self, line: str) -> bool:
        try:
            data, ancillary, _, _ = self._notify.recvmsg(4096, socket.CMSG_SPACE(64))
        except TimeoutError:
            return False
        lines = data.decode().split("\n")
        self.said += lines
        fds = array.array("i")
        for _, _, content in ancillary:
            fds.frombytes(content)
        if "FDSTORE=1" in lines:
            (name,) = [text.partition("=")[2] for text in lines if text.startswith("FDNAME=")]
            (self.stored[name],) = fds
        return line in lines

    def get(self) -> bytes:
        return talk(self.port, b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 10)

    def close(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(15)
                except subprocess.TimeoutExpired:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
        for fd in self.stored.values():
            os.close(fd)
        self._notify.close()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    fake = Manager(tmp_path)
    yield fake
    fake.close()


def test_over_a_restart_the_sockets_stay_and_a_waiting_client_is_served(manager: Manager) -> None:
    first = manager.start(FDSTORE="64", WATCHDOG_USEC="400000")
    manager.wait_for("READY=1")
    assert manager.get().endswith(b"first")
    manager.wait_for("WATCHDOG=1")
    manager.write("second")
    first.send_signal(signal.SIGHUP)
    manager.wait_for("RELOADING=1")
    manager.wait_for("READY=1")
    assert manager.get().endswith(b"second")
    first.send_signal(signal.SIGTERM)
    manager.wait_for("STOPPING=1")
    assert first.wait(15) == 0
    assert sorted(manager.stored) == [f"lbproxy/{HOST}/{manager.port}/{slot}" for slot in (0, 1)]

    waiting = [socket.create_connection((HOST, manager.port), timeout=20) for _ in range(6)]
    manager.start(manager.stored, FDSTORE="64")
    for client in waiting:
        with client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert client.recv(4096).startswith(b"HTTP/1.1 200 ")


def test_an_activated_socket_is_used(manager: Manager) -> None:
    with socket.create_server((HOST, manager.port)) as server:
        process = manager.start({"lbproxy.socket": server.fileno()})
        manager.wait_for("READY=1")
        assert manager.get().endswith(b"first")
        process.send_signal(signal.SIGTERM)
        assert process.wait(15) == 0


def test_ctrl_c_reaches_the_whole_process_group_and_only_drains(manager: Manager) -> None:
    process = manager.start()
    manager.wait_for("READY=1")
    with socket.create_connection((HOST, manager.port), timeout=10) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n")
        os.killpg(process.pid, signal.SIGINT)
        manager.wait_for("STOPPING=1")
        client.sendall(b"\r\n")
        assert client.recv(4096).startswith(b"HTTP/1.1 200 ")
    assert process.wait(15) == 0


def test_a_second_signal_stops_at_once(manager: Manager) -> None:
    process = manager.start()
    manager.wait_for("READY=1")
    with socket.create_connection((HOST, manager.port), timeout=10) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n")
        process.send_signal(signal.SIGTERM)
        manager.wait_for("STOPPING=1")
        process.send_signal(signal.SIGTERM)
        assert process.wait(4) == 0
