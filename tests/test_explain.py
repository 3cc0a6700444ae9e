"""Explanations come from the real router and balancer."""

from __future__ import annotations

import json
from typing import Any

import attrs
import pytest

from lbproxy.dataplane.balancer import ALGORITHMS
from lbproxy.explain import Explanation, Health, explain
from lbproxy.model.discovery import Discovery, FileSource, NamesSource
from lbproxy.model.health import HealthCheck
from lbproxy.model.listener import Bind, Listener, ListenerProtocol
from lbproxy.model.rate_limit import RateLimit, RateLimitKey
from lbproxy.model.retry import RetryChange, RetryPolicy
from lbproxy.model.rule import (
    FixedResponse,
    Forward,
    HeaderCondition,
    HostCondition,
    PathCondition,
    Pattern,
    Redirect,
    Rule,
    SourceIpCondition,
    WeightedGroup,
)
from lbproxy.model.security_group import IngressRule, SecurityGroup
from lbproxy.model.snapshot import Configuration, GroupState, Snapshot
from lbproxy.model.target import RegisteredTarget, Target, TargetHealth, TargetReason, TargetState
from lbproxy.model.target_group import CrossZone, HashKey, HashPart, TargetGroup, TargetProtocol
from lbproxy.model.transform import ChangeKind, FieldChange, Rewrite, Transform

HEALTHY = TargetHealth(state=TargetState.HEALTHY)
TIMED_OUT = TargetHealth(state=TargetState.UNHEALTHY, reason=TargetReason.TIMEOUT, description="Request timed out")


def target(number: int, weight: int = 1) -> Target:
    return Target(host=f"10.0.0.{number}", port=80, address=f"10.0.0.{number}", weight=weight)


FORWARD_APP = Forward((WeightedGroup("app"),))
APP = TargetGroup(name="app", protocol=TargetProtocol.HTTP, targets=(target(1), target(2)))
CANARY = TargetGroup(
    name="canary", protocol=TargetProtocol.HTTP, targets=(target(3),), health_check=HealthCheck(enabled=False)
)
DB = TargetGroup(name="db", protocol=TargetProtocol.TCP, algorithm="least_outstanding_requests")

WEB = Listener(
    name="web",
    protocol=ListenerProtocol.HTTP,
    binds=(Bind("0.0.0.0", 8080), Bind("::", 8080)),
    default_action=Redirect(protocol="HTTPS", port="8443", status=301),
)
SECURE = Listener(
    name="secure",
    protocol=ListenerProtocol.HTTPS,
    binds=(Bind("0.0.0.0", 8443),),
    default_action=Forward((WeightedGroup("app", 90), WeightedGroup("canary", 10))),
    rules=(
        Rule(
            name="canary",
            priority=10,
            conditions=(
                HostCondition((Pattern("api.example.com"),)),
                PathCondition((Pattern("/v1/*"), Pattern("/v2/*"))),
            ),
            action=Forward((WeightedGroup("canary"),)),
        ),
        Rule(
            name="tenant",
            priority=20,
            conditions=(HeaderCondition("x-tenant", (Pattern("acme*"),)),),
            action=Forward((WeightedGroup("app"),)),
        ),
        Rule(
            name="inside",
            priority=3000,
            conditions=(SourceIpCondition(("10.0.0.0/8",)),),
            action=FixedResponse(status=410, content_type="text/plain", body="moved away"),
        ),
    ),
)
POSTGRES = Listener(
    name="postgres",
    protocol=ListenerProtocol.TCP,
    binds=(Bind("127.0.0.1", 5432),),
    default_action=Forward((WeightedGroup("db"),)),
)
CONFIGURATION = Configuration(listeners=(WEB, SECURE, POSTGRES), target_groups=(APP, CANARY, DB))


def states(explanation: Explanation) -> list[tuple[int | None, str, str]]:
    return [
        (candidate.order, candidate.target, candidate.state)
        for group in explanation.groups
        for candidate in group.candidates
    ]


