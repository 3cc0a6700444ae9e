"""TCP, TLS and PROXY protocol through a running balancer, with real clients for TLS."""

from __future__ import annotations

import contextlib
import random
import re
import shutil
import socket
import ssl
import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.harness import (
    HOST,
    Balancer,
    HttpTarget,
    RawTarget,
    echo,
    free_port,
    listener,
    read_all,
    read_answer,
    rule,
    talk,
    target_group,
    trusting,
    wait_until,
)

pytestmark = pytest.mark.integration


def greet_with_first_bytes(skt: socket.socket) -> None:
    """Sends back all that it gets, once the client has finished sending."""
    skt.sendall(b"got:" + read_all(skt))


class World:
    def __init__(self, folder: Path) -> None:
        self.echo = RawTarget(echo)
        self.collect = RawTarget(greet_with_first_bytes)
        self.http = HttpTarget("a")
        self.ports = {
            name: free_port()
            for name in (
                "tcp",
                "collect",
                "tls",
                "https",
                "proxied",
                "v1",
                "v2",
                "dead",
                "idle",
                "retls",
                "totls",
                "tlstls",
            )
        }
        self.dead = free_port()
        p = self.ports
        proxied = {"proxy_protocol": "on", "proxy_protocol_trusted": "127.0.0.0/8"}
        self.balancer = Balancer(
            folder,
            listener("tcp", p["tcp"], "forward echo", "TCP")
            + listener("collect", p["collect"], "forward half-dead", "TCP")
            + listener("tls", p["tls"], "forward echo", "TLS")
            + listener("https", p["https"], "forward http", "HTTPS")
            + listener("proxied", p["proxied"], "forward http", **proxied)
            + listener("v1", p["v1"], "forward v1", "TCP")
            + listener("v2", p["v2"], "forward v2", "TCP")
            + listener("dead", p["dead"], "forward dead", "TCP")
            + listener("idle", p["idle"], "forward echo", "TCP", idle_timeout="1s")
            + listener("totls", p["totls"], "forward tls-echo", "TCP")
            + listener("tlstls", p["tlstls"], "forward tls-echo", "TLS")
            + listener("retls", p["retls"], "forward verified")
            + rule("retls-trusting", 1, "/trusting*", "forward trusting", listener="retls")
            + target_group("echo", self.echo.port, protocol="TCP")
            + target_group("tls-echo", p["tls"], protocol="TLS", tls_verify="off")
            + target_group("half-dead", self.dead, self.collect.port, protocol="TCP")
            + target_group("v1", self.collect.port, protocol="TCP", proxy_protocol="v1")
            + target_group("v2", self.collect.port, protocol="TCP", proxy_protocol="v2")
            + target_group("dead", self.dead, protocol="TCP")
            + target_group("http", self.http.port)
            + target_group("verified", p["https"], protocol="HTTPS")
            + target_group("trusting", p["https"], protocol="HTTPS", tls_verify="off"),
            "workers = 1",
        )


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    world = World(tmp_path_factory.mktemp("tcp"))
    with world.balancer:
        yield world
    for target in (world.echo, world.collect, world.http):
        target.close()


def test_bytes_go_both_ways(world: World) -> None:
    with socket.create_connection((HOST, world.ports["tcp"]), timeout=5) as skt:
        for text in (b"x", b"hello" * 1000):
            skt.sendall(text)
            received = b""
            while len(received) < len(text):
                received += skt.recv(65536)
            assert received == text


@pytest.mark.parametrize("attempt", range(2))
def test_half_close_is_carried_and_a_refusing_target_is_passed_over(world: World, attempt: int) -> None:
    assert talk(world.ports["collect"], b"all of it", half_close=True) == b"got:all of it"


def _connect(world: World, listener: str) -> socket.socket:
    raw = socket.create_connection((HOST, world.ports[listener]), timeout=10)
    if listener in ("tls", "tlstls"):
        return trusting().wrap_socket(raw, server_hostname="localhost")
    return raw


