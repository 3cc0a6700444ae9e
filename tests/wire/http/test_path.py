"""What is one path for all readers, and what is refused because it is not (RFC 3986)."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbproxy.wire.errors import RemoteProtocolError
from lbproxy.wire.http.path import normalize_path, use_normalized_path
from lbproxy.wire.http1.head import scan_request


@pytest.mark.parametrize(
    ("path", "normalized"),
    [
        (b"/", b"/"),
        (b"/a/b.html", b"/a/b.html"),
        (b"/.well-known/x", b"/.well-known/x"),
        (b"/a/..b/.../c", b"/a/..b/.../c"),
        # section 6.2.2.2: what need not be encoded
        (b"/%61%64min", b"/admin"),
        (b"/%41%5a%7e%2D%5F%30", b"/AZ~-_0"),
        (b"/%20%2B%3f%c3%a4%25", b"/%20%2B%3f%c3%a4%25"),
        (b"/%2561", b"/%2561"),
        (b"/%zz%", b"/%zz%"),
        # sections 6.2.2.3 and 5.2.4: dot segments
        (b"/a/./b", b"/a/b"),
        (b"/a/../b", b"/b"),
        (b"/a/b/../..", b"/"),
        (b"/a/b/..", b"/a/"),
        (b"/a/.", b"/a/"),
        (b"/..", b"/"),
        (b"/../../etc/passwd", b"/etc/passwd"),
        (b"/x/%2e%2E/admin", b"/admin"),
        (b"/x/.%2e/admin", b"/admin"),
        (b"/a//../b", b"/a/b"),
        # other paths: not the same for everybody, but nothing is hidden in them
        (b"//a//b", b"//a//b"),
        (b"/a\\b", b"/a\\b"),
        (b"/group%2Fproject", b"/group%2Fproject"),
        (b"/a;v=1.2/b", b"/a;v=1.2/b"),
    ],
)
def test_safe(path: bytes, normalized: bytes) -> None:
    assert normalize_path(path, strict=False) == normalized


@pytest.mark.parametrize(
    "path",
    [
        b"/a/..%2fadmin",
        b"/a%2F..%2Fadmin",
        b"/a/..\\admin",
        b"/a\\..\\admin",
        b"/a/%2e%2e%5cadmin",
        b"/a%5c.",
        b"/a/..;/admin",
        b"/a/..;x=y/admin",
        b"/%2e;/admin",
        b"/a%2fb/../c",
        b"/a/%2%65%2%65/b",
        b"/%%32e./b",
    ],
)
def test_hidden_dot_segments_are_refused(path: bytes) -> None:
    for strict in (False, True):
        with pytest.raises(RemoteProtocolError) as caught:
            normalize_path(path, strict=strict)
        assert (caught.value.reason, caught.value.status) == ("BadPath", 400)


@pytest.mark.parametrize("path", [b"//a", b"/a//", b"/a\\b", b"/a%2fb", b"/a%5Cb", b"/a%00", b"/%", b"/%4", b"/%zz"])
def test_strict_refuses_what_readers_take_differently(path: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        normalize_path(path, strict=True)
    assert normalize_path(path, strict=False) == path


@given(
    st.lists(st.sampled_from([b"/", b".", b"..", b"%2e", b"%2F", b"a", b"\\", b";", b"%61", b"%", b"//"]), max_size=12)
)
def test_a_normalized_path_is_normal_and_hides_nothing(pieces: list[bytes]) -> None:
    path = b"/" + b"".join(pieces)
    try:
        once = normalize_path(path, strict=False)
    except RemoteProtocolError:
        return
    assert once.startswith(b"/")
    assert normalize_path(once, strict=False) == once
    assert not re.search(rb"(?:^|/)\.\.?(?:/|$)", re.sub(rb"\\|%2[fF]|%5[cC]", b"/", once))


def test_the_query_stays() -> None:
    head = scan_request(b"GET /a/%2e%2e/b?c=/../%61 HTTP/1.1\r\nHost: h\r\n\r\n")
    assert head is not None
    assert head.odd_path
    assert use_normalized_path(head, strict=True)
    assert (head.path, head.target, head.query) == (b"/b", b"/b?c=/../%61", b"c=/../%61")
    assert not use_normalized_path(head, strict=True)


@given(st.lists(st.sampled_from([b"/", b".", b"%41", b"b", b"\\", b"?"]), max_size=8))
def test_a_path_that_is_not_odd_is_normal(pieces: list[bytes]) -> None:
    head = scan_request(b"GET /%b HTTP/1.1\r\nHost: h\r\n\r\n" % b"".join(pieces))
    assert head is not None
    if not head.odd_path:
        assert normalize_path(head.path, strict=True) == head.path
