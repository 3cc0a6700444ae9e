"""What the integration tests are made of: targets, a balancer in its own process, raw clients."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeVar

HOST = "127.0.0.1"


_given: set[int] = set()


def free_port() -> int:
    """A port that nobody listens at now, and another one at each call."""
    while True:
        with socket.socket() as skt:
            skt.bind((HOST, 0))
            port: int = skt.getsockname()[1]
        if port not in _given:
            _given.add(port)
            return port


def wait_until(condition: Callable[[], Any], seconds: float = 15.0, what: str = "") -> Any:
    """Wait until ``condition`` is true and return its value."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds} s: {what or condition}")
        time.sleep(0.02)


class RawTarget:
    """A target that runs ``serve(socket)`` in a thread for each connection; closes it at the end."""

    def __init__(self, serve: Callable[[socket.socket], None], port: int = 0) -> None:
        self._serve = serve
        self._listening = socket.create_server((HOST, port), backlog=512)
        self.port: int = self._listening.getsockname()[1]
        self.connections = 0
        self._open: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                skt, _ = self._listening.accept()
            except OSError:
                return
            self.connections += 1
            self._open.add(skt)
            threading.Thread(target=self._run, args=(skt,), daemon=True).start()

    def _run(self, skt: socket.socket) -> None:
        with contextlib.suppress(OSError), skt:
            self._serve(skt)
        self._open.discard(skt)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for skt in list(self._open):
            with contextlib.suppress(OSError):
                skt.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> RawTarget:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def read_head(skt: socket.socket) -> bytes:
    """Read up to and including the end of an HTTP head (and what came with it)."""
    data = b""
    while b"\r\n\r\n" not in data:
        more = skt.recv(65536)
        if not more:
            return data
        data += more
    return data


