"""A connection to a target: answers in any split, and whether it may serve another request."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.interfaces import IProtocol, IPushProducer
from zope.interface.verify import verifyObject

from lbproxy.dataplane.proxy.exchange import CHUNKED
from lbproxy.dataplane.proxy.faults import Fault
from lbproxy.dataplane.upstream.http1 import MAX_INFORMATIONAL, TargetConnection
from lbproxy.native.clock import turns
from lbproxy.testing.splits import splits
from tests.dataplane.doubles import CHUNKED_ANSWER, FakeTransport, World, answer
from tests.dataplane.upstream.exchanges import FakeExchange


class Link:
    """A fresh connection to a target with one exchange on it."""

    def __init__(self, upgrade: bytes = b"", world: World | None = None) -> None:
        self.world = world or World()
        self.pool = self.world.pool
        self.exchange = FakeExchange(self.pool, upgrade)
        self.pool.connect(self.exchange)  # type: ignore[arg-type]
        self.transport: FakeTransport = self.world.target()

    @property
    def kept(self) -> bool:
        return self.exchange.connection in self.pool.idle


def test_the_interfaces() -> None:
    connection = Link().exchange.connection
    assert isinstance(connection, TargetConnection)
    assert verifyObject(IProtocol, connection)
    assert verifyObject(IPushProducer, connection)


# Requests


@pytest.mark.parametrize(
    ("framing", "data", "ended", "expected"),
    [
        (-1, b"", True, b"\r\n"),
        (0, b"", True, b"Content-Length: 0\r\n\r\n"),
        (5, b"hello", True, b"Content-Length: 5\r\n\r\nhello"),
        (9, b"hello", False, b"Content-Length: 9\r\n\r\nhello"),
        (CHUNKED, b"hello", True, b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
        (CHUNKED, b"hello", False, b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"),
        (CHUNKED, b"", True, b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        (CHUNKED, b"", False, b"Transfer-Encoding: chunked\r\n\r\n"),
    ],
)
def test_a_requests_framing(framing: int, data: bytes, ended: bool, expected: bytes) -> None:
    link = Link()
    link.exchange.ask(b"POST", framing, data, ended)
    assert link.transport.take() == b"POST / HTTP/1.1\r\nHost: x\r\n" + expected
    assert link.pool.counters.sent_bytes == len(data)


def test_a_chunked_body_in_pieces_with_trailers() -> None:
    link = Link()
    connection = link.exchange.ask(b"POST", CHUNKED, b"", False)
    link.transport.take()
    connection.send_data(b"abc")
    connection.send_data(b"")
    connection.send_data(b"x" * 16)
    connection.send_end(b"X-Sum: 1\r\n")
    assert link.transport.take() == b"3\r\nabc\r\n10\r\n" + b"x" * 16 + b"\r\n0\r\nX-Sum: 1\r\n\r\n"


def test_back_pressure_on_the_request() -> None:
    link = Link()
    connection = link.exchange.ask(b"POST", 100, b"", False)
    link.transport.full = True
    connection.send_data(b"x")
    assert link.exchange.paused
    link.transport.drain()
    assert not link.exchange.paused


# Answers


ANSWERS = {
    # answer, body, trailers, whether the connection is kept
    "length": (answer(b"hello"), b"hello", b"", True),
    "empty": (answer(b""), b"", b"", True),
    "chunked": (CHUNKED_ANSWER, b"hello", b"", True),
    "trailers": (CHUNKED_ANSWER.replace(b"0\r\n\r\n", b"0\r\nX: 1\r\n\r\n"), b"hello", b"X: 1\r\n", True),
    "interim": (b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + answer(b"hello"), b"hello", b"", True),
    "close": (answer(b"hello", "Connection: close"), b"hello", b"", False),
    "1.0": (answer(b"hello").replace(b"1.1", b"1.0"), b"hello", b"", False),
    "1.0-keep-alive": (answer(b"hello", "Connection: keep-alive").replace(b"/1.1", b"/1.0"), b"hello", b"", True),
    "204": (b"HTTP/1.1 204 No Content\r\n\r\n", b"", b"", True),
    "304": (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n", b"", b"", True),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_an_answer_in_any_split(name: str) -> None:
    data, body, trailers, kept = ANSWERS[name]
    for pieces in splits(data):
        link = Link()
        link.exchange.ask()
        for piece in pieces:
            assert not link.exchange.ended
            link.transport.deliver(piece)
        exchange = link.exchange
        assert (exchange.body, exchange.trailers, exchange.ended) == (body, trailers, True), pieces
        assert exchange.fault is None
        assert link.kept is kept
        assert link.pool.counters.received_bytes == len(data)
        link.world.turn()
        assert link.transport.ended == ("" if kept else "closed")


@pytest.mark.parametrize("name", ["head", "head-chunked"])
def test_an_answer_to_head_has_no_body(name: str) -> None:
    framing = b"Transfer-Encoding: chunked" if name == "head-chunked" else b"Content-Length: 500"
    for pieces in splits(b"HTTP/1.1 200 OK\r\n" + framing + b"\r\n\r\n"):
        link = Link()
        link.exchange.ask(b"HEAD")
        for piece in pieces:
            link.transport.deliver(piece)
        assert link.exchange.ended
        assert link.kept


def test_an_answer_up_to_the_close_in_any_split() -> None:
    for pieces in splits(b"HTTP/1.1 200 OK\r\nX: 1\r\n\r\nto the end"):
        link = Link()
        link.exchange.ask()
        for piece in pieces:
            link.transport.deliver(piece)
        assert not link.exchange.ended
        link.transport.deliver_eof()
        assert link.exchange.ended
        assert link.exchange.body == b"to the end"
        assert not link.pool.connections


def test_an_answer_up_to_the_close_that_is_reset_is_not_whole() -> None:
    link = Link()
    link.exchange.ask()
    link.transport.deliver(b"HTTP/1.1 200 OK\r\n\r\nto the")
    link.transport.reset()
    assert link.exchange.fault is Fault.TARGET_RESET


@pytest.mark.parametrize(
    "data",
    [
        b"nonsense\r\n\r\n",
        b"HTTP/2.0 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 40_000,
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
    ],
    ids=["garbage", "version", "two-lengths", "length-and-chunked", "chunk", "long-head", "unasked-101"],
)
def test_a_bad_answer_fails_the_exchange_and_the_connection(data: bytes) -> None:
    link = Link()
    link.exchange.ask()
    link.transport.deliver(data)
    assert link.exchange.fault is Fault.BAD_RESPONSE
    assert not link.exchange.may_have_gone
    assert link.transport.ended == "aborted"
    link.world.turn()
    assert not link.pool.connections


@given(st.lists(st.binary(min_size=1, max_size=40), min_size=1, max_size=5))
def test_anything_that_a_target_sends_is_an_answer_or_a_failure(pieces: list[bytes]) -> None:
    link = Link()
    link.exchange.ask()
    for piece in pieces:
        link.transport.deliver(piece)
    link.transport.deliver_eof()
    assert link.exchange.ended or link.exchange.fault is not None


# The end of the connection


@pytest.mark.parametrize(
    ("reused", "data", "may_have_gone"),
    [(False, b"", False), (True, b"", True), (True, b"H", False), (True, b"HTTP/1.1 100 Continue\r\n\r\n", False)],
)
@pytest.mark.parametrize("reset", [False, True])
def test_a_connection_that_ends_before_the_answer(reused: bool, data: bytes, may_have_gone: bool, reset: bool) -> None:
    """Only on a kept connection, and before a byte of an answer, may the target not have seen the request."""
    link = Link()
    exchange = link.exchange
    if reused:
        exchange.ask()
        link.transport.deliver(answer())
        exchange = FakeExchange(link.pool)
        exchange.begin()
    exchange.ask()
    if data:
        link.transport.deliver(data)
    if reset:
        link.transport.reset()
    else:
        link.transport.deliver_eof()
    assert exchange.fault is (Fault.TARGET_RESET if reset else Fault.TARGET_CLOSED)
    assert exchange.may_have_gone is may_have_gone
    assert not link.pool.connections


@pytest.mark.parametrize("surplus", [b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", b"\r\n", b"x"])
@pytest.mark.parametrize("name", ANSWERS)
def test_what_follows_an_answer_is_never_given_to_the_next_exchange(name: str, surplus: bytes) -> None:
    data, body, _, _ = ANSWERS[name]
    link = Link()
    link.exchange.ask()
    link.transport.deliver(data + surplus)
    assert (link.exchange.body, link.exchange.ended) == (body, True)
    assert not link.pool.idle
    assert link.transport.ended == "aborted"


@pytest.mark.parametrize("surplus", [b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n", b"x"])
def test_what_comes_on_an_idle_connection_ends_it(surplus: bytes) -> None:
    link = Link()
    link.exchange.ask()
    link.transport.deliver(answer())
    assert link.kept
    link.transport.deliver(surplus)
    assert not link.pool.idle
    assert link.transport.ended == "aborted"


@pytest.mark.parametrize(("later", "fault"), [(0, Fault.UNASKED_RESPONSE), (1, None)])
def test_what_was_there_before_the_request_is_no_answer(
    later: int, fault: Fault | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An event that the reactor learned of in the turn in which the request was sent came before it."""
    link = Link()
    link.exchange.ask()
    link.transport.deliver(answer())
    following = FakeExchange(link.pool)
    monkeypatch.setattr(turns, "current", 7)
    following.begin()
    following.ask()
    turns.current += later
    link.transport.deliver(answer(b"whose?"))
    assert following.fault is fault
    assert following.body == (b"" if fault else b"whose?")
    if fault:
        assert following.may_have_gone, "it may be sent again"
        assert link.transport.ended == "aborted"


