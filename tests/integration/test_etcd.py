"""Targets from a real etcd: keys, the watch, compaction, outages."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from lbproxy.controlplane.discovery.etcd import EtcdTargets, end_of
from lbproxy.model.discovery import EtcdSource
from tests.controlplane.discovery.fakes import FakeSink, context
from tests.integration.etcd_server import Etcd
from tests.integration.harness import HOST, Balancer, HttpTarget, free_port
from tests.integration.sources import told
from tests.integration.test_discovery import configuration, scale

pytestmark = pytest.mark.integration


class EtcdTests(TestCase):
    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self.folder = tmp_path

    def setUp(self) -> None:
        from twisted.internet import reactor

        self.reactor: Any = reactor
        self.etcd = Etcd(self.folder)
        self.addCleanup(self.etcd.close)
        self.sink = FakeSink()
        self.source = EtcdTargets(
            EtcdSource(url=self.etcd.url, prefix="/app/", text="etcd"), context(reactor), self.sink, "app"
        )
        self.addCleanup(self.source.stop)

    async def says(self, *expected: str) -> None:
        await told(self.reactor, self.sink, lambda last: last == list(expected))

    async def test_keys_come_and_go(self) -> None:
        self.etcd.put("/app/b", "10.0.0.2:80 weight=3")
        self.etcd.put("/apples/c", "10.0.0.3:80")
        self.etcd.put("/app/10.0.0.4:80", "")
        self.source.start()
        await self.says("10.0.0.4:80", "10.0.0.2:80 weight=3")
        self.etcd.put("/app/a", '{"host": "::1", "port": 80}')
        await self.says("10.0.0.4:80", "[::1]:80", "10.0.0.2:80 weight=3")
        self.etcd.put("/app/b", "10.0.0.2:80")
        await self.says("10.0.0.4:80", "[::1]:80", "10.0.0.2:80")
        self.etcd.delete("/app/", "/app0")
        await self.says()

    async def test_a_value_that_is_wrong_leaves_the_target_of_before(self) -> None:
        self.etcd.put("/app/a", "10.0.0.1:80")
        self.source.start()
        await self.says("10.0.0.1:80")
        for value in ("nonsense", "{", '{"host": "x"}'):
            self.etcd.put("/app/a", value)
        self.etcd.put("/app/b", "10.0.0.2:80")
        await self.says("10.0.0.1:80", "10.0.0.2:80")

    async def test_a_watch_from_a_revision_that_etcd_has_forgotten_begins_anew(self) -> None:
        for number in range(5):
            revision = self.etcd.put("/app/a", f"10.0.0.{number}:80")
        self.etcd.compact(revision)
        self.source._revision = 1
        await self.source._watch()
        self.assertEqual(self.sink.told, [])
        self.source.start()
        await self.says("10.0.0.4:80")

    async def test_a_watch_goes_on_from_the_revision_of_the_list(self) -> None:
        """What changes between both is not lost."""
        self.etcd.put("/app/a", "10.0.0.1:80")
        await self.source._list()
        self.etcd.put("/app/b", "10.0.0.2:80")
        self.etcd.delete("/app/a")
        watching = Deferred.fromCoroutine(self.source._watch())
        await self.says("10.0.0.2:80")
        watching.cancel()
        watching.addErrback(lambda _: None)

    async def test_an_outage(self) -> None:
        self.etcd.put("/app/a", "10.0.0.1:80")
        self.source.start()
        await self.says("10.0.0.1:80")
        await deferToThread(self.etcd.stop)
        await told(self.reactor, self.sink, lambda last: self.etcd.url in last)
        await deferToThread(self.etcd.start)
        self.etcd.put("/app/b", "10.0.0.2:80")
        await self.says("10.0.0.1:80", "10.0.0.2:80")


@pytest.mark.parametrize(
    ("prefix", "end"), [(b"/app/", b"/app0"), (b"a\xff", b"b"), (b"\xff\xff", b"\0"), (b"a\xfe\xff", b"a\xff")]
)
def test_the_end_of_a_prefix(prefix: bytes, end: bytes) -> None:
    assert end_of(prefix) == end


def test_scaling_through_etcd_loses_nothing(tmp_path: Path) -> None:
    port = free_port()
    with contextlib.closing(Etcd(tmp_path)) as etcd, contextlib.ExitStack() as stack:
        targets = [stack.enter_context(HttpTarget(f"t{number}")) for number in range(30)]

        def announce(count: int) -> None:
            for number, target in enumerate(targets):
                if number < count:
                    etcd.put(f"/app/{number}", f"{HOST}:{target.port}")
                else:
                    etcd.delete(f"/app/{number}")

        announce(3)
        text = configuration(port, f"discovery = etcd:{etcd.url}/app/")
        with Balancer(tmp_path, text) as balancer:
            load = scale(balancer, port, targets, announce)
    assert (load.failures, load.requests > 200) == ([], True)
