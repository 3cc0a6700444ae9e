"""RFC 9112 (HTTP/1.1) and what RFC 9110 adds, one requirement on an intermediary after another.

What a codec alone decides; then the same between a client and a target, at every split of what they send.
"""

from __future__ import annotations

import pytest

from lbproxy.wire.http.desync import BOTH_TE_CL_PRESENT
from lbproxy.wire.http.framing import response_has_body
from lbproxy.wire.http1.body import ChunkedReader, encode_chunk
from lbproxy.wire.http1.head import scan_request, scan_response
from tests.conformance.exchanges import Outcome, Walk, outcomes
from tests.wire.http1.cases import (
    ACCEPTED_BODIES,
    ACCEPTED_REQUESTS,
    ACCEPTED_RESPONSES,
    REFUSED_BODIES,
    REFUSED_REQUESTS,
    REFUSED_RESPONSES,
    Chunked,
    Refused,
    get,
    outcome,
    to_host,
)
from tests.wire.http1.reading import request, response

pytestmark = pytest.mark.conformance

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
CHUNKED_REQUEST = b"POST / HTTP/1.1\r\nHost: example.com\r\nTransfer-Encoding: chunked\r\n\r\n"
CHUNKED_ANSWER = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def status_of(data: bytes) -> object:
    """The status of a refused request."""
    result = outcome(scan_request, data)
    assert isinstance(result, tuple), f"{data!r} is not refused"
    return result[1]


@pytest.mark.parametrize(
    "case",
    [case for case in REFUSED_REQUESTS + REFUSED_RESPONSES + REFUSED_BODIES if case.section],
    ids=lambda case: f"{case.section} {case.data[:50]!r}",
)
def test_what_the_section_forbids_is_refused(case: Refused) -> None:
    scan = {True: scan_request, False: scan_response}[case.status != 502]
    if case in REFUSED_BODIES:
        result = outcome(lambda data: ChunkedReader().receive_data(data), case.data)
    else:
        result = outcome(scan, case.data)
    assert result == (case.reason, case.status)


def seen_through(asked: bytes, answered: bytes = OK) -> Outcome:
    """What becomes of an exchange, the same at every split."""
    first = None
    for came, pieces in outcomes(asked, answered, True):
        first = first or came
        assert came == first, pieces
    assert first is not None
    return first


