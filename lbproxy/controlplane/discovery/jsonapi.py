"""A small client of JSON APIs over HTTP: one answer, or a stream of values as they come."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.endpoints import HostnameEndpoint, UNIXClientEndpoint, wrapClientTLS
from twisted.internet.error import ConnectError, ConnectingCancelledError, ConnectionClosed
from twisted.internet.interfaces import IConsumer, IProtocol, IStreamClientEndpoint
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.ssl import Certificate, optionsForClientTLS, trustRootFromCertificates
from twisted.python.failure import Failure
from twisted.web.client import URI, Agent, ResponseDone, ResponseFailed
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgentEndpointFactory, IBodyProducer, IResponse
from zope.interface import implementer

CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 10.0
"""For a whole answer, or the head of one that goes on."""

MAX_ANSWER_BYTES = 32 * 1024 * 1024
"""Of a whole answer, or of one value in a stream."""


class ApiError(Exception):
    """The API gave no good answer; the message is one line for the operator."""


class JsonApi:
    """Asks one API, at ``http://host:port``, ``https://host:port`` or ``unix:/path``; a connection for each request."""

    def __init__(self, reactor: Any, address: str, authorities_pem: bytes | None = None) -> None:
        """``authorities_pem`` says who may have signed the API's certificate, instead of those the system trusts."""
        self.address = address
        self.authorization = ""
        """Sent as the field of this name with each request, if there is one."""
        self._reactor = reactor
        self._agent = Agent.usingEndpointFactory(reactor, _Always(_endpoint(reactor, address, authorities_pem)))
        self._origin = "http://localhost" if address.startswith("unix:") else address.rstrip("/")

    async def ask(self, method: str, path: str, body: Any = None) -> Any:
        """Give the JSON of an answer.  Raises `ApiError`."""
        whole = _Whole()
        await self._receive(method, path, body, _Body(whole.receive_data), ANSWER_SECONDS)
        return _value(whole.data)

    async def stream(self, method: str, path: str, body: Any, receive: Callable[[Any], None]) -> None:
        """Give each of the JSON values, one a line, of an answer that goes on; return when it ends.

        What ``receive`` raises ends it, too, and is raised.  Raises `ApiError`.
        """
        lines = _Lines(receive)
        await self._receive(method, path, body, _Body(lines.receive_data), None)

    async def _receive(self, method: str, path: str, body: Any, into: _Body, seconds: float | None) -> None:
        """Have the body of a good answer taken; the whole of it within this time, if one is given."""
        where = f"{self.address} {method} {path.partition('?')[0]}"
        try:
            response = await self._request(method, path, body)
            if response.code != 200:
                into = _Body()
                seconds = ANSWER_SECONDS
            response.deliverBody(into)
            if seconds is not None:
                into.done.addTimeout(seconds, self._reactor)
            await into.done
        except DeferredTimeout:
            raise ApiError(f"{where}: no answer in time") from None
        except ConnectingCancelledError:
            raise CancelledError from None
        except (ConnectError, ConnectionClosed, ResponseFailed, OSError) as error:
            raise ApiError(f"{where}: {_in_words(error)}") from error
        if response.code != 200:
            raise ApiError(f"{where}: status {response.code} {_reason(into.start)}")

    def _request(self, method: str, path: str, body: Any) -> Deferred[IResponse]:
        headers = Headers({"User-Agent": ["lbproxy"], "Accept": ["application/json"]})
        if self.authorization:
            headers.setRawHeaders("Authorization", [self.authorization])
        producer = None
        if body is not None:
            headers.setRawHeaders("Content-Type", ["application/json"])
            producer = _Bytes(json.dumps(body).encode())
        url = f"{self._origin}{path}"
        requested: Deferred[IResponse] = self._agent.request(method.encode(), url.encode(), headers, producer)
        return requested.addTimeout(ANSWER_SECONDS, self._reactor)


@implementer(IAgentEndpointFactory, IStreamClientEndpoint)
class _Always:
    """The same endpoint for every URL, without a line in the log for each connection."""

    def __init__(self, endpoint: IStreamClientEndpoint) -> None:
        self._endpoint = endpoint

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        return self

    def connect(self, protocolFactory: Any) -> Deferred[IProtocol]:
        protocolFactory.noisy = False
        connected: Deferred[IProtocol] = self._endpoint.connect(protocolFactory)
        return connected


