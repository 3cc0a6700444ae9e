"""Server processes that are killed, stopped and broken, and a client that checks every answer."""

from __future__ import annotations

import contextlib
import http.client
import select
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from tests.integration.harness import HOST, Crowd, free_port

SERVER = Path(__file__).with_name("server.py")


class ServerProcess:
    """One target."""

    def __init__(self, folder: Path, number: int, seconds: float, host: str = HOST, port: int = 0) -> None:
        self.host = host
        self.port = port or free_port()
        self._mode_file = folder / f"server-{number}"
        self._seconds = seconds
        self._process: subprocess.Popen[bytes] | None = None
        for _ in range(3):
            if self._listens():
                return
            self.kill()  # somebody else has taken that port meanwhile
            self.port = port or free_port()
        raise AssertionError(f"{SERVER} does not listen")

    @property
    def key(self) -> str:
        return f"{self.host}:{self.port}"

    def start(self) -> None:
        """Start it again, and return when it listens."""
        assert self._listens()

    def _listens(self) -> bool:
        """Start it and wait until it listens; tell whether it does."""
        command = [sys.executable, str(SERVER), self.host, str(self.port), str(self._mode_file), str(self._seconds)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        return self._process.stdout.readline() == b"ready\n"

    def kill(self) -> None:
        """End it without a word, as an out-of-memory killer does."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(10)
        assert self._process.stdout is not None
        self._process.stdout.close()

    def hang(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def become(self, mode: str) -> None:
        """``slow``, ``fail``, ``cut``, or empty for well."""
        self._mode_file.write_text(mode)

    @property
    def cuts(self) -> int:
        """How many answers it has broken off."""
        path = self._mode_file.with_name(self._mode_file.name + ".cuts")
        return path.stat().st_size if path.exists() else 0


class Fleet:
    """Some targets, and the target group that has them."""

    def __init__(self, folder: Path, size: int = 4, seconds: float = 0.004) -> None:
        self.servers: list[ServerProcess] = []
        try:
            for number in range(size):
                self.servers.append(ServerProcess(folder, number, seconds))
        except BaseException:
            self.__exit__()
            raise

    def configuration(self, port: int, **options: str) -> str:
        settings = {
            "health-check-path": "/health",
            "health-check-interval": "300ms",
            "health-check-timeout": "250ms",
            "healthy-threshold": "1",
            "retry-on": "connect-failure, reset, 500-599",
            "retry-attempts": "3",
            "retry-budget": "100",
            **{name.replace("_", "-"): value for name, value in options.items()},
        }
        return (
            f"[listener:web]\nprotocol = HTTP\nbind = {HOST}:{port}\ndefault-action = forward app\n\n"
            f"[target-group:app]\nprotocol = HTTP\ntargets = {', '.join(server.key for server in self.servers)}\n"
            + "".join(f"{name} = {value}\n" for name, value in settings.items())
        )

    def __enter__(self) -> Fleet:
        return self

    def __exit__(self, *exc: object) -> None:
        for server in self.servers:
            with contextlib.suppress(ProcessLookupError):
                server.go_on()
            server.kill()


class CheckedLoad(Crowd):
    """Ask, wait, compare the answer with the question, and ask again, each thread on a kept connection.

    A connection that was closed while nothing was asked is no failure but counted in ``closed_idle``.
    """

    def __init__(self, port: int, threads: int = 6, pause: float = 0.002, method: str = "GET") -> None:
        super().__init__(threads)
        self.outcomes: Counter[str] = Counter()
        """How many requests ended with which status, or ``lost`` without one."""
        self.failures: list[str] = []
        self.seconds: list[float] = []
        """How long each answered request took."""
        self.closed_idle = 0
        self.first_seen: dict[str, float] = {}
        """By target: when its first answer came, as `time.monotonic` has it."""
        self.last_seen: dict[str, float] = {}
        self.threads = threads
        self._port = port
        self._pause = pause
        self._method = method

    @property
    def requests(self) -> int:
        return len(self.seconds) + len(self.failures)

    def take_seconds(self) -> list[float]:
        """Those since the last time."""
        seconds, self.seconds = self.seconds, []
        return seconds

    def _run(self, number: int) -> None:
        link = http.client.HTTPConnection(HOST, self._port, timeout=20)
        asked = 0
        while not self._stopping.is_set():
            asked += 1
            path = f"/{number}/{asked}"
            if _is_closed(link.sock):
                link.close()
                self.closed_idle += 1
            started = time.monotonic()
            try:
                link.request(self._method, path)
                response = link.getresponse()
                body = response.read()
            except (OSError, http.client.HTTPException) as error:
                self.outcomes["lost"] += 1
                self.failures.append(f"{path}: {error!r} after {time.monotonic() - started:.3f} s")
                link.close()
                continue
            self.outcomes[str(response.status)] += 1
            if response.status != 200 or body != path.encode():
                self.failures.append(f"{path}: {response.status} {body[:80]!r}")
            else:
                ended = time.monotonic()
                target = response.headers["X-Target"]
                self.first_seen.setdefault(target, ended)
                self.last_seen[target] = ended
                self.seconds.append(ended - started)
            time.sleep(self._pause)
        link.close()


def percentile(seconds: list[float], share: float) -> float:
    return sorted(seconds)[min(len(seconds) - 1, int(len(seconds) * share))]


def _is_closed(skt: socket.socket | None) -> bool:
    return skt is not None and bool(select.select([skt], [], [], 0)[0])
