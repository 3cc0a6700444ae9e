from __future__ import annotations

import pytest

from lbproxy.wire.errors import RemoteProtocolError
from lbproxy.wire.http.framing import check_transfer_encoding, parse_content_length, response_has_body


@pytest.mark.parametrize(("value", "length"), [(b"0", 0), (b"007", 7), (b"9" * 18, 10**18 - 1)])
def test_content_length(value: bytes, length: int) -> None:
    """RFC 9110 section 8.6."""
    assert parse_content_length(value) == length


@pytest.mark.parametrize("value", [b"", b"-1", b"+1", b" 1", b"1 ", b"0x1", b"1_0", b"\xb2", b"9" * 19])
def test_bad_content_length(value: bytes) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        parse_content_length(value)
    assert (caught.value.reason, caught.value.status) == ("BadContentLength", 400)


def test_list_of_lengths_is_refused_even_if_equal() -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        parse_content_length(b"5, 5")
    assert caught.value.reason == "MultipleContentLength"


def test_chunked_is_the_only_coding() -> None:
    """RFC 9112 section 6.1: 501 for a coding that we do not know."""
    check_transfer_encoding(b"chunked")
    check_transfer_encoding(b"Chunked")
    for value, status in ((b"gzip, chunked", 501), (b"br", 501), (b"chunked, br", 400), (b"", 400), (b"a b", 400)):
        with pytest.raises(RemoteProtocolError) as caught:
            check_transfer_encoding(value)
        assert (caught.value.reason, caught.value.status) == ("BadTransferEncoding", status)


@pytest.mark.parametrize(
    ("method", "status", "has_body"),
    [
        (b"GET", 200, True),
        (b"POST", 404, True),
        (b"GET", 205, True),
        (b"HEAD", 200, False),
        (b"head", 200, True),
        (b"GET", 100, False),
        (b"GET", 101, False),
        (b"GET", 204, False),
        (b"GET", 304, False),
    ],
)
def test_response_has_body(method: bytes, status: int, has_body: bool) -> None:
    """RFC 9112 section 6.3; methods are case-sensitive (RFC 9110 section 9.1)."""
    assert response_has_body(method, status) is has_body
