"""Targets from a real etcd: keys, the watch, compaction, outages."""

from __future__ import annotations

import contextlib
import shutil
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from lbproxy.controlplane.discovery import watching
from lbproxy.controlplane.discovery.etcd import EtcdTargets, end_of
from lbproxy.controlplane.discovery.watching import ListAgain
from lbproxy.model.discovery import EtcdSource
from tests.certificate_authority import Authority, key_pem, make_key
from tests.controlplane.discovery.fakes import FakeSink, context
from tests.integration.etcd_server import Etcd
from tests.integration.fake_etcd import BREAK, CLOSE, FakeEtcd
from tests.integration.harness import HOST, Balancer, HttpTarget, free_port
from tests.integration.sources import told
from tests.integration.test_discovery import configuration, scale

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not shutil.which("etcd"), reason="etcd is not installed"),
]


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
        self.lists = 0
        ask = self.source._gateway.ask

        async def counted(path: str, body: Any) -> Any:
            self.lists += path == "/v3/kv/range"
            return await ask(path, body)

        self.patch(self.source._gateway, "ask", counted)

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
        with self.assertRaises(ListAgain):
            await self.source._watch()
        self.sink.told.clear()
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
        self.assertEqual(self.lists, 1)

    async def test_a_store_that_was_set_back_is_listed_anew(self) -> None:
        for number in range(3):
            self.etcd.put("/app/a", f"10.0.0.{number}:80")
        self.source.start()
        await self.says("10.0.0.2:80")
        await deferToThread(self.etcd.stop)
        shutil.rmtree(self.folder / "etcd")
        await deferToThread(self.etcd.start)
        self.etcd.put("/app/b", "10.0.0.9:80")
        await self.says("10.0.0.9:80")
        self.assertEqual(self.lists, 2)


class SecuredTests(TestCase):
    """An etcd that asks who is there."""

    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self.folder = tmp_path

    def begin(self, *options: str, password: str = "s3cret", tls: Authority | None = None) -> None:
        from twisted.internet import reactor

        self.reactor: Any = reactor
        self.etcd = Etcd(self.folder, *options, tls=tls)
        self.addCleanup(self.etcd.close)
        self.sink = FakeSink()
        settings = EtcdSource(
            url=self.etcd.url,
            prefix="/app/",
            text="etcd",
            user="lb",
            password=password,
            authorities_pem=None if tls is None else tls.root_pem,
        )
        self.source = EtcdTargets(settings, context(reactor), self.sink, "app")
        self.addCleanup(self.source.stop)

    async def says(self, *expected: str) -> None:
        await told(self.reactor, self.sink, lambda last: last == list(expected))

    async def test_a_user_who_may_read(self) -> None:
        self.begin()
        self.etcd.secure("lb", "s3cret", "/app/")
        self.etcd.put("/app/a", "10.0.0.1:80")
        self.source.start()
        await self.says("10.0.0.1:80")
        self.etcd.put("/app/b", "10.0.0.2:80")
        await self.says("10.0.0.1:80", "10.0.0.2:80")

    async def test_the_token_is_forgotten(self) -> None:
        """As it is whenever an etcd with simple tokens starts anew."""
        self.begin()
        self.etcd.secure("lb", "s3cret", "/app/")
        self.etcd.put("/app/a", "10.0.0.1:80")
        self.source.start()
        await self.says("10.0.0.1:80")
        await deferToThread(self.etcd.stop)
        await deferToThread(self.etcd.start)
        self.etcd.log_in()
        self.etcd.put("/app/b", "10.0.0.2:80")
        await self.says("10.0.0.1:80", "10.0.0.2:80")

    async def test_the_token_expires(self) -> None:
        """One that etcd signs, good for two to three seconds, for it counts in whole ones."""
        key = make_key()
        (self.folder / "private.pem").write_bytes(key_pem(key))
        (self.folder / "public.pem").write_bytes(
            key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        )
        keys = f"pub-key={self.folder}/public.pem,priv-key={self.folder}/private.pem"
        self.begin("--auth-token", f"jwt,{keys},sign-method=ES256,ttl=3s")
        self.etcd.secure("lb", "s3cret", "/app/")
        self.etcd.put("/app/a", "10.0.0.1:80")
        self.patch(watching, "LIST_INTERVAL_SECONDS", 1.5)
        self.source.start()
        await self.says("10.0.0.1:80")
        await deferLater(self.reactor, 3.1)
        self.etcd.log_in()
        self.etcd.put("/app/b", "10.0.0.2:80")
        await self.says("10.0.0.1:80", "10.0.0.2:80")
        self.assertEqual([each for each in self.sink.told if isinstance(each, str)], [])

    async def test_a_password_that_is_wrong(self) -> None:
        self.begin(password="wr0ng")
        self.etcd.secure("lb", "s3cret", "/app/")
        self.source.start()
        problem = "status 400 etcdserver: authentication failed, invalid user ID or password"
        await told(self.reactor, self.sink, lambda last: last.endswith(problem))
        self.assertNotIn("wr0ng", str(self.sink.told))

    async def test_a_certificate_of_an_authority_of_ones_own(self) -> None:
        self.begin(tls=Authority("Own"))
        self.etcd.secure("lb", "s3cret", "/app/")
        self.etcd.put("/app/a", "10.0.0.1:80")
        self.source.start()
        await self.says("10.0.0.1:80")
        settings = EtcdSource(
            url=self.etcd.url, prefix="/app/", text="etcd", authorities_pem=Authority("Other").root_pem
        )
        sink = FakeSink()
        stranger = EtcdTargets(settings, context(self.reactor), sink, "app")
        self.addCleanup(stranger.stop)
        stranger.start()
        await told(self.reactor, sink, lambda last: "certificate verify failed" in last)

    async def test_authentication_is_switched_on_later(self) -> None:
        self.begin()
        self.etcd.put("/app/a", "10.0.0.1:80")
        self.source.start()
        await self.says("10.0.0.1:80")
        self.etcd.secure("lb", "s3cret", "/app/")
        await deferToThread(self.etcd.stop)
        await deferToThread(self.etcd.start)
        self.etcd.log_in()
        self.etcd.put("/app/b", "10.0.0.2:80")
        await self.says("10.0.0.1:80", "10.0.0.2:80")