# Listeners


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://x.com:8080/", "web"),
        ("x.com:8080/a", "web"),
        ("ws://x.com:8080/", "web"),
        ("https://x.com:8443", "secure"),
        ("tcp://127.0.0.1:5432", "postgres"),
        ("http://x.com:8443/", None),  # speaks HTTPS
        ("http://x.com:81/", None),
        ("tls://x.com:5432", None),
        ("x.com/a", "web"),  # the only HTTP listener, with a note
    ],
)
def test_scheme_and_port_lead_to_the_listener(url: str, expected: str | None) -> None:
    assert explain(CONFIGURATION, url).listener == expected


@pytest.mark.parametrize(
    ("url", "note"),
    [
        ("http://x.com:8443/", "listener secure has port 8443 but speaks HTTPS, not HTTP"),
        ("http://x.com:81/", "no HTTP listener has port 81; there is web (HTTP, 0.0.0.0:8080, [::]:8080), secure"),
        ("x.com/a", "no HTTP listener has port 80; this is for web"),
    ],
)
def test_notes_say_what_was_wrong_with_the_port(url: str, note: str) -> None:
    assert explain(CONFIGURATION, url).notes[0].startswith(note)


def test_a_listener_can_be_named() -> None:
    assert explain(CONFIGURATION, "https://x.com/", listener="secure").notes[0].startswith("no target of app")
    mismatch = explain(CONFIGURATION, "http://x.com/", listener="secure")
    assert (mismatch.listener, mismatch.notes[0]) == ("secure", "listener secure speaks HTTPS, not HTTP")
    missing = explain(CONFIGURATION, "http://x.com/", listener="nope")
    assert (missing.listener, missing.notes) == (None, ("there is no listener nope; there is web, secure, postgres",))


def test_listeners_at_one_port_are_told_apart_by_address() -> None:
    def listener(name: str, *hosts: str) -> Listener:
        binds = tuple(Bind(host, 80) for host in hosts)
        return Listener(
            name=name, protocol=ListenerProtocol.HTTP, binds=binds, default_action=FixedResponse(status=200)
        )

    configuration = Configuration(listeners=(listener("a", "10.0.0.1"), listener("b", "10.0.0.2", "::1")))
    assert explain(configuration, "http://10.0.0.2/").listener == "b"
    assert explain(configuration, "http://[::1]/").listener == "b"
    unclear = explain(configuration, "http://x.com/")
    assert unclear.listener == "a"
    assert unclear.notes == ("several listeners could take this: a is shown, name another (b) to see it",)


@pytest.mark.parametrize("url", ["ftp://x.com/", "http://", "http://x.com:http/", "http://[::1/", "http://x:99999/"])
def test_what_is_not_a_url_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"scheme|host|[Pp]ort|IPv6"):
        explain(CONFIGURATION, url)


def test_the_path_is_normalised_as_the_listener_does_it() -> None:
    plain = explain(CONFIGURATION, "https://api.example.com:8443/v1/x")
    dotted = explain(CONFIGURATION, "https://api.example.com:8443/y/%2e%2e/v%31/x")
    assert dotted.rules == plain.rules
    assert dotted.notes[0] == "the rules and the target see the path /v1/x"
    hidden = explain(CONFIGURATION, "https://api.example.com:8443/v1/..%2fx")
    assert (hidden.action, hidden.status, hidden.reason) == ("refuse", 400, "BadPath")


def test_what_is_changed_is_shown() -> None:
    listener = attrs.evolve(
        SECURE,
        transform=Transform(response=(FieldChange(ChangeKind.SET, "X-Frame-Options", "DENY"),)),
        rules=(
            attrs.evolve(
                SECURE.rules[0],
                transform=Transform(
                    request=(FieldChange(ChangeKind.REMOVE, "Cookie"),),
                    url=Rewrite("^/v([0-9])/", "/"),
                    host=Rewrite("^api", "internal"),
                ),
            ),
        ),
        cors_preflight=True,
    )
    configuration = attrs.evolve(CONFIGURATION, listeners=(listener,))
    assert explain(configuration, "https://api.example.com:8443/v1/x?y").changes == (
        "path and query: /x?y",
        "host: internal.example.com:8443",
        "request: remove Cookie",
        "answer: set X-Frame-Options: DENY",
    )
    assert explain(configuration, "https://other:8443/").changes == ("answer: set X-Frame-Options: DENY",)
    asked = [("Origin", "https://a"), ("Access-Control-Request-Method", "PUT")]
    preflight = explain(configuration, "https://other:8443/", method="OPTIONS", headers=asked)
    assert (preflight.action, preflight.status, preflight.rules) == ("cors-preflight", 204, ())
    assert "answered with 204" in preflight.to_text()


