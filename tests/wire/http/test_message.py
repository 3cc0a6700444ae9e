"""The rules that do not depend on HTTP/1's writing; the rest is tested where heads are read."""

from __future__ import annotations

import pytest

from lbproxy.wire.errors import RemoteProtocolError
from lbproxy.wire.http.fields import FORBIDDEN_TRAILERS, HOP_BY_HOP, Field
from lbproxy.wire.http.message import RequestFields, ResponseFields


def fields(*pairs: tuple[bytes, bytes]) -> list[Field]:
    return [(name.lower(), value, name + b": " + value) for name, value in pairs]


def test_no_fields() -> None:
    request = RequestFields([])
    assert (request.forwarded, request.host_seen, request.content_length, request.chunked) == (b"", False, -1, False)
    assert ResponseFields([]).forwarded == b""


def test_fields_of_any_origin_are_read() -> None:
    request = RequestFields(fields((b"host", b"a"), (b"A", b"1"), (b"te", b"trailers"), (b"cookie", b"b=c")))
    assert (request.host, request.te_trailers, request.confidential) == (b"a", True, True)
    assert request.forwarded == b"A: 1\r\ncookie: b=c\r\n"
    assert request.values(b"te") == [b"trailers"]


@pytest.mark.parametrize("kind", [RequestFields, ResponseFields])
@pytest.mark.parametrize("name", sorted(HOP_BY_HOP))
def test_hop_by_hop_fields_are_never_forwarded(kind: type[RequestFields] | type[ResponseFields], name: bytes) -> None:
    """RFC 9110 section 7.6.1."""
    value = b"chunked" if name == b"transfer-encoding" else b"x"
    assert kind(fields((name, value))).forwarded == b""


@pytest.mark.parametrize("kind", [RequestFields, ResponseFields])
def test_two_framings_are_refused(kind: type[RequestFields] | type[ResponseFields]) -> None:
    """RFC 9112 section 6.3."""
    with pytest.raises(RemoteProtocolError) as caught:
        kind(fields((b"content-length", b"0"), (b"transfer-encoding", b"chunked")))
    assert caught.value.reason == "BothTeClPresent"


def test_forwarded_without_expect() -> None:
    request = RequestFields(fields((b"Expect", b"100-continue"), (b"Expected", b"1"), (b"eXPECT", b"x")))
    assert request.forwarded_without_expect() == b"Expected: 1\r\n"


def test_forbidden_trailers_cover_framing_and_trusted_fields() -> None:
    """RFC 9110 section 6.5.1."""
    assert {b"content-length", b"transfer-encoding", b"host", b"x-forwarded-for", b"cookie"} <= FORBIDDEN_TRAILERS
    assert b"grpc-status" not in FORBIDDEN_TRAILERS
