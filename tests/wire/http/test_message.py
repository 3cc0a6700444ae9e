"""The rules that do not depend on HTTP/1's writing; the rest is tested where heads are read."""

from __future__ import annotations

import pytest

from lbproxy.wire.errors import RemoteProtocolError
from lbproxy.wire.http.desync import REASONS
from lbproxy.wire.http.fields import FORBIDDEN_TRAILERS, HOP_BY_HOP, Field, without_odd_names
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


def test_two_framings_of_a_response_are_refused() -> None:
    """RFC 9112 section 6.3."""
    with pytest.raises(RemoteProtocolError) as caught:
        ResponseFields(fields((b"content-length", b"0"), (b"transfer-encoding", b"chunked")))
    assert caught.value.reason == "BothTeClPresent"


def test_of_a_requests_two_framings_chunked_wins_and_is_all_that_is_sent_on() -> None:
    """RFC 9112 section 6.3."""
    for pairs in (
        ((b"content-length", b"5"), (b"transfer-encoding", b"chunked")),
        ((b"transfer-encoding", b"chunked"), (b"content-length", b"5"), (b"content-length", b"5")),
    ):
        request = RequestFields(fields(*pairs))
        assert (request.chunked, request.content_length, request.forwarded) == (True, -1, b"")
        assert REASONS[request.desync] == "BothTeClPresent"


@pytest.mark.parametrize(
    ("pairs", "reason", "forwarded"),
    [
        ([(b"A", b"b")], "", b"A: b\r\n"),
        ([(b"A", b"\xe9")], "NonCompliantHeader", b"A: \xe9\r\n"),
        ([(b"A_B", b"b"), (b"A.B", b"")], "", b"A_B: b\r\nA.B: \r\n"),
        ([(b"Content_Length", b"5"), (b"A", b"b")], "SuspiciousHeader", b"A: b\r\n"),
        ([(b"Transfer__Encoding", b"chunked")], "SuspiciousHeader", b""),
        ([(b"Transfer--Encoding", b"x")], "", b"Transfer--Encoding: x\r\n"),
        ([(b"'TransferEncoding", b"x"), (b"A", b"\xe9")], "SuspiciousHeader", b"A: \xe9\r\n"),
        ([(b"Content-Length", b"5"), (b"content-length", b"5")], "DuplicateContentLength", b""),
        (
            [(b"Content-Length", b"5"), (b"content-length", b"5"), (b"Content.Length", b"6")],
            "DuplicateContentLength",
            b"",
        ),
    ],
)
def test_what_is_doubtful_in_the_fields_of_a_request(
    pairs: list[tuple[bytes, bytes]], reason: str, forwarded: bytes
) -> None:
    request = RequestFields(fields(*pairs))
    assert REASONS[request.desync] == reason
    assert request.forwarded == forwarded


def test_odd_names_can_be_removed() -> None:
    request = RequestFields(fields((b"A", b"b"), (b"C_D", b"e: f"), (b"G.H", b"i"), (b"J-1", b"k_l")))
    assert request.odd_names
    assert without_odd_names(request.forwarded) == b"A: b\r\nJ-1: k_l\r\n"
    assert not RequestFields(fields((b"A-1", b"_"))).odd_names


def test_forwarded_without_expect() -> None:
    request = RequestFields(fields((b"Expect", b"100-continue"), (b"Expected", b"1"), (b"eXPECT", b"x")))
    assert request.forwarded_without_expect() == b"Expected: 1\r\n"


def test_forbidden_trailers_cover_framing_and_trusted_fields() -> None:
    """RFC 9110 section 6.5.1."""
    assert {b"content-length", b"transfer-encoding", b"host", b"x-forwarded-for", b"cookie"} <= FORBIDDEN_TRAILERS
    assert b"grpc-status" not in FORBIDDEN_TRAILERS