def test_a_source_that_is_no_address_is_refused() -> None:
    with pytest.raises(ValueError, match="does not appear to be an IPv4 or IPv6 address"):
        explain(CONFIGURATION, "http://x.com:8080", source="me")


# Rules and actions


def test_rules_before_the_match_say_why_not() -> None:
    found = explain(CONFIGURATION, "https://API.example.com:8443/v3/x", headers=[("X-Tenant", "ACME Corp")])
    assert [(trace.rule_name, trace.matched, trace.failed, trace.seen) for trace in found.rules] == [
        ("canary", False, "path", "/v3/x"),
        ("tenant", True, None, None),
    ]


@pytest.mark.parametrize("host", ["api.example.com", "API.example.com:443"])
def test_a_host_field_replaces_the_one_of_the_url(host: str) -> None:
    found = explain(CONFIGURATION, "https://127.0.0.1:8443/v1/x", headers=[("Host", host)])
    assert found.rules[-1].rule_name == "canary"


def test_the_source_address_counts() -> None:
    found = explain(CONFIGURATION, "https://x.com:8443/", source="10.9.9.9")
    assert (found.action, found.status, found.content_type, found.body) == (
        "fixed-response",
        410,
        "text/plain",
        "moved away",
    )


def test_redirect_shows_the_location() -> None:
    found = explain(CONFIGURATION, "http://[2001:DB8::1]:8080/a?b=c#d")
    assert (found.status, found.location) == (301, "https://[2001:db8::1]:8443/a?b=c")


# Groups and targets


def test_without_health_all_targets_are_initial_and_the_group_fails_open() -> None:
    found = explain(CONFIGURATION, "https://x.com:8443/")
    assert [(group.name, group.weight, group.share, group.fail_open) for group in found.groups] == [
        ("app", 90, 0.9, True),
        ("canary", 10, 0.1, False),
    ]
    assert states(found) == [
        (1, "10.0.0.1:80", "initial"),
        (2, "10.0.0.2:80", "initial"),
        (1, "10.0.0.3:80", "unavailable"),
    ]
    assert "no target of app is known to be healthy: it fails open, all are used" in found.notes


def test_health_decides_on_the_candidates() -> None:
    health: Health = {"app": {"10.0.0.1:80": TIMED_OUT, "10.0.0.2:80": HEALTHY}}
    found = explain(CONFIGURATION, "https://x.com:8443/", headers=[("x-tenant", "acme")], health=health)
    assert states(found) == [(1, "10.0.0.2:80", "healthy"), (None, "10.0.0.1:80", "unhealthy")]
    left_out = found.groups[0].candidates[1]
    assert (left_out.reason, left_out.description) == ("Target.Timeout", "Request timed out")


@pytest.mark.parametrize("algorithm", sorted(ALGORITHMS))
def test_every_algorithm_is_explained(algorithm: str) -> None:
    health: Health = {"app": {"10.0.0.1:80": HEALTHY, "10.0.0.2:80": HEALTHY}}
    found = explain(with_app(algorithm=algorithm), "http://x.com/", health=health)
    assert {order for order, _, _ in states(found)} == {1, 2}
    assert any(note.startswith("app: ") for note in found.notes)


def test_the_key_decides_where_the_algorithm_hashes() -> None:
    configuration = with_app(algorithm="maglev", hash_key=HashKey(HashPart.COOKIE, "user"))
    firsts = set()
    for number in range(20):
        found = explain(configuration, "http://x.com/", headers=[("cookie", f"user={number}")])
        assert "app: every request with the same cookie.user has this order" in found.notes
        firsts.add(states(found)[0][1])
    assert firsts == {"10.0.0.1:80", "10.0.0.2:80"}
    found = explain(configuration, "http://x.com/")
    assert "app: the request has no cookie.user, so it takes its turn as in round robin" in found.notes


def with_app(**settings: Any) -> Configuration:
    return Configuration(
        listeners=(
            Listener(
                name="web",
                protocol=ListenerProtocol.HTTP,
                binds=(Bind("0.0.0.0", 80),),
                default_action=Forward((WeightedGroup("app"),)),
            ),
        ),
        target_groups=(
            TargetGroup(name="app", protocol=TargetProtocol.HTTP, targets=(target(1), target(2)), **settings),
        ),
    )