def read_answer(skt: socket.socket) -> bytes:
    """Read an answer whose end Content-Length tells."""
    data = read_head(skt)
    head, _, body = data.partition(b"\r\n\r\n")
    length = next((int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0)
    while len(body) < length:
        more = skt.recv(length - len(body))
        assert more, data + body
        body += more
    return head + b"\r\n\r\n" + body


def read_all(skt: socket.socket) -> bytes:
    """Read to the end of the connection."""
    data = b""
    while more := skt.recv(65536):
        data += more
    return data


def read_until(skt: socket.socket, ending: bytes) -> bytes:
    """Read until what has come ends so."""
    data = b""
    while not data.endswith(ending):
        more = skt.recv(65536)
        assert more, data[-200:]
        data += more
    return data


def echo(skt: socket.socket) -> None:
    """A `RawTarget` behaviour: send everything back."""
    while data := skt.recv(65536):
        skt.sendall(data)


def answering(*answers: bytes) -> Callable[[socket.socket], None]:
    """A `RawTarget` behaviour: read a request head, send the next of these, until they run out; then close."""

    def serve(skt: socket.socket) -> None:
        for answer in answers:
            if not read_head(skt):
                return
            skt.sendall(answer)

    return serve


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: HttpTarget

    def log_message(self, *args: Any) -> None:
        pass

    def _answer(self, body: bytes, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Target", self.server.name)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path.startswith("/slow/"):
            time.sleep(float(path[6:]))
        if path.startswith("/status/"):
            self._answer(b"status\n", int(path[8:]))
        elif path.startswith("/bytes/"):
            self._stream(int(path[7:]))
        elif path == "/headers":
            self._answer(json.dumps({"path": self.path, "headers": self.headers.items()}).encode())
        elif path == "/health":
            self._answer(b"ok\n", self.server.health_status)
        else:
            self._answer(self.server.name.encode() + b"\n")

    def _stream(self, size: int) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(size))
        self.end_headers()
        piece = bytes(65536)
        while size > 0:
            self.wfile.write(piece[:size])
            size -= len(piece)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_POST(self) -> None:
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            while self.rfile.readline().strip():
                pass
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.bodies += 1
        self._answer(body)

    do_PUT = do_POST


class HttpTarget(ThreadingHTTPServer):
    """An ordinary HTTP target: answers its name, echoes what is posted; see `_Handler`."""

    daemon_threads = True
    request_queue_size = 512

    def __init__(self, name: str, port: int = 0, host: str = HOST) -> None:
        super().__init__((host, port), _Handler)
        self.name = name
        self.health_status = 200
        self.bodies = 0
        self.port: int = self.server_address[1]
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass

    def close(self) -> None:
        self.shutdown()
        self.server_close()

    def __exit__(self, *exc: object) -> None:
        self.close()


def _section(title: str, options: dict[str, str]) -> str:
    lines = (f"{name.replace('_', '-')} = {value}\n" for name, value in options.items())
    return f"[{title}]\n{''.join(lines)}\n"


def listener(name: str, port: int, action: str, protocol: str = "HTTP", **options: str) -> str:
    """A listener's section; options have underscores for hyphens.  An encrypted one makes its certificate itself."""
    own = {"certificates": "self-signed"} if protocol in ("HTTPS", "TLS") else {}
    usual = {"protocol": protocol, "bind": f"{HOST}:{port}", "default_action": action}
    return _section(f"listener:{name}", {**usual, **own, **options})


def rule(name: str, priority: int, path: str, action: str, listener: str = "web", **options: str) -> str:
    """The section of a rule for a path."""
    usual = {"listener": listener, "priority": str(priority), "path": path, "action": action}
    return _section(f"rule:{name}", {**usual, **options})


def target_group(name: str, *ports: int, protocol: str = "HTTP", **options: str) -> str:
    """A target group's section; its targets are not checked unless an option is about that."""
    usual = {"protocol": protocol, "targets": ", ".join(f"{HOST}:{port}" for port in ports)}
    unchecked = {} if any(option.startswith("health_check") for option in options) else {"health_check": "off"}
    return _section(f"target-group:{name}", {**usual, **unchecked, **options})


class Balancer:
    """lbproxy in processes of its own, as ``twistd`` runs it.

    ``configuration`` is the file's text without its ``[lbproxy]`` section, of which ``options`` are more lines.
    """

    def __init__(self, folder: Path, configuration: str, options: str = "workers = 2", **environment: str) -> None:
        self.folder = folder
        self.path = folder / "lb.ini"
        self.admin = free_port()
        self._options = options
        self.write(configuration)
        self._log_path = folder / "output.log"
        self._log = self._log_path.open("wb")
        root = str(Path(__file__).resolve().parents[2])
        self.process = subprocess.Popen(
            [sys.executable, "-m", "lbproxy", "run", "-c", str(self.path)],
            stdout=self._log,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")]), **environment},
            start_new_session=True,
        )

    def write(self, configuration: str) -> None:
        """Replace the configuration file; see `reload`."""
        self.path.write_text(
            f"[lbproxy]\nadmin = {HOST}:{self.admin}\naccess-log = {self.folder}/access.log\n{self._options}\n\n"
            + configuration
        )

    def wait_ready(self) -> Balancer:
        wait_until(self._is_ready, 30, "the balancer is ready")
        return self

    def _is_ready(self) -> bool:
        if self.process.poll() is not None:
            raise AssertionError(f"the balancer ended with {self.process.returncode}:\n{self.output()}")
        try:
            return self.get("/ready")[0] == 200
        except OSError:
            return False

    def get(self, path: str, method: str = "GET") -> tuple[int, bytes]:
        """Ask the admin API."""
        connection = http.client.HTTPConnection(HOST, self.admin, timeout=15)
        try:
            connection.request(method, path)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def status(self) -> dict[str, Any]:
        value: dict[str, Any] = json.loads(self.get("/status")[1])
        return value

    def states(self, group: str) -> dict[str, str]:
        """Each target's state by its key."""
        for each in self.status()["target_groups"]:
            if each["name"] == group:
                return {target["target"]: target["state"] for target in each["targets"]}
        return {}

    def wait_healthy(self, group: str, count: int) -> Balancer:
        wait_until(
            lambda: list(self.states(group).values()).count("healthy") == count, 20, f"{count} healthy in {group}"
        )
        return self

    def reload(self) -> dict[str, Any]:
        """Apply the file; return what the API says of it."""
        value: dict[str, Any] = json.loads(self.get("/reload", "POST")[1])
        return value

    def worker_pids(self) -> list[int]:
        return [worker["pid"] for worker in self.status()["workers"] if worker["pid"]]

    def access_log(self) -> list[dict[str, Any]]:
        path = self.folder / "access.log"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def output(self) -> str:
        """What it has written to the terminal so far."""
        return self._log_path.read_text()

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def stop(self) -> int:
        """End it as systemd would and return its exit status."""
        if self.process.poll() is None:
            self.signal(signal.SIGTERM)
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.kill()
        self._log.close()
        return self.process.returncode

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(10)

    def __enter__(self) -> Balancer:
        return self.wait_ready()

    def __exit__(self, kind: object, *exc: object) -> None:
        self.stop()
        if kind is not None:
            print(self.output()[-8000:])


def talk(port: int, data: bytes, seconds: float = 5.0, half_close: bool = False) -> bytes:
    """Send ``data`` and return all that comes until the other side closes (or resets) or ``seconds`` are over."""
    received = b""
    with socket.create_connection((HOST, port), timeout=seconds) as skt:
        try:
            skt.sendall(data)
            if half_close:
                skt.shutdown(socket.SHUT_WR)
            while more := skt.recv(65536):
                received += more
        except OSError:
            pass
    return received


def resident_bytes(pid: int) -> int:
    """The memory that a process has."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


def busy_seconds(pid: int) -> float:
    """User and system time of a process."""
    numbers = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(numbers[11]) + int(numbers[12])) / os.sysconf("SC_CLK_TCK")


def trusting() -> ssl.SSLContext:
    """TLS of a client that takes any certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def reset_when_closed(skt: socket.socket) -> None:
    """Make its close a reset."""
    skt.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


@contextlib.contextmanager
def connection(port: int, seconds: float = 10.0) -> Iterator[socket.socket]:
    with socket.create_connection((HOST, port), timeout=seconds) as skt:
        yield skt


Running = TypeVar("Running", bound="Crowd")


class Crowd:
    """Threads that run until the end of a ``with``; each has a number."""

    def __init__(self, threads: int) -> None:
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(n,), daemon=True) for n in range(threads)]

    def _run(self, number: int) -> None:
        raise NotImplementedError

    def __enter__(self: Running) -> Running:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join(30)


class Load(Crowd):
    """Send GET requests on kept connections, one after the other, and keep count of what goes wrong."""

    def __init__(self, port: int, path: str = "/", threads: int = 4, pause: float = 0.001) -> None:
        super().__init__(threads)
        self.port = port
        self.path = path
        self.requests = 0
        self.failures: list[str] = []
        self._pause = pause

    def _run(self, number: int) -> None:
        link = http.client.HTTPConnection(HOST, self.port, timeout=15)
        while not self._stopping.is_set():
            try:
                link.request("GET", self.path)
                response = link.getresponse()
                response.read()
                if response.status != 200:
                    self.failures.append(f"status {response.status}")
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(repr(error))
                link.close()
            self.requests += 1
            time.sleep(self._pause)
        link.close()
