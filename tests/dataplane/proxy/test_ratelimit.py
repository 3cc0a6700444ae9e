"""Rate limits: who is refused, who is only noted, and when to come again."""

from __future__ import annotations

from random import Random
from typing import Any

import attrs
from twisted.internet.address import IPv4Address, IPv6Address

from lbproxy.dataplane.proxy.forwarded import TraceIds
from lbproxy.dataplane.proxy.ratelimit import RateLimits
from lbproxy.dataplane.proxy.runtime import HttpRuntime
from lbproxy.dataplane.router.table import Table
from lbproxy.ipc.tables import SharedTables
from lbproxy.model.rate_limit import RateLimit, RateLimitKey
from tests.dataplane.doubles import FakeTransport, World, answer, request


class Limited(World):
    """A world whose listener has these limits."""

    def __init__(self, *limits: RateLimit) -> None:
        super().__init__()
        self.now = 10**15
        self.buckets = SharedTables.create().buckets
        self.limit(*limits)

    def limit(self, *limits: RateLimit) -> None:
        listener = attrs.evolve(self.listener, rate_limits=limits)
        self.front.runtime = HttpRuntime(
            listener,
            Table.compile(listener, Random(1)),
            self.runtime.groups,
            self.counters,
            TraceIds(Random(1), lambda: 1.0),
            self.log,  # type: ignore[arg-type]
            rate_limits=RateLimits(listener, self.counters, self.buckets, lambda: self.now),
        )

    def statuses(self, count: int, *fields: str, path: str = "/fixed", host: str = "192.0.2.7") -> list[int]:
        kind: Any = IPv6Address if ":" in host else IPv4Address
        connection = self.front.buildProtocol(kind("TCP", host, 1))
        assert connection is not None
        client = FakeTransport(self.clock, connection)
        connection.makeConnection(client)
        statuses = []
        for _ in range(count):
            client.deliver(request(path, *fields))
            self.answer = client.take()
            statuses.append(int(self.answer[9:12]))
        return statuses


def limit(**options: Any) -> RateLimit:
    return RateLimit(**{"name": "few", "requests": 2, "burst": 2, **options})


def test_requests_over_the_limit_are_answered_with_429_and_when_to_come_again() -> None:
    world = Limited(limit(seconds=60.0))
    assert world.statuses(4) == [200, 200, 429, 429]
    assert b"\r\nRetry-After: 30\r\n" in world.answer
    assert b"Connection: close" not in world.answer
    record = world.log.records[-1]
    assert (record.status, record.error_reason, record.rate_limit, record.rule) == (429, "RateLimited", "few", "fixed")
    assert world.counters.rate_limited == {"few enforced": 2}
    assert world.counters.faults == {"RateLimited": 2}
    world.now += 31 * 10**9
    assert world.statuses(2) == [200, 429]


def test_a_limited_call_of_grpc_has_a_status_of_its_own() -> None:
    world = Limited(limit(burst=1))
    assert world.statuses(1) == [200]
    client = world.client()
    client.deliver(b"POST /fixed HTTP/1.1\r\nHost: x\r\nContent-Type: application/grpc\r\nContent-Length: 0\r\n\r\n")
    answer = client.take()
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"\r\ngrpc-status: 8\r\ngrpc-message: RateLimited (429 Too Many Requests)\r\nRetry-After: 1\r\n" in answer
    record = world.log.records[-1]
    assert (record.status, record.error_reason, record.rate_limit) == (200, "RateLimited", "few")


def test_retry_after_is_never_too_early() -> None:
    world = Limited(limit(requests=10, burst=1))
    assert world.statuses(2) == [200, 429]
    assert b"\r\nRetry-After: 1\r\n" in world.answer


def test_a_limited_request_reaches_no_target() -> None:
    world = Limited(limit(burst=1))
    client = world.client()
    client.deliver(request())
    world.target().deliver(answer())
    client.take()
    client.deliver(request())
    assert client.take().startswith(b"HTTP/1.1 429 ")
    assert world.pool.counters.requests == 1
    assert world.in_flight == 0


def test_a_limited_upload_is_not_read() -> None:
    world = Limited(limit(burst=1))
    assert world.statuses(1) == [200]
    client = world.client()
    client.deliver(b"POST /fixed HTTP/1.1\r\nHost: example.com\r\nContent-Length: 100000\r\n\r\nxxx")
    assert b"Connection: close\r\n" in client.take()


def test_each_client_has_its_own_and_an_ipv6_network_is_one_client() -> None:
    world = Limited(limit())
    assert world.statuses(3) == [200, 200, 429]
    assert world.statuses(3, host="192.0.2.8") == [200, 200, 429]
    assert world.statuses(2, host="2001:db8::1") == [200, 200]
    assert world.statuses(1, host="2001:db8::ffff:2") == [429]
    assert world.statuses(1, host="2001:db8:0:1::1") == [200]


def test_all_together() -> None:
    world = Limited(limit(key=RateLimitKey.ALL))
    assert world.statuses(2) == [200, 200]
    assert world.statuses(1, host="192.0.2.8") == [429]


def test_each_value_of_a_field_has_its_own_and_requests_without_are_not_limited() -> None:
    world = Limited(limit(key=RateLimitKey.HEADER, header="x-key"))
    assert world.statuses(3, "X-Key: a") == [200, 200, 429]
    assert world.statuses(3, "X-Key: b") == [200, 200, 429]
    assert world.statuses(4) == [200] * 4


def test_a_limit_of_a_rule_is_for_its_requests() -> None:
    world = Limited(limit(rule="old", requests=1, burst=1))
    assert world.statuses(3) == [200] * 3
    assert world.statuses(2, path="/old") == [301, 429]


def test_a_dry_run_is_noted_and_served() -> None:
    world = Limited(limit(dry_run=True))
    assert world.statuses(3) == [200] * 3
    assert [record.rate_limit for record in world.log.records] == ["", "", "few dry-run"]
    assert world.log.records[-1].error_reason == ""
    assert world.counters.rate_limited == {"few dry-run": 1}
    assert world.counters.faults == {}


def test_a_dry_run_does_not_hide_what_is_enforced() -> None:
    world = Limited(limit(dry_run=True, burst=1), limit(name="all", key=RateLimitKey.ALL))
    assert world.statuses(3) == [200, 200, 429]
    assert [record.rate_limit for record in world.log.records] == ["", "few dry-run", "all"]


def test_another_rate_begins_anew() -> None:
    world = Limited(limit(seconds=3600.0))
    assert world.statuses(3) == [200, 200, 429]
    world.limit(limit(seconds=60.0))
    assert world.statuses(1) == [200]
