"""A second try beside the first: the same request to another target; the first answer counts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lbproxy.dataplane.proxy.exchange import Exchange
from lbproxy.dataplane.proxy.faults import Fault, Side

if TYPE_CHECKING:
    from lbproxy.dataplane.proxy.ends import Upstream
    from lbproxy.model.target import RegisteredTarget
    from lbproxy.wire.http1.head import ResponseHead


class Hedge(Exchange):
    """Stands in for its exchange at the second target's connection until that answers.

    The client hears nothing of it.  When it has the first answer, the exchange takes the connection over.
    """

    def __init__(self, exchange: Exchange, chosen: RegisteredTarget) -> None:
        super().__init__(exchange.client, exchange.runtime, exchange.head, exchange.began)
        assert exchange.group is not None
        self.pool = exchange.group.pools[chosen.cell]
        self._main = exchange
        self._target = chosen
        self._waits = False
        self._began_at = self._sent_at = 0.0

    def begin(self) -> None:
        """Send the request, on a kept connection or a new one."""
        main, pool = self._main, self.pool
        main.pool.counters.retries["Hedge"] += 1
        main.note_reason("Hedge")
        pool.begin()
        self._began_at = self.client.clock.now()
        upstream = pool.take(True)
        if upstream is None:
            self._waits = True
            pool.connect(self)
        else:
            self.connected(upstream)

    def give_up(self) -> None:
        """The first try has the answer, or nobody wants one any more."""
        self._cancel()
        self.pool.end()
        self._main.note_try(self.pool.key, 0)

    def _cancel(self) -> None:
        upstream, self.upstream = self.upstream, None
        if upstream is not None:
            upstream.exchange = None
            upstream.abort()
        elif self._waits:
            self._waits = False
            self.pool.cancel(self)

    # The target's side calls

    def connected(self, upstream: Upstream) -> None:
        self._waits = False
        self.upstream = upstream
        upstream.exchange = self
        self._sent_at = self.client.clock.now()
        self._main.send_copy(upstream)

    def connect_failed(self, fault: Fault) -> None:
        self._waits = False
        self.upstream_failed(fault, False)

    def upstream_failed(self, fault: Fault, reused: bool) -> None:
        self.upstream = None
        pool = self.pool
        pool.counters.faults[fault.reason] += 1
        if pool.observation is not None and fault.side is not Side.CLIENT:
            now = self.client.clock.now()
            pool.observation.failed(now - self._began_at, now)
        self._fail(0, fault)

    def target_gone(self) -> None:
        self._cancel()
        self._fail(0, Fault.TARGET_DEREGISTERED)

    def pause_request(self) -> None:
        """The whole request is written already."""

    def resume_request(self) -> None:
        """See `pause_request`."""

    def informational(self, head: ResponseHead) -> None:
        """Not an answer yet."""

    def response(self, head: ResponseHead, has_body: bool, data: bytes, ended: bool) -> None:
        main = self._main
        if ended:
            self.upstream = None
        if main.has_better_than(head.status):
            now = self.client.clock.now()
            self.pool.counters.responded(head.status, now - self._sent_at)
            if self.pool.observation is not None:
                self.pool.observation.responded(head.status, now - self._sent_at, now)
            self._cancel()
            self._fail(head.status, Fault.BAD_RESPONSE)
            return
        upstream, self.upstream = self.upstream, None
        main.take_over(upstream, self.pool, self._target, self._sent_at)
        main.response(head, has_body, data, ended)

    def _fail(self, status: int, fault: Fault) -> None:
        self.pool.end()
        self._main.hedge_failed(self.pool.key, status, fault)
