"""One exchange between a client and targets that the test plays: each phase, each event, and the accounts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule

from lbproxy.dataplane.proxy.exchange import CHUNKED, NO_BODY
from lbproxy.dataplane.proxy.faults import Fault
from tests.dataplane.doubles import request
from tests.dataplane.proxy.scene import (
    CHUNKS,
    GET,
    IDLE,
    POST,
    RESPONSE,
    SWITCHING,
    UPGRADE,
    FakeUpstream,
    Scene,
    response_head,
)
from tests.dataplane.proxy.walk import ExchangeWalk

# The usual way


def test_a_request_and_its_answer() -> None:
    scene = Scene()
    exchange = scene.ask(GET)
    assert scene.in_flight == 1
    upstream = scene.pool.succeed()
    assert upstream.block.startswith(b"GET / HTTP/1.1\r\nHost: example.com\r\nX-Forwarded-For: 192.0.2.7\r\n")
    assert (upstream.framing, upstream.data, upstream.whole) == (NO_BODY, b"", True)
    assert scene.client.patience == RESPONSE
    scene.client.time += 2
    upstream.let_go().response(response_head(), True, b"hello", True)
    assert (scene.client.status, scene.client.body, scene.client.whole) == (200, b"hello", True)
    scene.check_over()
    assert (exchange.target_time, exchange.response_time, exchange.request_time) == (2.0, 0.0, 0.0)
    assert exchange.error_reason == ""


def test_an_answer_in_pieces() -> None:
    scene = Scene()
    exchange = scene.ask(GET)
    upstream = scene.pool.succeed()
    exchange.response(response_head(), True, b"he", False)
    assert scene.client.patience == IDLE
    exchange.response_data(b"llo")
    upstream.let_go().response_ended(b"X: 1\r\n")
    assert (scene.client.body, scene.client.whole, scene.client.trailers) == (b"hello", True, b"X: 1\r\n")
    scene.check_over()


class Seen:
    """An `Observation` that notes what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[object, float, float]] = []

    def responded(self, status: int, seconds: float, now: float) -> None:
        self.told.append((status, seconds, now))

    def failed(self, seconds: float, now: float) -> None:
        self.told.append(("failed", seconds, now))


def observed() -> tuple[Scene, Seen]:
    scene, seen = Scene(), Seen()
    scene.pools[1].observation = seen  # type: ignore[assignment]
    return scene, seen