def test_a_backup_that_does_the_work_is_shown_in_its_place() -> None:
    spare = TargetGroup(name="spare", protocol=TargetProtocol.HTTP, targets=(target(9),))
    configuration = with_app(backup="spare")
    configuration = attrs.evolve(configuration, target_groups=(*configuration.target_groups, spare))
    health: Health = {"app": {"10.0.0.1:80": TIMED_OUT, "10.0.0.2:80": TIMED_OUT}, "spare": {"10.0.0.9:80": HEALTHY}}
    found = explain(configuration, "http://x.com/", health=health)
    assert found.groups[0].name == "spare"
    assert states(found) == [(1, "10.0.0.9:80", "healthy")]
    assert "too few targets of app are healthy: its backup spare does its work" in found.notes


def test_zones_and_shares_are_shown() -> None:
    state = GroupState(
        targets=(
            RegisteredTarget(target=attrs.evolve(target(1, 2), zone="a"), health=HEALTHY, cell=64),
            RegisteredTarget(
                target=attrs.evolve(target(2), zone="b"),
                health=HEALTHY,
                cell=128,
                share=25,
                share_reason="slow start",
            ),
        )
    )
    configuration = attrs.evolve(with_app(cross_zone=CrossZone.SPILL), zone="b")
    snapshot = Snapshot(version=1, configuration_version=1, configuration=configuration, groups={"app": state})
    found = explain(snapshot, "http://x.com/")
    assert states(found) == [(1, "10.0.0.2:80", "healthy"), (None, "10.0.0.1:80", "healthy")]
    assert "  1. 10.0.0.2:80 weight 1 x 25 %, zone b healthy slow start" in found.to_text().splitlines()
    assert "  -  10.0.0.1:80 weight 2, zone a        healthy" in found.to_text().splitlines()


def test_targets_that_only_the_running_one_knows_are_shown() -> None:
    health: Health = {"app": {"10.0.0.1:80": HEALTHY, "[::1]:40001": HEALTHY}}
    found = explain(CONFIGURATION, "https://x.com:8443/", headers=[("x-tenant", "acme")], health=health)
    assert states(found) == [
        (1, "10.0.0.1:80", "healthy"),
        (2, "[::1]:40001", "healthy"),
        (None, "10.0.0.2:80", "unused"),
    ]


def test_a_snapshot_brings_its_own_states() -> None:
    state = GroupState(
        targets=(
            RegisteredTarget(target=target(1), health=HEALTHY, cell=1000),
            RegisteredTarget(target=target(9), health=TargetHealth(state=TargetState.DRAINING), cell=1064),
        ),
        cell=999,
    )
    snapshot = Snapshot(version=1, configuration_version=1, configuration=CONFIGURATION, groups={"app": state})
    found = explain(snapshot, "https://x.com:8443/", headers=[("x-tenant", "acme")])
    assert states(found) == [(1, "10.0.0.1:80", "healthy"), (None, "10.0.0.9:80", "draining")]


def test_a_group_without_targets_says_so() -> None:
    assert explain(CONFIGURATION, "tcp://127.0.0.1:5432").notes == (
        "target group db has no targets: the answer is 503",
    )
    sources = (
        NamesSource(targets=(Target(host="db.internal", port=5432, address=""),)),
        FileSource(path="/x", text="file:x"),
    )
    found = explain(CONFIGURATION, "tcp://127.0.0.1:5432", discovery={"db": Discovery(sources=sources)})
    assert found.notes == (
        "db has targets from db.internal:5432, file:x, known only to the lbproxy that runs: ask it with --admin",
    )
    assert explain(CONFIGURATION, "tcp://127.0.0.1:5432", demo={"db": 2}).notes == (
        "db has 2 demo targets, known only to the lbproxy that runs: ask it with --admin",
    )


# Output


def test_json_is_json() -> None:
    found = explain(CONFIGURATION, "https://x.com:8443/").to_json()
    assert json.loads(json.dumps(found))["groups"][0]["candidates"][0] == {
        "target": "10.0.0.1:80",
        "weight": 1,
        "share": 100,
        "zone": "",
        "state": "initial",
        "reason": "Elb.RegistrationInProgress",
        "description": "",
        "order": 1,
    }


