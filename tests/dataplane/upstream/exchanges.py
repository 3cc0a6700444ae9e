"""An exchange as a target's connection and its pool see it."""

from __future__ import annotations

from typing import Any

from lbproxy.dataplane.proxy.ends import Downstream
from lbproxy.dataplane.proxy.exchange import NO_BODY, Exchange
from lbproxy.dataplane.proxy.faults import Fault
from lbproxy.dataplane.upstream.http1 import TargetConnection
from lbproxy.dataplane.upstream.pool import TargetPool
from lbproxy.wire.http1.head import RequestHead


class _Client(Downstream):
    def __init__(self) -> None:
        self.host = "192.0.2.7"
        self.port = 40000

    def local_address(self) -> tuple[str, int]:
        return "198.51.100.1", 8080


class FakeExchange(Exchange):
    """Notes what it is told, in order."""

    def __init__(self, pool: TargetPool, upgrade: bytes = b"") -> None:
        self.pool = pool
        self.head = RequestHead()
        self.head.upgrade = upgrade
        self.head.expect_continue = False
        self.client = _Client()
        self.connection: TargetConnection | None = None
        self.statuses: list[int] = []
        self.body = b""
        self.ended = False
        self.trailers = b""
        self.fault: Fault | None = None
        self.may_have_gone = False
        self.unframed = ""
        self.paused = False
        self.gone = False
        self.alone = False
        self.pauses_after_data = False

    def begin(self) -> TargetConnection:
        """Take a kept connection, which there has to be."""
        connection = self.pool.take(True)
        assert connection is not None
        self.connected(connection)
        return connection

    def ask(
        self, method: bytes = b"GET", framing: int = NO_BODY, data: bytes = b"", ended: bool = True
    ) -> TargetConnection:
        """Send a request on the connection."""
        assert self.connection is not None
        self.connection.send_request(b"%b / HTTP/1.1\r\nHost: x\r\n" % method, method, framing, data, ended)
        return self.connection

    def _told(self) -> None:
        assert not self.ended, "told after the end"
        assert self.fault is None, "told after the failure"

    # What the pool and the connection call

    def connected(self, connection: Any) -> None:
        self.connection = connection
        connection.exchange = self

    def connect_failed(self, fault: Fault) -> None:
        self.fault = fault

    def informational(self, head: Any) -> None:
        self._told()
        self.statuses.append(head.status)

    def response(self, head: Any, has_body: bool, data: bytes, ended: bool) -> None:
        self._told()
        assert has_body or not data
        self.statuses.append(head.status)
        self.response_data(data)
        self.ended = ended

    def response_data(self, data: bytes) -> None:
        self._told()
        self.body += data
        if self.pauses_after_data:
            assert self.connection is not None
            self.connection.pause_response()

    def response_ended(self, trailers: bytes) -> None:
        self._told()
        self.ended = True
        self.trailers = trailers

    def switch_protocols(self, head: Any) -> None:
        self._told()
        self.statuses.append(head.status)
        self.unframed = "open"

    def upstream_closed_tunnel(self) -> None:
        self.unframed = "closed"

    def upstream_failed(self, fault: Fault, reused: bool) -> None:
        self._told()
        self.fault = fault
        self.may_have_gone = reused

    def pause_request(self) -> None:
        self.paused = True

    def resume_request(self) -> None:
        self.paused = False

    def target_gone(self) -> None:
        self.gone = True
