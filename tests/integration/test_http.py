"""HTTP through a running balancer: one process group, many behaviours of clients and targets."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.harness import (
    HOST,
    Balancer,
    HttpTarget,
    RawTarget,
    answering,
    connection,
    free_port,
    listener,
    read_all,
    read_answer,
    read_head,
    reset_when_closed,
    resident_bytes,
    rule,
    talk,
    target_group,
    wait_until,
)

pytestmark = pytest.mark.integration

NO_CHECKS = "health-check = off\n"


class World:
    """A balancer with two ordinary targets and one whose behaviour a test sets."""

    def __init__(self, folder: Path) -> None:
        self.a = HttpTarget("a")
        self.b = HttpTarget("b")
        self.port = free_port()
        self.dead = free_port()
        self.raw = RawTarget(self._serve_raw)
        self.behaviour: Any = answering()
        self.balancer = Balancer(
            folder,
            listener("web", self.port, "forward app", idle_timeout="3s", request_header_timeout="1s")
            + rule("raw", 10, "/raw*", "forward raw")
            + rule("kept", 5, "/raw-kept", "forward raw-kept")
            + rule("half-dead", 20, "/half-dead", "forward half-dead")
            + rule("dead", 30, "/dead", "forward dead")
            + rule("empty", 35, "/empty", "forward empty")
            + rule("moved", 40, "/old/*", "redirect https://#{host}:8443/#{path}?#{query} 301")
            + rule("fixed", 50, "/fixed", 'fixed-response 418 text/plain "teapot"')
            + target_group("app", self.a.port, self.b.port, health_check_path="/health", health_check_interval="500ms")
            + target_group("raw", self.raw.port, response_timeout="1s", max_idle_connections="0")
            + target_group("raw-kept", self.raw.port)
            + target_group("half-dead", self.dead, self.a.port)
            + target_group("dead", self.dead)
            + "[target-group:empty]\nprotocol = HTTP\n",
            "workers = 1",
        )

    def _serve_raw(self, skt: socket.socket) -> None:
        self.behaviour(skt)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    world = World(tmp_path_factory.mktemp("http"))
    with world.balancer:
        world.balancer.wait_healthy("app", 2)
        yield world
    world.a.close()
    world.b.close()
    world.raw.close()


def get(world: World, path: str = "/", *fields: str, method: str = "GET", version: str = "1.1") -> bytes:
    lines = [f"{method} {path} HTTP/{version}", "Host: example.com", "Connection: close", *fields]
    return talk(world.port, "\r\n".join([*lines, "", ""]).encode())


def status_of(answer: bytes) -> int:
    match = re.match(rb"HTTP/1\.1 (\d{3}) ", answer)
    assert match, answer
    return int(match[1])


def seen_fields(answer: bytes) -> list[tuple[str, str]]:
    """The fields that the target saw, from `/headers`."""
    return [tuple(pair) for pair in json.loads(answer.partition(b"\r\n\r\n")[2])["headers"]]


# Forwarding


def test_consecutive_requests_meet_different_targets(world: World) -> None:
    answers = {get(world).rpartition(b"\r\n\r\n")[2] for _ in range(2)}
    assert answers == {b"a\n", b"b\n"}


def test_a_kept_connection_serves_many_requests(world: World) -> None:
    with connection(world.port) as skt:
        for _ in range(20):
            skt.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert read_answer(skt).startswith(b"HTTP/1.1 200 ")


def test_pipelined_requests_are_answered_in_order(world: World) -> None:
    requests = b"".join(b"GET /status/%d HTTP/1.1\r\nHost: x\r\n\r\n" % s for s in (201, 404, 202, 500, 203))
    requests += b"GET /fixed HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    answer = talk(world.port, requests)
    assert re.findall(rb"HTTP/1\.1 (\d{3}) ", answer) == [b"201", b"404", b"202", b"500", b"203", b"418"]


def test_a_thousand_pipelined_requests(world: World) -> None:
    requests = b"GET /fixed HTTP/1.1\r\nHost: x\r\n\r\n" * 1000 + b"GET / HTTP/1.0\r\n\r\n"
    answer = talk(world.port, requests)
    assert answer.count(b"HTTP/1.1 418 ") == 1000
    assert answer.count(b"HTTP/1.1 200 ") == 1


def test_head_has_the_length_and_no_body(world: World) -> None:
    answer = get(world, method="HEAD")
    assert b"Content-Length: 2\r\n" in answer
    assert answer.endswith(b"\r\n\r\n")


@pytest.mark.parametrize("status", [204, 304])
def test_an_answer_without_body_keeps_the_connection(world: World, status: int) -> None:
    def serve(skt: socket.socket) -> None:
        while read_head(skt):
            skt.sendall(b"HTTP/1.1 %d X\r\nETag: 1\r\n\r\n" % status)

    world.behaviour = serve
    with connection(world.port) as skt:
        for _ in range(3):
            skt.sendall(b"GET /raw HTTP/1.1\r\nHost: x\r\n\r\n")
            answer = read_head(skt)
            assert status_of(answer) == status
            assert b"ransfer-" not in answer


@pytest.mark.parametrize("size", [0, 1, 5, 65536, 3_000_000])
def test_a_body_comes_back_as_it_went(world: World, size: int) -> None:
    body = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    with connection(world.port) as skt:
        head = b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % size
        threading.Thread(target=skt.sendall, args=(head + body,), daemon=True).start()
        answer = read_all(skt)
    assert answer.partition(b"\r\n\r\n")[2] == body


def test_a_chunked_body_goes_through_at_every_split(world: World) -> None:
    message = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n4;x=y\r\ndefg\r\n0\r\n\r\n"
    for index in range(1, len(message)):
        with connection(world.port) as skt:
            skt.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            skt.sendall(message[:index])
            time.sleep(0.001)
            skt.sendall(message[index:])
            answer = read_head(skt)
            while not answer.endswith(b"abcdefg"):
                more = skt.recv(100)
                assert more, (index, answer)
                answer += more


def test_chunked_answer_with_trailers_reaches_an_http11_client(world: World) -> None:
    world.behaviour = answering(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 7\r\n\r\n"
    )
    answer = get(world, "/raw")
    assert answer.endswith(b"5\r\nhello\r\n0\r\nX-Sum: 7\r\n\r\n")


def test_chunked_answer_is_unchunked_for_an_http10_client(world: World) -> None:
    world.behaviour = answering(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n")
    answer = talk(world.port, b"GET /raw HTTP/1.0\r\n\r\n")
    assert answer.endswith(b"\r\n\r\nhello")
    assert b"chunked" not in answer


def test_http10_keep_alive(world: World) -> None:
    with connection(world.port) as skt:
        for _ in range(2):
            skt.sendall(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
            answer = read_answer(skt)
            assert b"Connection: keep-alive\r\n" in answer


def test_an_answer_that_ends_with_the_connection(world: World) -> None:
    world.behaviour = answering(b"HTTP/1.0 200 OK\r\n\r\nto the end")
    answer = get(world, "/raw")
    assert answer.endswith(b"a\r\nto the end\r\n0\r\n\r\n")


def test_expect_100_continue(world: World) -> None:
    def serve(skt: socket.socket) -> None:
        head = read_head(skt)
        assert b"100-continue" in head
        skt.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = skt.recv(100)
        skt.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

    world.behaviour = serve
    with connection(world.port) as skt:
        skt.sendall(b"POST /raw HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n")
        assert read_head(skt) == b"HTTP/1.1 100 Continue\r\n\r\n"
        skt.sendall(b"body")
        answer = read_head(skt)
        assert answer.endswith(b"body") or skt.recv(10) == b"body"


def test_early_hints_are_passed_on(world: World) -> None:
    world.behaviour = answering(
        b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx"
    )
    answer = get(world, "/raw")
    assert answer.startswith(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 200 OK\r\n")


def test_websocket_upgrade_becomes_a_tunnel(world: World) -> None:
    def serve(skt: socket.socket) -> None:
        head = read_head(skt).lower()
        assert b"upgrade: websocket" in head
        assert b"connection: upgrade" in head
        skt.sendall(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhello")
        while data := skt.recv(100):
            skt.sendall(data.upper())

    world.behaviour = serve
    with connection(world.port) as skt:
        skt.sendall(b"GET /raw HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        answer = read_head(skt)
        assert answer.startswith(b"HTTP/1.1 101 ")
        while not answer.endswith(b"hello"):
            answer += skt.recv(100)
        skt.sendall(b"abc")
        assert skt.recv(100) == b"ABC"


def test_other_upgrades_are_not_passed_on(world: World) -> None:
    answer = get(world, "/headers", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__")
    names = {name.lower() for name, _ in seen_fields(answer)}
    assert not names & {"upgrade", "http2-settings", "connection"}


# Fields


def test_forwarded_fields(world: World) -> None:
    seen = seen_fields(get(world, "/headers"))
    assert ("X-Forwarded-For", HOST) in seen
    assert ("X-Forwarded-Proto", "http") in seen
    assert ("X-Forwarded-Port", str(world.port)) in seen
    [trace] = [value for name, value in seen if name.lower() == "x-amzn-trace-id"]
    assert re.fullmatch(r"Root=1-[0-9a-f]{8}-[0-9a-f]{24}", trace)


def test_forwarded_for_is_appended_and_the_others_replaced(world: World) -> None:
    answer = get(world, "/headers", "X-Forwarded-For: 1.2.3.4", "x-forwarded-proto: https", "X-Forwarded-Port: 1")
    seen = seen_fields(answer)
    assert [v for n, v in seen if n.lower() == "x-forwarded-for"] == [f"1.2.3.4, {HOST}"]
    assert [v for n, v in seen if n.lower() == "x-forwarded-proto"] == ["http"]
    assert [v for n, v in seen if n.lower() == "x-forwarded-port"] == [str(world.port)]


def test_trace_id_with_a_root_gets_self(world: World) -> None:
    seen = seen_fields(
        get(world, "/headers", "X-Amzn-Trace-Id: Root=1-67891233-abcdef012345678912345678;CalledFrom=app")
    )
    [trace] = [value for name, value in seen if name.lower() == "x-amzn-trace-id"]
    assert re.fullmatch(r"Self=1-[0-9a-f-]{33};Root=1-67891233-abcdef012345678912345678;CalledFrom=app", trace)


def test_hop_by_hop_fields_are_removed(world: World) -> None:
    answer = talk(
        world.port,
        b"GET /headers HTTP/1.1\r\nHost: x\r\nConnection: close, X-Secret\r\nX-Secret: 1\r\nKeep-Alive: 5\r\n"
        b"Proxy-Connection: keep-alive\r\nTE: gzip\r\nX-Kept: 1\r\n\r\n",
    )
    names = {name.lower() for name, _ in seen_fields(answer)}
    assert "x-kept" in names
    assert not names & {"x-secret", "keep-alive", "proxy-connection", "te", "connection"}


def test_more_than_thirty_forwarded_addresses(world: World) -> None:
    assert status_of(get(world, "/", "X-Forwarded-For: " + ", ".join(["1.1.1.1"] * 31))) == 463


def test_absolute_form_decides_the_host(world: World) -> None:
    answer = talk(
        world.port, b"GET http://other.example/headers HTTP/1.1\r\nHost: example.com\r\nConnection: close\r\n\r\n"
    )
    assert ("Host", "other.example") in seen_fields(answer)


# The balancer's own answers


def test_redirect(world: World) -> None:
    answer = get(world, "/old/page?x=1")
    assert status_of(answer) == 301
    assert b"\r\nLocation: https://example.com:8443/old/page?x=1\r\n" in answer


@pytest.mark.parametrize(
    ("head", "host"),
    [
        ("GET /old/x HTTP/1.1\r\nHost: Example.com:8080\r\nConnection: close", "example.com"),
        ("GET /old/x HTTP/1.1\r\nHost: [::1]:8080\r\nConnection: close", "[::1]"),
        ("GET /old/x HTTP/1.0", HOST),
        ("GET http://other.example:1/old/x HTTP/1.1\r\nHost: x\r\nConnection: close", "other.example"),
    ],
)
def test_redirect_keeps_the_host_without_its_port(world: World, head: str, host: str) -> None:
    answer = talk(world.port, f"{head}\r\n\r\n".encode())
    assert f"\r\nLocation: https://{host}:8443/old/x\r\n".encode() in answer


def test_fixed_response(world: World) -> None:
    answer = get(world, "/fixed")
    assert status_of(answer) == 418
    assert answer.endswith(b"teapot")


def test_fixed_response_to_a_post_keeps_the_connection(world: World) -> None:
    with connection(world.port) as skt:
        for _ in range(2):
            skt.sendall(b"POST /fixed HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody")
            assert status_of(read_answer(skt)) == 418


@pytest.mark.parametrize(
    ("path", "status"), [("/dead", 502), ("/empty", 503), ("/half-dead", 200)], ids=["dead", "empty", "half-dead"]
)
def test_targets_that_are_not_there(world: World, path: str, status: int) -> None:
    assert {status_of(get(world, path)) for _ in range(4)} == {status}


def test_a_post_goes_to_the_next_target_when_the_first_refuses(world: World) -> None:
    before = world.a.bodies
    for _ in range(4):
        answer = get(world, "/half-dead", "Content-Length: 0", method="POST")
        assert status_of(answer) == 200
    assert world.a.bodies == before + 4


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (b"", 502),
        (b"nonsense\r\n\r\n", 502),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx", 502),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 502),
        (b"HTTP/1.1 200 OK\r\nX-Big: " + b"x" * 40000 + b"\r\n\r\n", 502),
        (b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", 502),
    ],
    ids=["closed", "garbage", "two-lengths", "length-and-chunked", "big-head", "unasked-101"],
)
def test_a_bad_answer_is_502(world: World, answer: bytes, status: int) -> None:
    world.behaviour = answering(answer)
    assert status_of(get(world, "/raw")) == status


def test_a_target_that_does_not_answer_is_504(world: World) -> None:
    world.behaviour = lambda skt: time.sleep(3)
    began = time.monotonic()
    assert status_of(get(world, "/raw")) == 504
    assert 0.9 < time.monotonic() - began < 2.5


@pytest.mark.parametrize(
    ("head", "rest"),
    [
        (b"Content-Length: 10\r\n\r\n12345", b""),
        (b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", b""),
        (b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", b"ZZ\r\n"),
    ],
    ids=["length", "chunked", "bad-chunk"],
)
def test_a_cut_answer_looks_cut(world: World, head: bytes, rest: bytes) -> None:
    def serve(skt: socket.socket) -> None:
        read_head(skt)
        skt.sendall(b"HTTP/1.1 200 OK\r\n" + head)
        time.sleep(0.1)
        skt.sendall(rest)

    world.behaviour = serve
    answer = get(world, "/raw")
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert not answer.endswith(b"0\r\n\r\n")
    assert answer.endswith((b"12345", b"hello\r\n"))


def test_a_kept_target_connection_that_was_closed_is_replaced(world: World) -> None:
    world.behaviour = answering(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx")  # then closes without saying so
    for _ in range(10):
        assert status_of(get(world, "/raw-kept")) == 200


# Bad clients


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\nHost: a\n\n", 400),
        (b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 501),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nZ\r\n", 400),
        (b"GET /" + b"x" * 17000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 17000 + b"\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX : y\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n z\r\n\r\n", 400),
        (b"TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", 405),
        (b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n", 405),
        (b"\x16\x03\x01\x02\x00\x01", 400),
    ],
)
def test_a_malformed_request_is_refused_and_the_connection_closed(
    world: World, request_bytes: bytes, status: int
) -> None:
    answer = talk(world.port, request_bytes)
    assert status_of(answer) == status
    assert b"\r\nConnection: close\r\n" in answer


def test_a_bad_chunk_after_the_body_began_never_reaches_the_target_as_an_end(world: World) -> None:
    received: list[bytes] = []

    def serve(skt: socket.socket) -> None:
        data = b""
        try:
            while more := skt.recv(1000):
                data += more
        finally:
            received.append(data)

    world.behaviour = serve
    with connection(world.port) as skt:
        skt.sendall(b"POST /raw HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        time.sleep(0.2)
        skt.sendall(b"nonsense\r\n")
        assert status_of(read_head(skt)) == 400
    wait_until(lambda: received, 3)
    assert not any(data.endswith(b"0\r\n\r\n") for data in received)


def test_an_unfinished_head_times_out(world: World) -> None:
    began = time.monotonic()
    assert status_of(talk(world.port, b"GET / HTTP/1.1\r\nHost:")) == 408
    assert 0.9 < time.monotonic() - began < 2.5


def test_dripping_a_head_does_not_extend_its_time(world: World) -> None:
    with connection(world.port) as skt:
        began = time.monotonic()
        with pytest.raises(OSError):
            for byte in b"GET / HTTP/1.1\r\nHost: example.com\r\nX-Slow: " + b"x" * 1000:
                skt.sendall(bytes([byte]))
                time.sleep(0.05)
                if time.monotonic() - began > 6:
                    return
        assert time.monotonic() - began < 4.5


def test_an_idle_connection_is_closed_quietly(world: World) -> None:
    began = time.monotonic()
    assert talk(world.port, b"", seconds=8) == b""
    assert 2.5 < time.monotonic() - began < 5


def test_a_half_closed_client_gets_its_answer(world: World) -> None:
    answer = talk(world.port, b"GET /slow/0.3 HTTP/1.1\r\nHost: x\r\n\r\n", half_close=True)
    assert status_of(answer) == 200


def test_a_client_that_resets_disturbs_nobody(world: World) -> None:
    for _ in range(20):
        with connection(world.port) as skt:
            skt.sendall(b"GET /slow/0.2 HTTP/1.1\r\nHost: x\r\n\r\n")
            reset_when_closed(skt)
    assert status_of(get(world)) == 200


def test_a_slow_reader_gets_it_all_in_bounded_memory(world: World) -> None:
    size = 200_000_000
    [pid] = world.balancer.worker_pids()
    before = resident_bytes(pid)
    with connection(world.port, 30) as skt:
        skt.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        skt.sendall(b"GET /bytes/%d HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" % size)
        time.sleep(1)
        grown = resident_bytes(pid) - before
        received = len(read_head(skt).partition(b"\r\n\r\n")[2])
        while more := skt.recv(1 << 20):
            received += len(more)
    assert received == size
    assert grown < 8_000_000, f"grew by {grown} bytes while the client did not read"


# Accounts


def test_each_request_leaves_a_line(world: World) -> None:
    mark = f"/status/201?mark={time.monotonic_ns()}"
    get(world, mark, 'User-Agent: test\x80"\\')
    [line] = wait_until(
        lambda: [line for line in world.balancer.access_log() if mark in json.dumps(line)], 5, "the log line"
    )
    assert line["status"] == 201
    text = json.dumps(line)
    assert "app" in text
    assert HOST in text


def test_metrics_count(world: World) -> None:
    get(world)
    text = wait_until(lambda: world.balancer.get("/metrics")[1].decode(), 5)
    assert "lbproxy_" in text
    assert 'listener="web"' in text