def test_text_reads_from_top_to_bottom() -> None:
    health: Health = {"app": {"10.0.0.1:80": TIMED_OUT, "10.0.0.2:80": HEALTHY}, "canary": {"10.0.0.3:80": HEALTHY}}
    found = explain(CONFIGURATION, "https://api.example.com:8443/v3/x", health=health, source="192.0.2.1")
    assert found.to_text().splitlines() == [
        "GET https://api.example.com:8443/v3/x from 192.0.2.1",
        "listener secure (HTTPS 0.0.0.0:8443)",
        "rule canary  (priority 10):     no  - path: wanted /v1/* or /v2/*, saw /v3/x",
        "rule tenant  (priority 20):     no  - header.x-tenant: wanted acme*, saw (no such field)",
        "rule inside  (priority 3000):   no  - source-ip: wanted 10.0.0.0/8, saw 192.0.2.1",
        "rule default (no rule matched): yes",
        "forward to app (weight 90, 90.0% of the traffic; round_robin)",
        "  1. 10.0.0.2:80 weight 1 healthy",
        "  -  10.0.0.1:80 weight 1 unhealthy Target.Timeout Request timed out",
        "forward to canary (weight 10, 10.0% of the traffic; round_robin)",
        "  1. 10.0.0.3:80 weight 1 healthy",
    ]


@pytest.mark.parametrize(
    ("url", "line"),
    [
        ("http://x.com:8080/", "redirect 301 to https://x.com:8443/"),
        ("http://x.com:1/", "listener none takes this URL"),
    ],
)
def test_text_of_other_outcomes(url: str, line: str) -> None:
    assert line in explain(CONFIGURATION, url).to_text().splitlines()


def test_text_of_a_fixed_response() -> None:
    found = explain(CONFIGURATION, "https://x.com:8443/", source="10.0.0.1")
    assert "fixed-response 410 text/plain: moved away" in found.to_text().splitlines()


def test_it_tells_of_retries() -> None:
    policy = RetryPolicy(
        on_reset=True,
        statuses=((502, 504), (500, 500)),
        attempts=1,
        budget_percent=10,
        try_timeout_seconds=2.0,
        hedge_delay_seconds=0.25,
        request_timeout_seconds=30.0,
    )

    def lines(method: str, policy: RetryPolicy) -> list[str]:
        configuration = Configuration(
            listeners=(attrs.evolve(WEB, default_action=FORWARD_APP),), target_groups=(attrs.evolve(APP, retry=policy),)
        )
        text = explain(configuration, "x.com:8080/", method=method).to_text().splitlines()
        return [line.strip() for line in text if line.startswith("  ") and "10.0.0." not in line]

    assert lines("GET", policy) == [
        "sent once more, each to another target: after a reset; instead of an answer with 502-504, 500; after 2s"
        " without an answer; beside the first after 0.25s",
        "as long as that is no more than 10% of the group's requests",
        "all in all at most 30s",
    ]
    assert lines("POST", policy) == ["POST is sent once: it is not among retry-methods", "all in all at most 30s"]
    assert lines("GET", RetryPolicy(on_connect_failure=False)) == [
        "no other target is tried when one cannot be connected to"
    ]
    assert lines("GET", RetryPolicy()) == []


def test_it_tells_of_the_retries_of_a_rule() -> None:
    """What the rule does not have is the group's."""
    rule = Rule(
        name="api",
        priority=1,
        conditions=(PathCondition((Pattern("/api/*"),)),),
        action=FORWARD_APP,
        retry=RetryChange(on_reset=True, attempts=1, methods=("POST",)),
    )
    group = attrs.evolve(APP, retry=RetryPolicy(request_timeout_seconds=30.0, budget_percent=7))
    configuration = Configuration(
        listeners=(attrs.evolve(WEB, default_action=FORWARD_APP, rules=(rule,)),), target_groups=(group,)
    )
    text = explain(configuration, "x.com:8080/api/x", method="POST").to_text()
    assert "  sent once more, each to another target: after a reset\n" in text
    assert "no more than 7% of the group's requests\n  all in all at most 30s" in text
    assert "after a reset" not in explain(configuration, "x.com:8080/", method="POST").to_text()


