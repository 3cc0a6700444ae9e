"""The admin API, asked in memory."""

from __future__ import annotations

import json
from typing import Any

import attrs
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.trial.unittest import SynchronousTestCase

from lbproxy.controlplane.api.admin import MAX_BODY_BYTES, AdminService
from lbproxy.controlplane.api.targets import TargetsApi
from lbproxy.controlplane.config.targets import parse_target
from lbproxy.controlplane.state import ControlState
from lbproxy.model.listener import Bind, Certificate, Listener, ListenerProtocol
from lbproxy.model.rule import FixedResponse, Forward, PathCondition, Pattern, Rule, WeightedGroup
from lbproxy.model.snapshot import Configuration
from lbproxy.model.target import Target, TargetHealth, TargetReason, TargetState
from lbproxy.model.target_group import TargetTls
from tests.controlplane.fakes import FakeCells, make_configuration, make_group, make_target, registered


@attrs.frozen
class Address:
    host: str | None = "127.0.0.1"
    port: int | None = 9901
    path: str | None = None


@attrs.frozen
class Result:
    ok: bool
    problems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    changes: tuple[str, ...] = ()
    version: int = 1


class FakeMetrics:
    def __init__(self) -> None:
        self.values: dict[str, Any] = {}

    def totals(self) -> dict[str, Any]:
        return self.values

    def exposition(self) -> bytes:
        return b"lbproxy_up 1\n"


class FakeSupervisor:
    configuration_file = "/etc/lbproxy/lb.ini"
    started_at = 0.0
    ready: str | None = None

    def __init__(self) -> None:
        self.admin_tokens: tuple[str, ...] = ()
        self.reloads = 0
        self.result: Deferred[Result] = succeed(Result(ok=True))

    def workers_status(self) -> list[dict[str, Any]]:
        return [{"slot": 0, "pid": 42, "state": "running", "restarts": 1, "last_report_seconds": 0.5}]

    def reload(self) -> Deferred[Result]:
        self.reloads += 1
        asked: Deferred[Result] = Deferred()

        def pass_on(result: Result) -> Result:
            asked.callback(result)
            return result

        self.result.addCallback(pass_on)
        return asked


class FakeRegistry:
    """Takes registrations in ``app`` with the token ``t``."""

    def __init__(self) -> None:
        self.registered: dict[str, tuple[int, float]] = {}

    def accepts(self, group: str) -> bool:
        return group == "app"

    def permits(self, group: str, token: str) -> bool:
        return token == "t"

    def register(self, group: str, target: Target, ttl_seconds: float) -> bool:
        is_new = target.key not in self.registered
        self.registered[target.key] = (target.weight, ttl_seconds)
        return is_new

    def deregister(self, group: str, key: str) -> bool:
        return self.registered.pop(key, None) is not None


class AdminTestCase(SynchronousTestCase):
    address = Address()

    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()
        self.cells = FakeCells()
        self.state = ControlState(self.reactor, self.cells, self.cells)
        self.metrics = FakeMetrics()
        self.supervisor = FakeSupervisor()
        self.registry = FakeRegistry()
        targets = TargetsApi(self.state, self.metrics, self.registry, parse_target)
        self.service = AdminService(self.reactor, self.address, self.state, self.metrics, self.supervisor, targets)
        self.service.startService()

    def connect(self) -> StringTransport:
        transport = StringTransport(peerAddress=IPv4Address("TCP", "127.0.0.1", 5))
        protocol = self.reactor.tcpServers[0][1].buildProtocol(transport.getPeer())
        transport.protocol = protocol
        protocol.makeConnection(transport)
        return transport

    def send(self, transport: StringTransport, data: bytes) -> None:
        transport.protocol.dataReceived(data)  # type: ignore[attr-defined]

    def ask(self, method: str, path: str, body: str = "", **fields: str) -> tuple[int, dict[str, str], bytes]:
        transport = self.connect()
        fields = {"Host": "127.0.0.1:9901", "Connection": "close", "Content-Length": str(len(body)), **fields}
        lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
        self.send(transport, "\r\n".join([*lines, "", body]).encode())
        return parse(transport.value())

    def ask_json(self, path: str) -> Any:
        status, _fields, body = self.ask("GET", path)
        self.assertEqual(status, 200)
        return json.loads(body)


