"""The admin API: metrics, status, readiness and reloads over HTTP, for operators and monitoring.

Who reaches it may read.  To change something takes a token; without one configured it takes a loopback address or a
UNIX socket, which only its owner can open.  See `lbproxy.controlplane.api.access`.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, ILoggingContext
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site
from zope.interface import implementer

from lbproxy import __version__
from lbproxy.controlplane.api.access import Gate, is_loopback
from lbproxy.controlplane.api.answers import Answer, Right, Route, Routes
from lbproxy.controlplane.api.description import describe_configuration, describe_status
from lbproxy.controlplane.api.targets import TargetsApi
from lbproxy.controlplane.state import ControlState
from lbproxy.telemetry import ledger

_log = Logger()

MAX_BODY_BYTES = 64 * 1024
"""The longest body is a few lines of JSON; a longer one ends the connection."""

PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"

_INDEX = f"""lbproxy {__version__}

GET  /metrics  Prometheus metrics
GET  /status   workers, listeners, target groups and targets as JSON
GET  /ready    200 when every worker serves, else 503 and the reason
GET  /live     200 while the supervisor runs
GET  /drops    what lbproxy itself ended or refused, by cause, as JSON
GET  /config   the configuration in force as JSON, without keys
POST /reload   read the configuration file again

       /target-groups/GROUP/targets/HOST:PORT           one target
GET                                                     its state
PUT, DELETE                                             register and deregister it (token of the group)
       /target-groups/GROUP/targets/HOST:PORT/override  what an operator has decided for it
PUT, DELETE                                             hold up, take out, drain, weigh; take that back
"""


class AdminAddress(Protocol):
    """Where to listen: ``path`` for a UNIX socket, or else ``host`` and ``port``."""

    @property
    def host(self) -> str | None: ...
    @property
    def port(self) -> int | None: ...
    @property
    def path(self) -> str | None: ...


class Metrics(Protocol):
    """What all workers counted together (`lbproxy.controlplane.metrics.MetricsStore`)."""

    def totals(self) -> Mapping[str, Any]:
        """Counters by listener and by target, in a form that JSON knows."""

    def exposition(self) -> bytes:
        """All metrics in Prometheus' text format, version 0.0.4."""


class ReloadResult(Protocol):
    """What became of a reload."""

    @property
    def ok(self) -> bool: ...
    @property
    def problems(self) -> tuple[str, ...]: ...
    @property
    def warnings(self) -> tuple[str, ...]: ...
    @property
    def changes(self) -> tuple[str, ...]: ...
    @property
    def version(self) -> int:
        """Of the snapshot in force now."""


class Supervisor(Protocol):
    """What the admin API asks of the supervisor."""

    @property
    def configuration_file(self) -> str: ...
    @property
    def started_at(self) -> float:
        """In the reactor's seconds."""

    @property
    def admin_tokens(self) -> Sequence[str]:
        """Who sends one of these may change things."""

    @property
    def ready(self) -> str | None:
        """Why not every worker serves; None when all do."""

    def workers_status(self) -> list[dict[str, Any]]:
        """Each worker: ``slot pid state restarts last_report_seconds``."""

    def reload(self) -> Deferred[Any]:
        """Read the configuration file again; fires with a `ReloadResult`."""