def _exchange(skt: socket.socket, data: bytes) -> bytes:
    """Send all of it while what comes back, as much, is read more slowly."""
    skt.setblocking(False)
    sent, received = 0, bytearray()
    end = time.monotonic() + 30
    while len(received) < len(data):
        assert time.monotonic() < end, f"{sent} sent, {len(received)} received"
        with contextlib.suppress(BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            while sent < len(data):
                sent += skt.send(data[sent : sent + 100_000])
        with contextlib.suppress(BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            received += skt.recv(200_000)
    return bytes(received)


@pytest.mark.parametrize("listener", ["tcp", "tls", "totls", "tlstls"])
def test_a_big_transfer_both_ways_at_once(world: World, listener: str) -> None:
    data = random.Random(1).randbytes(20_000_000)
    with _connect(world, listener) as skt:
        assert _exchange(skt, data) == data


def test_no_target_at_all_resets_the_client(world: World) -> None:
    with pytest.raises(ConnectionResetError), socket.create_connection((HOST, world.ports["dead"]), timeout=5) as skt:
        skt.recv(10)


def test_the_idle_timeout_ends_both_sides(world: World) -> None:
    with socket.create_connection((HOST, world.ports["idle"]), timeout=5) as skt:
        skt.sendall(b"x")
        assert skt.recv(10) == b"x"
        began = time.monotonic()
        with pytest.raises(ConnectionResetError):
            skt.recv(10)
        assert 0.8 < time.monotonic() - began < 2.5


def test_traffic_puts_the_idle_timeout_off(world: World) -> None:
    with socket.create_connection((HOST, world.ports["idle"]), timeout=5) as skt:
        for _ in range(8):
            time.sleep(0.3)
            skt.sendall(b"x")
            assert skt.recv(10) == b"x"
        began = time.monotonic()
        with pytest.raises(ConnectionResetError):
            skt.recv(10)
        assert 0.8 < time.monotonic() - began < 2.5


def _counted(world: World, listener: str) -> tuple[int, int]:
    """What the metrics say that a listener has received and sent."""
    text = world.balancer.get("/metrics")[1].decode()
    values = (
        re.search(rf'^lbproxy_listener_{way}_bytes_total{{.*listener="{listener}".*}} ([0-9.e+]+)$', text, re.MULTILINE)
        for way in ("received", "sent")
    )
    received, sent = (int(float(value[1])) if value else 0 for value in values)
    return received, sent


@pytest.mark.parametrize("listener", ["tcp", "tls"])
def test_bytes_are_counted_while_a_connection_lives_and_when_it_ends(world: World, listener: str) -> None:
    size = 3_000_000
    wait_until(lambda: _active(world) == 0, 5)
    time.sleep(1.1)  # the last report of connections before
    before = _counted(world, listener)
    with _connect(world, listener) as skt:
        local = skt.getsockname()[1]
        _exchange(skt, bytes(size))
        counted = (before[0] + size, before[1] + size)
        wait_until(lambda: _counted(world, listener) == counted, 5, "the metrics have it")
    [line] = wait_until(lambda: [line for line in world.balancer.access_log() if line["client_port"] == local], 5)
    assert (line["received_bytes"], line["sent_bytes"], line["error_reason"]) == (size, size, "")
    time.sleep(1.1)
    assert _counted(world, listener) == counted, "and not twice"


def _active(world: World) -> int:
    text = world.balancer.get("/metrics")[1].decode()
    return sum(int(float(n)) for n in re.findall(r"^lbproxy_listener_active_connections{.*} (.*)$", text, re.MULTILINE))


def test_proxy_protocol_v1_out(world: World) -> None:
    answer = talk(world.ports["v1"], b"data", half_close=True)
    assert answer.startswith(f"got:PROXY TCP4 {HOST} {HOST} ".encode())
    assert answer.endswith(f" {world.ports['v1']}\r\ndata".encode())


def test_proxy_protocol_v2_out(world: World) -> None:
    answer = talk(world.ports["v2"], b"data", half_close=True)[4:]
    assert answer.startswith(b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c" + bytes([127, 0, 0, 1, 127, 0, 0, 1]))
    assert struct.unpack(">H", answer[26:28])[0] == world.ports["v2"]
    assert answer.endswith(b"data")


@pytest.mark.parametrize("split", [0, 1, 20, 41])
def test_proxy_protocol_in_gives_the_client_address(world: World, split: int) -> None:
    data = b"PROXY TCP4 192.0.2.7 192.0.2.1 5000 80\r\nGET /headers HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    with socket.create_connection((HOST, world.ports["proxied"]), timeout=5) as skt:
        skt.sendall(data[:split])
        time.sleep(0.05)
        skt.sendall(data[split:])
        answer = read_all(skt)
    assert b'"X-Forwarded-For", "192.0.2.7"' in answer


def test_a_bad_proxy_header_closes(world: World) -> None:
    assert b"200" not in talk(world.ports["proxied"], b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    wait_until(lambda: b'cause="BadProxyHeader"' in world.balancer.get("/metrics")[1], 5, "it is counted")


def test_tls_in_front_of_tcp(world: World) -> None:
    with (
        socket.create_connection((HOST, world.ports["tls"]), timeout=5) as raw,
        trusting().wrap_socket(raw, server_hostname="localhost") as skt,
    ):
        assert skt.version() == "TLSv1.3"
        skt.sendall(b"secret")
        assert skt.recv(100) == b"secret"


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_https_with_curl(world: World, version: str) -> None:
    assert shutil.which("curl")
    done = subprocess.run(
        [
            "curl",
            "-sk",
            "-m",
            "10",
            f"--tlsv{version}",
            "--tls-max",
            version,
            f"https://{HOST}:{world.ports['https']}/headers",
        ],
        capture_output=True,
        check=True,
    )
    assert b'"X-Forwarded-Proto", "https"' in done.stdout


def test_https_with_openssl(world: World) -> None:
    done = subprocess.run(
        [
            "openssl",
            "s_client",
            "-connect",
            f"{HOST}:{world.ports['https']}",
            "-servername",
            "localhost",
            "-quiet",
            "-no_ign_eof",
        ],
        input=b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        capture_output=True,
        timeout=20,
        check=False,
    )
    assert b"200 OK" in done.stdout or done.returncode == 0


def test_old_tls_is_refused(world: World) -> None:
    context = trusting()
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    with (
        socket.create_connection((HOST, world.ports["https"]), timeout=5) as raw,
        pytest.raises((ssl.SSLError, OSError)),
    ):
        context.wrap_socket(raw)


def test_a_silent_tls_client_is_closed(world: World) -> None:
    with socket.create_connection((HOST, world.ports["https"]), timeout=20) as skt:
        began = time.monotonic()
        try:
            assert skt.recv(10) == b""
        except ConnectionResetError:
            pass
        assert time.monotonic() - began < 14


def test_a_target_certificate_that_is_not_trusted_is_502(world: World) -> None:
    answer = talk(world.ports["retls"], b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 502 ")


def test_https_to_a_target_without_verification(world: World) -> None:
    answer = talk(world.ports["retls"], b"GET /trusting HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 ")


def test_tcp_connections_leave_a_line(world: World) -> None:
    talk(world.ports["collect"], b"logged", half_close=True)
    wait_until(
        lambda: any(line["kind"] == "tcp" and line["listener"] == "collect" for line in world.balancer.access_log()), 5
    )


def test_the_https_listener_keeps_connections(world: World) -> None:
    with (
        socket.create_connection((HOST, world.ports["https"]), timeout=5) as raw,
        trusting().wrap_socket(raw, server_hostname="localhost") as skt,
    ):
        for _ in range(5):
            skt.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert read_answer(skt).startswith(b"HTTP/1.1 200 ")