class AdminTests(AdminTestCase):
    # The small ones

    def test_it_listens_at_its_address(self) -> None:
        port, _site, _backlog, interface = self.reactor.tcpServers[0]
        self.assertEqual((port, interface), (9901, "127.0.0.1"))

    def test_metrics(self) -> None:
        status, fields, body = self.ask("GET", "/metrics")
        self.assertEqual((status, body), (200, b"lbproxy_up 1\n"))
        self.assertEqual(fields["content-type"], "text/plain; version=0.0.4; charset=utf-8")

    def test_the_index_names_the_paths(self) -> None:
        status, _fields, body = self.ask("GET", "/")
        self.assertEqual(status, 200)
        for path in (b"/metrics", b"/status", b"/ready", b"/reload"):
            self.assertIn(path, body)

    def test_ready_says_why_not(self) -> None:
        self.assertEqual(self.ask("GET", "/ready")[::2], (200, b"ready\n"))
        self.supervisor.ready = "draining"
        self.assertEqual(self.ask("GET", "/ready")[::2], (503, b"not ready: draining\n"))
        self.assertEqual(self.ask("GET", "/live")[0], 200)
        self.assertEqual(self.ask("GET", "/healthz")[0], 200)

    def test_head_is_get_without_the_body(self) -> None:
        get, head = self.ask("GET", "/ready"), self.ask("HEAD", "/ready")
        self.assertEqual(head[0], 200)
        self.assertEqual(head[1]["content-length"], get[1]["content-length"])
        self.assertEqual(head[2], b"")

    def test_an_unknown_path(self) -> None:
        status, fields, body = self.ask("GET", "/no/such?x=1")
        self.assertEqual((status, fields["content-type"]), (404, "application/json"))
        self.assertEqual(json.loads(body)["error"], "there is no /no/such")

    def test_a_wrong_method(self) -> None:
        for method, path, allowed in [("POST", "/status", "GET, HEAD"), ("GET", "/reload", "POST")]:
            with self.subTest(path=path):
                status, fields, _body = self.ask(method, path)
                self.assertEqual((status, fields["allow"]), (405, allowed))
        self.assertEqual(self.supervisor.reloads, 0)

    def test_a_failure_tells_the_log_and_not_the_client(self) -> None:
        self.metrics.totals = lambda: {}["secret"]  # type: ignore[method-assign]
        status, _fields, body = self.ask("GET", "/status")
        self.assertEqual(status, 500)
        self.assertNotIn(b"secret", body)
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)

    def test_a_long_body_is_refused(self) -> None:
        for framing in (b"Content-Length: 10000000", b"Transfer-Encoding: chunked"):
            with self.subTest(framing=framing):
                transport = self.connect()
                self.send(transport, b"POST /reload HTTP/1.1\r\nHost: a\r\n" + framing + b"\r\n\r\n")
                for _ in range(20):
                    data = bytes(8000)
                    self.send(transport, data if b"Length" in framing else b"%x\r\n%b\r\n" % (len(data), data))
                self.assertGreater(20 * 8000, MAX_BODY_BYTES)
                self.assertEqual(transport.value().count(b"HTTP/1.1 413"), 1)
                self.assertTrue(transport.disconnecting)
        self.assertEqual(self.supervisor.reloads, 0)

    # Status

    def test_status_of_a_balancer_that_has_just_started(self) -> None:
        status = self.ask_json("/status")
        self.assertEqual((status["listeners"], status["target_groups"]), ([], []))

    def test_status(self) -> None:
        self.reactor.advance(10)
        one, two = make_target(1), make_target(2, weight=3)
        self.state.configure(make_configuration(make_group(one, two)), 1)
        why = TargetHealth(state=TargetState.UNHEALTHY, reason=TargetReason.TIMEOUT, description="Request timed out")
        self.state.set_health("app", one.key, why)
        self.state.set_health("app", two.key, why)
        self.reactor.advance(0.5)
        self.cells.view[registered(self.state.snapshot).cell] = 4
        self.metrics.values = {
            "listeners": {"web": {"requests": 7, "requests_by_status": {"200": 7}}},
            "targets": {"app": {one.key: {"requests": 6}}},
        }
        status = self.ask_json("/status")
        self.assertEqual(status["uptime_seconds"], 10.5)
        self.assertEqual(status["snapshot_version"], 2)
        self.assertEqual(status["configuration"], {"file": "/etc/lbproxy/lb.ini", "loaded_at": 10})
        self.assertEqual(status["workers"][0]["pid"], 42)
        (listener,) = status["listeners"]
        self.assertEqual((listener["name"], listener["protocol"]), ("web", "HTTP"))
        self.assertEqual(listener["binds"], ["127.0.0.1:8080"])
        self.assertEqual((listener["requests"], listener["active"]), (7, 0))
        (group,) = status["target_groups"]
        self.assertTrue(group["fail_open"])
        self.assertEqual((group["name"], group["algorithm"]), ("app", "round_robin"))
        first, second = group["targets"]
        expected = {"target": "10.0.0.1:80", "state": "unhealthy", "reason": "Target.Timeout", "in_flight": 4}
        self.assertEqual({**first, **expected, "requests": 6}, first)
        self.assertEqual((second["weight"], second["requests"], second["in_flight"]), (3, 0, 0))

    def test_status_shows_what_still_drains_of_a_removed_group(self) -> None:
        self.state.configure(make_configuration(make_group(make_target(1))), 1)
        self.state.configure(make_configuration(), 1)
        (group,) = self.ask_json("/status")["target_groups"]
        self.assertTrue(group["removed"])
        self.assertEqual(group["targets"][0]["state"], "draining")

    # Configuration

    def test_config_shows_everything_but_keys(self) -> None:
        listener = Listener(
            name="secure",
            protocol=ListenerProtocol.HTTPS,
            binds=(Bind("::", 8443),),
            default_action=Forward((WeightedGroup("app", 2),)),
            rules=(
                Rule(
                    name="gone",
                    priority=1,
                    conditions=(PathCondition((Pattern("/old*"),)),),
                    action=FixedResponse(status=410),
                ),
            ),
            certificates=(Certificate(source="tls/a.pem", pem=b"-----BEGIN PRIVATE KEY-----"),),
        )
        group = attrs.evolve(make_group(make_target(1)), tls=TargetTls(ca_pem=b"x" * 9))
        self.state.configure(Configuration(listeners=(listener,), target_groups=(group,)), 1)
        _status, _fields, body = self.ask("GET", "/config")
        self.assertNotIn(b"PRIVATE", body)
        shown = json.loads(body)
        (listener_shown,) = shown["listeners"]
        self.assertEqual(listener_shown["certificates"], [{"source": "tls/a.pem"}])
        self.assertEqual(listener_shown["binds"], ["[::]:8443"])
        self.assertEqual(listener_shown["default_action"]["kind"], "Forward")
        self.assertEqual(listener_shown["rules"][0]["conditions"][0]["kind"], "PathCondition")
        self.assertEqual(shown["target_groups"][0]["tls"]["ca_pem"], "(9 bytes)")

    # Reload

    def test_a_reload_that_works(self) -> None:
        self.supervisor.result = succeed(Result(ok=True, warnings=("w",), changes=("listener a added",), version=9))
        status, _fields, body = self.ask("POST", "/reload")
        self.assertEqual(status, 200)
        self.assertEqual(
            json.loads(body),
            {"ok": True, "problems": [], "warnings": ["w"], "changes": ["listener a added"], "version": 9},
        )

    def test_a_reload_that_is_refused(self) -> None:
        self.supervisor.result = succeed(Result(ok=False, problems=("lb.ini:3: no such option",), version=8))
        status, _fields, body = self.ask("POST", "/reload")
        self.assertEqual(status, 422)
        self.assertEqual(json.loads(body)["problems"], ["lb.ini:3: no such option"])

    def test_a_reload_is_answered_when_it_is_done(self) -> None:
        self.supervisor.result = Deferred()
        transport = self.connect()
        self.send(transport, b"POST /reload HTTP/1.1\r\nHost: a\r\n\r\n")
        self.assertEqual(transport.value(), b"")
        self.supervisor.result.callback(Result(ok=True))
        self.assertEqual(parse(transport.value())[0], 200)

    def test_a_client_that_does_not_wait_for_the_reload(self) -> None:
        self.supervisor.result = Deferred()
        transport = self.connect()
        self.send(transport, b"POST /reload HTTP/1.1\r\nHost: a\r\n\r\n")
        from twisted.internet.error import ConnectionLost
        from twisted.python.failure import Failure

        transport.protocol.connectionLost(Failure(ConnectionLost()))  # type: ignore[attr-defined]
        self.supervisor.result.callback(Result(ok=True))
        self.assertEqual(transport.value(), b"")

    def test_other_sites_pages_cannot_reload(self) -> None:
        for origin, host, status in [
            ("https://evil.example", "127.0.0.1:9901", 403),
            ("null", "127.0.0.1:9901", 403),
            ("http://[", "127.0.0.1:9901", 403),
            ("http://127.0.0.1:9902", "127.0.0.1:9901", 403),
            ("http://127.0.0.1:9901", "127.0.0.1:9901", 200),
            ("http://localhost:9901", "localhost:9901", 200),
            ("http://[::1]:9901", "[::1]:9901", 200),
            ("http://evil.example:9901", "evil.example:9901", 403),  # a name that was made to lead here
        ]:
            with self.subTest(origin=origin):
                before = self.supervisor.reloads
                self.assertEqual(self.ask("POST", "/reload", Origin=origin, Host=host)[0], status)
                self.assertEqual(self.supervisor.reloads - before, int(status == 200))

    def test_changes_take_a_token_where_there_is_one(self) -> None:
        self.supervisor.admin_tokens = ("first", "second")
        for authorization, status in [
            ("", 401),
            ("Bearer third", 401),
            ("Bearer", 401),
            ("Basic second", 401),
            ("Bearer first", 200),
            ("bearer  second", 200),
        ]:
            with self.subTest(authorization=authorization):
                answer = self.ask("POST", "/reload", Authorization=authorization)
                self.assertEqual(answer[0], status)
                self.assertEqual("www-authenticate" in answer[1], status == 401)
        self.assertEqual(self.ask("GET", "/status")[0], 200)


