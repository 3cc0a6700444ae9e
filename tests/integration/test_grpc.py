"""gRPC with its real client and server through the balancer, in clear and over TLS."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.certificate_authority import Authority
from tests.integration.harness import HOST, Balancer, free_port, wait_until

PROBED = "protocol = HTTP\nhealth-check-interval = 200ms\nhealth-check-timeout = 200ms\nunhealthy-threshold = 2\n"


def unary(request: bytes, context: grpc.ServicerContext) -> bytes:
    context.set_trailing_metadata((("x-end", "yes"),))
    return b"you said " + request


def refuse(request: bytes, context: grpc.ServicerContext) -> bytes:
    context.abort(grpc.StatusCode.PERMISSION_DENIED, "not you")
    raise AssertionError("abort raises")


def slow(request: bytes, context: grpc.ServicerContext) -> bytes:
    time.sleep(float(request))
    return b"late"


def stream_down(request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
    for number in range(int(request)):
        yield b"%d" % number


def stream_up(requests: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
    return b"%d" % sum(len(request) for request in requests)


def chat(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
    for request in requests:
        yield request.upper()


class GrpcTarget:
    """A grpcio server; ``serving`` is what its health service says (`grpc.health.v1`)."""

    def __init__(self, credentials: grpc.ServerCredentials | None = None) -> None:
        self.serving = True
        self.probes: list[str] = []
        self.server = grpc.server(futures.ThreadPoolExecutor(16))
        self.server.add_generic_rpc_handlers((self._service(), self._health()))
        where = f"{HOST}:0"
        self.port = (
            self.server.add_insecure_port(where)
            if credentials is None
            else self.server.add_secure_port(where, credentials)
        )
        self.server.start()

    def _service(self) -> grpc.GenericRpcHandler:
        return grpc.method_handlers_generic_handler(
            "test.Echo",
            {
                "Unary": grpc.unary_unary_rpc_method_handler(unary),
                "Refuse": grpc.unary_unary_rpc_method_handler(refuse),
                "Slow": grpc.unary_unary_rpc_method_handler(slow),
                "Down": grpc.unary_stream_rpc_method_handler(stream_down),
                "Up": grpc.stream_unary_rpc_method_handler(stream_up),
                "Chat": grpc.stream_stream_rpc_method_handler(chat),
            },
        )

    def _health(self) -> grpc.GenericRpcHandler:
        return grpc.method_handlers_generic_handler(
            "grpc.health.v1.Health", {"Check": grpc.unary_unary_rpc_method_handler(self._check)}
        )

    def _check(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        self.probes.append("check")
        return b"\x08\x01" if self.serving else b"\x08\x02"

    def __enter__(self) -> GrpcTarget:
        return self

    def __exit__(self, *exc: object) -> None:
        self.server.stop(None)


def configuration(port: int, *targets: int, options: str = "health-check = off", listener: str = "HTTP") -> str:
    where = "http2 = on" if listener == "HTTP" else "certificates = front.pem"
    addresses = ", ".join(f"{HOST}:{target}" for target in targets)
    return f"""
[listener:web]
protocol = {listener}
bind = {HOST}:{port}
{where}
default-action = forward app