def _endpoint(reactor: Any, address: str, authorities_pem: bytes | None) -> IStreamClientEndpoint:
    if address.startswith("unix:"):
        return UNIXClientEndpoint(reactor, address.removeprefix("unix:"), timeout=CONNECT_SECONDS)
    parts = urlsplit(address)
    host = parts.hostname or ""
    endpoint = HostnameEndpoint(
        reactor, host.encode("ascii"), parts.port or (443 if parts.scheme == "https" else 80), CONNECT_SECONDS
    )
    if parts.scheme != "https":
        return endpoint
    trust = None if authorities_pem is None else _trust(authorities_pem)
    return wrapClientTLS(optionsForClientTLS(host, trustRoot=trust), endpoint)


def _trust(pem: bytes) -> Any:
    end = b"-----END CERTIFICATE-----"
    return trustRootFromCertificates([Certificate.loadPEM(each + end) for each in pem.split(end)[:-1]])


@implementer(IBodyProducer)
class _Bytes:
    """A request's body."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.length = len(data)

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        consumer.write(self._data)
        return succeed(None)

    def pauseProducing(self) -> None:
        """Everything has been written."""

    def resumeProducing(self) -> None:
        """Everything has been written."""

    def stopProducing(self) -> None:
        """Everything has been written."""


class _Body(Protocol):
    """Takes the body of an answer; ``done`` fires at its end and may be cancelled, which ends the connection."""

    def __init__(self, take: Callable[[bytes], object] | None = None) -> None:
        self.start = b""
        """Where nobody takes it: its first few hundred bytes."""
        self.done: Deferred[None] = Deferred(self._cancelled)
        self._take = take or self._keep_start
        self._count = 0

    def dataReceived(self, data: bytes) -> None:
        if self.done.called:
            return
        try:
            self._take(data)
        except Exception:
            self._abort()
            self.done.errback(Failure())

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if not self.done.called:
            if reason.check(ResponseDone, PotentialDataLoss):
                self.done.callback(None)
            else:
                self.done.errback(reason)

    def _keep_start(self, data: bytes) -> None:
        self.start = (self.start + data)[:1000]

    def _cancelled(self, done: Deferred[None]) -> None:
        done.errback(CancelledError())  # first, or the end of the connection would look like a failure
        self._abort()

    def _abort(self) -> None:
        if self.transport is not None:
            self.transport.loseConnection()


class _Whole:
    """Collects an answer, and bounds it."""

    def __init__(self) -> None:
        self.data = bytearray()

    def receive_data(self, data: bytes) -> None:
        self.data += data
        if len(self.data) > MAX_ANSWER_BYTES:
            raise ApiError("the answer is too long")


class _Lines:
    """Splits a stream into JSON values, one a line."""

    def __init__(self, receive: Callable[[Any], None]) -> None:
        self._receive = receive
        self._rest = bytearray()

    def receive_data(self, data: bytes) -> None:
        self._rest += data
        *lines, rest = self._rest.split(b"\n")
        self._rest = rest
        if len(rest) > MAX_ANSWER_BYTES:
            raise ApiError("a value in the stream is too long")
        for line in lines:
            if line.strip():
                self._receive(_value(line))


def _value(data: bytes | bytearray) -> Any:
    try:
        return json.loads(data)
    except ValueError:
        raise ApiError("something else than JSON came") from None


def _reason(body: bytes) -> str:
    """What the body of an error says: its ``message``, as etcd and Docker have it, or its first line."""
    text = body.decode("utf-8", "replace").strip()
    try:
        return str(json.loads(text)["message"])
    except (ValueError, KeyError, TypeError):
        return text.split("\n")[0][:200]


def _in_words(error: Exception) -> str:
    if isinstance(error, ResponseFailed):
        reasons = [reason.value for reason in error.reasons]
        return _in_words(reasons[0]) if reasons and isinstance(reasons[0], Exception) else "the connection broke"
    if isinstance(error, ConnectError):
        return str(error.args[0] if error.args else error) or "no connection"
    return getattr(error, "strerror", None) or str(error)