def test_an_answer_that_filled_the_read_is_followed_by_a_look() -> None:
    link = Link()
    link.exchange.ask()
    link.transport.is_quiet = lambda: False  # type: ignore[method-assign]
    link.transport.deliver(answer(b"x" * 20000))
    assert link.exchange.ended
    assert link.transport.ended == "aborted"


def test_interim_answers_are_counted() -> None:
    link = Link()
    for _ in range(2):
        link.exchange.ask()
        link.transport.deliver(b"HTTP/1.1 102 Processing\r\n\r\n" * MAX_INFORMATIONAL + answer())
        assert link.exchange.ended
        link.exchange = FakeExchange(link.pool)
        link.exchange.begin()
    link.exchange.ask()
    link.transport.deliver(b"HTTP/1.1 102 Processing\r\n\r\n" * (MAX_INFORMATIONAL + 1))
    assert link.exchange.fault is Fault.BAD_RESPONSE


def test_a_body_in_an_answer_to_head_ends_the_connection() -> None:
    link = Link()
    link.exchange.ask(b"HEAD")
    link.transport.deliver(answer(b"HTTP/1.1 200 OK\r\n\r\n"))
    assert link.exchange.body == b""
    assert link.transport.ended == "aborted"


def test_an_answer_before_the_requests_end_ends_the_connection() -> None:
    """What is left of the body could be taken for a request."""
    for ends_later in (False, True):
        link = Link()
        connection = link.exchange.ask(b"POST", 100, b"x", False)
        link.transport.deliver(answer(b"hello")[:-1])
        if ends_later:
            connection.send_data(b"x" * 99)
            connection.send_end(b"")
        link.transport.deliver(b"o")
        link.world.turn()
        assert link.exchange.ended
        assert link.transport.ended == ("closed" if ends_later else "aborted")
        assert not link.pool.idle


