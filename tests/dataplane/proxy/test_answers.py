"""What the balancer says by itself, and the table of faults behind it."""

from __future__ import annotations

from http import HTTPStatus

import pytest

from lbproxy.dataplane.proxy.answers import error_body, grpc_fields, own_fields, reason_phrase
from lbproxy.dataplane.proxy.faults import Fault, Retry, Side


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (200, b"OK"),
        (301, b"Moved Permanently"),
        (460, b"Client Closed Request"),
        (463, b"Too Many Forwarded Addresses"),
        (503, b"Service Unavailable"),
        (561, b"Unauthorized"),
        (299, b"Unknown"),
        (599, b"Unknown"),
    ],
)
def test_reason_phrases(status: int, reason: bytes) -> None:
    assert reason_phrase(status) == reason


def test_every_known_status_has_a_reason() -> None:
    for status in HTTPStatus:
        assert reason_phrase(status) not in (b"", b"Unknown")


def test_own_fields() -> None:
    """RFC 9110 section 5.6.7: the date is an IMF-fixdate."""
    assert own_fields(784111777.9, b"text/plain") == (
        b"Server: lbproxy\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Type: text/plain\r\n"
    )
    assert b"08:49:38 GMT" in own_fields(784111778.0, b"text/plain")


def test_an_error_page_names_the_trace() -> None:
    assert error_body(503, b"") == b"503 Service Unavailable\n"
    assert error_body(504, b"Root=1-2-3") == b"504 Gateway Timeout\n\nTrace: Root=1-2-3\n"


@pytest.mark.parametrize(
    ("status", "code"),
    [(200, 2), (302, 2), (400, 13), (401, 16), (403, 7), (404, 12), (418, 2), (421, 14), (429, 8), (503, 14), (504, 4)],
)
def test_a_status_as_grpc_says_it(status: int, code: int) -> None:
    assert grpc_fields(status, "why").startswith(b"grpc-status: %d\r\ngrpc-message: why (%d " % (code, status))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", b"403 Forbidden"),
        ("NoTargets", b"NoTargets (403 Forbidden)"),
        ("100 % no\n", b"100 %25 no (403 Forbidden)"),
        ("a\r\nb\x7f", b"a%0D%0Ab%7F (403 Forbidden)"),
        ("für", b"f%C3%BCr (403 Forbidden)"),
        ("~!\"$&'()*+,/:;<=>?@[]^`{|}", b"~!\"$&'()*+,/:;<=>?@[]^`{|} (403 Forbidden)"),
        ("x" * 5000, b"x" * 1000 + b" (403 Forbidden)"),
    ],
)
def test_a_message_of_grpc_is_a_header_field(text: str, message: bytes) -> None:
    """ "gRPC over HTTP2", Status-Message."""
    assert grpc_fields(403, text) == b"grpc-status: 7\r\ngrpc-message: %b\r\n" % message


# Faults


def test_each_fault_has_its_own_reason() -> None:
    """Counters and the log go by it, and an Enum would quietly make one of two with the same row."""
    reasons = [fault.reason for fault in Fault]
    assert len(set(reasons)) == len(reasons) == len(Fault.__members__)
    assert all(reason.isascii() and reason.isalnum() for reason in reasons)


def test_only_what_the_target_has_not_seen_may_go_elsewhere() -> None:
    for fault in Fault:
        if fault.retry is not Retry.NO:
            assert fault.side is Side.TARGET
    elsewhere = {fault for fault in Fault if fault.retry is Retry.YES}
    assert elsewhere == {Fault.CONNECT_REFUSED, Fault.CONNECT_TIMEOUT, Fault.TLS_FAILED}


def test_statuses_tell_whose_fault_it_was() -> None:
    for fault in Fault:
        if fault.status:
            assert (400 <= fault.status < 500) is (fault.side is Side.CLIENT), fault
