"""How long it takes from the word of a source to traffic, with each source, under load."""

from __future__ import annotations

import contextlib
import http.client
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from twisted.names import dns

from tests.chaos.fleet import CheckedLoad, ServerProcess
from tests.integration.etcd_server import Etcd
from tests.integration.fake_docker import FakeDocker
from tests.integration.harness import HOST, Balancer, free_port, wait_until
from tests.integration.name_server import NameServer

pytestmark = pytest.mark.chaos

PUSH_SECONDS = 1.0
"""What it may take with a source that tells changes by itself."""

TTL = 1
ROUNDS = 3
"""The one in the middle counts, for the machine may be busy with other things."""


class Announcer:
    """What the operator of a source does."""

    options: Sequence[str] = ()
    """Lines of the target group that make it follow the source."""
    resolver = ""
    """The line for the name server, if there is one."""

    def announce(self, balancer: Balancer | None, servers: Sequence[ServerProcess]) -> None:
        """Make these servers the targets; ``balancer`` is None before it runs."""
        raise NotImplementedError

    def close(self) -> None:
        """End what has been started."""


class Files(Announcer):
    options = ("discovery = file:app.json",)

    def __init__(self, folder: Path) -> None:
        self._path = folder / "app.json"

    def announce(self, balancer: Balancer | None, servers: Sequence[ServerProcess]) -> None:
        new = self._path.with_suffix(".new")
        new.write_text(json.dumps([server.key for server in servers]))
        new.replace(self._path)


class Registrations(Announcer):
    options = ("registration-token = file:token",)

    def __init__(self, folder: Path) -> None:
        self._registered: dict[str, ServerProcess] = {}
        (folder / "token").write_text("a-token-for-registrations\n")
        (folder / "token").chmod(0o600)

    def announce(self, balancer: Balancer | None, servers: Sequence[ServerProcess]) -> None:
        wanted = {server.key: server for server in servers}
        if balancer is None:
            return
        for key in wanted.keys() - self._registered.keys():
            self._ask(balancer, "PUT", key)
        for key in self._registered.keys() - wanted.keys():
            self._ask(balancer, "DELETE", key)
        self._registered = wanted

    def _ask(self, balancer: Balancer, method: str, key: str) -> None:
        link = http.client.HTTPConnection(HOST, balancer.admin, timeout=10)
        with contextlib.closing(link):
            body = json.dumps({"ttl": 60}) if method == "PUT" else None
            link.request(
                method, f"/target-groups/app/targets/{key}", body, {"Authorization": "Bearer a-token-for-registrations"}
            )
            assert link.getresponse().status in (200, 201)


class EtcdKeys(Announcer):
    def __init__(self, folder: Path) -> None:
        self._etcd = Etcd(folder)
        self._keys: set[str] = set()
        self.options = (f"discovery = etcd:{self._etcd.url}/app/",)

    def announce(self, balancer: Balancer | None, servers: Sequence[ServerProcess]) -> None:
        wanted = {server.key for server in servers}
        for key in wanted - self._keys:
            self._etcd.put(f"/app/{key}", "")
        for key in self._keys - wanted:
            self._etcd.delete(f"/app/{key}")
        self._keys = wanted

    def close(self) -> None:
        self._etcd.close()


class Containers(Announcer):
    def __init__(self, folder: Path) -> None:
        self._folder = tempfile.TemporaryDirectory()  # a socket's path is short
        path = Path(self._folder.name) / "docker.sock"
        self._engine = FakeDocker(path)
        self.options = (f"discovery = docker:{path}",)

    def announce(self, balancer: Balancer | None, servers: Sequence[ServerProcess]) -> None:
        wanted = {server.key: server for server in servers}
        for key, server in wanted.items():
            if key not in self._engine.containers:
                self._engine.run(key, server.host, lbproxy_target_group="app", lbproxy_port=str(server.port))
        for key in self._engine.containers.keys() - wanted.keys():
            self._engine.kill(key)
            self._engine.remove(key)

    def close(self) -> None:
        self._engine.close()
        self._folder.cleanup()


class Addresses(Announcer):
    """A records; all servers have one port."""

    def __init__(self, port: int) -> None:
        self._server = NameServer()
        self._server.ttl = TTL
        self.options = (f"discovery = dns:app.internal:{port}",)
        self.resolver = f"resolver = {HOST}:{self._server.port}"

    def announce(self, balancer: Balancer | None, servers: Sequence[ServerProcess]) -> None:
        self._server.a("app.internal", *(server.host for server in servers))

    def close(self) -> None:
        self._server.close()


