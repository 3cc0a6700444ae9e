"""Real child processes: what a worker and a demo target inherit, and what is said when they end."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import ClientCreator, Protocol
from twisted.logger import LogEvent, globalLogPublisher
from twisted.trial.unittest import TestCase

from lbproxy.controlplane.supervisor.demo import DemoTargets
from lbproxy.controlplane.supervisor.launch import ProcessLauncher
from lbproxy.ipc.messages import Hello, Message
from lbproxy.model.snapshot import Configuration
from lbproxy.model.target_group import TargetGroup, TargetProtocol

pytestmark = pytest.mark.integration

FAKE_WORKER = """
import os, socket, sys
from lbproxy.ipc.codec import encode
from lbproxy.ipc.messages import Hello
print("info:", sorted(int(fd) for fd in os.listdir("/proc/self/fd"))[:-1], *sys.argv[1:], file=sys.stderr, flush=True)
channel = socket.socket(fileno=3)
channel.sendall(encode(Hello(pid=os.getpid())))
channel.recv(1)
"""


class LaunchTests(TestCase):
    timeout = 60

    @pytest.fixture(autouse=True)
    def _script(self, tmp_path: Path) -> None:
        self.script = tmp_path / "fake_worker.py"
        self.script.write_text(FAKE_WORKER)

    def setUp(self) -> None:
        self.events: list[LogEvent] = []
        globalLogPublisher.addObserver(self.events.append)
        self.addCleanup(globalLogPublisher.removeObserver, self.events.append)

    async def test_a_worker_gets_its_channel_and_nothing_else(self) -> None:
        secret = os.open(os.devnull, os.O_RDONLY)
        self.addCleanup(os.close, secret)
        exited: Deferred[str] = Deferred()
        hello: Deferred[Message] = Deferred()
        lost: Deferred[None] = Deferred()
        launch = ProcessLauncher(reactor, [sys.executable, str(self.script)], "/run/x.sock")  # type: ignore[arg-type]
        worker = launch(4, exited.callback)
        worker.channel.on_lost = lambda: lost.callback(None)
        worker.channel.on_message = lambda message, _: hello.callback(message)

        self.assertEqual(await hello, Hello(pid=worker.pid))
        worker.kill(signal.SIGKILL)
        self.assertEqual(await exited, "it was ended by SIGKILL")
        await lost
        worker.kill(signal.SIGKILL)  # too late, and harmless
        (line,) = [event["line"] for event in self.events if event.get("name") == "worker 4"]
        self.assertEqual(line, "[0, 1, 2, 3] worker --channel-fd 3 --rendezvous /run/x.sock")


class Line(Protocol):
    """Sends a request and collects the answer until a word has come."""

    def __init__(self, request: bytes, word: bytes) -> None:
        self.done: Deferred[bytes] = Deferred()
        self._request = request
        self._word = word
        self._received = b""

    def connectionMade(self) -> None:
        self.transport.write(self._request)

    def dataReceived(self, data: bytes) -> None:
        self._received += data
        if self._word in self._received and not self.done.called:
            self.done.callback(self._received)
            self.transport.abortConnection()


async def ask(port: int, request: bytes, word: bytes) -> bytes:
    line: Any = await ClientCreator(reactor, Line, request, word).connectTCP("127.0.0.1", port)
    return await line.done


class DemoTests(TestCase):
    timeout = 60

    async def test_demo_targets_speak_http_and_tcp_and_keep_their_ports(self) -> None:
        demo = DemoTargets(reactor, (sys.executable, "-m", "lbproxy"))  # type: ignore[arg-type]
        demo.startService()
        self.addCleanup(self._end, demo)
        configuration = Configuration(
            target_groups=(
                TargetGroup(name="app", protocol=TargetProtocol.HTTP),
                TargetGroup(name="db", protocol=TargetProtocol.TCP),
                TargetGroup(name="own", protocol=TargetProtocol.TCP),
            )
        )
        wanted = {"app": 2, "db": 1}

        app, db, own = (await demo.fill(configuration, wanted)).target_groups

        self.assertEqual((len(app.targets), len(db.targets), own.targets), (2, 1, ()))
        first, second = (target.port for target in app.targets)
        answer = await ask(first, b"GET /x HTTP/1.1\r\nHost: a\r\nX-B: c\r\n\r\n", b"X-B: c")
        self.assertIn(b"demo target app-1", answer)
        self.assertIn(b"GET /x HTTP/1.1", answer)
        self.assertIn(b"200 OK", answer)
        answer = await ask(second, b"GET /status/503 HTTP/1.1\r\nHost: a\r\n\r\n", b"app-2")
        self.assertIn(b"HTTP/1.1 503 ", answer)
        answer = await ask(first, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello", b"hello")
        self.assertIn(b"X-Demo-Target: app-1", answer)
        await ask(first, b"GET /slow?seconds=0.01 HTTP/1.1\r\nHost: a\r\n\r\n", b"app-1")
        greeting = await ask(db.targets[0].port, b"echo?", b"echo?")
        self.assertTrue(greeting.startswith(b"demo target db-1 (pid "))

        again = (await demo.fill(configuration, wanted)).target_groups
        self.assertEqual(again, (app, db, own))

    def _end(self, demo: DemoTargets) -> Deferred[None]:
        """Stop, and wait for the processes."""
        processes = [target._process for target in demo._targets.values()]
        ended: Deferred[None] = Deferred()
        demo.stopService()

        def look() -> None:
            if all(process is None or process.transport.pid is None for process in processes):
                ended.callback(None)
            else:
                reactor.callLater(0.02, look)  # type: ignore[attr-defined]

        look()
        return ended
