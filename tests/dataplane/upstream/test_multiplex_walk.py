"""Random walks of clients and targets over the pool of HTTP/2: whatever both ends do, the accounts stay right."""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from lbproxy.dataplane.proxy.faults import Fault
from lbproxy.model.retry import RetryPolicy
from lbproxy.model.target_group import ProtocolVersion
from lbproxy.wire.http2 import events as kinds
from lbproxy.wire.http2.connection import Connection
from lbproxy.wire.http2.errors import CANCEL, NO_ERROR, REFUSED_STREAM
from lbproxy.wire.http2.stream import CLOSED, Stream
from tests.dataplane.doubles import CHUNKED_REQUEST, FakeTransport, World, request

REQUESTS = [
    request(),
    request(method="HEAD"),
    request("/", f"X: {'y' * 300}"),
    request(method="POST", body=b"0123456789"),
    request(method="POST", body=b"0123456789")[:-4],
    CHUNKED_REQUEST,
    CHUNKED_REQUEST[:-5],
    request(method="PUT", body=bytes(300_000)),
    request() * 3,
]


TARGET_DOES = ["goaway", "eof", "reset", "nonsense", "full", "drain", "hold"]


class TargetEnd:
    """A target's connection and the requests that it has and has not answered."""

    def __init__(self, transport: FakeTransport, max_streams: int) -> None:
        self.transport = transport
        self.codec = Connection(False, max_streams)
        self.open: list[Stream] = []
        self.begun: set[int] = set()
        self.seen: list[tuple[bytes, bytes]] = []

    def move(self) -> None:
        """Let all arrive that was written; what we write must be right."""
        while True:
            sent = self.transport.take()
            for event in self.codec.receive_data(sent, 0.0) if sent else ():
                assert event.error is None, event.error
                if event.kind == kinds.REQUEST:
                    self.open.append(event.stream)
            self.open = [stream for stream in self.open if stream.state != CLOSED]
            answer = self.codec.data_to_send()
            if answer and self.transport.connected:
                self.transport.deliver(answer)
            elif not sent:
                return


