"""Two targets that take uploads and answer how many bytes came: ``python sink.py PORT_A PORT_B``."""

from __future__ import annotations

import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from cases import BODY


class Handler(BaseHTTPRequestHandler):
    """GET has the answer of the other targets, POST the number of bytes that were received."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    letter = ""

    def do_GET(self) -> None:
        self.answer(f"{self.letter}{BODY}")

    def do_POST(self) -> None:
        left = size = int(self.headers["Content-Length"])
        buffer = memoryview(bytearray(1 << 18))
        while left and (count := self.rfile.readinto1(buffer[: min(left, len(buffer))])):
            left -= count
        self.answer(str(size - left))

    def answer(self, text: str) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


for letter, port in zip("AB", sys.argv[1:], strict=True):
    server = Server(("127.0.0.1", int(port)), type("Sink", (Handler,), {"letter": letter}))
    threading.Thread(target=server.serve_forever).start()
