"""Processes: started on their CPUs, ended with all that they have started, and what they cost."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


def stat_of(pid: int) -> list[str]:
    """Read /proc/PID/stat from the state on (proc(5), field 3)."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def process_tree(root: int) -> list[int]:
    """The process and its descendants that live now."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                children.setdefault(int(stat_of(int(entry))[1]), []).append(int(entry))
    found = [root]
    for pid in found:
        found += children.get(pid, [])
    return found


def cpu_seconds(root: int) -> float:
    """User and system time of the whole tree, children that it has waited for included."""
    ticks = 0
    for pid in process_tree(root):
        with contextlib.suppress(OSError):
            ticks += sum(map(int, stat_of(pid)[11:15]))
    return ticks / TICKS


def memory_mib(root: int) -> float:
    """Proportional set size of the tree: shared pages are shared out, so that the sum is what it takes."""
    kib = 0
    for pid in process_tree(root):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    kib += int(line.split()[1])
    return kib / 1024


def pinned(command: list[str], cpus: Sequence[int]) -> list[str]:
    """The same command on these CPUs only."""
    return ["taskset", "-c", ",".join(map(str, cpus)), *command]


@contextlib.contextmanager
def running(command: list[str], cpus: Sequence[int], ports: list[int], log: Path) -> Iterator[int]:
    """Run a server until its ports are open and the block is done; give its process id."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            pinned(command, cpus),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=log.parent,
            start_new_session=True,
        )
    try:
        for port in ports:
            wait_open(port, process, log)
        yield process.pid
    finally:
        stop(process)


def wait_open(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + 30
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        if process.poll() is not None or time.monotonic() > end:
            raise SystemExit(f"{process.args[-1]!r} does not serve port {port}:\n{log.read_text()[-2000:]}")
        time.sleep(0.02)


def stop(process: subprocess.Popen[bytes]) -> None:
    """End the server and whatever it has started."""
    family = process_tree(process.pid)
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for pid in family[1:]:
        with contextlib.suppress(OSError):
            if os.getsid(pid) == process.pid:  # the id may have gone to another process meanwhile
                os.kill(pid, signal.SIGKILL)