class Walk(RuleBasedStateMachine):
    """Clients of HTTP/1.1, two targets of HTTP/2 that take few streams at once."""

    @initialize(
        most=st.integers(1, 3),
        retry=st.sampled_from(
            [
                RetryPolicy(),
                RetryPolicy(on_reset=True, statuses=((503, 503),), try_timeout_seconds=2.0),
                RetryPolicy(hedge_delay_seconds=0.5, request_timeout_seconds=6.0),
            ]
        ),
        version=st.sampled_from([ProtocolVersion.HTTP2, ProtocolVersion.GRPC]),
    )
    def begin(self, most: int, retry: RetryPolicy, version: ProtocolVersion) -> None:
        group: dict[str, Any] = {
            "protocol_version": version,
            "retry": retry,
            "response_timeout_seconds": 4.0,
            "keep_alive_seconds": 8.0,
        }
        self.world = World(targets=2, group=group, idle_timeout_seconds=9.0)
        self.most = most
        self.clients: list[FakeTransport] = []
        self.ends: list[TargetEnd] = []
        self.retired = False

    @property
    def pending(self) -> list[Any]:
        return [each for each in self.world.connector.attempts if each.transport is None and not each.failed]

    def move(self) -> None:
        self.world.turn()
        for end in self.ends:
            end.move()

    @rule(data=st.sampled_from(REQUESTS))
    def ask(self, data: bytes) -> None:
        client = self.world.client()
        self.clients.append(client)
        client.deliver(data)
        self.move()

    @rule(number=st.integers(0, 5), how=st.sampled_from(["rest", "eof", "reset", "full", "drain"]))
    def client_does(self, number: int, how: str) -> None:
        if not self.clients:
            return
        client = self.clients[number % len(self.clients)]
        if how == "rest":
            client.deliver(b"6789")
        elif how == "eof" and client.reading:
            client.deliver_eof()
        elif how == "reset":
            client.reset()
        elif how == "full":
            client.full = True
        elif how == "drain":
            client.drain()
        self.move()

    @rule(number=st.integers(0, 3), fault=st.sampled_from([None, None, None, Fault.CONNECT_REFUSED]))
    def connect(self, number: int, fault: Fault | None) -> None:
        pending = self.pending
        if not pending:
            return
        attempt = pending[number % len(pending)]
        if fault is not None:
            attempt.fail(fault)
        else:
            self.ends.append(TargetEnd(attempt.succeed(), self.most))
        self.move()

    def stream(self, number: int) -> tuple[TargetEnd, Stream] | None:
        streams = [(end, stream) for end in self.ends for stream in end.open if end.transport.connected]
        return streams[number % len(streams)] if streams else None

    @rule(
        number=st.integers(0, 9), status=st.sampled_from([200, 204, 503]), size=st.sampled_from([0, 5, 70000, 400000])
    )
    def answer(self, number: int, status: int, size: int) -> None:
        found = self.stream(number)
        if found is None:
            return
        end, stream = found
        if stream.id not in end.begun:
            end.begun.add(stream.id)
            end.codec.send_response(stream, status, b"x: y\r\n", -1, status == 204)
        elif not stream.queued:
            end.codec.send_data(stream, bytes(size), not size)
        self.move()

    @rule(number=st.integers(0, 9))
    def interim(self, number: int) -> None:
        found = self.stream(number)
        if found is not None and found[1].id not in found[0].begun:
            found[0].codec.send_response(found[1], 103, b"", -1, False)
            self.move()

    @rule(number=st.integers(0, 9), code=st.sampled_from([REFUSED_STREAM, CANCEL, NO_ERROR]))
    def target_resets(self, number: int, code: int) -> None:
        found = self.stream(number)
        if found is not None:
            found[0].codec.reset(found[1], code)
            self.move()

    @rule(
        number=st.integers(0, 3), how=st.sampled_from(["goaway", "eof", "reset", "nonsense", "full", "drain", "hold"])
    )
    def target_does(self, number: int, how: str) -> None:
        ends = [end for end in self.ends if end.transport.connected]
        if not ends:
            return
        end = ends[number % len(ends)]
        if how == "goaway":
            end.codec.send_goaway()
        elif how == "eof" and end.transport.reading:
            end.transport.deliver_eof()
        elif how == "reset":
            end.transport.reset()
        elif how == "nonsense":
            end.transport.deliver(b"\0\0\1\0\0\0\0\0\0x")
        elif how == "full":
            end.transport.full = True
        elif how == "drain":
            end.transport.drain()
        elif how == "hold":
            for stream in end.open:
                (end.codec.release if stream.held else end.codec.hold)(stream)
        self.move()

    @rule(seconds=st.sampled_from([0.0, 0.6, 2.5]))
    def pass_time(self, seconds: float) -> None:
        self.world.wait(seconds)
        self.move()

    @rule(what=st.sampled_from(["retire", "end all", *["nothing"] * 8]))
    def operate(self, what: str) -> None:
        if what == "nothing":
            return
        for pool in self.world.pools.values():
            pool.retire() if what == "retire" else pool.end_all()
        self.move()

    @invariant()
    def the_accounts_are_right(self) -> None:
        if not hasattr(self, "world"):
            return
        world = self.world
        assert all(cell >= 0 for cell in world.cells)
        assert world.counters.requests == len(world.log.records)
        tries = 0
        for pool in world.pools.values():
            tries += len(pool._waiting)
            for connection in pool.connections:
                tries += len(connection.streams)
                assert {stream.owner for stream in connection.codec.streams.values()} == set(connection.streams)
                for owner in connection.streams:
                    assert owner.exchange is not None
                    assert not owner.exchange.done
        assert world.in_flight == tries, "each try waits for a connection or has a stream on one that stands"
        for end in self.ends:
            assert len(end.open) <= self.most

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        world = self.world
        for client in self.clients:
            client.drain()
        for end in self.ends:
            end.transport.drain()
        for _ in range(60):
            for attempt in self.pending:
                attempt.fail(Fault.CONNECT_TIMEOUT)
            world.wait(1)
            self.move()
        assert not world.in_flight, "everything ends by its deadlines"
        assert not world.counters.active
        for end in self.ends:
            assert not end.transport.connected
        for pool in world.pools.values():
            assert not pool.connections


TestWalk = Walk.TestCase
TestWalk.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
