"""The resolver against a name server: records, failures, TCP, the search list."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.names import dns
from twisted.trial.unittest import TestCase

from lbproxy.controlplane.discovery import dnsclient
from lbproxy.controlplane.discovery import resolver as module
from lbproxy.controlplane.discovery.base import LookupFailed
from lbproxy.controlplane.discovery.resolver import Resolver, ResolverSettings, read_resolv_conf
from tests.integration.harness import HOST, free_port
from tests.integration.name_server import NameServer

pytestmark = pytest.mark.integration


class ResolverTests(TestCase):
    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self.folder = tmp_path

    def setUp(self) -> None:
        from twisted.internet import reactor

        self.server = NameServer()
        self.addCleanup(self.server.close)
        self.reactor = reactor
        self.resolver = Resolver(reactor, [(HOST, self.server.port)])

    async def fails(self, name: str, services: bool = False) -> str:
        try:
            await (self.resolver.services(name) if services else self.resolver.addresses(name))
        except LookupFailed as error:
            return str(error)
        self.fail(f"{name} was found")
        return ""

    async def test_ipv4_addresses_in_order_with_the_least_ttl(self) -> None:
        self.server.a("app.internal", "10.0.0.2", "10.0.0.1", "10.0.0.2")
        self.server.ttl = 17
        self.assertEqual(await self.resolver.addresses("app.internal"), (("10.0.0.1", "10.0.0.2"), 17.0))

    async def test_ipv6_addresses_only_where_there_are_no_others(self) -> None:
        self.server.records["six.internal"] = [dns.Record_AAAA("2001:db8::1")]
        self.server.records["both.internal"] = [dns.Record_AAAA("2001:db8::1"), dns.Record_A("10.0.0.1")]
        self.assertEqual((await self.resolver.addresses("six.internal"))[0], ("2001:db8::1",))
        self.assertEqual((await self.resolver.addresses("both.internal"))[0], ("10.0.0.1",))

    async def test_failures_are_in_words(self) -> None:
        self.assertEqual(await self.fails("void.internal"), "void.internal has no address")
        self.server.a("empty.internal")
        self.assertEqual(await self.fails("empty.internal"), "empty.internal has no address")
        self.assertEqual(await self.fails("_x._tcp.internal", True), "_x._tcp.internal has no SRV record")
        for rcode, name in ((dns.ESERVER, "SERVFAIL"), (dns.EREFUSED, "REFUSED")):
            self.server.rcode = rcode
            self.assertEqual(await self.fails("app.internal"), f"app.internal: the name server answers {name}")

    async def test_a_server_that_does_not_answer(self) -> None:
        self.patch(dnsclient, "TRIES_SECONDS", (0.1,))
        self.server.silent = True
        self.assertEqual(await self.fails("app.internal"), "app.internal: no answer from the name server")

    async def test_nobody_listens(self) -> None:
        self.resolver.use([(HOST, free_port())])
        self.patch(dnsclient, "TRIES_SECONDS", (5.0,))
        self.assertEqual(await self.fails("app.internal"), "app.internal: name server 127.0.0.1: Connection refused")

    async def test_the_next_server_is_asked_when_one_fails(self) -> None:
        other, silent = NameServer(), NameServer()
        for each in (other, silent):
            self.addCleanup(each.close)
        other.a("app.internal", "10.0.0.9")
        silent.silent = True
        self.server.rcode = dns.ESERVER
        self.patch(dnsclient, "TRIES_SECONDS", (0.2,))
        self.resolver.use([(HOST, each.port) for each in (self.server, silent, other)])
        self.assertEqual((await self.resolver.addresses("app.internal"))[0], ("10.0.0.9",))

    async def test_answers_to_other_questions_are_passed_over(self) -> None:
        self.server.a("app.internal", "10.0.0.1")
        self.server.noise = [b"", b"nonsense", bytes(12)]
        self.assertEqual((await self.resolver.addresses("app.internal"))[0], ("10.0.0.1",))

    async def test_a_question_may_be_given_up(self) -> None:
        self.server.silent = True
        asking = Deferred.fromCoroutine(self.resolver.addresses("app.internal"))
        asking.cancel()
        with self.assertRaises(CancelledError):
            await asking

    async def test_a_long_answer_comes_over_tcp(self) -> None:
        self.server.a("app.internal", *(f"10.0.{number}.1" for number in range(100)))
        self.server.truncated = True
        self.assertEqual(len((await self.resolver.addresses("app.internal"))[0]), 100)

    async def test_srv_records(self) -> None:
        self.server.records["_http._tcp.internal"] = [
            dns.Record_SRV(20, 5, 80, "backup.internal"),
            dns.Record_SRV(10, 60000, 81, "Big.internal"),
            dns.Record_SRV(10, 30000, 82, "half.internal"),
            dns.Record_SRV(10, 0, 83, "little.internal"),
        ]
        targets, ttl = await self.resolver.services("_http._tcp.internal")
        self.assertEqual(
            [(target.key, target.weight, target.priority, target.address) for target in targets],
            [
                ("backup.internal:80", 1, 20, ""),
                ("big.internal:81", 999, 10, ""),
                ("half.internal:82", 500, 10, ""),
                ("little.internal:83", 1, 10, ""),
            ],
        )
        self.assertEqual(ttl, 1.0)

    async def test_an_srv_record_may_say_that_there_is_no_service(self) -> None:
        self.server.records["_http._tcp.internal"] = [dns.Record_SRV(0, 0, 0, "")]
        self.assertIn("not available", await self.fails("_http._tcp.internal", True))

    async def test_other_servers_are_asked_after_a_reload(self) -> None:
        other = NameServer()
        self.addCleanup(other.close)
        other.a("app.internal", "10.0.0.9")
        await self.fails("app.internal")
        self.resolver.use([(HOST, other.port)])
        self.assertEqual((await self.resolver.addresses("app.internal"))[0], ("10.0.0.9",))

    async def test_the_systems_files_count(self) -> None:
        hosts, conf = self.folder / "hosts", self.folder / "resolv.conf"
        hosts.write_text("::1 Local.internal\n127.0.0.1 local.internal # comment\n")
        conf.write_text(f"# none\nnameserver {HOST}\nsearch corp.internal other.internal\noptions ndots:2 timeout:1\n")
        self.patch(module, "_PORT", self.server.port)
        self.server.a("app.x.corp.internal", "10.0.0.1")
        self.server.a("a.b.c", "10.0.0.2")
        system = Resolver(self.reactor, resolv_conf=str(conf), hosts=str(hosts))
        self.assertEqual(await system.addresses("local.internal"), (("127.0.0.1",), module.HOSTS_TTL_SECONDS))
        self.assertEqual((await system.addresses("app.x"))[0], ("10.0.0.1",))
        self.assertEqual((await system.addresses("a.b.c"))[0], ("10.0.0.2",))
        self.assertEqual(self.server.questions[0], ("app.x.corp.internal", dns.A))
        self.assertEqual(self.server.questions[-1], ("a.b.c", dns.A))


@pytest.mark.parametrize(
    ("text", "settings"),
    [
        (None, ResolverSettings(servers=(("127.0.0.1", 53),))),
        ("nameserver\nnameserver one\nnameserver ::1\n", ResolverSettings(servers=(("::1", 53),))),
        (
            "domain a.internal.\nnameserver 10.0.0.1\noptions ndots:5 rotate ; old\nnameserver 10.0.0.2",
            ResolverSettings(servers=(("10.0.0.1", 53), ("10.0.0.2", 53)), search=("a.internal",), ndots=5),
        ),
    ],
)
def test_resolv_conf(tmp_path: Path, text: str | None, settings: Any) -> None:
    path = tmp_path / "resolv.conf"
    if text is not None:
        path.write_text(text)
    assert read_resolv_conf(str(path)) == settings
