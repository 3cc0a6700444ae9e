"""The compiled table finds what trying the rules one by one finds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbproxy.dataplane.router.request import PlainRequest
from lbproxy.dataplane.router.table import RuleTrace, Table
from lbproxy.model.rule import Condition, FixedResponse, Forward, MethodCondition, Redirect, Rule, WeightedGroup

from .listeners import host, listener, path, rule

SOURCE = "127.0.0.1"


def rule_for(table: Table, **request: bytes) -> str:
    return table.match(PlainRequest(**request), SOURCE).rule_name  # type: ignore[arg-type]


def test_without_rules_the_default_action_takes_all() -> None:
    match = Table.compile(listener()).match(PlainRequest(), SOURCE)
    assert (match.rule_name, match.priority, match.action_text, match.forward) == ("default", 0, "fixed-response", None)


@pytest.mark.parametrize(
    ("action", "text"),
    [
        (Forward((WeightedGroup("app"),)), "forward"),
        (Redirect(), "redirect"),
        (FixedResponse(status=200), "fixed-response"),
    ],
)
def test_match_carries_the_action(action: Forward | Redirect | FixedResponse, text: str) -> None:
    match = Table.compile(listener(rule(7, path("/"), name="a", action=action))).match(PlainRequest(), SOURCE)
    assert (match.rule_name, match.priority, match.action, match.action_text) == ("a", 7, action, text)
    assert (match.forward.pick() if match.forward else None) == ("app" if text == "forward" else None)


def test_the_lowest_priority_number_wins_wherever_the_rule_is_filed() -> None:
    rules = [
        rule(5, host("api.example.com"), name="host"),
        rule(4, host("*.example.com"), name="tail"),
        rule(3, path("/v1/x"), name="exact path"),
        rule(2, path("/v1/*"), name="head"),
        rule(1, path("regex:^/v1"), name="always"),
    ]
    request = {"host": b"api.example.com", "path": b"/v1/x"}
    for dropped, expected in enumerate(["always", "head", "exact path", "tail", "host", "default"]):
        assert rule_for(Table.compile(listener(*rules[: len(rules) - dropped])), **request) == expected


def test_rules_come_in_any_order() -> None:
    table = Table.compile(listener(rule(20, path("/*"), name="late"), rule(10, path("/*"), name="early")))
    assert rule_for(table, path=b"/x") == "early"


def test_all_conditions_of_a_rule_have_to_hold() -> None:
    table = Table.compile(
        listener(
            rule(1, host("a.com"), path("/x/*"), MethodCondition(("PUT",)), name="put"),
            rule(2, host("a.com"), path("/x/*"), name="any method"),
            rule(3, path("/x/*"), name="any host"),
        )
    )
    assert rule_for(table, host=b"a.com", path=b"/x/1", method=b"PUT") == "put"
    assert rule_for(table, host=b"a.com", path=b"/x/1") == "any method"
    assert rule_for(table, host=b"b.com", path=b"/x/1", method=b"PUT") == "any host"
    assert rule_for(table, host=b"a.com", path=b"/y", method=b"PUT") == "default"


def test_nested_prefixes_are_all_candidates() -> None:
    table = Table.compile(
        listener(
            rule(1, path("/a/b/c/*"), MethodCondition(("PUT",)), name="deep"),
            rule(2, path("/a/*"), MethodCondition(("PUT", "POST")), name="shallow"),
            rule(3, path("/a/b/*"), name="middle"),
            rule(4, path("/*"), name="root"),
        )
    )
    assert rule_for(table, path=b"/a/b/c/d", method=b"PUT") == "deep"
    assert rule_for(table, path=b"/a/b/c/d", method=b"POST") == "shallow"
    assert rule_for(table, path=b"/a/b/c/d", method=b"GET") == "middle"
    assert rule_for(table, path=b"/a/z", method=b"GET") == "root"


def test_several_patterns_of_a_condition_lead_to_the_same_rule() -> None:
    table = Table.compile(listener(rule(1, host("a.com", "*.a.com", "a.*"), name="a")))
    for seen in (b"a.com", b"www.a.com", b"a.org"):
        assert rule_for(table, host=seen) == "a"
    assert rule_for(table, host=b"b.com") == "default"


def test_a_rule_without_conditions_matches_all() -> None:
    assert rule_for(Table.compile(listener(rule(1, name="all")))) == "all"


def test_a_condition_without_values_matches_nothing() -> None:
    assert rule_for(Table.compile(listener(rule(1, path(), name="none")))) == "default"


def test_trace_says_why_earlier_rules_did_not_match() -> None:
    table = Table.compile(
        listener(
            rule(10, host("a.com"), path("/v1/*"), name="canary"),
            rule(20, host("b.com"), name="other"),
            rule(30, path("/v2/*"), name="v2"),
            rule(40, path("/*"), name="late"),
        )
    )
    assert table.trace(PlainRequest(host=b"a.com", path=b"/v2/x"), SOURCE) == (
        RuleTrace(rule_name="canary", priority=10, matched=False, failed="path", wanted=("/v1/*",), seen="/v2/x"),
        RuleTrace(rule_name="other", priority=20, matched=False, failed="host", wanted=("b.com",), seen="a.com"),
        RuleTrace(rule_name="v2", priority=30, matched=True),
    )


def test_trace_ends_with_the_default() -> None:
    assert Table.compile(listener()).trace(PlainRequest(), SOURCE) == (
        RuleTrace(rule_name="default", priority=0, matched=True),
    )


_hosts = st.sampled_from(["a.com", "b.a.com", "c.b.a.com", "a.org", "com", "", "xa.com"])
_paths = st.sampled_from(["/", "/a", "/a/", "/a/b", "/a/b/c", "/ab", "/b", "*"])
_host_patterns = st.sampled_from(
    ["a.com", "*.a.com", "*a.com", "*.com", "b.*", "*", "?.com", "*.b.*", "*.*.com", "regex:^b", "A.COM", "?.*.com"]
)
_path_patterns = st.sampled_from(
    ["/", "/*", "/a", "/a*", "/a/*", "/a/b*", "/a/?", "*b", "*", "/a/*/c", "regex:b$", "/?*", "/*b", "/a/b/c"]
)
_conditions: st.SearchStrategy[Condition] = st.one_of(
    st.lists(_host_patterns, min_size=1, max_size=3).map(lambda texts: host(*texts)),
    st.lists(_path_patterns, min_size=1, max_size=3).map(lambda texts: path(*texts)),
    st.sampled_from([MethodCondition(("GET",)), MethodCondition(("PUT", "POST"))]),
)
_rules: st.SearchStrategy[list[Rule]] = st.lists(st.lists(_conditions, max_size=3), max_size=8).map(
    lambda rules: [rule(number, *conditions) for number, conditions in enumerate(rules, 1)]
)


@given(_rules, _hosts, _paths, st.sampled_from([b"GET", b"PUT"]))
def test_match_is_the_rule_that_trying_all_in_order_finds(
    rules: list[Rule], host_seen: str, path_seen: str, method: bytes
) -> None:
    table = Table.compile(listener(*rules))
    request = PlainRequest(host=host_seen.encode(), path=path_seen.encode(), method=method)
    assert table.match(request, SOURCE).rule_name == table.trace(request, SOURCE)[-1].rule_name
