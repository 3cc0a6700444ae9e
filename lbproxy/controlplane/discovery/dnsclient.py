"""Asks name servers one question, over UDP, or TCP where the answer is too long (RFC 1035).

`twisted.names` reads and writes the messages.  Its client would do the rest too, but fills the log with the ports that
it opens, and waits out its time where the kernel knows that nobody listens.
"""

from __future__ import annotations

import errno
import os
import secrets
import socket
from collections.abc import Sequence
from typing import Any, cast

from twisted.internet.abstract import FileDescriptor
from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.error import ConnectError, ConnectionLost
from twisted.internet.interfaces import ITCPTransport
from twisted.internet.protocol import Factory, connectionDone
from twisted.names import dns
from twisted.protocols.basic import Int16StringReceiver
from twisted.python.failure import Failure

from lbproxy.controlplane.discovery.base import LookupFailed

TRIES_SECONDS = (1.0, 2.0, 3.0)
"""How long to wait for each server, in the first round, the second and the third."""

TCP_SECONDS = 5.0

_MAX_DATAGRAM_BYTES = 4096

_RCODES = {
    dns.EFORMAT: "FORMERR",
    dns.ESERVER: "SERVFAIL",
    dns.ENOTIMP: "NOTIMP",
    dns.EREFUSED: "REFUSED",
}

Server = tuple[str, int]
"""IP address and port."""


async def ask(reactor: Any, servers: Sequence[Server], name: str, kind: int) -> list[dns.RRHeader]:
    """Give the records that answer, none for a name that does not exist.

    A server that fails is passed over for the next one.  Raises `LookupFailed` when none can say.
    """
    problem = "no answer from the name server"
    for seconds in TRIES_SECONDS:
        for server in servers:
            try:
                message = await _ask_one(reactor, server, name, kind, seconds)
            except DeferredTimeout:
                continue
            except (OSError, ConnectError, ConnectionLost) as error:
                problem = f"name server {server[0]}: {getattr(error, 'strerror', None) or error}"
                continue
            if message.rCode in (dns.OK, dns.ENAME):
                return list(message.answers)
            problem = f"the name server answers {_RCODES.get(message.rCode, f'code {message.rCode}')}"
    raise LookupFailed(f"{name}: {problem}")


async def _ask_one(reactor: Any, server: Server, name: str, kind: int, seconds: float) -> dns.Message:
    query = dns.Message(id=secrets.randbits(16), recDes=1)
    query.addQuery(name.encode("ascii"), kind)
    message = await _Datagram(reactor, server, query).answer().addTimeout(seconds, reactor)
    if message.trunc:
        return await _ask_by_tcp(reactor, server, query)
    return message


def _answer_to(query: dns.Message, data: bytes) -> dns.Message | None:
    """Read an answer; None for what is none to this question, which somebody else may have sent."""
    message = dns.Message()
    try:
        message.fromStr(data)
    except Exception:  # twisted.names is not particular about what it raises
        return None
    is_ours = message.answer and message.id == query.id and message.queries == query.queries
    return message if is_ours else None


class _Datagram(FileDescriptor):
    """A socket for one question: connected, so that only this server can answer, from a port that nobody can guess."""

    def __init__(self, reactor: Any, server: Server, query: dns.Message) -> None:
        super().__init__(reactor)
        self._query = query
        self._answer: Deferred[dns.Message] = Deferred(lambda _: self._close())
        family = socket.AF_INET6 if ":" in server[0] else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            self._socket.connect(server)
            self._socket.send(query.toStr())
        except OSError:
            self._socket.close()
            raise
        self.startReading()

    def answer(self) -> Deferred[dns.Message]:
        """Fire with the answer; fails with OSError when the kernel knows that there will be none."""
        return self._answer

    def fileno(self) -> int:
        return self._socket.fileno()

    def doRead(self) -> None:
        try:
            data = self._socket.recv(_MAX_DATAGRAM_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            self._close()
            self._answer.errback(error)
            return
        message = _answer_to(self._query, data)
        if message is not None:
            self._close()
            self._answer.callback(message)

    def connectionLost(self, reason: Failure) -> None:
        """The reactor has seen an error on the socket, such as that nobody listens there."""
        number = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) or errno.ECONNREFUSED
        self._close()
        if not self._answer.called:
            self._answer.errback(OSError(number, os.strerror(number)))

    def _close(self) -> None:
        self.stopReading()
        self._socket.close()


class _Stream(Int16StringReceiver):
    """One question over TCP, where messages have their length in front (RFC 1035, section 4.2.2)."""

    transport: ITCPTransport

    def __init__(self, query: dns.Message) -> None:
        self._query = query
        self.answer: Deferred[dns.Message] = Deferred(lambda _: self.transport.abortConnection())

    def connectionMade(self) -> None:
        self.sendString(self._query.toStr())

    def stringReceived(self, string: bytes) -> None:
        message = _answer_to(self._query, string)
        if message is not None and not self.answer.called:
            self.answer.callback(message)
        self.transport.loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if not self.answer.called:
            self.answer.errback(ConnectionLost("it closed the connection"))


async def _ask_by_tcp(reactor: Any, server: Server, query: dns.Message) -> dns.Message:
    endpoint = HostnameEndpoint(reactor, *server, timeout=TCP_SECONDS)
    stream = cast(_Stream, await endpoint.connect(Factory.forProtocol(lambda: _Stream(query))))
    return await stream.answer.addTimeout(TCP_SECONDS, reactor)