class AdminService(Service):
    """Serves the admin API at ``address`` while it runs."""

    def __init__(
        self,
        reactor: Any,
        address: AdminAddress,
        state: ControlState,
        metrics: Metrics,
        supervisor: Supervisor,
        targets: TargetsApi,
    ) -> None:
        self._reactor = reactor
        self._address = address
        gate = Gate(is_local=address.path is not None or is_loopback(address.host or ""), tokens=_tokens_of(supervisor))
        self._site = _AdminSite(AdminResource(reactor, state, metrics, supervisor, targets, gate), reactor=reactor)
        self._listening: IListeningPort | None = None

    @property
    def listening(self) -> IListeningPort | None:
        """The port while the service runs; tells the real address when port 0 was asked for."""
        return self._listening

    def startService(self) -> None:
        """Listen.  Raises `CannotListenError` when the address is taken."""
        try:
            self._listening = self._listen()
        except CannotListenError:
            if self._site.numPorts:
                self._site.doStop()  # Twisted has started it, and with it a timer
            raise
        super().startService()

    def _listen(self) -> IListeningPort:
        path = self._address.path
        if path is not None:
            _remove_stale_socket(path)
            return self._reactor.listenUNIX(path, self._site, mode=0o600)  # type: ignore[no-any-return]
        host, port = self._address.host or "127.0.0.1", self._address.port
        return self._reactor.listenTCP(port, self._site, interface=host)  # type: ignore[no-any-return]

    def stopService(self) -> Deferred[None] | None:
        super().stopService()
        listening, self._listening = self._listening, None
        return listening.stopListening() if listening is not None else None


def why_not_unix(path: str) -> str | None:
    """Say why no socket can be made at this path, in a person's words; None when one can."""
    try:
        _remove_stale_socket(path)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as attempt:
            attempt.bind(path)
        os.unlink(path)
    except CannotListenError as error:
        return str(error.socketError.strerror)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return "another process listens there"
        return os.strerror(error.errno) if error.errno else str(error)
    return None


def _remove_stale_socket(path: str) -> None:
    """Remove the socket file that a supervisor left which did not end in order.

    Nothing else is removed: neither another kind of file nor a socket that somebody listens on.
    """
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise CannotListenError(None, path, OSError(errno.EEXIST, "it exists and is no socket"))
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as attempt:
        attempt.setblocking(False)
        try:
            attempt.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
        except OSError:
            return  # whatever it is, bind will say


class AdminResource(Resource):
    """Everything under the admin address: one table of paths and methods."""

    isLeaf = True

    def __init__(
        self,
        reactor: Any,
        state: ControlState,
        metrics: Metrics,
        supervisor: Supervisor,
        targets: TargetsApi,
        gate: Gate,
    ) -> None:
        super().__init__()
        self._reactor = reactor
        self._state = state
        self._metrics = metrics
        self._supervisor = supervisor
        self._targets = targets
        self._gate = gate
        self._routes: Mapping[str, Routes] = {
            "/": {"GET": Route(lambda _: Answer.of_text(200, _INDEX))},
            "/metrics": {"GET": Route(lambda _: Answer(200, self._metrics.exposition(), PROMETHEUS))},
            "/status": {"GET": Route(self._status)},
            "/drops": {"GET": Route(self._drops)},
            "/config": {"GET": Route(self._configuration)},
            "/ready": {"GET": Route(self._ready)},
            "/live": {"GET": Route(lambda _: Answer.of_text(200, "alive\n"))},
            "/healthz": {"GET": Route(lambda _: Answer.of_text(200, "alive\n"))},
            "/reload": {"POST": Route(self._reload, Right.CHANGE)},
        }

    def render(self, request: Request) -> int:
        Deferred.fromCoroutine(self._serve(request)).addErrback(_log_failure)
        return NOT_DONE_YET

    async def _serve(self, request: Request) -> None:
        """Answer; an exception becomes a 500 that tells nothing and a line in the log that tells all."""
        closed: list[object] = []
        request.notifyFinish().addBoth(closed.append)
        try:
            answer = self._answer(request)
            if isinstance(answer, Deferred):
                answer = await answer
        except Exception:
            _log_failure(Failure())
            answer = Answer.of_json(500, {"error": "internal error, see the log"})
        if not closed:
            _write(request, answer)

    def _answer(self, request: Request) -> Answer | Deferred[Answer]:
        path = request.path.decode("ascii", "replace")
        routes = self._routes.get(path) or self._targets.routes(path)
        if routes is None:
            return Answer.of_json(404, {"error": f"there is no {path}", "paths": sorted(self._routes)})
        method = request.method.decode("ascii", "replace")
        route = routes.get("GET" if method == "HEAD" else method)
        if route is None:
            allowed = [*routes, *(["HEAD"] if "GET" in routes else [])]
            request.setHeader("Allow", ", ".join(allowed))
            return Answer.of_json(405, {"error": f"{path} takes {' and '.join(allowed)}"})
        return self._gate.refusal(request, route) or route.respond(request)

    def _drops(self, _: Request) -> Answer:
        totals = self._metrics.totals()
        return Answer.of_json(
            200,
            {
                "uptime_seconds": round(self._reactor.seconds() - self._supervisor.started_at, 3),
                "drops": ledger.entries(totals["listeners"]),
                "requests_lost_with_workers": totals["requests_lost_with_workers"],
            },
        )

    def _status(self, _: Request) -> Answer:
        return Answer.of_json(
            200,
            {
                "version": __version__,
                "uptime_seconds": round(self._reactor.seconds() - self._supervisor.started_at, 3),
                "snapshot_version": self._state.snapshot.version,
                "configuration": {
                    "file": self._supervisor.configuration_file,
                    "loaded_at": self._state.configured_at,
                },
                "ready": self._supervisor.ready is None,
                "workers": self._supervisor.workers_status(),
                **describe_status(self._state, self._metrics.totals()),
            },
        )

    def _configuration(self, _: Request) -> Answer:
        return Answer.of_json(200, describe_configuration(self._state.snapshot.configuration))

    def _ready(self, _: Request) -> Answer:
        reason = self._supervisor.ready
        return Answer.of_text(200, "ready\n") if reason is None else Answer.of_text(503, f"not ready: {reason}\n")

    def _reload(self, _: Request) -> Deferred[Answer]:
        return self._supervisor.reload().addCallback(_reload_answer)