# What the parser has to say


@pytest.mark.parametrize(
    ("url", "method", "headers", "refused"),
    [
        ("x.com:8080/a b", "GET", [], (400, "SpaceInUri")),
        ("x.com:8080/", "B D", [], (400, "SpaceInUri")),
        ("x.com:8080/", "TRACE", [], (405, "MethodNotAllowed")),
        ("x.com:8080/", "GET", [("Host", "a"), ("Host", "b")], (400, "BadHost")),
        ("x.com:8080/", "GET", [("X Y", "a")], (400, "BadHeader")),
        ("x.com:8080/" + "a" * 20000, "GET", [], (414, "UriTooLong")),
    ],
)
def test_a_request_that_no_listener_takes_meets_no_rule(
    url: str, method: str, headers: list[tuple[str, str]], refused: tuple[int, str]
) -> None:
    explanation = explain(CONFIGURATION, url, method=method, headers=headers)
    assert (explanation.action, explanation.status, explanation.reason) == ("refuse", *refused)
    assert explanation.rules == ()
    assert f"refused with {refused[0]} {refused[1]}, before any rule" in explanation.to_text()


def test_a_websocket_url_asks_for_an_upgrade() -> None:
    rule = Rule(
        name="chat", priority=1, conditions=(HeaderCondition("upgrade", (Pattern("websocket"),)),), action=FORWARD_APP
    )
    configuration = Configuration(listeners=(attrs.evolve(WEB, rules=(rule,)),), target_groups=(APP,))
    assert explain(configuration, "ws://x.com:8080/").rules[-1].rule_name == "chat"
    assert explain(configuration, "http://x.com:8080/").rules[-1].rule_name == "default"


def test_a_connection_has_no_method_and_no_rules() -> None:
    text = explain(CONFIGURATION, "tcp://127.0.0.1:5432").to_text().splitlines()
    assert text[0] == "connection to tcp://127.0.0.1:5432 from 127.0.0.1"
    assert text[2].startswith("forward to db")


# Rate limits


def test_it_tells_which_rate_limits_the_request_counts_for() -> None:
    limits = (
        RateLimit(name="keys", key=RateLimitKey.HEADER, header="x-key", requests=5, burst=5),
        RateLimit(name="other", rule="elsewhere", requests=5, burst=5),
        RateLimit(name="clients", requests=100, seconds=60.0, burst=20, dry_run=True),
    )
    configuration = Configuration(listeners=(attrs.evolve(WEB, rate_limits=limits),))
    found = explain(configuration, "http://x.com:8080/")
    assert found.rate_limits == ("clients: 100/m burst 20 by client (dry run)",)
    assert "rate limit clients: 100/m burst 20 by client (dry run)" in found.to_text().splitlines()
    found = explain(configuration, "http://x.com:8080/", headers=[("X-Key", "a")])
    assert found.rate_limits[0] == "keys: 5/s burst 5 by header.x-key"


# Security groups


GUARDED = Configuration(
    listeners=(attrs.evolve(WEB, security_groups=("office", "admins")),),
    security_groups=(
        SecurityGroup(
            name="office", ingress=(IngressRule(protocol="tcp", ports=(8080, 8080), networks=("10.0.0.0/8",)),)
        ),
        SecurityGroup(name="admins", ingress=(IngressRule(networks=("192.0.2.0/24",)),)),
    ),
)


def test_security_groups_say_who_lets_the_client_in() -> None:
    found = explain(GUARDED, "http://x.com:8080/", source="192.0.2.9")
    assert (found.action, found.admitted_by) == ("redirect", "admins lets it in: all all 192.0.2.0/24")
    assert "security groups office, admins: admins lets it in: all all 192.0.2.0/24" in found.to_text()


def test_security_groups_end_the_explanation_where_they_end_the_connection() -> None:
    found = explain(GUARDED, "http://x.com:8080/", source="203.0.113.1")
    assert (found.action, found.reason, found.rules) == ("deny", "SecurityGroupDenied", ())
    assert found.to_text().splitlines()[2:] == [
        "security groups office, admins: no rule lets 203.0.113.1 in",
        "closed before a byte is read (SecurityGroupDenied)",
    ]
