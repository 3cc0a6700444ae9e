"""Fleets that change under load: through each source from 3 targets to 30 and back to 3, and not a request is lost."""

from __future__ import annotations

import contextlib
import http.client
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from tests.integration.fake_docker import FakeDocker
from tests.integration.harness import HOST, Balancer, HttpTarget, Load, free_port, wait_until
from tests.integration.name_server import NameServer

pytestmark = pytest.mark.integration

CONFIGURATION = """
[listener:web]
protocol = HTTP
bind = 127.0.0.1:{port}
default-action = forward app

[target-group:app]
protocol = HTTP
health-check-path = /health
health-check-interval = 500ms
deregistration-delay = 30s
{options}
"""


def configuration(port: int, *options: str) -> str:
    return CONFIGURATION.format(port=port, options="\n".join(options))


def ask(port: int) -> tuple[int, str]:
    link = http.client.HTTPConnection(HOST, port, timeout=10)
    try:
        link.request("GET", "/")
        response = link.getresponse()
        return response.status, response.read().decode().strip()
    finally:
        link.close()


@contextlib.contextmanager
def fleet(count: int) -> Iterator[list[HttpTarget]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(HttpTarget(f"t{number}")) for number in range(count)]


def replace(path: Path, text: str) -> None:
    """Replace a file as careful programs do."""
    new = path.with_suffix(".new")
    new.write_text(text)
    new.replace(path)


def scale(balancer: Balancer, port: int, targets: Sequence[HttpTarget], announce: Callable[[int], None]) -> Load:
    """Go from 3 to 30 to 3 under load; give the load with its failures."""
    announce(3)
    balancer.wait_healthy("app", 3)
    with Load(port, threads=4, pause=0.002) as load:
        for count in (30, 3):
            before = load.requests
            announce(count)
            wait_until(
                lambda count=count: list(balancer.states("app").values()) == ["healthy"] * count,
                30,
                f"{count} healthy targets and no others",
            )
            wait_until(lambda before=before: load.requests > before + 100, 20, "more requests")
    return load


def test_scaling_through_a_file_loses_nothing(tmp_path: Path) -> None:
    port, path = free_port(), tmp_path / "app.yaml"
    with fleet(30) as targets:

        def announce(count: int) -> None:
            replace(path, "".join(f"- {HOST}:{target.port}\n" for target in targets[:count]))

        announce(3)
        with Balancer(tmp_path, configuration(port, "discovery = file:app.yaml")) as balancer:
            load = scale(balancer, port, targets, announce)
    assert (load.failures, load.requests > 200) == ([], True)


def test_scaling_through_the_dns_loses_nothing(tmp_path: Path) -> None:
    """30 addresses of this machine, one port."""
    port, server = free_port(), NameServer()
    with contextlib.closing(server), contextlib.ExitStack() as stack:
        targets = [stack.enter_context(HttpTarget("t1"))]
        targets += [
            stack.enter_context(HttpTarget(f"t{number}", targets[0].port, f"127.0.0.{number}"))
            for number in range(2, 31)
        ]

        def announce(count: int) -> None:
            server.a("app.internal", *(f"127.0.0.{number}" for number in range(1, count + 1)))

        announce(3)
        options = f"resolver = 127.0.0.1:{server.port}\nworkers = 2"
        text = configuration(port, f"targets = app.internal:{targets[0].port}")
        with Balancer(tmp_path, text, options) as balancer:
            load = scale(balancer, port, targets, announce)
    assert (load.failures, load.requests > 200) == ([], True)


def test_scaling_through_docker_loses_nothing(tmp_path: Path) -> None:
    port = free_port()
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        engine = stack.enter_context(contextlib.closing(FakeDocker(Path(folder) / "docker.sock")))
        targets = [stack.enter_context(HttpTarget("t1"))]
        targets += [
            stack.enter_context(HttpTarget(f"t{number}", targets[0].port, f"127.0.0.{number}"))
            for number in range(2, 31)
        ]
        labels = {"lbproxy_target_group": "app", "lbproxy_port": str(targets[0].port)}

        def announce(count: int) -> None:
            for number in range(1, 31):
                if number <= count and str(number) not in engine.containers:
                    engine.run(str(number), f"127.0.0.{number}", **labels)
                elif number > count and str(number) in engine.containers:
                    engine.kill(str(number))
                    engine.remove(str(number))

        announce(3)
        text = configuration(port, f"discovery = docker:{folder}/docker.sock")
        with Balancer(tmp_path, text) as balancer:
            load = scale(balancer, port, targets, announce)
    assert (load.failures, load.requests > 200) == ([], True)


def test_a_source_that_breaks_takes_nothing_away_even_in_a_restart(tmp_path: Path) -> None:
    port, server, path = free_port(), NameServer(), tmp_path / "app.yaml"
    with contextlib.closing(server), fleet(2) as (first, second):
        server.a("app.internal", HOST)
        path.write_text(f"- {HOST}:{second.port}\n")
        text = configuration(port, f"discovery = dns:app.internal:{first.port}, file:app.yaml")
        options = f"workers = 1\nresolver = 127.0.0.1:{server.port}"
        with Balancer(tmp_path, text, options) as balancer:
            balancer.wait_healthy("app", 2)
            server.rcode = 2  # SERVFAIL
            path.write_text("- nonsense")
            wait_until(lambda: sources(balancer) == ["failing", "failing"], what="both sources fail")
            assert list(balancer.states("app").values()) == ["healthy", "healthy"]
            path.write_text("[]")
            wait_until(
                lambda: sources(balancer) == ["failing", "ok"], what="an empty list is believed, for a target stays"
            )
        with Balancer(tmp_path, text, options) as balancer:
            balancer.wait_healthy("app", 1)
            assert ask(port)[0] == 200
            assert sources(balancer)[0] == "failing"
            assert "the name server answers SERVFAIL" in balancer.output()


def sources(balancer: Balancer) -> list[str]:
    """The states of the sources of the group."""
    (group,) = balancer.status()["target_groups"]
    return [source["state"] for source in group["sources"]]
