"""Targets from a Docker engine: labels, events, failures."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from lbproxy.controlplane.config.targets import parse_target
from lbproxy.controlplane.discovery import watching
from lbproxy.controlplane.discovery.docker import DockerTargets, target_of
from lbproxy.model.discovery import DockerSource
from tests.controlplane.discovery.fakes import FakeSink, context
from tests.integration.fake_docker import FakeDocker
from tests.integration.sources import told

pytestmark = pytest.mark.integration


class DockerTests(TestCase):
    def setUp(self) -> None:
        from twisted.internet import reactor

        folder = tempfile.mkdtemp()  # a socket's path is short
        self.addCleanup(shutil.rmtree, folder)
        self.reactor: Any = reactor
        self.path = Path(folder) / "docker.sock"
        self.engine = FakeDocker(self.path)
        self.addCleanup(lambda: self.engine.close())
        self.sink = FakeSink()
        self.source = DockerTargets(
            DockerSource(path=str(self.path), text="docker"), context(reactor), self.sink, "app"
        )
        self.addCleanup(lambda: self.source.stop())

    async def says(self, *expected: str) -> None:
        await told(self.reactor, self.sink, lambda last: last == list(expected))

    async def test_containers_come_and_go(self) -> None:
        self.engine.run("a", lbproxy_target_group="app")
        self.engine.run("other", lbproxy_target_group="web")
        self.engine.run("none", "172.17.0.9")
        self.source.start()
        await self.says("172.17.0.2:8080")
        self.engine.run("b", "172.17.0.3", lbproxy_target_group="app", lbproxy_port="81", lbproxy_weight="7")
        await self.says("172.17.0.2:8080", "172.17.0.3:81 weight=7")
        self.engine.remove("a")
        await self.says("172.17.0.3:81 weight=7")

    async def test_a_container_that_is_being_stopped_leaves_before_it_ends(self) -> None:
        for name, address in (("a", "172.17.0.2"), ("b", "172.17.0.3")):
            self.engine.run(name, address, lbproxy_target_group="app")
        self.source.start()
        await self.says("172.17.0.2:8080", "172.17.0.3:8080")
        self.engine.kill("a", "1")
        self.engine.kill("b", "15")
        await self.says("172.17.0.2:8080")
        self.engine.remove("b")
        self.engine.run("b", "172.17.0.3", lbproxy_target_group="app")
        await self.says("172.17.0.2:8080", "172.17.0.3:8080")

    async def test_what_happens_between_list_and_watch_is_not_lost(self) -> None:
        self.engine.run("a", lbproxy_target_group="app")
        await self.source._list()
        self.engine.kill("a")
        self.engine.run("b", "172.17.0.3", lbproxy_target_group="app")
        watching = Deferred.fromCoroutine(self.source._watch())
        await self.says("172.17.0.3:8080")
        watching.cancel()
        watching.addErrback(lambda _: None)

    async def test_what_happens_while_the_watch_is_broken_is_found(self) -> None:
        self.engine.run("a", lbproxy_target_group="app")
        self.source.start()
        await self.says("172.17.0.2:8080")
        self.engine.run("b", "172.17.0.3", quiet=True, lbproxy_target_group="app")
        self.engine.hang_up()
        await self.says("172.17.0.2:8080", "172.17.0.3:8080")

    async def test_what_events_do_not_tell_is_found_now_and_then(self) -> None:
        self.patch(watching, "LIST_INTERVAL_SECONDS", 0.1)
        self.engine.run("a", lbproxy_target_group="app")
        self.source.start()
        await self.says("172.17.0.2:8080")
        self.engine.run("b", "172.17.0.3", quiet=True, lbproxy_target_group="app")
        await self.says("172.17.0.2:8080", "172.17.0.3:8080")

    async def test_an_engine_that_fails_or_is_away(self) -> None:
        self.engine.status = 500
        self.source.start()
        await told(self.reactor, self.sink, lambda last: "status 500" in last and "engine is unwell" in last)
        self.engine.close()
        self.path.unlink()
        await told(self.reactor, self.sink, lambda last: "No such file or directory" in last)
        self.engine = FakeDocker(self.path)
        self.engine.run("a", lbproxy_target_group="app")
        await self.says("172.17.0.2:8080")


def container(**changes: Any) -> dict[str, Any]:
    whole: dict[str, Any] = {
        "Id": "a",
        "Labels": {},
        "NetworkSettings": {"Networks": {"b": {"IPAddress": "10.0.0.2"}, "a": {"IPAddress": "10.0.0.1"}}},
        "Ports": [{"PrivatePort": 80, "Type": "tcp"}, {"PrivatePort": 80, "Type": "tcp", "PublicPort": 8080}],
    }
    return {**whole, **changes}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "10.0.0.1:80"),
        ({"Labels": {"lbproxy.network": "b", "lbproxy.port": "81"}}, "10.0.0.2:81"),
        ({"Labels": {"lbproxy.weight": "0", "lbproxy.zone": "east"}}, "10.0.0.1:80 weight=0 zone=east"),
        ({"NetworkSettings": {"Networks": {"host": {"IPAddress": ""}}}}, "127.0.0.1:80"),
        ({"NetworkSettings": {"Networks": {"six": {"IPAddress": "", "GlobalIPv6Address": "fd00::2"}}}}, "[fd00::2]:80"),
    ],
)
def test_labels(changes: Any, expected: str) -> None:
    assert target_of(container(**changes), parse_target) == parse_target(expected)


@pytest.mark.parametrize(
    ("changes", "mistake"),
    [
        ({"Labels": {"lbproxy.network": "c"}}, "it is not in the network c; it is in a, b"),
        ({"NetworkSettings": {"Networks": {}}}, "it has no address in its networks"),
        ({"Ports": []}, "its port is not known, for it exposes none; label it lbproxy.port=PORT"),
        (
            {"Ports": [{"PrivatePort": 80}, {"PrivatePort": 443}]},
            "its port is not known, for it exposes 80, 443; label it lbproxy.port=PORT",
        ),
        ({"Labels": {"lbproxy.port": "http"}}, "needs an address and a port"),
    ],
)
def test_containers_that_are_no_targets(changes: Any, mistake: str) -> None:
    with pytest.raises(ValueError) as caught:
        target_of(container(**changes), parse_target)
    assert str(caught.value).startswith(mistake)
