"""How actions are written."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbproxy.controlplane.config.actions import FixedResponseFile, parse
from lbproxy.model.rule import Action, FixedResponse, Forward, Redirect, WeightedGroup


@pytest.mark.parametrize(
    ("text", "action"),
    [
        ("forward app", Forward((WeightedGroup("app", 1),))),
        ("forward a weight=90, b weight=0", Forward((WeightedGroup("a", 90), WeightedGroup("b", 0)))),
        ("forward a,\nb", Forward((WeightedGroup("a", 1), WeightedGroup("b", 1)))),
        (
            "redirect https://#{host}:8443/#{path}?#{query} 301",
            Redirect(status=301, protocol="https", host="#{host}", port="8443", path="/#{path}", query="#{query}"),
        ),
        (
            "redirect https://www.#{host}/new/#{path}",
            Redirect(status=302, protocol="https", host="www.#{host}", port="443", path="/new/#{path}", query=""),
        ),
        (
            "redirect HTTP://example.com?a=#{query} 308",
            Redirect(status=308, protocol="http", host="example.com", port="80", path="/", query="a=#{query}"),
        ),
        (
            "redirect #{protocol}://example.com/#{path} 307",
            Redirect(status=307, host="example.com", port="#{port}", path="/#{path}", query=""),
        ),
        (
            "redirect #{protocol}://[::1]:#{port}/ 303",
            Redirect(status=303, host="[::1]", port="#{port}", path="/", query=""),
        ),
        ("redirect /new/#{path}?#{query} 301", Redirect(status=301, path="/new/#{path}")),
        ("fixed-response 204", FixedResponse(status=204)),
        ("fixed-response 410 text/plain", FixedResponse(status=410)),
        ('fixed-response 410 "gone"', FixedResponse(status=410, body="gone")),
        (
            'fixed-response 503 text/html; charset=utf-8 "<p class=\\"x\\">\\n\\\\ é"',
            FixedResponse(status=503, content_type="text/html; charset=utf-8", body='<p class="x">\n\\ é'),
        ),
        ('fixed-response 200 text/plain "file:x"', FixedResponse(status=200, body="file:x")),
        (
            "fixed-response 503 text/html file:back soon.html",
            FixedResponseFile(status=503, content_type="text/html", path="back soon.html"),
        ),
    ],
)
def test_action(text: str, action: Action | FixedResponseFile) -> None:
    assert parse(text) == action


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("proxy app", "no such action as proxy"),
        ("forward", "write forward NAME"),
        ("forward a b", "write a weight=10"),
        ("forward a weight=x", "whole number"),
        ("forward a weight=1000", "0 to 999"),
        ("forward a weight=0, b weight=0", "all weights are zero"),
        ("forward a, b, a", "a is named twice"),
        ("redirect", "write redirect URL STATUS"),
        ("redirect https://x/ 301 more", "write redirect URL STATUS"),
        ("redirect https://x/ 200", "301, 302, 303, 307 or 308"),
        ("redirect https://#{hots}/ 301", "no such placeholder as #{hots}"),
        ("redirect ftp://x/ 301", "not a URL"),
        ("redirect x 301", "not a URL"),
        ("redirect //evil 301", "not a URL"),
        ("redirect https://x:0/ 301", "out of range"),
        ("redirect https://x/é 301", "percent-encode"),
        ("fixed-response", "status missing"),
        ("fixed-response 302", "status 302"),
        ("fixed-response 999", "status 999"),
        ("fixed-response 200 gone", "no content type"),
        ('fixed-response 200 text/plain "a" b', "ends with a double quote"),
        ('fixed-response 200 text/plain "a\\x"', "is not understood"),
        ('fixed-response 204 text/plain "a"', "has no body"),
        ("fixed-response 200 text/plain file:", "needs a path"),
        (f'fixed-response 200 "{"a" * 65537}"', "64 KiB"),
    ],
)
def test_mistake_says_what_would_be_right(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        parse(text)
    assert words in str(caught.value)


@given(
    st.sampled_from(["forward ", "redirect ", "redirect https://", "fixed-response ", 'fixed-response 200 "', ""]),
    st.text() | st.text(alphabet='#{}:/?host"\\ 0123456789=,weight', max_size=40),
)
def test_only_value_error_is_raised(start: str, rest: str) -> None:
    with contextlib.suppress(ValueError):
        parse((start + rest).strip() or "x")