def _reload_answer(result: ReloadResult) -> Answer:
    value = {
        "ok": result.ok,
        "problems": list(result.problems),
        "warnings": list(result.warnings),
        "changes": list(result.changes),
        "version": result.version,
    }
    return Answer.of_json(200 if result.ok else 422, value)


def _log_failure(failure: Failure) -> None:
    _log.failure("the admin API failed to answer", failure)


def _tokens_of(supervisor: Supervisor) -> Callable[[], Sequence[str]]:
    return lambda: supervisor.admin_tokens


def _write(request: Request, answer: Answer) -> None:
    request.setResponseCode(answer.status)
    request.setHeader("Content-Type", answer.content_type)
    request.setHeader("Content-Length", str(len(answer.body)))
    request.setHeader("Cache-Control", "no-store")
    request.setHeader("X-Content-Type-Options", "nosniff")
    request.setHeader("Server", "lbproxy")
    request.write(b"" if request.method == b"HEAD" else answer.body)
    request.finish()


class _AdminRequest(Request):
    """Keeps a request's body in memory, and only a short one."""

    _body_bytes = 0

    def gotLength(self, length: int | None) -> None:
        super().gotLength(0)  # of any length: no temporary file

    def handleContentChunk(self, data: bytes) -> None:
        was_too_long = self._body_bytes > MAX_BODY_BYTES
        self._body_bytes += len(data)
        if self._body_bytes <= MAX_BODY_BYTES:
            super().handleContentChunk(data)
        elif not was_too_long:
            self.channel.write(b"HTTP/1.1 413 Content Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
            self.channel.loseConnection()


@implementer(ILoggingContext)
class _AdminSite(Site):
    """A site that leaves its requests out of the log."""

    noisy = False
    requestFactory = _AdminRequest

    def logPrefix(self) -> str:
        """Name us in Twisted's line on the new port."""
        return "admin API"

    def log(self, request: object) -> None:
        """Say nothing: whoever scrapes metrics does so every few seconds."""
