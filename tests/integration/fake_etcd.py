"""The JSON gateway of an etcd that gives the answers a test wants, also those that a real one gives rarely."""

from __future__ import annotations

import contextlib
import json
import queue
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.integration.harness import HOST

CLOSE = b""
"""In a watch: end it in good order."""
BREAK = b"break"
"""In a watch: break it off."""


class FakeEtcd(ThreadingHTTPServer):
    """``answers`` are (status, JSON) by path, the last one for ever; the messages of watches come from ``messages``."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__((HOST, 0), _Handler)
        self.url = f"http://{HOST}:{self.server_address[1]}"
        self.answers: dict[str, list[tuple[int, Any]]] = {}
        self.messages: queue.Queue[bytes] = queue.Queue()
        self.asked: list[tuple[str, Any, str]] = []
        """Path, body and Authorization of each request."""
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def say(self, **result: Any) -> None:
        """Send a message to the watch."""
        self.messages.put(json.dumps({"result": result}).encode() + b"\n")

    def paths(self) -> list[str]:
        return [path.rpartition("/")[2] for path, _, _ in self.asked]

    def starts(self) -> list[int]:
        """From which revisions watches began."""
        return [int(body["create_request"]["start_revision"]) for path, body, _ in self.asked if path == "/v3/watch"]

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass

    def close(self) -> None:
        self.messages.put(CLOSE)
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FakeEtcd

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append((self.path, body, self.headers.get("Authorization", "")))
        if self.path == "/v3/watch" and self.path not in self.server.answers:
            self._watch()
            return
        answers = self.server.answers[self.path]
        status, value = answers.pop(0) if len(answers) > 1 else answers[0]
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _watch(self) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.close_connection = True
        with contextlib.suppress(OSError):
            while (data := self.server.messages.get()) != CLOSE:
                if data == BREAK:
                    return
                self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))
                if b'"canceled"' in data:
                    self.rfile.read(1)  # as etcd does, leave it to the client to close
                    return
            self.wfile.write(b"0\r\n\r\n")

    def address_string(self) -> str:
        return "client"

    def log_message(self, *arguments: Any) -> None:
        pass