[target-group:app]
protocol-version = GRPC
targets = {addresses}
{options}
"""


@pytest.fixture
def channel(tmp_path: Path) -> Iterator[grpc.Channel]:
    """Through the balancer to one target."""
    port = free_port()
    with GrpcTarget() as target:
        text = configuration(port, target.port, options="health-check = off\nprotocol = HTTP")
        with Balancer(tmp_path, text, "workers = 1"), grpc.insecure_channel(f"{HOST}:{port}") as channel:
            yield channel


def call(channel: grpc.Channel, method: str = "Unary", request: bytes = b"hello", timeout: float = 10.0) -> Any:
    return channel.unary_unary(f"/test.Echo/{method}")(request, timeout=timeout)


def error_of(call: Callable[[], Any]) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    error: Any = caught.value
    return error.code(), error.details()


def test_every_kind_of_call(channel: grpc.Channel) -> None:
    answer, rpc = channel.unary_unary("/test.Echo/Unary").with_call(b"hello", timeout=10)
    assert answer == b"you said hello"
    assert ("x-end", "yes") in [(key, value) for key, value in rpc.trailing_metadata()]
    assert list(channel.unary_stream("/test.Echo/Down")(b"500", timeout=20)) == [b"%d" % n for n in range(500)]
    big = [bytes(100_000)] * 20
    assert channel.stream_unary("/test.Echo/Up")(iter(big), timeout=20) == b"2000000"
    assert list(channel.stream_stream("/test.Echo/Chat")(iter([b"a", b"b", b"c"]), timeout=20)) == [b"A", b"B", b"C"]


def test_a_conversation_goes_back_and_forth(channel: grpc.Channel) -> None:
    """Each message is answered before the next one is sent."""
    heard: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    said = []

    def speak() -> Iterator[bytes]:
        for number in range(5):
            yield b"x%d" % number
            said.append(heard.get(timeout=10))

    for answer in channel.stream_stream("/test.Echo/Chat")(speak(), timeout=20):
        heard.put(answer)
    assert said == [b"X0", b"X1", b"X2", b"X3", b"X4"]


def test_a_targets_errors_are_its_own(channel: grpc.Channel) -> None:
    assert error_of(lambda: call(channel, "Refuse")) == (grpc.StatusCode.PERMISSION_DENIED, "not you")
    assert error_of(lambda: call(channel, "Nothing"))[0] is grpc.StatusCode.UNIMPLEMENTED  # a head alone


def test_a_client_that_gives_up_ends_its_call_only(channel: grpc.Channel) -> None:
    rpc = channel.unary_unary("/test.Echo/Slow").future(b"5", timeout=20)
    time.sleep(0.2)
    rpc.cancel()
    assert call(channel) == b"you said hello"


def test_the_balancers_errors_have_a_status_of_grpc(tmp_path: Path) -> None:
    port = free_port()
    text = configuration(port, free_port(), options="health-check = off\nprotocol = HTTP")
    with Balancer(tmp_path, text, "workers = 1") as balancer, grpc.insecure_channel(f"{HOST}:{port}") as channel:
        code, details = error_of(lambda: call(channel))
        assert code is grpc.StatusCode.UNAVAILABLE
        assert details == "ConnectRefused (502 Bad Gateway)"
        (line,) = wait_until(balancer.access_log)
        assert line["error_reason"] == "ConnectRefused"


def test_what_the_balancer_answers_by_itself_too(tmp_path: Path) -> None:
    """Fixed responses, redirects and rate limits, as a client of gRPC understands them."""
    port = free_port()
    text = (
        configuration(port, free_port(), options="health-check = off\nprotocol = HTTP")
        + """
[rule:gone]
listener = web
priority = 1
path = /test.Echo/Gone
action = fixed-response 404 text/plain "no such call"

[rule:signed]
listener = web
priority = 2
path = /test.Echo/Signed
action = fixed-response 200 text/plain "said otherwise"
set-response-header.grpc-status = 16

[rule:moved]
listener = web
priority = 3
path = /test.Echo/Moved
action = redirect https://example.com/ 302

[rule:often]
listener = web
priority = 4
path = /test.Echo/Often
action = fixed-response 503 text/plain "once"

