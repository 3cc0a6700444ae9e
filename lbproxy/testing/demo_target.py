"""A small server to balance to: ``targets = demo:3`` starts three of these.

Over HTTP it answers with its name and the request as it saw it; ``/slow?seconds=2`` takes its time,
``/status/503`` answers with that status, and what is posted comes back.  Over TCP it greets with its
name and echoes.  It prints its port on stdout and ends when its stdin does.
"""

from __future__ import annotations

import math
import os
import signal
import sys
from collections.abc import Callable
from typing import Any, cast

from twisted.internet.interfaces import IReactorTCP, IReactorTime
from twisted.internet.protocol import Protocol, ServerFactory, connectionDone
from twisted.internet.stdio import StandardIO
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

MAX_SLOW_SECONDS = 300.0

_KEEP_ALIVE_SECONDS = 300.0


class Answer(Resource):
    """Answers every path and method."""

    isLeaf = True

    def __init__(self, reactor: IReactorTime, name: str) -> None:
        super().__init__()
        self._reactor = reactor
        self._name = name

    def render(self, request: Request) -> bytes | int:
        request.setHeader(b"content-type", b"text/plain; charset=utf-8")
        request.setHeader(b"x-demo-target", self._name.encode())
        match request.postpath:
            case [b"slow"]:
                return self._answer_slowly(request)
            case [b"status", code] if code.isdigit() and 200 <= int(code) <= 599:
                request.setResponseCode(int(code))
        return self._text(request)

    def _answer_slowly(self, request: Request) -> int:
        seconds = _seconds_of(request)
        pause = deferLater(self._reactor, seconds, lambda: None)
        request.notifyFinish().addErrback(lambda _: pause.cancel())

        def answer(_: object) -> None:
            request.write(self._text(request))
            request.finish()

        pause.addCallbacks(answer, lambda _: None)
        return NOT_DONE_YET

    def _text(self, request: Request) -> bytes:
        content = request.content.read() if request.content is not None else b""
        if content:
            return content
        lines = [
            f"demo target {self._name} (pid {os.getpid()})".encode(),
            b"",
            b" ".join((request.method, request.uri, request.clientproto)),
            *(
                b"%s: %s" % (name, value)
                for name, values in request.requestHeaders.getAllRawHeaders()
                for value in values
            ),
        ]
        return b"\n".join(lines) + b"\n"


class Greeter(Protocol):
    """Says its name, then echoes what it gets."""

    def connectionMade(self) -> None:
        self.transport.write(cast(GreeterFactory, self.factory).greeting)  # type: ignore[union-attr]

    def dataReceived(self, data: bytes) -> None:
        self.transport.write(data)  # type: ignore[union-attr]


class GreeterFactory(ServerFactory):
    """Makes greeters."""

    protocol = Greeter

    def __init__(self, name: str) -> None:
        self.greeting = f"demo target {name} (pid {os.getpid()})\n".encode()


class UntilEof(Protocol):
    """Calls back when stdin ends."""

    def __init__(self, ended: Callable[[], object]) -> None:
        self._ended = ended

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._ended()


class IDemoReactor(IReactorTCP, IReactorTime):
    """What a demo target needs of the reactor."""


def listen(reactor: IDemoReactor, name: str, port: int, speaks_tcp: bool) -> int:
    """Serve on 127.0.0.1 at this port (0: the kernel picks one); give the port."""
    factory: Any = GreeterFactory(name) if speaks_tcp else Site(Answer(reactor, name), timeout=_KEEP_ALIVE_SECONDS)
    factory.noisy = False
    listening: Any = reactor.listenTCP(port, factory, 1024, "127.0.0.1")
    return cast(int, listening.getHost().port)


def run(reactor: Any, name: str, port: int, speaks_tcp: bool) -> None:
    """Serve until stdin ends."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # Ctrl-C hits us too, but requests are to finish first
    sys.stdout.write(f"{listen(reactor, name, port, speaks_tcp)}\n")
    sys.stdout.flush()
    StandardIO(UntilEof(reactor.stop), reactor=reactor)
    reactor.run(installSignalHandlers=False)


def _seconds_of(request: Request) -> float:
    try:
        seconds = float(request.args[b"seconds"][0])
    except (KeyError, ValueError):
        return 1.0
    return min(max(seconds, 0.0), MAX_SLOW_SECONDS) if math.isfinite(seconds) else 1.0