def test_an_answer_is_observed() -> None:
    scene, seen = observed()
    exchange = scene.ask(GET)
    upstream = scene.pool.succeed()
    scene.client.time += 0.25
    upstream.let_go().response(response_head(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"), False, b"", True)
    assert exchange.done
    assert seen.told == [(503, 0.25, scene.client.time)]


def test_a_failed_connection_is_observed() -> None:
    scene, seen = observed()
    scene.ask(GET)
    scene.pool.fail()
    assert seen.told == [("failed", 0.0, scene.client.time)]
    assert scene.pools[1].counters.faults == {"ConnectRefused": 1}


def test_an_answer_that_does_not_come_is_observed_once() -> None:
    scene, seen = observed()
    exchange = scene.ask(GET)
    scene.pool.succeed()
    scene.client.time += RESPONSE
    exchange.timed_out()
    assert seen.told == [("failed", RESPONSE, scene.client.time)]
    assert scene.pools[1].counters.faults == {"ResponseTimeout": 1}


def test_what_comes_of_the_body_while_connecting_is_kept() -> None:
    scene = Scene()
    exchange = scene.ask(CHUNKS, b"ab", False)
    assert scene.client.paused
    exchange.request_data(b"cd")
    exchange.end_request(b"X-Sum: 1\r\n")
    upstream = scene.pool.succeed()
    assert (upstream.framing, upstream.data, upstream.trailers) == (CHUNKED, b"abcd", b"X-Sum: 1\r\n")
    assert upstream.whole
    assert scene.client.patience == RESPONSE


def test_a_body_flows_once_connected() -> None:
    scene = Scene()
    exchange = scene.ask(POST, b"ab", False)
    upstream = scene.pool.succeed()
    assert (upstream.framing, upstream.data, upstream.whole) == (8, b"ab", False)
    assert not scene.client.paused
    assert scene.client.patience == IDLE
    exchange.request_data(b"cdefgh")
    assert scene.client.patience == IDLE
    exchange.end_request(b"")
    assert (upstream.data, upstream.whole) == (b"abcdefgh", True)
    assert scene.client.patience == RESPONSE


def test_a_kept_connection_is_used_first() -> None:
    scene = Scene()
    kept = FakeUpstream(reused=True)
    scene.pools[1].kept.append(kept)
    scene.ask(GET)
    assert kept.exchange is scene.exchange
    assert scene.pools[1].connects == 0


def test_back_pressure_is_passed_on() -> None:
    scene = Scene()
    exchange = scene.ask(POST, b"", False)
    upstream = scene.pool.succeed()
    exchange.pause_request()
    assert scene.client.paused
    exchange.resume_request()
    assert not scene.client.paused
    exchange.request_data(b"12345678")
    exchange.end_request(b"")
    exchange.response(response_head(), True, b"", False)
    exchange.pause_response()
    assert upstream.paused
    exchange.resume_response()
    assert not upstream.paused


def test_back_pressure_from_within_a_write() -> None:
    """A transport may say that it is full while it takes a piece, also the last one."""
    scene = Scene()
    exchange = scene.ask(GET)
    upstream = scene.pool.succeed()
    scene.client.on_data = exchange.pause_response
    exchange.response(response_head(), True, b"he", False)
    assert upstream.paused
    exchange.resume_response()
    exchange.response_data(b"llo")
    assert upstream.paused
    upstream.let_go().response_ended(b"")
    scene.check_over()


def test_interim_answers_are_passed_on() -> None:
    scene = Scene()
    exchange = scene.ask(POST, b"", False)
    scene.pool.succeed()
    exchange.informational(response_head(b"HTTP/1.1 100 Continue\r\n\r\n"))
    assert scene.client.patience == IDLE
    exchange.request_data(b"12345678")
    exchange.end_request(b"")
    exchange.informational(response_head(b"HTTP/1.1 103 Early Hints\r\n\r\n"))
    assert scene.client.patience == RESPONSE
    assert scene.client.interim == [100, 103]


def test_a_tunnel_waits_as_an_idle_connection_does() -> None:
    """Also when the target has caught up with what was sent to it."""
    scene = Scene()
    tunnelling(scene)
    scene.exchange.pause_request()
    scene.exchange.resume_request()
    assert scene.client.patience == IDLE


def test_the_clients_pause_while_a_body_is_sent_holds() -> None:
    """A target's transport may be full at once."""
    scene = Scene()
    exchange = scene.ask(POST, b"12", False)

    class FullUpstream(FakeUpstream):
        def send_request(self, *args: Any) -> None:
            super().send_request(*args)
            exchange.pause_request()

    scene.pool.waiting = None
    exchange.connected(FullUpstream())
    assert scene.client.paused


def test_each_try_is_in_the_record() -> None:
    scene = Scene(targets=3)
    exchange = scene.ask(GET)
    first = scene.pool.key
    scene.pool.fail()
    second = scene.pool.key
    upstream = scene.pool.succeed()
    upstream.let_go().response(response_head(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"), False, b"", True)
    assert list(exchange.targets_tried) == [(first, 0), (second, 404)]


def test_each_failed_try_is_in_the_record_once() -> None:
    scene = Scene(targets=2)
    exchange = scene.ask(GET)
    keys = []
    for _ in range(2):
        keys.append((scene.pool.key, 0))
        scene.pool.fail()
    assert list(exchange.targets_tried) == keys


def test_a_second_try_at_the_same_target_is_in_the_record() -> None:
    scene = Scene()
    kept = FakeUpstream(reused=True)
    scene.pools[1].kept.append(kept)
    exchange = scene.ask(GET)
    kept.let_go().upstream_failed(Fault.TARGET_CLOSED, True)
    scene.pool.succeed().let_go().response(response_head(), True, b"hello", True)
    assert list(exchange.targets_tried) == [("10.0.0.1:80", 0), ("10.0.0.1:80", 200)]


def test_no_try_no_record() -> None:
    scene = Scene()
    assert list(scene.ask(request("/fixed")).targets_tried) == []


def test_the_client_is_told_although_the_log_fails() -> None:
    scene = Scene()
    scene.ask(GET)
    upstream = scene.pool.succeed()

    def fail(record: object) -> None:
        raise ValueError("cannot be written")

    scene.log.log = fail  # type: ignore[method-assign]
    with pytest.raises(ValueError, match="written"):
        upstream.let_go().response(response_head(), True, b"hello", True)
    assert scene.client.done == 1
    assert scene.in_flight == 0


# Answers without a target


@pytest.mark.parametrize(
    ("head", "status", "reason"),
    [
        (request("/fixed"), 200, ""),
        (request("/old"), 301, ""),
        (request("/", "X-Forwarded-For: " + ", ".join(["192.0.2.1"] * 31)), 463, "TooManyForwardedAddresses"),
    ],
)
def test_an_answer_of_our_own(head: bytes, status: int, reason: str) -> None:
    scene = Scene()
    exchange = scene.ask(head)
    assert (scene.client.status, exchange.status, exchange.target_status) == (status, status, 0)
    assert exchange.error_reason == reason
    assert exchange.target == ""
    scene.check_over()


@pytest.mark.parametrize("path", ["/fixed", "/old"])
def test_head_is_told_the_length_that_get_would_have(path: str) -> None:
    """RFC 9110 section 8.6."""
    asked, got = Scene(), Scene()
    asked.ask(request(path, method="HEAD"))
    got.ask(request(path))
    assert asked.client.body == b""
    assert asked.client.length == got.client.length == len(got.client.body)


def test_a_group_without_targets_is_503() -> None:
    scene = Scene(targets=0)
    exchange = scene.ask(GET)
    assert scene.client.status == 503
    assert exchange.error_reason == "NoTargets"
    assert exchange.trace_id in scene.client.body
    scene.check_over()


# Another try


def test_a_target_that_refuses_is_passed_over() -> None:
    scene = Scene(targets=3)
    exchange = scene.ask(POST, b"12", False)
    keys = []
    for _ in range(2):
        keys.append(scene.pool.key)
        scene.pool.fail()
    upstream = scene.pool.succeed()
    assert len({*keys, exchange.target}) == 3
    assert upstream.data == b"12"
    assert scene.in_flight == 1
    upstream.let_go().response(response_head(), True, b"hello", True)
    assert exchange.status == 200
    scene.check_over()


@pytest.mark.parametrize(
    ("fault", "status"), [(Fault.CONNECT_REFUSED, 502), (Fault.CONNECT_TIMEOUT, 504), (Fault.TLS_FAILED, 502)]
)
def test_when_all_targets_refuse_the_last_one_decides(fault: Fault, status: int) -> None:
    scene = Scene(targets=2)
    exchange = scene.ask(GET)
    scene.pool.fail(Fault.CONNECT_REFUSED)
    scene.pool.fail(fault)
    assert (scene.client.status, exchange.error_reason) == (status, fault.reason)
    assert [pool.connects for pool in scene.pools.values()] == [1, 1]
    scene.check_over()


@pytest.mark.parametrize("fault", [Fault.TARGET_CLOSED, Fault.TARGET_RESET])
def test_an_idempotent_request_is_sent_again_when_a_kept_connection_had_gone(fault: Fault) -> None:
    scene = Scene()
    kept = [FakeUpstream(reused=True), FakeUpstream(reused=True)]
    scene.pools[1].kept.extend(kept)
    scene.ask(b"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n", b"body")
    kept[1].let_go().upstream_failed(fault, True)
    assert kept[0].exchange is None, "the others may have gone too"
    upstream = scene.pool.succeed()
    assert (upstream.block, upstream.data, upstream.whole) == (kept[1].block, b"body", True)
    assert scene.in_flight == 1
    upstream.let_go().upstream_failed(fault, False)
    assert scene.client.status == 502, "once is enough"
    scene.check_over()


@pytest.mark.parametrize(
    ("head", "body", "ended"),
    [
        (POST, b"12345678", True),
        (b"PATCH / HTTP/1.1\r\nHost: x\r\n\r\n", b"", True),
        (b"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 8\r\n\r\n", b"1234", False),
        (b"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n", b"x" * 100_000, True),
    ],
    ids=["post", "patch", "body-in-pieces", "large-body"],
)
def test_what_must_or_can_not_be_repeated_is_sent_once(head: bytes, body: bytes, ended: bool) -> None:
    scene = Scene(targets=2)
    kept = FakeUpstream(reused=True)
    for pool in scene.pools.values():
        pool.kept.append(kept)
    scene.ask(head, body, ended)
    kept.let_go().upstream_failed(Fault.TARGET_CLOSED, True)
    assert scene.client.status == 502
    assert [pool.connects for pool in scene.pools.values()] == [0, 0]
    assert False in [pool.asked_repeatable for pool in scene.pools.values()], (
        "so it gets a connection that surely stands"
    )
    scene.check_over()


def test_a_target_that_is_going_down_is_passed_over_once() -> None:
    scene = Scene(targets=3)
    for pool in scene.pools.values():
        pool.kept.append(FakeUpstream(reused=True))
    exchange = scene.ask(GET)
    for reused in (True, False, False):
        upstream: Any = exchange.upstream or scene.pool.succeed()
        upstream.let_go().upstream_failed(Fault.TARGET_RESET, reused)
    assert scene.client.status == 502
    assert sorted(pool.begun for pool in scene.pools.values()) == [0, 1, 2], "a fatal request must not go round"
    scene.check_over()


def test_nothing_is_repeated_once_the_answer_began() -> None:
    scene = Scene()
    kept = FakeUpstream(reused=True)
    scene.pools[1].kept.append(kept)
    exchange = scene.ask(GET)
    exchange.response(response_head(), True, b"he", False)
    kept.let_go().upstream_failed(Fault.TARGET_CLOSED, False)
    assert scene.client.was_cut
    scene.check_over()


# Every phase and every end


def connecting(scene: Scene) -> None:
    scene.ask(GET)


def connecting_with_body(scene: Scene) -> None:
    scene.ask(POST, b"12", False)


def sending(scene: Scene) -> None:
    scene.ask(POST, b"12", False)
    scene.pool.succeed()


def sending_to_a_slow_target(scene: Scene) -> None:
    sending(scene)
    scene.exchange.pause_request()


def waiting(scene: Scene) -> None:
    scene.ask(GET)
    scene.pool.succeed()


def relaying(scene: Scene) -> None:
    waiting(scene)
    scene.exchange.response(response_head(), True, b"he", False)


def relaying_while_sending(scene: Scene) -> None:
    sending(scene)
    scene.exchange.response(response_head(), True, b"he", False)


def relaying_to_a_slow_client(scene: Scene) -> None:
    relaying(scene)
    scene.exchange.pause_response()


def tunnelling(scene: Scene) -> None:
    scene.ask(UPGRADE)
    scene.pool.succeed()
    scene.exchange.switch_protocols(response_head(SWITCHING))


def tunnelling_parts_of_frames(scene: Scene) -> None:
    tunnelling(scene)
    scene.exchange.request_data(b"\x82")
    scene.exchange.response_data(b"\x82\x05hell")


ANSWERED, CUT, ENDED, SILENT = "answered", "cut", "ended", "silent"


def client_lost(scene: Scene) -> None:
    scene.exchange.client_lost()


def client_failed(scene: Scene) -> None:
    scene.exchange.client_failed(Fault.BAD_REQUEST)


def timed_out(scene: Scene) -> None:
    scene.exchange.timed_out()


def target_reset(scene: Scene) -> None:
    upstream: Any = scene.exchange.upstream
    upstream.let_go().upstream_failed(Fault.TARGET_RESET, False)


def bad_response(scene: Scene) -> None:
    upstream: Any = scene.exchange.upstream
    upstream.let_go().upstream_failed(Fault.BAD_RESPONSE, False)


def target_gone(scene: Scene) -> None:
    scene.exchange.target_gone()


def drained(scene: Scene) -> None:
    scene.exchange.end(Fault.DRAIN_DEADLINE)


TABLE = [
    (connecting, client_lost, SILENT, 460, "ClientClosed"),
    (connecting, timed_out, ANSWERED, 504, "ResponseTimeout"),
    (connecting, target_gone, ANSWERED, 502, "TargetDeregistered"),
    (connecting, drained, ANSWERED, 503, "DrainDeadline"),
    (connecting_with_body, client_lost, SILENT, 460, "ClientClosed"),
    (connecting_with_body, client_failed, ANSWERED, 400, "BadRequest"),
    (connecting_with_body, target_gone, ANSWERED, 502, "TargetDeregistered"),
    (sending, client_lost, SILENT, 460, "ClientClosed"),
    (sending, client_failed, ANSWERED, 400, "BadRequest"),
    (sending, timed_out, ANSWERED, 408, "ClientTimeout"),
    (sending, target_reset, ANSWERED, 502, "TargetReset"),
    (sending, bad_response, ANSWERED, 502, "BadResponse"),
    (sending, target_gone, ANSWERED, 502, "TargetDeregistered"),
    (sending, drained, ANSWERED, 503, "DrainDeadline"),
    (sending_to_a_slow_target, timed_out, ANSWERED, 504, "ResponseTimeout"),
    (waiting, client_lost, SILENT, 460, "ClientClosed"),
    (waiting, timed_out, ANSWERED, 504, "ResponseTimeout"),
    (waiting, target_reset, ANSWERED, 502, "TargetReset"),
    (waiting, bad_response, ANSWERED, 502, "BadResponse"),
    (waiting, target_gone, ANSWERED, 502, "TargetDeregistered"),
    (waiting, drained, ANSWERED, 503, "DrainDeadline"),
    (relaying, client_lost, SILENT, 200, "ClientClosed"),
    (relaying, timed_out, CUT, 200, "TargetStalled"),
    (relaying, target_reset, CUT, 200, "TargetReset"),
    (relaying, bad_response, CUT, 200, "BadResponse"),
    (relaying, target_gone, CUT, 200, "TargetDeregistered"),
    (relaying, drained, CUT, 200, "DrainDeadline"),
    (relaying_while_sending, client_lost, SILENT, 200, "ClientClosed"),
    (relaying_while_sending, client_failed, CUT, 200, "BadRequest"),
    (relaying_while_sending, timed_out, CUT, 200, "TargetStalled"),
    (relaying_while_sending, target_reset, CUT, 200, "TargetReset"),
    (relaying_to_a_slow_client, timed_out, CUT, 200, "ClientTimeout"),
    (relaying_to_a_slow_client, client_lost, SILENT, 200, "ClientClosed"),
    (tunnelling, client_lost, SILENT, 101, ""),
    (tunnelling, timed_out, ENDED, 101, "IdleTimeout"),
    (tunnelling, target_reset, CUT, 101, "TargetReset"),
    (tunnelling, target_gone, ENDED, 101, "TargetDeregistered"),
    (tunnelling, drained, ENDED, 101, "DrainDeadline"),
    (tunnelling_parts_of_frames, target_gone, CUT, 101, "TargetDeregistered"),
    (tunnelling_parts_of_frames, drained, CUT, 101, "DrainDeadline"),
]


@pytest.mark.parametrize(
    ("phase", "event", "outcome", "status", "reason"),
    TABLE,
    ids=[f"{row[0].__name__}-{row[1].__name__}" for row in TABLE],
)
def test_every_phase_and_every_end(
    phase: Callable[[Scene], None], event: Callable[[Scene], None], outcome: str, status: int, reason: str
) -> None:
    scene = Scene()
    phase(scene)
    upstream: Any = scene.exchange.upstream
    event(scene)
    client = scene.client
    seen = CUT if client.was_cut else ENDED if client.tunnel_ended else ANSWERED if client.whole else SILENT
    assert (seen, scene.exchange.status, scene.exchange.error_reason) == (outcome, status, reason)
    if seen == ANSWERED:
        assert client.status == status
        assert scene.exchange.trace_id in client.body
    if upstream is not None and event not in (target_reset, bad_response):
        assert upstream.gone
    if reason and reason != "IdleTimeout":
        assert scene.counters.faults[reason] == 1
    scene.check_over()
    # what may still come is ignored
    scene.exchange.client_lost()
    scene.exchange.fail(Fault.DRAIN_DEADLINE)
    scene.check_over()


def test_either_side_ends_the_tunnel() -> None:
    for side in ("client", "target"):
        scene = Scene()
        tunnelling(scene)
        upstream: Any = scene.exchange.upstream
        scene.exchange.request_data(b"up")
        scene.exchange.response_data(b"down")
        assert (upstream.data, scene.client.body) == (b"up", b"down")
        if side == "client":
            scene.exchange.client_closed_tunnel()
            assert upstream.gone == "closed", "what the client sent last must arrive"
        else:
            upstream.let_go().upstream_closed_tunnel()
        assert scene.client.tunnel_ended
        assert (scene.exchange.kind, scene.exchange.error_reason) == ("ws", "")
        scene.check_over()


GOING_AWAY = b"\x88\x02\x03\xe9"
CLOSE_FROM_CLIENT = b"\x88\x80mask"


def unmasked(frame: bytes) -> bytes:
    assert frame[1] & 0x80
    mask = frame[2:6]
    return bytes([frame[0], frame[1] & 0x7F]) + bytes(a ^ b for a, b in zip(frame[6:], mask, strict=False))


@pytest.mark.parametrize("event", [drained, target_gone])
def test_both_ends_of_a_websocket_are_told_that_it_goes_away(event: Callable[[Scene], None]) -> None:
    """RFC 6455 section 7.4.1; to the target masked, as a client's frames are (section 5.3)."""
    scene = Scene()
    tunnelling(scene)
    upstream: Any = scene.exchange.upstream
    event(scene)
    assert (unmasked(upstream.data), upstream.gone) == (GOING_AWAY, "closed")
    assert (scene.client.body, scene.client.tunnel_ended, scene.exchange.parted) == (GOING_AWAY, True, True)
    scene.check_over()


@pytest.mark.parametrize(
    ("up", "down", "target_is_told", "client_is_told"),
    [
        (b"\x82\x81mask", b"", False, True),
        (b"", b"\x82\x7e\x00", True, False),
        (b"\x02\x80mask", b"\x02\x00", True, True),  # between the frames of a message (section 5.4)
        (CLOSE_FROM_CLIENT, b"", False, True),  # no frame after the last (section 5.5.1)
        (b"", b"\x88\x00", True, False),
    ],
)
def test_a_close_frame_stands_between_frames_and_there_is_one(
    up: bytes, down: bytes, target_is_told: bool, client_is_told: bool
) -> None:
    scene = Scene()
    tunnelling(scene)
    upstream: Any = scene.exchange.upstream
    scene.exchange.request_data(up)
    scene.exchange.response_data(down)
    drained(scene)
    assert upstream.data.startswith(up)
    assert upstream.gone == ("closed" if target_is_told else "aborted")
    assert (unmasked(upstream.data[len(up) :]) == GOING_AWAY) if target_is_told else (upstream.data == up)
    assert scene.client.was_cut is not client_is_told
    assert scene.client.body == down + (GOING_AWAY if client_is_told else b"")
    assert scene.counters.faults["DrainDeadline"] == 1
    scene.check_over()


# Random walks


class ExchangeMachine(ExchangeWalk):
    """Events in any order that its neighbours could cause; the accounts have to be right after each."""

    @initialize(
        number=st.integers(0, 3),
        head=st.sampled_from([GET, POST, CHUNKS, UPGRADE, request("/fixed"), request("/old")]),
        kept=st.integers(0, 2),
        ended=st.booleans(),
    )
    def begin(self, number: int, head: bytes, kept: int, ended: bool) -> None:
        self.scene = Scene(number)
        for pool in self.scene.pools.values():
            pool.kept.extend(FakeUpstream(reused=True) for _ in range(kept))
        self.ask(head, ended)

    @property
    def upstream(self) -> Any:
        return self.exchange.upstream

    def connecting(self) -> bool:
        return any(pool.waiting for pool in self.scene.pools.values())

    def has_upstream(self) -> bool:
        return self.running() and self.upstream is not None

    def awaits_answer(self) -> bool:
        return self.has_upstream() and not self.exchange.response_started

    def relays(self) -> bool:
        return self.has_upstream() and self.exchange.response_started and not self.exchange.tunnel

    def tunnels(self) -> bool:
        return self.has_upstream() and self.exchange.tunnel

    @precondition(connecting)
    @rule()
    def connect(self) -> None:
        self.scene.pool.succeed()

    @precondition(connecting)
    @rule(fault=st.sampled_from([Fault.CONNECT_REFUSED, Fault.CONNECT_TIMEOUT, Fault.TLS_FAILED]))
    def fail_to_connect(self, fault: Fault) -> None:
        self.scene.pool.fail(fault)

    @precondition(lambda self: self.running() and self.body_left)
    @rule()
    def send_nonsense(self) -> None:
        self.exchange.client_failed(Fault.BAD_REQUEST)

    @precondition(ExchangeWalk.running)
    @rule()
    def deregister(self) -> None:
        self.exchange.target_gone()

    @precondition(has_upstream)
    @rule(pause=st.booleans())
    def press_back(self, pause: bool) -> None:
        if pause:
            self.exchange.pause_response()
            self.exchange.pause_request()
        else:
            self.exchange.resume_request()
            self.exchange.resume_response()

    @precondition(awaits_answer)
    @rule()
    def inform(self) -> None:
        self.exchange.informational(response_head(b"HTTP/1.1 103 Early Hints\r\n\r\n"))

    @precondition(awaits_answer)
    @rule(whole=st.booleans())
    def answer(self, whole: bool) -> None:
        if whole:
            self.upstream.let_go().response(response_head(), True, b"hello", True)
        else:
            self.exchange.response(response_head(), True, b"he", False)

    @precondition(lambda self: self.awaits_answer() and self.exchange.head.upgrade)
    @rule()
    def switch(self) -> None:
        self.exchange.switch_protocols(response_head(SWITCHING))

    @precondition(relays)
    @rule(last=st.booleans())
    def relay(self, last: bool) -> None:
        self.exchange.response_data(b"llo")
        if last:
            self.upstream.let_go().response_ended(b"")

    @precondition(has_upstream)
    @rule(fault=st.sampled_from([Fault.TARGET_CLOSED, Fault.TARGET_RESET, Fault.BAD_RESPONSE]))
    def fail_target(self, fault: Fault) -> None:
        upstream = self.upstream
        before = self.exchange.response_started
        upstream.let_go().upstream_failed(fault, upstream.reused and not before)

    @precondition(tunnels)
    @rule(side=st.sampled_from(["client", "target", "data"]))
    def tunnel(self, side: str) -> None:
        if side == "client":
            self.exchange.client_closed_tunnel()
        elif side == "target":
            self.upstream.let_go().upstream_closed_tunnel()
        else:
            self.exchange.request_data(b"up")
            self.exchange.response_data(b"down")

    @invariant()
    def accounts_are_right(self) -> None:
        if not hasattr(self, "scene"):
            return
        scene = self.scene
        assert all(0 <= pool.in_flight <= 1 for pool in scene.pools.values())
        if not self.exchange.done:
            assert scene.in_flight == 1
            assert self.connecting() != self.has_upstream(), "somebody has to go on"


ExchangeMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=20, deadline=None)
TestExchangeMachine = ExchangeMachine.TestCase
