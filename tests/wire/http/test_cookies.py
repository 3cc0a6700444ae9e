"""Finding a cookie in Cookie fields."""

from __future__ import annotations

import pytest

from lbproxy.wire.http.cookies import cookie_value


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([], None),
        ([b"a=1"], b"1"),
        ([b"b=2; a=1; c=3"], b"1"),
        ([b"b=2;a=1"], b"1"),
        ([b"b=2", b"a=1"], b"1"),
        ([b"a=1; a=2"], b"1"),
        ([b"a=x=y=="], b"x=y=="),
        ([b"a="], b""),
        ([b"a"], None),
        ([b"aa=1; ba=2; A=3"], None),
        ([b"b=a; c=a=1"], None),
        ([b'a="1 2"'], b'"1 2"'),
    ],
)
def test_cookie_value(lines: list[bytes], expected: bytes | None) -> None:
    assert cookie_value(lines, b"a") == expected
