"""A Docker engine that has no containers but speaks its API: ``/containers/json`` and ``/events``, on a UNIX socket."""

from __future__ import annotations

import contextlib
import json
import queue
import socketserver
import threading
import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit


class FakeDocker(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """``containers`` are what runs; change them with `run`, `kill` and `remove`, which tell the watchers."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, path: Path) -> None:
        super().__init__(str(path), _Handler)
        self.containers: dict[str, dict[str, Any]] = {}
        self.status = 200
        """Of every answer."""
        self.asked: list[str] = []
        self.watchers: list[queue.Queue[bytes]] = []
        self.history: list[tuple[float, bytes]] = []
        """Unix time and event."""
        self.lock = threading.Lock()
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def run(self, name: str, address: str = "172.17.0.2", *, quiet: bool = False, **labels: str) -> None:
        """Start a container; ``lbproxy_port`` stands for the label ``lbproxy.port``."""
        self.containers[name] = {
            "Id": name,
            "Names": [f"/{name}"],
            "Labels": {key.replace("_", ".", 1).replace("_", "-"): value for key, value in labels.items()},
            "State": "running",
            "NetworkSettings": {"Networks": {"bridge": {"IPAddress": address}}},
            "Ports": [{"PrivatePort": 8080, "Type": "tcp"}],
        }
        if not quiet:
            self.tell("start", name)

    def kill(self, name: str, signal: str = "15") -> None:
        """Send a signal to a container, which goes on running."""
        self.tell("kill", name, signal=signal)

    def remove(self, name: str) -> None:
        """A container has ended."""
        del self.containers[name]
        self.tell("die", name)

    def tell(self, action: str, name: str, **attributes: str) -> None:
        event = {"Type": "container", "Action": action, "Actor": {"ID": name, "Attributes": attributes}}
        data = json.dumps(event).encode() + b"\n"
        with self.lock:
            self.history.append((time.time(), data))
            for watcher in self.watchers:
                watcher.put(data)

    def hang_up(self) -> None:
        """End all watches."""
        for watcher in self.watchers:
            watcher.put(b"")

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass

    def close(self) -> None:
        self.hang_up()
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FakeDocker

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        self.server.asked.append(url.path)
        query = parse_qs(url.query)
        filters = json.loads(query["filters"][0])
        if self.server.status != 200:
            self._answer(self.server.status, {"message": "engine is unwell"})
        elif url.path == "/containers/json":
            wanted = filters["label"]
            found = [each for each in self.server.containers.values() if set(wanted) <= each["Labels"].keys()]
            self._answer(200, found)
        elif url.path == "/events":
            self._stream(filters["event"], float(query["since"][0]))
        else:
            self._answer(404, {"message": "page not found"})

    def _answer(self, status: int, value: Any) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _stream(self, wanted: list[str], since: float) -> None:
        events: queue.Queue[bytes] = queue.Queue()
        with self.server.lock:
            for when, data in self.server.history:
                if when >= since:
                    events.put(data)
            self.server.watchers.append(events)
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        with contextlib.suppress(OSError):
            while data := events.get():
                if json.loads(data)["Action"] in wanted:
                    self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))
            self.wfile.write(b"0\r\n\r\n")
        self.server.watchers.remove(events)
        self.close_connection = True

    def address_string(self) -> str:
        return "client"

    def log_message(self, *arguments: Any) -> None:
        pass
