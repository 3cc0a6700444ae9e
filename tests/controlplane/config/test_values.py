"""Parsers of option values."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbproxy.controlplane.config import values
from lbproxy.controlplane.config.values import Form
from lbproxy.model.listener import Bind
from lbproxy.model.rule import Pattern

HOSTS = values.patterns(Form("", values.host_pattern), "")
PATHS = values.patterns(Form("", values.path_pattern), "")
HEADERS = values.patterns(Form("", values.value_pattern), "")
QUERIES = values.patterns(Form("", values.query_pattern), "")
CIDRS = values.list_of(Form("", values.network), "")


def regex(text: str) -> Pattern:
    return Pattern(text, is_regex=True)


@pytest.mark.parametrize(
    ("parse", "text", "value"),
    [
        (values.duration, "500ms", 0.5),
        (values.duration, "1.5s", 1.5),
        (values.duration, "2 m", 120.0),
        (values.duration, "1h", 3600.0),
        (values.duration, "7d", 604800.0),
        (values.duration, "10", 10.0),
        (values.size, "512", 512),
        (values.size, "64k", 65536),
        (values.size, "1M", 1048576),
        (values.size, "2g", 2147483648),
        (values.boolean, "on", True),
        (values.boolean, "Yes", True),
        (values.boolean, "false", False),
        (values.items, "a, b,,\n c ,", ["a", "b", "c"]),
        (values.ranges(200, 499).parse, "200-299, 301", ((200, 299), (301, 301))),
        (values.integer_from(1, 50000).parse, "50000", 50000),
        (values.duration_from("100ms", "5m").parse, "0.1s", 0.1),
        (values.split_address, "example.com:80", ("example.com", 80)),
        (values.split_address, "[::1]:80", ("::1", 80)),
        (values.bind, "0.0.0.0:8080", Bind("0.0.0.0", 8080)),
        (values.bind, "[0:0::0]:0", Bind("::", 0)),
        (values.host_name, "Example.COM.", "example.com"),
        (values.host_name, "0:0::1", "::1"),
        (values.network, "10.0.0.0/8", "10.0.0.0/8"),
        (values.network, "2001:0db8::/32", "2001:db8::/32"),
        (values.network, "10.1.2.3", "10.1.2.3/32"),
        (CIDRS.parse, "10.0.0.0/8\n::1", ("10.0.0.0/8", "::1/128")),
        (values.host_field, "App.example:8080", "app.example:8080"),
        (values.host_field, "[::1]:80", "[::1]:80"),
        (HOSTS.parse, "API.example.com, *.example.org", (Pattern("api.example.com"), Pattern("*.example.org"))),
        (PATHS.parse, "/A/*, *.png", (Pattern("/A/*"), Pattern("*.png"))),
        (PATHS.parse, "regex:^/v[0-9]{1,2}/(a,b)$, /x", (regex("^/v[0-9]{1,2}/(a,b)$"), Pattern("/x"))),
        (PATHS.parse, "/x, regex:^/\\{,/y", (Pattern("/x"), regex("^/\\{"), Pattern("/y"))),
        (HEADERS.parse, '"a, b", c', (Pattern("a, b"), Pattern("c"))),
        (HEADERS.parse, '"a\\"b"', (Pattern('a"b'),)),
        (HEADERS.parse, '"a" b', (Pattern('"a" b'),)),
        (HEADERS.parse, "regex:a,b", (regex("a"), Pattern("b"))),
        (QUERIES.parse, "\\*a*", (Pattern("\\*a*"),)),
    ],
)
def test_value(parse: Callable[[str], Any], text: str, value: Any) -> None:
    assert parse(text) == value


@pytest.mark.parametrize(
    ("parse", "text", "words"),
    [
        (values.duration, "5x", "write for example 60s or 1m"),
        (values.duration, "-1s", "not a duration"),
        (values.duration, "٣s", "not a duration"),
        (values.size, "1t", "write for example 64k"),
        (values.boolean, "maybe", "write on or off"),
        (values.integer, "1.5", "whole number"),
        (values.integer_from(1, 50000).parse, "0", "1 to 50000 is allowed"),
        (values.duration_from("100ms", "5m").parse, "6m", "100ms to 5m is allowed"),
        (values.one_of("a", "b", "c").parse, "d", "write a, b or c"),
        (values.ranges(200, 499).parse, "200-", "write for example 200-299"),
        (values.ranges(200, 499).parse, "300-200", "write 200-300"),
        (values.ranges(200, 499).parse, "200-599", "200 to 499 is allowed"),
        (values.split_address, "::1:80", "needs brackets"),
        (values.split_address, "[::1]", "write for example [::1]:8080"),
        (values.split_address, "host", "an address and a port"),
        (values.split_address, ":80", "an address and a port"),
        (values.split_address, "a:65536", "out of range"),
        (values.bind, "localhost:80", "not an IP address to listen at"),
        (values.bind, "*:80", "0.0.0.0:80"),
        (values.host_name, "10.1", "not an IP address"),
        (values.host_name, "10.0.0.256", "not an IP address"),
        (values.host_name, "a b", "not a host name"),
        (values.host_name, "a..b", "not a host name"),
        (values.host_name, "-a", "not a host name"),
        (values.network, "10.0.0.1/8", "write 10.0.0.0/8"),
        (values.network, "ten", "not a CIDR block"),
        (CIDRS.parse, "x, 10.0.0.0/8, y", "'x': not a CIDR block; write for example 10.0.0.0/8 or 2001:db8::/32; 'y'"),
        (CIDRS.parse, "10.0.0.0/8, 10.0.0.0/8", "twice"),
        (CIDRS.parse, ",", "empty list"),
        (values.method, "get", "in capitals"),
        (values.field_name, "a b", "not a header name"),
        (values.field_name, "a" * 41, "at most 40"),
        (values.request_path, "x", "starts with /"),
        (values.request_path, "/a b", "visible ASCII"),
        (HOSTS.parse, "https://a/", "without scheme"),
        (HOSTS.parse, "a:80", "port"),
        (HOSTS.parse, "bücher.example", "xn--"),
        (PATHS.parse, "x", "write /x"),
        (PATHS.parse, "/é", "%20"),
        (PATHS.parse, "regex:(", "RE2"),
        (PATHS.parse, "regex:(?=a)", "look-around"),
        (PATHS.parse, "regex:", "needs an expression"),
        (PATHS.parse, "/" + "a" * 1024, "longer than 1024"),
        (QUERIES.parse, "regex:a", "no regex:"),
    ],
)
def test_mistake_says_what_would_be_right(parse: Callable[[str], Any], text: str, words: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        parse(text)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "parse",
    [
        values.duration,
        values.size,
        values.boolean,
        values.ranges(200, 499).parse,
        values.bind,
        values.host_name,
        values.host_field,
        CIDRS.parse,
        HOSTS.parse,
        PATHS.parse,
        HEADERS.parse,
        QUERIES.parse,
    ],
)
@given(text=st.text(min_size=1) | st.text(alphabet='0123456789.:[]{}()-,"\\/*? \nregx', min_size=1))
def test_only_value_error_is_raised(parse: Callable[[str], Any], text: str) -> None:
    with contextlib.suppress(ValueError):
        parse(text.strip() or "x")
