"""An admin API with canned answers, on a real loopback port or UNIX socket."""

from __future__ import annotations

import argparse
import http.server
import json
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


def make_status(**changes: Any) -> dict[str, Any]:
    """A status document like that of `AdminService`."""
    return {
        "version": "0.1.0",
        "uptime_seconds": 3700.5,
        "snapshot_version": 7,
        "configuration": {"file": "/etc/lbproxy/lb.ini", "loaded_at": 1_700_000_000.0},
        "ready": True,
        "workers": [{"slot": 0, "pid": 42, "state": "running", "restarts": 1, "last_report_seconds": 0.4}],
        "listeners": [
            {
                "name": "web",
                "protocol": "HTTP",
                "binds": ["0.0.0.0:8080", "[::]:8080"],
                "connections": 20,
                "active": 3,
                "requests": 12345,
                "requests_by_status": {"200": 12300, "404": 5, "502": 40},
                "faults": {"ConnectRefused": 40},
                "received_bytes": 1000,
                "sent_bytes": 5000,
                "duration": {"count": 1, "sum": 1, "p50": 0.0123, "p99": 1.5},
            },
            {
                "name": "db",
                "protocol": "TCP",
                "binds": ["0.0.0.0:5432"],
                "connections": 0,
                "active": 0,
                "requests": 0,
                "requests_by_status": {},
                "faults": {},
                "received_bytes": 0,
                "sent_bytes": 0,
            },
        ],
        "target_groups": [
            {
                "name": "app",
                "protocol": "HTTP",
                "algorithm": "round_robin",
                "fail_open": True,
                "removed": False,
                "targets": [
                    {
                        "target": "10.0.0.1:80",
                        "address": "10.0.0.1",
                        "weight": 1,
                        "state": "unhealthy",
                        "reason": "Target.ResponseCodeMismatch",
                        "description": "Health checks failed with these codes: [503]",
                        "in_flight": 2,
                        "requests": 100,
                        "connect_failures": 0,
                        "faults": {},
                        "override": None,
                        "checked": None,
                    }
                ],
            }
        ],
        **changes,
    }


class AdminStub:
    """What `serve` yields: set ``answers`` (path -> status and body), read ``requests``."""

    def __init__(self) -> None:
        self.address = ""
        self.answers: dict[str, Callable[[], tuple[int, Any]]] = {"/status": lambda: (200, make_status())}
        self.requests: list[str] = []
        self.authorizations: list[str] = []
        self.bodies: list[bytes] = []


class _UnixServer(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


@contextmanager
def serve(unix_path: str | None = None) -> Iterator[AdminStub]:
    """Serve until the block ends."""
    stub = AdminStub()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            stub.requests.append(f"{self.command} {self.path}")
            stub.authorizations.append(self.headers.get("Authorization", ""))
            if self.command != "GET":
                stub.bodies.append(self.rfile.read(int(self.headers.get("Content-Length", 0))))
            status, value = stub.answers[self.path]()
            body = value if isinstance(value, bytes) else json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_PUT = do_DELETE = do_GET

        def address_string(self) -> str:
            return "client"

        def log_message(self, *arguments: object) -> None:
            pass

    server: socketserver.BaseServer
    if unix_path is not None:
        server = _UnixServer(unix_path, Handler)
        stub.address = f"unix:{unix_path}"
    else:
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        stub.address = f"127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield stub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def run_cli(command: Any, *arguments: str) -> int:
    """Run a command module as the `lbproxy` command does."""
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return int(command.run(parser.parse_args(arguments)))