class RemoteAdminTests(AdminTestCase):
    """The admin API at an address that others reach."""

    address = Address(host="10.0.0.1")

    def test_others_may_read_but_change_nothing_without_a_token(self) -> None:
        self.assertEqual(self.ask("GET", "/status")[0], 200)
        status, _, body = self.ask("POST", "/reload")
        self.assertEqual((status, self.supervisor.reloads), (403, 0))
        self.assertIn(b"need an admin-token", body)
        self.supervisor.admin_tokens = ("t",)
        self.assertEqual(self.ask("POST", "/reload", Authorization="Bearer t")[0], 200)

    def test_targets_register_with_their_own_token(self) -> None:
        self.state.configure(make_configuration(make_group()), 1)
        answer = self.ask("PUT", "/target-groups/app/targets/10.0.0.9:80", Authorization="Bearer t")
        self.assertEqual(answer[0], 201)


class TargetTests(AdminTestCase):
    path = "/target-groups/app/targets/10.0.0.1:80"

    def setUp(self) -> None:
        super().setUp()
        self.state.configure(make_configuration(make_group(make_target(1)), make_group(name="other")), 1)

    def put(self, path: str, body: object = None, **fields: str) -> tuple[int, dict[str, Any]]:
        text = body if isinstance(body, str) else json.dumps(body) if body is not None else ""
        status, _, answer = self.ask("PUT", path, text, **{"Authorization": "Bearer t", **fields})
        return status, json.loads(answer)

    def delete(self, path: str, **fields: str) -> tuple[int, dict[str, Any]]:
        status, _, answer = self.ask("DELETE", path, **{"Authorization": "Bearer t", **fields})
        return status, json.loads(answer)

    def test_one_target(self) -> None:
        shown = self.ask_json(self.path)
        self.assertEqual((shown["target_group"], shown["target"], shown["state"]), ("app", "10.0.0.1:80", "initial"))
        for path, error in [
            ("/target-groups/app/targets/10.0.0.2:80", "there is no target 10.0.0.2:80 in app"),
            ("/target-groups/none/targets/10.0.0.2:80", "there is no target group none"),
        ]:
            status, _, body = self.ask("GET", path)
            self.assertEqual((status, json.loads(body)["error"]), (404, error))
        self.assertEqual(self.ask("GET", "/target-groups/app/targets/nonsense")[0], 400)
        self.assertEqual(self.ask("GET", "/target-groups/app")[0], 404)

    # Registration

    def test_a_target_registers_renews_and_deregisters(self) -> None:
        path = "/target-groups/app/targets/%5B::1%5D:80"
        self.assertEqual(
            self.put(path, {"ttl": 5, "weight": 7}),
            (201, {"target_group": "app", "target": "[::1]:80", "new": True, "ttl_seconds": 5}),
        )
        self.assertEqual(self.registry.registered, {"[::1]:80": (7, 5.0)})
        self.assertEqual(self.put(path)[0], 200)
        self.assertEqual(self.registry.registered, {"[::1]:80": (1, 30.0)})
        self.assertEqual(self.delete(path)[0], 200)
        self.assertEqual(self.delete(path)[0], 404)

    def test_registrations_that_are_refused(self) -> None:
        for path, body, status, error in [
            (self.path, "[1]", 400, "the body is no JSON object"),
            (self.path, "{", 400, "the body is no JSON object"),
            (self.path, {"ttl": "5s"}, 400, "ttl is no number of seconds from 1 to 3600"),
            (self.path, {"ttl": 0}, 400, "ttl is no number of seconds from 1 to 3600"),
            (self.path, {"ttl": True}, 400, "ttl is no number of seconds from 1 to 3600"),
            (self.path, {"weight": 1000}, 400, "weight is no number from 0 to 999"),
            (self.path, {"wait": 1}, 400, "wait: not known; there are ttl, weight"),
            ("/target-groups/app/targets/app.internal:80", None, 400, "app.internal is no address"),
            ("/target-groups/app/targets/10.0.0.1", None, 400, "needs an address and a port"),
            ("/target-groups/none/targets/10.0.0.1:80", None, 404, "there is no target group none"),
            ("/target-groups/other/targets/10.0.0.1:80", None, 403, "other takes no registrations"),
        ]:
            with self.subTest(path=path, body=body):
                got, answer = self.put(path, body)
                self.assertEqual(got, status)
                self.assertIn(error, answer["error"])
        self.assertEqual(self.put(self.path, Authorization="Bearer x")[0], 401)
        self.assertEqual(self.delete(self.path, Authorization="")[0], 401)
        self.assertEqual(self.put(self.path, Origin="http://evil.example")[0], 403)
        self.assertEqual(self.registry.registered, {})

    # Overrides

    def test_operators_decide_and_take_it_back(self) -> None:
        path = f"{self.path}/override"
        status, shown = self.put(path, {"state": "up", "weight": 3})
        self.assertEqual((status, shown["override"]), (200, {"state": "up", "weight": 3}))
        self.reactor.advance(1)
        shown = self.ask_json(self.path)
        self.assertEqual((shown["state"], shown["checked"], shown["weight"]), ("healthy", "initial", 3))
        self.assertEqual(self.put(path, {"state": None})[1]["override"], {"state": None, "weight": 3})
        self.assertEqual(self.delete(path)[0], 200)
        self.reactor.advance(1)
        shown = self.ask_json(self.path)
        self.assertEqual((shown["state"], shown["override"], shown["weight"]), ("initial", None, 1))
        self.assertEqual(self.delete(path)[0], 404)

    def test_a_drained_target_is_still_shown(self) -> None:
        self.put(f"{self.path}/override", {"state": "drain"})
        self.reactor.advance(0.5)
        self.assertEqual(self.ask_json(self.path)["state"], "draining")
        self.reactor.pump([1.0] * 3)
        shown = self.ask_json(self.path)
        self.assertEqual((shown["state"], shown["description"]), ("unused", "An operator has drained it"))
        (_, group) = sorted(self.ask_json("/status")["target_groups"], key=lambda each: len(each["targets"]))
        self.assertEqual([each["target"] for each in group["targets"]], ["10.0.0.1:80"])

    def test_decisions_that_are_refused(self) -> None:
        for body, error in [
            ({"state": "sideways"}, "state is none of up, down, drain"),
            ({"weight": -1}, "weight is no number from 0 to 999"),
            ({"up": True}, "up: not known; there are state, weight"),
        ]:
            self.assertEqual(self.put(f"{self.path}/override", body), (400, {"error": error}))
        self.assertEqual(self.put("/target-groups/app/targets/10.0.0.2:80/override", {"state": "up"})[0], 404)
        self.supervisor.admin_tokens = ("secret",)
        self.assertEqual(self.put(f"{self.path}/override", {"state": "up"})[0], 401)
        self.assertEqual(self.state.overrides("app"), {})


def parse(data: bytes) -> tuple[int, dict[str, str], bytes]:
    """Status, fields by lower-case name, body."""
    head, _, body = data.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    fields = dict(line.split(": ", 1) for line in lines)
    return int(status.split()[1]), {name.lower(): value for name, value in fields.items()}, body
