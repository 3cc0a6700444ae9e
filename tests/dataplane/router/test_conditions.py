"""What each condition looks at (elb-semantics: ALB rule conditions)."""

from __future__ import annotations

import pytest

from lbproxy.dataplane.router.conditions import compile_condition
from lbproxy.dataplane.router.request import PlainRequest
from lbproxy.model.rule import (
    Condition,
    HeaderCondition,
    MethodCondition,
    Pattern,
    QueryCondition,
    SourceIpCondition,
)

from .listeners import host, path, pattern


def holds(condition: Condition, request: PlainRequest | None = None, source: str = "127.0.0.1") -> bool:
    return compile_condition(condition).matches(request or PlainRequest(), source)


@pytest.mark.parametrize(
    ("patterns", "seen", "expected"),
    [
        (("Example.COM",), b"example.com", True),
        (("a.com", "b.com"), b"b.com", True),
        (("a.com", "b.com"), b"c.com", False),
        (("[::1]",), b"[::1]", True),
        (("regex:^API\\d+\\.",), b"api7.example.com", True),
        (("regex:^api\\d+\\.",), b"api.example.com", False),
        (("x.com",), b"", False),
    ],
)
def test_host(patterns: tuple[str, ...], seen: bytes, expected: bool) -> None:
    assert holds(host(*patterns), PlainRequest(host=seen)) is expected


@pytest.mark.parametrize(
    ("patterns", "seen", "expected"),
    [
        (("/img/*",), b"/img/a.png", True),
        (("/IMG/*",), b"/img/a.png", False),  # letter case counts
        (("/a b",), b"/a%20b", False),  # as received, not decoded
        (("/b",), b"/a/../b", False),  # nor normalised
        (("/x", "/y/*"), b"/y/z", True),
        (("regex:\\.php$",), b"/a/index.php", True),
        (("regex:\\.php$",), b"/a/index.PHP", False),
    ],
)
def test_path(patterns: tuple[str, ...], seen: bytes, expected: bool) -> None:
    assert holds(path(*patterns), PlainRequest(path=seen)) is expected


@pytest.mark.parametrize(("method", "expected"), [(b"GET", True), (b"get", False), (b"GETX", False), (b"PUT", True)])
def test_method_is_exact(method: bytes, expected: bool) -> None:
    assert holds(MethodCondition(("GET", "PUT")), PlainRequest(method=method)) is expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([b"acme"], True),
        ([b"ACME Corp"], True),
        ([b"globex"], True),
        ([b"initech", b"acme"], True),  # several fields are tried in order
        ([b"initech"], False),
        ([], False),
    ],
)
def test_header(values: list[bytes], expected: bool) -> None:
    condition = HeaderCondition("x-tenant", (Pattern("Acme*"), Pattern("globex")))
    assert holds(condition, PlainRequest(fields=[(b"X-Tenant", value) for value in values])) is expected


@pytest.mark.parametrize(
    ("key", "value", "query", "expected"),
    [
        ("version", "2", b"version=2", True),
        ("Version", "B*", b"vERSION=beta", True),
        ("version", "2", b"a=b&version=2&c", True),
        ("version", "2", b"version=3&version=2", True),
        ("version", "2", b"version=22", False),
        ("version", "2", b"xversion=2", False),
        ("version", "2", b"", False),
        ("version", "*", b"version", True),  # a pair without = has an empty value
        ("version", "*", b"version=", True),
        ("v*", "2", b"version=2", True),
        (None, "2", b"anything=2", True),
        (None, "2", b"2", False),
        (None, "*", b"&&", False),  # there is no pair in it
        ("a", "x=y", b"a=x=y", True),
        ("a", "\\*", b"a=*", True),
        ("a", "\\*", b"a=x", False),
        ("a", "b c", b"a=b%20c", False),  # compared as received
        ("a", "b%20c", b"a=b%20C", True),
    ],
)
def test_query(key: str | None, value: str, query: bytes, expected: bool) -> None:
    condition = QueryCondition(None if key is None else Pattern(key), (Pattern(value),))
    assert holds(condition, PlainRequest(query=query)) is expected


@pytest.mark.parametrize(
    ("networks", "source", "expected"),
    [
        (("10.0.0.0/8",), "10.1.2.3", True),
        (("10.0.0.0/8",), "11.1.2.3", False),
        (("192.0.2.1/32", "10.0.0.0/8"), "10.1.2.3", True),
        (("0.0.0.0/0",), "203.0.113.9", True),
        (("0.0.0.0/0",), "2001:db8::1", False),
        (("2001:db8::/32",), "2001:db8:1::9", True),
        (("2001:db8::/32",), "2001:db9::9", False),
        (("::/0",), "10.1.2.3", False),
        (("10.0.0.0/8",), "::ffff:10.1.2.3", True),  # an IPv4 client of an IPv6 socket
        (("::/0",), "::ffff:10.1.2.3", False),
        (("fe80::/10",), "fe80::1%eth0", True),
        (("0.0.0.0/0", "::/0"), "", False),
        (("0.0.0.0/0", "::/0"), "/run/client.sock", False),
    ],
)
def test_source_ip(networks: tuple[str, ...], source: str, expected: bool) -> None:
    assert holds(SourceIpCondition(networks), source=source) is expected


@pytest.mark.parametrize(
    ("condition", "kind", "wanted", "seen"),
    [
        (host("a.com", "regex:^b"), "host", ("a.com", "regex:^b"), "x.com"),
        (path("/v1/*"), "path", ("/v1/*",), "/v2/x"),
        (MethodCondition(("PUT",)), "method", ("PUT",), "GET"),
        (HeaderCondition("x-a", (pattern("1"),)), "header.x-a", ("1",), "2, 3"),
        (HeaderCondition("x-b", (pattern("1"),)), "header.x-b", ("1",), "(no such field)"),
        (QueryCondition(pattern("v"), (pattern("1"),)), "query.v", ("1",), "v=2"),
        (QueryCondition(None, (pattern("1"),)), "query", ("1",), "v=2"),
        (SourceIpCondition(("10.0.0.0/8",)), "source-ip", ("10.0.0.0/8",), "127.0.0.1"),
    ],
)
def test_a_check_explains_itself(condition: Condition, kind: str, wanted: tuple[str, ...], seen: str) -> None:
    request = PlainRequest(host=b"x.com", path=b"/v2/x", query=b"v=2", fields=[(b"x-a", b"2"), (b"X-A", b"3")])
    check = compile_condition(condition)
    assert not check.matches(request, "127.0.0.1")
    assert (check.kind, check.wanted, check.seen(request, "127.0.0.1")) == (kind, wanted, seen)