class RareAnswersTests(TestCase):
    def setUp(self) -> None:
        from twisted.internet import reactor

        self.reactor: Any = reactor
        self.etcd = FakeEtcd()
        self.addCleanup(self.etcd.close)
        self.etcd.answers["/v3/kv/range"] = [(200, listed(7))]
        self.sink = FakeSink()
        self.begin()

    def begin(self, user: str = "") -> None:
        settings = EtcdSource(url=self.etcd.url, prefix="/app/", text="etcd", user=user, password="s3cret")
        self.source = EtcdTargets(settings, context(self.reactor), self.sink, "app")
        self.addCleanup(self.source.stop)

    async def says(self, *expected: str) -> None:
        await told(self.reactor, self.sink, lambda last: last == list(expected))

    async def complains(self, text: str) -> None:
        await told(self.reactor, self.sink, lambda last: isinstance(last, str) and text in last)

    async def test_a_watch_goes_on_from_the_last_change(self) -> None:
        self.source.start()
        self.etcd.say(header=HEADER, created=True)
        self.etcd.say(header=HEADER, events=[put("/app/b", "10.0.0.2:80", 9), put("/app/c", "10.0.0.3:80", 12)])
        await self.says("10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80")
        self.etcd.messages.put(BREAK)
        await self.complains("/v3/watch")
        self.etcd.say(header=HEADER, created=True)
        await self.says("10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80")
        self.etcd.say(header=HEADER, events=[{"type": "DELETE", "kv": {"key": b64("/app/b"), "mod_revision": "13"}}])
        await self.says("10.0.0.1:80", "10.0.0.3:80")
        self.assertEqual((self.etcd.starts(), self.etcd.paths().count("range")), ([8, 13], 1))

    async def test_a_sign_of_progress_moves_the_place_to_go_on_from(self) -> None:
        self.source.start()
        self.etcd.say(header=HEADER, created=True)
        self.etcd.say(header={**HEADER, "revision": "20"})
        self.etcd.messages.put(CLOSE)
        self.etcd.say(header=HEADER, created=True)
        self.etcd.say(header=HEADER, events=[put("/app/b", "10.0.0.2:80", 21)])
        await self.says("10.0.0.1:80", "10.0.0.2:80")
        self.assertEqual(self.etcd.starts(), [8, 21])
        self.assertFalse([each for each in self.sink.told if isinstance(each, str)])

    async def test_a_watch_that_was_compacted_is_followed_by_a_list(self) -> None:
        self.etcd.answers["/v3/kv/range"] = [(200, listed(7)), (200, listed(40))]
        self.source.start()
        self.etcd.say(header=HEADER, created=True)
        self.etcd.messages.put(BREAK)
        self.etcd.say(header=HEADER, created=True)
        self.etcd.say(header=HEADER, canceled=True, compact_revision="30")
        self.etcd.say(header={**HEADER, "revision": "40"}, created=True)
        self.etcd.say(header=HEADER, events=[put("/app/b", "10.0.0.2:80", 41)])
        await self.says("10.0.0.1:80", "10.0.0.2:80")
        self.assertEqual((self.etcd.starts(), self.etcd.paths().count("range")), ([8, 8, 41], 2))

    async def test_another_cluster_is_listed(self) -> None:
        other = {"revision": "100", "cluster_id": "2"}
        self.etcd.answers["/v3/kv/range"] = [(200, listed(7)), (200, {"header": other})]
        self.source.start()
        self.etcd.say(header=HEADER, created=True)
        self.etcd.messages.put(BREAK)
        self.etcd.say(header=other, created=True)
        self.etcd.messages.put(BREAK)
        await self.says()

    async def test_a_watch_that_is_ended_for_another_reason_is_told(self) -> None:
        self.source.start()
        self.etcd.say(header=HEADER, created=True, canceled=True, cancel_reason="etcdserver: permission denied")
        await self.complains("ends the watch: etcdserver: permission denied")

    async def test_a_watch_with_an_error_is_told(self) -> None:
        self.source.start()
        self.etcd.messages.put(b'{"error": {"message": "no leader"}}\n')
        await self.complains("ends the watch: no leader")

    async def test_nonsense_in_a_watch_is_told_and_followed_by_a_list(self) -> None:
        self.source.start()
        self.etcd.say(header=HEADER, created=True)
        self.etcd.say(header=HEADER, events=[{"kv": {"key": "?"}}])
        self.etcd.messages.put(BREAK)
        await self.complains("something else than events")
        self.etcd.say(header=HEADER, created=True)
        await self.says("10.0.0.1:80")
        self.assertEqual(self.etcd.paths()[:3], ["range", "watch", "range"])

    async def test_a_token_that_is_void_is_replaced(self) -> None:
        """Users or roles have changed: with signed tokens all of them are void then."""
        self.etcd.answers["/v3/auth/authenticate"] = [(200, {"token": "one"}), (200, {"token": "two"})]
        void = (400, {"error": "etcdserver: revision of auth store is old", "code": 3})
        self.etcd.answers["/v3/kv/range"] = [void, (200, listed(7))]
        self.begin("lb")
        self.source.start()
        self.etcd.say(header=HEADER, created=True)
        await self.says("10.0.0.1:80")
        self.assertEqual(
            [(path.rpartition("/")[2], token) for path, _, token in self.etcd.asked[:4]],
            [("authenticate", ""), ("range", "one"), ("authenticate", ""), ("range", "two")],
        )

    async def test_a_watch_that_a_void_token_ends_is_begun_with_another(self) -> None:
        self.etcd.answers["/v3/auth/authenticate"] = [(200, {"token": "one"}), (200, {"token": "two"})]
        self.begin("lb")
        self.source.start()
        reason = "rpc error: code = Unauthenticated desc = etcdserver: invalid auth token"
        self.etcd.say(header=HEADER, created=True, canceled=True, cancel_reason=reason)
        self.etcd.say(header=HEADER, created=True)
        self.etcd.say(header=HEADER, events=[put("/app/b", "10.0.0.2:80", 8)])
        await self.says("10.0.0.1:80", "10.0.0.2:80")
        self.assertEqual(self.etcd.starts(), [8, 8])
        self.assertFalse([each for each in self.sink.told if isinstance(each, str)])

    async def test_a_token_that_never_works_is_told(self) -> None:
        self.etcd.answers["/v3/auth/authenticate"] = [(200, {"token": "one"})]
        self.etcd.answers["/v3/kv/range"] = [(401, {"error": "etcdserver: invalid auth token", "code": 16})]
        self.begin("lb")
        self.source.start()
        await self.complains("invalid auth token")

    async def test_a_login_without_a_token_is_told(self) -> None:
        self.etcd.answers["/v3/auth/authenticate"] = [(200, {"welcome": "lb"})]
        self.begin("lb")
        self.source.start()
        await self.complains("answers a login with something else than a token")

    async def test_who_gives_no_user_is_told_to(self) -> None:
        self.etcd.answers["/v3/kv/range"] = [(400, {"error": "etcdserver: user name is empty", "code": 3})]
        self.source.start()
        await self.complains("wants a user; give etcd-user and etcd-password")


HEADER = {"revision": "30", "cluster_id": "1"}


def listed(revision: int) -> dict[str, Any]:
    pair = {"key": b64("/app/a"), "value": b64("10.0.0.1:80"), "mod_revision": "7"}
    return {"header": {**HEADER, "revision": str(revision)}, "kvs": [pair]}


def put(key: str, value: str, revision: int) -> dict[str, Any]:
    return {"kv": {"key": b64(key), "value": b64(value), "mod_revision": str(revision)}}


def b64(text: str) -> str:
    return b64encode(text.encode()).decode()


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
