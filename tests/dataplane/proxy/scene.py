"""One exchange with a client, pools and targets' connections that the test plays."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from random import Random
from typing import Any

from twisted.internet.task import Clock as TimerClock

from lbproxy.dataplane.balancer import Circumstances, make_balancer
from lbproxy.dataplane.proxy.ends import Downstream, Upstream
from lbproxy.dataplane.proxy.exchange import Exchange
from lbproxy.dataplane.proxy.faults import Fault
from lbproxy.dataplane.proxy.forwarded import TraceIds
from lbproxy.dataplane.proxy.retry import Retrying
from lbproxy.dataplane.proxy.runtime import GroupRuntime, HttpRuntime, Pool
from lbproxy.dataplane.router.table import Table
from lbproxy.model.listener import Bind, Listener, ListenerProtocol
from lbproxy.model.retry import RetryPolicy
from lbproxy.model.rule import Forward, Rule, WeightedGroup
from lbproxy.model.snapshot import GroupState
from lbproxy.model.target_group import TargetGroup, TargetProtocol
from lbproxy.native.clock import Clock
from lbproxy.telemetry.counters import ListenerCounters, TargetCounters
from lbproxy.wire.http1.head import scan_request, scan_response
from tests.dataplane.doubles import RULES, Log, make_retrying, registered, request

IDLE = 60.0
RESPONSE = 7.0


class FakeClient(Downstream):
    """A `Downstream` that checks that it is told things in an order that makes sense."""

    def __init__(self) -> None:
        self.host = "192.0.2.7"
        self.port = 40000
        self.scheme = "http"
        self.listener_port = 8080
        self.clock = Clock(lambda: self.time)
        self.time = 1000.0
        self.exchange: Exchange | None = None
        self.patience = 0.0
        self.paused = False
        self.interim: list[int] = []
        self.status = 0
        self.fields = b""
        self.length = 0
        self.body = b""
        self.trailers = b""
        self.whole = False
        self.was_cut = False
        self.tunnel = False
        self.tunnel_ended = False
        self.done = 0
        self.on_data: Callable[[], None] = lambda: None

    def _alive(self) -> None:
        assert not self.done, "told after it was done"
        assert not self.was_cut, "told after the cut"
        assert not self.tunnel_ended, "told after the tunnel's end"

    def wall_time(self) -> float:
        return 1_700_000_000.0

    def local_address(self) -> tuple[str, int]:
        return "198.51.100.1", 8080

    def forwarded_fields(self, received: bytes | None) -> bytes:
        return b"X-Forwarded-For: 192.0.2.7\r\n"

    def expect_progress(self, seconds: float) -> None:
        self._alive()
        self.patience = seconds

    def pause_request(self) -> None:
        self._alive()
        self.paused = True

    def resume_request(self) -> None:
        self._alive()
        self.paused = False

    def send_informational(self, status: int, reason: bytes, fields: bytes) -> None:
        self._alive()
        assert not self.status
        self.interim.append(status)

    def send_response(
        self, status: int, reason: bytes, fields: bytes, content_length: int, has_body: bool, data: bytes, ended: bool
    ) -> None:
        self._alive()
        assert not self.status, "two answers"
        self.status, self.fields, self.length, self.body, self.whole = status, fields, content_length, data, ended
        self.on_data()

    def send_data(self, data: bytes) -> None:
        self._alive()
        assert self.status
        assert not self.whole
        self.body += data
        self.on_data()

    def send_end(self, trailers: bytes) -> None:
        self._alive()
        assert self.status
        assert not self.whole
        self.whole = True
        self.trailers = trailers

    def cut(self) -> None:
        self._alive()
        self.was_cut = True

    def start_tunnel(self, reason: bytes, fields: bytes, protocol: bytes) -> None:
        self._alive()
        assert not self.status
        self.status = 101
        self.tunnel = True

    def end_tunnel(self) -> None:
        self._alive()
        assert self.tunnel
        self.tunnel_ended = True

    def leave_tunnel(self, data: bytes) -> None:
        self.send_data(data)
        self.end_tunnel()

    def exchange_done(self) -> None:
        self.done += 1


class FakeUpstream(Upstream):
    """An `Upstream` that keeps what it is given."""

    def __init__(self, reused: bool = False) -> None:
        self.reused = reused
        self.may_refuse = False
        self.exchange: Exchange | None = None
        self.block = b""
        self.framing = 0
        self.data = b""
        self.whole = False
        self.trailers = b""
        self.paused = False
        self.taking = False
        self.gone = ""

    def send_request(self, block: bytes, method: bytes, framing: int, data: bytes, ended: bool) -> None:
        assert not self.gone
        self.block, self.framing, self.data, self.whole, self.trailers = block, framing, data, ended, b""

    def send_data(self, data: bytes) -> None:
        assert not self.gone
        assert self.exchange is not None
        self.data += data

    def send_end(self, trailers: bytes) -> None:
        assert not self.gone
        assert not self.whole
        self.whole = True
        self.trailers = trailers

    def pause_response(self) -> None:
        self.paused = True

    def resume_response(self) -> None:
        self.paused = False

    def is_taking(self) -> bool:
        return self.taking

    def abort(self) -> None:
        assert not self.gone
        self.exchange = None
        self.gone = "aborted"

    def close(self) -> None:
        assert not self.gone
        self.exchange = None
        self.gone = "closed"

    def let_go(self) -> Exchange:
        """The connection has nothing more for its exchange."""
        exchange, self.exchange = self.exchange, None
        assert exchange is not None
        return exchange


class FakePool(Pool):
    """A `Pool` of one target."""

    def __init__(self, key: str) -> None:
        self.key = key
        self.authority = key.encode()
        self.counters = TargetCounters("app", key)
        self.observation = None
        self.gate = None
        self.begun = 0
        self.ended = 0
        self.kept: list[FakeUpstream] = []
        self.waiting: Exchange | None = None
        self.connects = 0
        self.asked_repeatable: bool | None = None
        """What was said of the last request for which a kept connection was wanted."""

    @property
    def in_flight(self) -> int:
        return self.begun - self.ended

    def begin(self) -> None:
        self.begun += 1

    def end(self) -> None:
        self.ended += 1

    def take(self, repeatable: bool) -> FakeUpstream | None:
        self.asked_repeatable = repeatable
        return self.kept.pop() if self.kept else None

    def connect(self, exchange: Exchange) -> None:
        assert self.waiting is None
        self.waiting = exchange
        self.connects += 1

    def cancel(self, exchange: Exchange) -> None:
        assert self.waiting is exchange
        self.waiting = None

    def succeed(self) -> FakeUpstream:
        exchange, self.waiting = self.waiting, None
        assert exchange is not None
        upstream = FakeUpstream()
        exchange.connected(upstream)
        return upstream

    def fail(self, fault: Fault = Fault.CONNECT_REFUSED) -> None:
        exchange, self.waiting = self.waiting, None
        assert exchange is not None
        exchange.connect_failed(fault)


class Scene:
    """One exchange with its surroundings; `ask` starts it."""

    def __init__(
        self,
        targets: int = 1,
        retry: RetryPolicy | Retrying | None = None,
        is_grpc: bool = False,
        rules: tuple[Rule, ...] = RULES,
    ) -> None:
        self.client = FakeClient()
        self.log = Log()
        self.timers = TimerClock()
        self.retrying = make_retrying(retry, self.timers, is_grpc) if isinstance(retry, RetryPolicy) else retry
        group = TargetGroup(name="app", protocol=TargetProtocol.HTTP, response_timeout_seconds=RESPONSE)
        state = GroupState(cell=0, targets=tuple(registered(number) for number in range(1, targets + 1)))
        cells = array("q", [0] * (targets + 1))
        self.pools = {each.cell: FakePool(each.target.key) for each in state.targets}
        listener = Listener(
            name="web",
            protocol=ListenerProtocol.HTTP,
            binds=(Bind("198.51.100.1", 8080),),
            default_action=Forward((WeightedGroup("app"),)),
            rules=rules,
            idle_timeout_seconds=IDLE,
        )
        self.counters = ListenerCounters("web")
        balancer = make_balancer(Circumstances(group=group, state=state, cells=cells, random=Random(1)))
        self.runtime = HttpRuntime(
            listener,
            Table.compile(listener, Random(1)),
            {"app": GroupRuntime(group, balancer, self.pools, self.retrying)},  # type: ignore[arg-type]
            self.counters,
            TraceIds(Random(1), lambda: 1.0),
            self.log,  # type: ignore[arg-type]
        )
        self.exchange: Exchange

    def ask(self, head: bytes, body: bytes = b"", ended: bool = True, trailers: bytes = b"") -> Exchange:
        read = scan_request(head)
        assert read is not None
        self.exchange = Exchange(self.client, self.runtime, read, self.client.time)
        self.client.exchange = self.exchange
        self.exchange.start(body, ended, trailers)
        return self.exchange

    @property
    def pool(self) -> FakePool:
        """The one that a connection is asked of, or the first."""
        return next((pool for pool in self.pools.values() if pool.waiting), self.pools[1])

    @property
    def in_flight(self) -> int:
        return sum(pool.in_flight for pool in self.pools.values())

    def check_over(self) -> None:
        """Everything is accounted for."""
        assert self.exchange.done
        assert self.client.done == 1
        assert self.log.records == [self.exchange]
        assert self.counters.requests == 1
        assert [pool.in_flight for pool in self.pools.values()] == [0] * len(self.pools)
        assert not any(pool.waiting for pool in self.pools.values())
        assert self.exchange.upstream is None
        assert not self.timers.getDelayedCalls()


GET = request()
POST = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 8\r\n\r\n"
CHUNKS = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
UPGRADE = request("/", "Connection: upgrade", "Upgrade: websocket")


def response_head(data: bytes = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n") -> Any:
    head = scan_response(data)
    assert head is not None
    return head


SWITCHING = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