def test_an_answer_before_the_target_took_the_request_ends_the_connection() -> None:
    """The rest of the body would go ahead of the next request, if ever the target takes it."""
    link = Link()
    connection = link.exchange.ask(b"POST", 100, b"", False)
    link.transport.full = True
    connection.send_data(b"x" * 100)
    connection.send_end(b"")
    link.transport.deliver(answer(status="413 Content Too Large"))
    assert link.exchange.ended
    assert link.transport.ended == "aborted"
    assert not link.pool.idle


@pytest.mark.parametrize("why", ["old", "retired", "not kept"])
def test_a_target_that_does_not_help_to_close_is_not_waited_for(why: str) -> None:
    """With TLS our loseConnection waits for the target's close_notify."""
    link = Link(world=World(group={"keep_alive_seconds": 5.0}))
    link.transport.loseConnection = lambda: None  # type: ignore[method-assign]
    link.exchange.ask()
    link.transport.deliver(answer(b"", "Connection: close") if why == "not kept" else answer())
    if why == "retired":
        link.pool.retire()
    if why == "old":
        link.world.wait(5.5)
    link.world.wait(4)
    assert not link.transport.ended
    link.transport.deliver(b"x")
    assert not link.transport.ended
    link.world.wait(2)
    assert link.transport.ended == "aborted"
    assert not link.pool.connections


def test_a_target_may_close_an_idle_connection() -> None:
    link = Link()
    link.exchange.ask()
    link.transport.deliver(answer())
    link.transport.deliver_eof()
    assert not link.pool.idle
    assert not link.pool.connections
    assert link.pool.take(True) is None


def test_an_idle_connection_grows_old() -> None:
    link = Link(world=World(group={"keep_alive_seconds": 20.0}))
    link.exchange.ask()
    link.transport.deliver(answer())
    link.world.wait(15)
    exchange = FakeExchange(link.pool)
    exchange.begin()
    exchange.ask()
    link.world.wait(30)
    assert not link.transport.ended, "in use it is not idle"
    link.transport.deliver(answer())
    link.world.wait(19.8)
    assert not link.transport.ended
    link.world.wait(0.5)
    assert link.transport.ended == "closed"
    assert not link.pool.idle


def test_whether_a_connection_is_quiet() -> None:
    link = Link()
    connection = link.exchange.ask()
    link.transport.deliver(answer())
    assert connection.is_quiet()
    link.transport.reading = False
    link.transport.deliver(b"x")
    assert not connection.is_quiet()


# Tunnels

SWITCHING = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"


def test_a_tunnel_in_any_split() -> None:
    for pieces in splits(SWITCHING + b"HTTP/1.1 "):
        link = Link(upgrade=b"websocket")
        link.exchange.ask()
        for piece in pieces:
            link.transport.deliver(piece)
        assert (link.exchange.statuses, link.exchange.body, link.exchange.unframed) == ([101], b"HTTP/1.1 ", "open")
        link.transport.deliver_eof()
        assert link.exchange.unframed == "closed"
        assert not link.pool.idle


def test_an_upgrade_to_something_else_is_a_bad_answer() -> None:
    link = Link(upgrade=b"websocket")
    link.exchange.ask()
    link.transport.deliver(SWITCHING.replace(b"websocket", b"h2c"))
    assert link.exchange.fault is Fault.BAD_RESPONSE