class Services(Announcer):
    """SRV records."""

    options = ("discovery = srv:_http._tcp.app.internal",)

    def __init__(self) -> None:
        self._server = NameServer()
        self._server.ttl = TTL
        self._server.a("one.app.internal", HOST)
        self.resolver = f"resolver = {HOST}:{self._server.port}"

    def announce(self, balancer: Balancer | None, servers: Sequence[ServerProcess]) -> None:
        self._server.records["_http._tcp.app.internal"] = [
            dns.Record_SRV(0, 1, server.port, "one.app.internal") for server in servers
        ]

    def close(self) -> None:
        self._server.close()


@contextlib.contextmanager
def running(folder: Path, hosts: Sequence[str], port: int = 0) -> Iterator[list[ServerProcess]]:
    servers = []
    try:
        for number, host in enumerate(hosts):
            servers.append(ServerProcess(folder, number, 0.002, host, port))
        yield servers
    finally:
        for server in servers:
            server.kill()


def measure(folder: Path, announcer: Announcer, servers: Sequence[ServerProcess]) -> tuple[list[float], list[float]]:
    """Announce one server more, then one less, a few times; give the seconds to its first and to its last answer."""
    *stay, comer = servers
    port = free_port()
    text = (
        f"[listener:web]\nprotocol = HTTP\nbind = {HOST}:{port}\ndefault-action = forward app\n\n"
        "[target-group:app]\nprotocol = HTTP\nhealth-check-path = /health\nhealth-check-interval = 5s\n"
        + "\n".join(announcer.options)
    )
    announcer.announce(None, stay)
    come, go = [], []
    with Balancer(folder, text, f"workers = 2\n{announcer.resolver}") as balancer:
        announcer.announce(balancer, stay)
        balancer.wait_healthy("app", len(stay))
        with CheckedLoad(port, threads=2, pause=0.005) as load:
            for _ in range(ROUNDS):
                load.first_seen.pop(comer.key, None)
                began = time.monotonic()
                announcer.announce(balancer, servers)
                wait_until(lambda: comer.key in load.first_seen, 20, "the new target answers")
                come.append(load.first_seen[comer.key] - began)
                began = time.monotonic()
                announcer.announce(balancer, stay)
                wait_until(lambda: comer.key not in balancer.states("app"), 20, "it has drained")
                go.append(load.last_seen[comer.key] - began)
    assert load.failures == []
    assert load.closed_idle == 0
    return come, go


def check(announcer: Announcer, servers: Sequence[ServerProcess], folder: Path, seconds: float) -> None:
    come, go = (sorted(found)[ROUNDS // 2] for found in measure(folder, announcer, servers))
    print(f"{type(announcer).__name__}: in after {come:.3f} s, out after {go:.3f} s, {seconds:g} s allowed")
    assert come < seconds
    assert go < seconds


PUSHES = (
    Files,
    Registrations,
    pytest.param(EtcdKeys, marks=pytest.mark.skipif(not shutil.which("etcd"), reason="etcd is not installed")),
    Containers,
)


@pytest.mark.parametrize("make", PUSHES)
def test_a_push_is_in_force_within_a_second(tmp_path: Path, make: Callable[[Path], Announcer]) -> None:
    with running(tmp_path, [HOST] * 3) as servers, contextlib.closing(make(tmp_path)) as announcer:
        check(announcer, servers, tmp_path, PUSH_SECONDS)


def test_address_records_are_in_force_when_their_ttl_is_over(tmp_path: Path) -> None:
    port = free_port()
    hosts = ["127.0.0.1", "127.0.0.2", "127.0.0.3"]
    with running(tmp_path, hosts, port) as servers, contextlib.closing(Addresses(port)) as announcer:
        check(announcer, servers, tmp_path, TTL + PUSH_SECONDS)


def test_service_records_are_in_force_when_their_ttl_is_over(tmp_path: Path) -> None:
    with running(tmp_path, [HOST] * 3) as servers, contextlib.closing(Services()) as announcer:
        check(announcer, servers, tmp_path, TTL + PUSH_SECONDS)