[rate-limit:few]
listener = web
rule = often
rate = 1/h
"""
    )
    with Balancer(tmp_path, text, "workers = 1"), grpc.insecure_channel(f"{HOST}:{port}") as channel:
        got = {name: error_of(partial(call, channel, name)) for name in ("Gone", "Signed", "Moved", "Often")}
        assert got == {
            "Gone": (grpc.StatusCode.UNIMPLEMENTED, "no such call (404 Not Found)"),
            "Signed": (grpc.StatusCode.UNAUTHENTICATED, "said otherwise (200 OK)"),
            "Moved": (grpc.StatusCode.UNKNOWN, "https://example.com/ (302 Found)"),
            "Often": (grpc.StatusCode.UNAVAILABLE, "once (503 Service Unavailable)"),
        }
        limited = (grpc.StatusCode.RESOURCE_EXHAUSTED, "RateLimited (429 Too Many Requests)")
        assert error_of(lambda: call(channel, "Often")) == limited


def test_a_deadline_is_kept_also_by_the_balancer(tmp_path: Path) -> None:
    port = free_port()
    with GrpcTarget() as target:
        text = configuration(port, target.port, options="health-check = off\nprotocol = HTTP\nrequest-timeout = 300ms")
        with Balancer(tmp_path, text, "workers = 1") as balancer, grpc.insecure_channel(f"{HOST}:{port}") as channel:
            code, details = error_of(lambda: call(channel, "Slow", b"3", timeout=10))
            assert (code, details) == (grpc.StatusCode.DEADLINE_EXCEEDED, "RequestTimeout (504 Gateway Timeout)")
            assert error_of(lambda: call(channel, "Slow", b"3", timeout=0.1))[0] is grpc.StatusCode.DEADLINE_EXCEEDED
            first, second = wait_until(lambda: len(lines := balancer.access_log()) == 2 and lines)
    assert first["error_reason"] == "RequestTimeout"
    assert second["error_reason"] in ("RequestTimeout", "ClientClosed", ""), "all know of it, one ends it"
    assert second["duration"] < 0.29


def test_over_tls_on_both_sides(tmp_path: Path) -> None:
    port = free_port()
    front, back = Authority("front"), Authority("back")
    (tmp_path / "front.pem").write_bytes(front.pem("localhost"))
    (tmp_path / "back-ca.pem").write_bytes(back.root_pem)
    issued = back.pem("localhost")
    with GrpcTarget(grpc.ssl_server_credentials([(issued, issued)])) as target:
        options = (
            "health-check-interval = 200ms\nhealth-check-timeout = 200ms\nprotocol = HTTPS\ntls-ca = back-ca.pem\n"
        )
        text = configuration(port, target.port, options=options + "tls-server-name = localhost", listener="HTTPS")
        credentials = grpc.ssl_channel_credentials(front.root_pem)
        options_of_channel = [("grpc.ssl_target_name_override", "localhost")]
        with Balancer(tmp_path, text, "workers = 1") as balancer:
            balancer.wait_healthy("app", 1)
            with grpc.secure_channel(f"{HOST}:{port}", credentials, options_of_channel) as channel:
                assert call(channel) == b"you said hello"
                assert b"".join(channel.unary_stream("/test.Echo/Down")(b"10", timeout=10)) == b"0123456789"


@pytest.mark.parametrize(
    ("options", "state"),
    [
        ("", "healthy"),
        ("matcher = 0", "unhealthy"),
        ("health-check-path = /grpc.health.v1.Health/Check", "healthy"),
        ("health-check-path = /test.Echo/Refuse\nmatcher = 7", "healthy"),
    ],
)
def test_health_by_methods(tmp_path: Path, options: str, state: str) -> None:
    with GrpcTarget() as target:
        text = configuration(free_port(), target.port, options=PROBED + options)
        with Balancer(tmp_path, text, "workers = 1") as balancer:
            wait_until(lambda: list(balancer.states("app").values()) == [state])


def test_health_as_the_server_says(tmp_path: Path) -> None:
    with GrpcTarget() as target:
        path = "health-check-path = /grpc.health.v1.Health/Check"
        text = configuration(free_port(), target.port, options=PROBED + path)
        with Balancer(tmp_path, text, "workers = 1") as balancer:
            balancer.wait_healthy("app", 1)
            target.serving = False
            wait_until(lambda: list(balancer.states("app").values()) == ["unhealthy"])


def test_a_call_that_the_target_has_not_looked_at_goes_elsewhere(tmp_path: Path) -> None:
    """A server that stops says GOAWAY; calls go on at the other one."""
    port = free_port()
    with GrpcTarget() as first, GrpcTarget() as second:
        options = "health-check = off\nprotocol = HTTP"
        text = configuration(port, first.port, second.port, options=options)
        with Balancer(tmp_path, text, "workers = 1"), grpc.insecure_channel(f"{HOST}:{port}") as channel:
            for _ in range(20):
                assert call(channel) == b"you said hello"
            first.server.stop(5)
            for _ in range(20):
                assert call(channel) == b"you said hello"