@pytest.mark.parametrize("case", REFUSED_REQUESTS, ids=lambda case: repr(case.data[:50]))
def test_nothing_of_what_is_refused_reaches_the_target_at_any_split(case: Refused) -> None:
    came = seen_through(case.data + b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n")
    assert came.target == b""
    assert came.client_ended == "closed"
    # HTTP/2 may begin on this listener as well: who speaks neither gets no answer
    told = came.client.startswith(b"HTTP/1.1 %d " % case.status)
    assert told or (came.client, case.reason) == (b"", "BadVersion")


@pytest.mark.parametrize("data", ACCEPTED_REQUESTS, ids=lambda data: repr(data[:50]))
def test_what_is_accepted_is_the_same_to_the_target_at_every_split(data: bytes) -> None:
    head = request(data)
    content = b"0\r\n\r\n" if head.chunked else b"x" * max(0, head.content_length)
    came = seen_through(data + content)
    assert came.target.startswith((head.method + b" /", b"OPTIONS * HTTP/1.1\r\n"))


@pytest.mark.parametrize("case", REFUSED_RESPONSES, ids=lambda case: repr(case.data[:50]))
def test_nothing_of_an_answer_that_is_refused_reaches_the_client_at_any_split(case: Refused) -> None:
    came = seen_through(get(b""), case.data + b"x")
    assert came.client.startswith(b"HTTP/1.1 502 Bad Gateway\r\nServer: lbproxy\r\n")
    assert came.target_ended == "aborted"


@pytest.mark.parametrize("data", ACCEPTED_RESPONSES, ids=lambda data: repr(data[:50]))
def test_an_answer_that_is_accepted_is_the_same_to_the_client_at_every_split(data: bytes) -> None:
    head = response(data)
    ended = b"0\r\n\r\n" if head.chunked else b""
    came = seen_through(get(b""), data + ended if head.status >= 200 else data + OK)
    assert head.status == 101 or b"HTTP/1.1 %d %b\r\n" % (head.status, head.reason) in came.client


@pytest.mark.parametrize("case", ACCEPTED_BODIES, ids=lambda case: repr(case.data[:50]))
def test_chunks_carry_the_same_content_at_every_split(case: Chunked) -> None:
    body = case.data[: len(case.data) - len(case.rest)]
    written = b"%b0\r\n%b\r\n" % (encode_chunk(case.payload) if case.payload else b"", case.trailers)
    came = seen_through(CHUNKED_REQUEST + body, CHUNKED_ANSWER + body)
    assert came.target.endswith(b"\r\n\r\n" + written)
    assert came.client.endswith(b"\r\n\r\n" + written)


@pytest.mark.parametrize("case", REFUSED_BODIES, ids=lambda case: repr(case.data[:50]))
def test_chunks_that_are_refused_never_look_whole_at_any_split(case: Refused) -> None:
    end = b"0\r\n\r\n"
    starts = len(CHUNKED_REQUEST), len(CHUNKED_ANSWER)
    for came, pieces in outcomes(CHUNKED_REQUEST + case.data, OK, start=starts):
        assert not came.target.endswith(end), pieces
        assert came.target_ended in ("", "aborted"), pieces
        assert came.client_ended == "closed", pieces
    for came, pieces in outcomes(get(b""), CHUNKED_ANSWER + case.data, start=starts):
        assert not came.client.endswith(end), pieces
        assert came.client_ended == "aborted" or came.client.startswith(b"HTTP/1.1 502 "), pieces
        assert came.target_ended == "aborted", pieces


def test_2_2_empty_lines_before_a_request_line_are_ignored() -> None:
    assert request(b"\r\n" + to_host(b"a")).end == len(to_host(b"a")) + 2


def test_2_2_bare_line_feed_is_refused_although_a_recipient_may_take_it() -> None:
    assert status_of(b"GET / HTTP/1.1\nHost: a\n\n") == 400


def test_2_2_bare_carriage_return_is_an_error_in_every_element() -> None:
    for data in (b"GET /\r HTTP/1.1\r\nHost: a\r\n\r\n", get(b"A: b\rc\r\n"), get(b"A\rb: c\r\n")):
        assert status_of(data) == 400


def test_2_3_version_is_case_sensitive() -> None:
    assert status_of(b"GET / Http/1.1\r\nHost: a\r\n\r\n") == 400


def test_3_invalid_request_line_is_not_repaired() -> None:
    assert status_of(b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n") == 400
    assert status_of(b"GET\t/\tHTTP/1.1\r\nHost: a\r\n\r\n") == 400


def test_3_long_request_line_is_414_and_at_least_8000_octets_are_taken() -> None:
    assert request(b"GET /" + b"a" * 8000 + b" HTTP/1.1\r\nHost: a\r\n\r\n").path == b"/" + b"a" * 8000
    assert status_of(b"GET /" + b"a" * 20000) == 414


def test_3_2_request_without_host_with_two_or_with_an_invalid_one_is_400() -> None:
    assert status_of(b"GET / HTTP/1.1\r\n\r\n") == 400
    assert status_of(b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n") == 400
    assert status_of(to_host(b"a/b")) == 400


def test_3_2_2_absolute_form_is_accepted_and_its_host_wins() -> None:
    head = request(b"GET http://www.example.org/pub/WWW/TheProject.html HTTP/1.1\r\nHost: other\r\n\r\n")
    assert (head.authority, head.target) == (b"www.example.org", b"/pub/WWW/TheProject.html")


def test_3_2_4_options_of_a_whole_server_becomes_asterisk_form() -> None:
    head = request(b"OPTIONS http://www.example.org:8001 HTTP/1.1\r\nHost: www.example.org:8001\r\n\r\n")
    assert (head.target, head.authority) == (b"*", b"www.example.org:8001")


def test_4_status_line_without_reason_phrase() -> None:
    assert response(b"HTTP/1.1 200 \r\n\r\n").reason == b""


def test_5_1_no_white_space_between_name_and_colon() -> None:
    assert status_of(get(b"A : b\r\n")) == 400
    assert outcome(scan_response, b"HTTP/1.1 200 OK\r\nA : b\r\n\r\n") == ("BadHeader", 502)


def test_5_1_white_space_around_a_value_is_not_part_of_it() -> None:
    assert request(get(b"A: \t b \t \r\n")).field_values(b"a") == [b"b"]


def test_5_2_line_folding_is_400_in_a_request_and_502_in_a_response() -> None:
    assert status_of(get(b"A: b\r\n c\r\n")) == 400
    assert outcome(scan_response, b"HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n") == ("BadHeader", 502)


def test_6_1_unknown_transfer_coding_is_501() -> None:
    assert status_of(get(b"Transfer-Encoding: gzip, chunked\r\n")) == 501


def test_6_1_transfer_encoding_in_http_1_0_is_faulty_framing() -> None:
    assert status_of(get(b"Transfer-Encoding: chunked\r\n", b"HTTP/1.0")) == 400


def test_6_1_coding_names_are_case_insensitive() -> None:
    assert request(get(b"Transfer-Encoding: cHuNkEd\r\n")).chunked


@pytest.mark.parametrize(
    ("method", "status", "has_body"),
    [(b"HEAD", 200, False), (b"GET", 199, False), (b"GET", 204, False), (b"GET", 304, False), (b"GET", 200, True)],
)
def test_6_3_responses_without_content(method: bytes, status: int, has_body: bool) -> None:
    assert response_has_body(method, status) is has_body


def test_6_3_transfer_encoding_overrides_content_length_which_is_not_sent_on() -> None:
    head = request(get(b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n"))
    assert (head.chunked, head.content_length, head.forwarded) == (True, -1, b"")
    assert head.desync == BOTH_TE_CL_PRESENT, "the connection ends with it"
    assert outcome(scan_response, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n") == (
        "BothTeClPresent",
        502,
    )


def test_6_3_equal_lengths_in_two_fields_become_one() -> None:
    head = request(get(b"Content-Length: 3\r\nContent-Length: 3\r\n", method=b"POST"))
    assert (head.content_length, head.forwarded) == (3, b"")


def test_6_3_invalid_content_length_is_400_or_502() -> None:
    assert status_of(get(b"Content-Length: x\r\n")) == 400
    assert outcome(scan_response, b"HTTP/1.1 200 OK\r\nContent-Length: 1, 2\r\n\r\n") == ("MultipleContentLength", 502)


def test_6_3_request_without_either_has_no_content() -> None:
    assert not request(get(b"", method=b"POST")).has_body


def test_7_1_chunk_sizes_may_have_leading_zeros_but_must_not_overflow() -> None:
    assert ChunkedReader().receive_data(b"0000000000000001\r\nx") == b"x"
    assert outcome(ChunkedReader().receive_data, b"10000000000000000\r\nx") == ("BadChunk", 400)


def test_7_1_1_unknown_chunk_extensions_are_ignored() -> None:
    for case in ACCEPTED_BODIES:
        assert b";" not in ChunkedReader().receive_data(case.data)


def test_7_1_2_trailers_are_kept_apart() -> None:
    reader = ChunkedReader()
    assert reader.receive_data(b"1\r\nx\r\n0\r\nA: b\r\n\r\n") == b"x"
    assert reader.trailers == b"A: b\r\n"


def test_9_3_persistence() -> None:
    assert request(get(b"")).keep_alive
    assert not request(get(b"Connection: close\r\n")).keep_alive
    assert not request(get(b"", b"HTTP/1.0")).keep_alive
    assert request(get(b"Connection: keep-alive\r\n", b"HTTP/1.0")).keep_alive


def test_rfc9110_2_5_higher_minor_version_is_treated_as_1_1() -> None:
    assert request(get(b"", b"HTTP/1.5")).minor == 1


def test_rfc9110_5_3_order_of_fields_with_one_name_is_kept() -> None:
    assert request(get(b"A: 1\r\nB: 2\r\nA: 3\r\n")).forwarded == b"A: 1\r\nB: 2\r\nA: 3\r\n"


def test_rfc9110_7_6_1_connection_and_what_it_names_is_removed() -> None:
    assert request(get(b"X: 1\r\nConnection: x, close\r\nY: 2\r\n")).forwarded == b"Y: 2\r\n"
    assert response(b"HTTP/1.1 200 OK\r\nX: 1\r\nConnection: x\r\nY: 2\r\n\r\n").forwarded == b"Y: 2\r\n"


def test_rfc9110_7_8_upgrade_is_ignored_in_http_1_0() -> None:
    assert request(get(b"Connection: upgrade\r\nUpgrade: websocket\r\n", b"HTTP/1.0")).upgrade == b""


def test_rfc9110_9_1_methods_are_case_sensitive() -> None:
    assert request(get(b"", method=b"get")).method == b"get"
    assert status_of(b"TRACE / HTTP/1.1\r\nHost: a\r\n\r\n") == 405
    assert request(b"trace / HTTP/1.1\r\nHost: a\r\n\r\n").method == b"trace"


def test_rfc9110_10_1_1_100_continue_in_http_1_0_is_ignored() -> None:
    assert not request(get(b"Expect: 100-continue\r\n", b"HTTP/1.0")).expect_continue


def test_rfc9110_15_6_6_unsupported_major_version_is_505() -> None:
    assert status_of(b"GET / HTTP/3.0\r\nHost: a\r\n\r\n") == 505


# 9.5, 9.6: either side may end at any time

POSTED = get(b"Content-Length: 5\r\n", method=b"POST") + b"hello"


def ended_at(cut: int, asked: bytes, answered: bytes, side: str, how: str) -> Walk:
    """A walk in which one side ends the connection after so many octets of what it sends."""
    walk = Walk({})
    walk.client.deliver(asked[:cut] if side == "client" else asked)
    walk.world.turn()
    target = walk.target
    walk.world.turn()
    ending = walk.client if side == "client" else target
    assert ending is not None
    if side == "target":
        ending.deliver(answered[:cut])
    if how == "end":
        ending.deliver_eof()
    else:
        ending.reset()
    walk.world.wait(0.2)
    if side == "client" and how == "end" and target is not None and not target.ended:
        target.deliver(answered)
    walk.world.wait(3)
    assert walk.world.in_flight == 0
    return walk


@pytest.mark.parametrize("how", ["end", "reset"])
@pytest.mark.parametrize("asked", [POSTED, CHUNKED_REQUEST + b"5\r\nhello\r\n0\r\n\r\n"], ids=["length", "chunked"])
def test_9_5_a_client_may_end_at_any_octet(asked: bytes, how: str) -> None:
    for cut in range(len(asked) + 1):
        walk = ended_at(cut, asked, OK, "client", how)
        assert not walk.client.connected, cut
        target = walk.target
        if cut < len(asked):
            assert target is None or target.ended == "aborted", "half a request must not look whole"
            assert b"200 OK" not in walk.client.sent
        elif how == "end":
            assert walk.client.sent.endswith(b"\r\n\r\nok")


@pytest.mark.parametrize("how", ["end", "reset"])
@pytest.mark.parametrize("answered", [OK, CHUNKED_ANSWER + b"5\r\nhello\r\n0\r\n\r\n"], ids=["length", "chunked"])
def test_9_5_a_target_may_end_at_any_octet(answered: bytes, how: str) -> None:
    head = answered.index(b"\r\n\r\n") + 4
    for cut in range(len(answered) + 1):
        client = ended_at(cut, POSTED, answered, "target", how).client
        if cut < head:
            assert client.sent.startswith(b"HTTP/1.1 502 "), cut
        elif cut < len(answered):
            assert client.sent.startswith(b"HTTP/1.1 200 "), cut
            assert client.ended == "aborted", "a cut answer must look cut"
        else:
            assert client.connected
