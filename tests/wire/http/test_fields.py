from __future__ import annotations

import pytest

from lbproxy.wire.errors import RemoteProtocolError
from lbproxy.wire.http.fields import connection_options, host_of, is_token, list_elements, underscored


@pytest.mark.parametrize("value", [b"a", b"!#$%&'*+-.^_`|~09AZaz"])
def test_token(value: bytes) -> None:
    """RFC 9110 section 5.6.2."""
    assert is_token(value)


@pytest.mark.parametrize(
    "value", [b"", b"a b", b"a\t", b"a:", b'"', b"(", b")", b",", b"/", b"{", b"\x00", b"\xe4", b"@"]
)
def test_no_token(value: bytes) -> None:
    assert not is_token(value)


@pytest.mark.parametrize(
    ("value", "elements"),
    [(b"", []), (b",, ,\t", []), (b"a", [b"a"]), (b" a ,b\t,,c d", [b"a", b"b", b"c d"])],
)
def test_list_leaves_out_empty_elements(value: bytes, elements: list[bytes]) -> None:
    """RFC 9110 section 5.6.1.2."""
    assert list_elements(value) == elements


@pytest.mark.parametrize(
    ("value", "options"),
    [(b"keep-alive", {b"keep-alive"}), (b"Close", {b"close"}), (b"CLOSE, ,X-a", {b"close", b"x-a"}), (b"", set())],
)
def test_connection_options_are_lower_case(value: bytes, options: set[bytes]) -> None:
    assert connection_options(value) == options


def test_connection_option_that_is_no_token_is_refused() -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        connection_options(b"close; x")
    assert caught.value.reason == "BadHeader"


def test_host_of_authority() -> None:
    assert host_of(b"A.Example:8080") == b"a.example"
    assert host_of(b"[2001:DB8::1]:443") == b"[2001:db8::1]"


@pytest.mark.parametrize("authority", [b"", b":", b":80", b"a b", b"a:66000", b"[::1]:x", b"a\n", b"a:80\n", b"[1]"])
def test_host_of_no_authority_is_refused(authority: bytes) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        host_of(authority)
    assert caught.value.reason == "BadHost"


def test_underscored_spellings() -> None:
    assert underscored(b"host") == []
    assert sorted(underscored(b"a-b-c")) == [b"a-b_c", b"a_b-c", b"a_b_c"]
