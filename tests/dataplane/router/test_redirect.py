"""The Location of a redirect."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbproxy.dataplane.router.redirect import expand
from lbproxy.dataplane.router.request import PlainRequest
from lbproxy.model.rule import Redirect

TO_HTTPS = Redirect(protocol="HTTPS", port="443")


def location(
    redirect: Redirect,
    *,
    path: bytes = b"/a/b",
    query: bytes = b"",
    protocol: str = "HTTP",
    port: int = 8080,
    host: bytes = b"example.com",
) -> bytes:
    return expand(redirect, PlainRequest(host=host, path=path, query=query), protocol, port, host)


@pytest.mark.parametrize(
    ("redirect", "expected"),
    [
        (Redirect(path="/new"), b"http://example.com:8080/new?x=1"),
        (TO_HTTPS, b"https://example.com/a/b?x=1"),
        (Redirect(protocol="HTTP", port="80"), b"http://example.com/a/b?x=1"),
        (Redirect(protocol="HTTPS", port="8443"), b"https://example.com:8443/a/b?x=1"),
        (Redirect(protocol="HTTPS", port="80"), b"https://example.com:80/a/b?x=1"),
        (Redirect(host="www.#{host}"), b"http://www.example.com:8080/a/b?x=1"),
        (
            Redirect(path="/old/#{path}", query="from=#{host}&#{query}"),
            b"http://example.com:8080/old/a/b?from=example.com&x=1",
        ),
        (Redirect(path="/login", query=""), b"http://example.com:8080/login"),
        (Redirect(path="/#{port}/#{protocol}/#{unknown}"), b"http://example.com:8080/8080/http/#{unknown}?x=1"),
        (Redirect(host="new.example", path="#{path}"), b"http://new.example:8080/a/b?x=1"),
    ],
)
def test_placeholders(redirect: Redirect, expected: bytes) -> None:
    assert location(redirect, query=b"x=1") == expected


def test_default_ports_are_left_out() -> None:
    assert location(Redirect(path="/x"), port=80) == b"http://example.com/x"
    assert location(Redirect(path="/x"), protocol="https", port=443) == b"https://example.com/x"


def test_empty_query_leaves_no_question_mark() -> None:
    assert location(TO_HTTPS) == b"https://example.com/a/b"


@pytest.mark.parametrize(
    "path", [b"/a%2Fb", b"/A//b/../c", b"//evil.example/", b"/%0d%0aSet-Cookie:x", b"/a;b=c:@&=+$,~!*'()"]
)
def test_path_is_kept_as_received(path: bytes) -> None:
    assert location(TO_HTTPS, path=path) == b"https://example.com" + path


def test_asterisk_form_gets_a_slash() -> None:
    assert location(TO_HTTPS, path=b"*") == b"https://example.com/*"


def test_what_a_client_sends_is_not_expanded() -> None:
    assert location(TO_HTTPS, path=b"/#{host}", query=b"#{port}") == b"https://example.com/%23%7Bhost%7D?%23%7Bport%7D"


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        (b"[::1]", b"[::1]"),
        (b"127.0.0.1", b"127.0.0.1"),
        (b"a.com@evil.example", b"a.com%40evil.example"),
        (b"a.com/evil", b"a.com%2Fevil"),
        (b"a.com\\evil", b"a.com%5Cevil"),
        (b"a.com#evil", b"a.com%23evil"),
        (b"a.com?evil", b"a.com%3Fevil"),
        (b"a.com:99", b"a.com%3A99"),
        (b"[::1]@evil.example", b"%5B%3A%3A1%5D%40evil.example"),
        (b"a\r\nSet-Cookie: x", b"a%0D%0ASet-Cookie%3A%20x"),
    ],
)
def test_host_stays_a_host(host: bytes, expected: bytes) -> None:
    assert location(TO_HTTPS, host=host) == b"https://" + expected + b"/a/b"


@given(st.binary(max_size=20), st.binary(max_size=20), st.binary(min_size=1, max_size=20))
def test_no_request_breaks_out_of_the_field_or_changes_the_host(path: bytes, query: bytes, host: bytes) -> None:
    """The codec lets none of this through; the redirect does not rely on it."""
    found = location(Redirect(protocol="HTTPS", port="8443", host="safe.example"), path=path, query=query, host=host)
    assert all(0x20 < byte < 0x7F for byte in found)
    parts = urlsplit(found)
    assert (parts.scheme, parts.netloc, parts.fragment) == (b"https", b"safe.example:8443", b"")
    own = urlsplit(location(TO_HTTPS, path=path, query=query, host=host))
    assert own.username is None
    assert own.fragment == b""
