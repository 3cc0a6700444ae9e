from __future__ import annotations

import pytest

from lbproxy.testing.splits import prefixes
from lbproxy.wire.errors import RemoteProtocolError
from lbproxy.wire.http1 import head as head_module
from lbproxy.wire.http1.head import RequestHead, scan_request, scan_response
from tests.wire.http1.cases import (
    ACCEPTED_REQUESTS,
    ACCEPTED_RESPONSES,
    REFUSED_REQUESTS,
    REFUSED_RESPONSES,
    Refused,
    get,
    outcome,
    to_host,
)
from tests.wire.http1.reading import request, response

HOST = b"Host: example.com\r\n"


def refusal(data: bytes) -> RemoteProtocolError:
    with pytest.raises(RemoteProtocolError) as caught:
        scan_request(data)
    return caught.value


# --- any split --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", ACCEPTED_REQUESTS)
def test_accepted_request_is_none_until_whole(data: bytes) -> None:
    assert [prefix for prefix in prefixes(data) if scan_request(prefix) is not None] == []
    assert request(data).end == len(data)
    assert request(data + b"\x00\n rest").end == len(data)


@pytest.mark.parametrize("case", REFUSED_REQUESTS, ids=lambda case: repr(case.data[:60]))
def test_refused_request_is_never_accepted_at_any_split(case: Refused) -> None:
    expected = (case.reason, case.status)
    assert outcome(scan_request, case.data) == expected
    for prefix in prefixes(case.data):
        assert outcome(scan_request, prefix) in (None, expected), prefix


@pytest.mark.parametrize("data", ACCEPTED_RESPONSES)
def test_accepted_response_is_none_until_whole(data: bytes) -> None:
    assert [prefix for prefix in prefixes(data) if scan_response(prefix) is not None] == []
    assert response(data).end == len(data)
    assert response(data + b"\x00\n rest").end == len(data)


@pytest.mark.parametrize("case", REFUSED_RESPONSES, ids=lambda case: repr(case.data[:60]))
def test_refused_response_is_never_accepted_at_any_split(case: Refused) -> None:
    expected = (case.reason, case.status)
    assert outcome(scan_response, case.data) == expected
    for prefix in prefixes(case.data):
        assert outcome(scan_response, prefix) in (None, expected), prefix


def test_scanning_starts_where_told() -> None:
    data = get(b"A: 1\r\n")
    first = scan_request(data + get(b"A: 2\r\n"))
    assert first is not None
    second = scan_request(data + get(b"A: 2\r\n"), first.end)
    assert second is not None
    assert (second.end, second.field_values(b"a")) == (2 * len(data), [b"2"])


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\n",
        b"GET /\n",
        b"GET /\r ",
        b"GET / HTTP/1.1\r\nHost: x\n",
        b"GET / HTTP/1.1\r\nHost: x\r ",
        b"GET / HTTP/1.1\r\nHost: x\r\n\n",
        b"GET /\r\n",
        b"GET / HTTP/1.1\r\nA: \x00",
        b"\x16",
    ],
)
def test_incomplete_head_is_refused_as_soon_as_it_cannot_become_right(data: bytes) -> None:
    refusal(data)
    assert scan_request(data[:-1]) is None


# --- limits -----------------------------------------------------------------------------------------------------


def test_request_line_of_the_limit_is_accepted_and_one_byte_more_is_414() -> None:
    line = b"GET /" + b"a" * (16384 - len(b"GET / HTTP/1.1")) + b" HTTP/1.1"
    assert request(line + b"\r\n" + HOST + b"\r\n").target == line[4:-9]
    longer = b"GET /a" + line[5:]
    for data in (longer + b"\r\n" + HOST + b"\r\n", longer, longer + b"\r", longer + b"more"):
        assert (refusal(data).reason, refusal(data).status) == ("UriTooLong", 414)
    assert scan_request(line + b"\r") is None
    assert scan_request(line) is None


def test_field_of_the_limit_is_accepted_and_one_byte_more_is_refused() -> None:
    field = b"A: " + b"b" * 16381
    assert request(get(field + b"\r\n")).field_values(b"a") == [field[3:]]
    start = b"GET / HTTP/1.1\r\n"
    assert scan_request(start + field + b"\r") is None
    for data in (get(field + b"b\r\n"), start + field + b"b", start + field + b"b\r\n"):
        assert (refusal(data).reason, refusal(data).status) == ("HeaderTooLarge", 400)


def test_fields_of_the_limit_are_accepted_and_one_byte_more_is_refused() -> None:
    field = b"A: " + b"b" * 16376 + b"\r\n"
    fields = HOST + b"B: " + b"c" * (65536 - len(HOST) - 5 - 3 * len(field)) + b"\r\n" + 3 * field
    assert len(fields) == 65536
    start = b"GET / HTTP/1.1\r\n"
    assert request(start + fields + b"\r\n").end == len(start + fields) + 2
    assert scan_request(start + fields + b"\r") is None
    longer = fields.replace(b"c", b"cc", 1)
    for data in (start + longer + b"\r\n", start + longer):
        assert (refusal(data).reason, refusal(data).status) == ("HeadersTooLarge", 400)


def test_more_fields_than_the_limit_are_refused() -> None:
    assert request(get(b"A: b\r\n" * 199)).field_values(b"a") == [b"b"] * 199
    whole = get(b"A: b\r\n" * 200)
    for data in (whole, whole[:-2]):
        assert (refusal(data).reason, refusal(data).status) == ("TooManyHeaders", 400)


def test_response_head_of_the_limit_is_accepted_and_one_byte_more_is_refused() -> None:
    start = b"HTTP/1.1 200 OK\r\nA: "
    data = start + b"b" * (32768 - len(start) - 4) + b"\r\n\r\n"
    assert response(data).end == 32768
    assert [scan_response(data[:-cut]) for cut in range(1, 6)] == [None] * 5
    longer = data[:-4] + b"b\r\n\r\n"
    for refused in (longer, longer[:-1], longer[:-4] + b"bbbb", b"HTTP/1.1 200 " + b"a" * 32768):
        with pytest.raises(RemoteProtocolError) as caught:
            scan_response(refused)
        assert caught.value.status == 502


# --- the request line -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "target", "path", "query"),
    [
        (b"GET / HTTP/1.1", b"/", b"/", b""),
        (b"GET /? HTTP/1.1", b"/?", b"/", b""),
        (b"GET /a/b?c=d?e HTTP/1.1", b"/a/b?c=d?e", b"/a/b", b"c=d?e"),
        (b"GET //evil.example/x HTTP/1.1", b"//evil.example/x", b"//evil.example/x", b""),
        (b"OPTIONS * HTTP/1.1", b"*", b"*", b""),
        (b"GET http://a.example/x?y=http://b/ HTTP/1.1", b"/x?y=http://b/", b"/x", b"y=http://b/"),
        (b"GET http://a.example HTTP/1.1", b"/", b"/", b""),
        (b"GET http://a.example? HTTP/1.1", b"/?", b"/", b""),
        (b"GET http://a.example?q HTTP/1.1", b"/?q", b"/", b"q"),
        (b"OPTIONS http://a.example:8001 HTTP/1.1", b"*", b"*", b""),
        (b"OPTIONS http://a.example/ HTTP/1.1", b"/", b"/", b""),
    ],
)
def test_target_is_forwarded_in_origin_form(line: bytes, target: bytes, path: bytes, query: bytes) -> None:
    head = request(line + b"\r\n" + HOST + b"\r\n")
    assert (head.target, head.path, head.query) == (target, path, query)


@pytest.mark.parametrize("lead", [b"", b"\r\n", b"\r\n\r\n"])
def test_target_of_exact_limit_after_empty_lines(lead: bytes) -> None:
    """Empty lines before a request line do not change how it is read (RFC 9112 section 2.2)."""
    head = request(lead + b"GET /p?q HTTP/1.0\r\n\r\n")
    assert (head.method, head.target, head.path, head.query, head.minor) == (b"GET", b"/p?q", b"/p", b"q", 0)


def test_absolute_form_replaces_host() -> None:
    """RFC 9112 section 3.2.2."""
    head = request(b"GET http://A.example:81/ HTTP/1.1\r\nHost: b.example\r\n\r\n")
    assert (head.authority, head.host) == (b"A.example:81", b"a.example")
    assert head.field_values(b"host") == [b"b.example"]
    assert b"ost" not in head.forwarded


@pytest.mark.parametrize(
    ("host", "name"),
    [
        (b"", b""),
        (b"Example.COM", b"example.com"),
        (b"example.com:", b"example.com"),
        (b"example.com:65535", b"example.com"),
        (b"a_b.example.", b"a_b.example."),
        (b"192.0.2.1:80", b"192.0.2.1"),
        (b"[2001:DB8::1]:80", b"[2001:db8::1]"),
        (b"[::ffff:192.0.2.1]", b"[::ffff:192.0.2.1]"),
    ],
)
def test_host_is_lower_case_without_port_and_authority_is_as_received(host: bytes, name: bytes) -> None:
    head = request(to_host(host))
    assert (head.authority, head.host) == (host, name)


def test_http_1_0_needs_no_host() -> None:
    head = request(b"GET / HTTP/1.0\r\n\r\n")
    assert (head.authority, head.host, head.minor, head.version) == (b"", b"", 0, b"HTTP/1.0")


def test_later_minor_versions_are_read_as_1_1() -> None:
    """RFC 9110 section 2.5."""
    head = request(get(b"", b"HTTP/1.7"))
    assert (head.minor, head.version, head.keep_alive) == (1, b"HTTP/1.7", True)


# --- the fields of a request ------------------------------------------------------------------------------------


def test_usual_fields_are_forwarded_as_they_are_in_order() -> None:
    fields = b'Accept: */*\r\nX-lower-UPPER: 1,  2\r\nAccept: text/html\r\nCookie: a="b c"\r\nTrailer: x\r\n'
    assert request(get(fields)).forwarded == fields


def test_white_space_around_values_is_trimmed() -> None:
    head = request(get(b"A:b\r\nC: \t d e\t \r\nF:\r\nG: \t\r\n"))
    assert head.forwarded == b"A: b\r\nC: d e\r\nF: \r\nG: \r\n"
    assert [head.field_values(name) for name in (b"a", b"c", b"f", b"g")] == [[b"b"], [b"d e"], [b""], [b""]]


def test_colons_and_spaces_in_values_stay() -> None:
    assert request(get(b"A:b: c\r\n")).field_values(b"a") == [b"b: c"]
    assert request(get(b"A:b: c\r\n")).forwarded == b"A: b: c\r\n"


@pytest.mark.parametrize(
    "field",
    [
        b"Connection: keep-alive",
        b"Keep-Alive: timeout=5",
        b"Proxy-Connection: keep-alive",
        b"Proxy-Authorization: Basic eDp5",
        b"TE: trailers",
        b"Transfer-Encoding: chunked",
        b"Content-Length: 5",
        b"Upgrade: websocket",
        b"HTTP2-Settings: AAMAAABk",
        b"X-Forwarded-For: 192.0.2.1",
        b"X-Forwarded-Proto: https",
        b"X-Forwarded-Port: 443",
        b"X-Amzn-Trace-Id: Root=1-0-0",
        b"x_forwarded_for: 192.0.2.1",
        b"X-Forwarded_Proto: https",
        b"Content_Length: 5",
        b"Transfer_Encoding: chunked",
        b"X_Amzn-Trace_Id: Root=1-0-0",
    ],
)
def test_field_is_not_forwarded(field: bytes) -> None:
    """RFC 9110 section 7.6.1, and what the balancer writes itself, also as CGI would confuse it."""
    head = request(get(b"A: 1\r\n" + field + b"\r\nB: 2\r\n"))
    assert head.forwarded == b"A: 1\r\nB: 2\r\n"
    name, _, value = field.partition(b": ")
    assert head.field_values(name.lower()) == [value]


def test_fields_with_underscores_do_not_mean_what_they_look_like() -> None:
    head = request(get(b"Content_Length: 5\r\nTransfer_Encoding: chunked\r\nX_Forwarded_For: 192.0.2.1\r\n"))
    assert (head.content_length, head.chunked, head.x_forwarded_for) == (-1, False, None)


def test_fields_that_connection_names_are_not_forwarded() -> None:
    """RFC 9110 section 7.6.1."""
    head = request(get(b"A: 1\r\nConnection: a, close\r\nX-B: 2\r\nConnection: X-B\r\nC: 3\r\na: 4\r\n"))
    assert head.forwarded == b"C: 3\r\n"
    assert not head.keep_alive


def test_connection_takes_away_no_framing_routing_or_trusted_field() -> None:
    options = b"host, content-length, expect, x-forwarded-for, x-amzn-trace-id, x-forwarded-proto"
    head = request(
        get(
            b"Connection: %b\r\nContent-Length: 5\r\nExpect: 100-continue\r\n"
            b"X-Forwarded-For: 192.0.2.1\r\nX-Amzn-Trace-Id: Root=1\r\n" % options
        )
    )
    assert (head.authority, head.content_length, head.expect_continue) == (b"example.com", 5, True)
    assert (head.x_forwarded_for, head.trace_id) == (b"192.0.2.1", b"Root=1")
    assert head.forwarded == b"Expect: 100-continue\r\n"
    assert request(get(b"Connection: transfer-encoding\r\nTransfer-Encoding: chunked\r\n")).chunked


@pytest.mark.parametrize(
    ("version", "connection", "keep_alive"),
    [
        (b"HTTP/1.1", b"", True),
        (b"HTTP/1.1", b"Connection: close\r\n", False),
        (b"HTTP/1.1", b"Connection: CLOSE\r\n", False),
        (b"HTTP/1.1", b"Connection: foo, Close\r\n", False),
        (b"HTTP/1.1", b"Connection: keep-alive\r\nConnection: close\r\n", False),
        (b"HTTP/1.1", b"Connection: closed\r\n", True),
        (b"HTTP/1.1", b"Proxy-Connection: close\r\n", True),
        (b"HTTP/1.0", b"", False),
        (b"HTTP/1.0", b"Connection: Keep-Alive\r\n", True),
        (b"HTTP/1.0", b"Connection: keep-alive, close\r\n", False),
    ],
)
def test_keep_alive(version: bytes, connection: bytes, keep_alive: bool) -> None:
    """RFC 9112 section 9.3."""
    assert request(get(connection, version)).keep_alive is keep_alive
    assert response(b"%b 200 OK\r\n%b\r\n" % (version, connection)).keep_alive is keep_alive


def test_framing() -> None:
    head = request(get(b"Content-Length: 123456789012345678\r\n", method=b"POST"))
    assert (head.content_length, head.chunked, head.has_body) == (123456789012345678, False, True)
    head = request(get(b"Content-Length: 0\r\n", method=b"POST"))
    assert (head.content_length, head.chunked, head.has_body) == (0, False, False)
    head = request(get(b"Transfer-Encoding: Chunked\r\n", method=b"POST"))
    assert (head.content_length, head.chunked, head.has_body) == (-1, True, True)
    head = request(get(b"", method=b"POST"))
    assert (head.content_length, head.chunked, head.has_body) == (-1, False, False)


def test_expectation_is_forwarded_in_1_1_and_dropped_in_1_0() -> None:
    """RFC 9110 section 10.1.1."""
    fields = b"A: 1\r\nexpect: 100-Continue\r\nB: 2\r\n"
    head = request(get(fields))
    assert (head.expect_continue, head.forwarded) == (True, fields)
    head = request(get(fields, b"HTTP/1.0"))
    assert (head.expect_continue, head.forwarded) == (False, b"A: 1\r\nB: 2\r\n")
    assert request(get(b"Expect: something\r\n")).expect_continue
    assert not request(get(b"X: 100-continue\r\n")).expect_continue


@pytest.mark.parametrize(
    ("data", "upgrade"),
    [
        (get(b"Connection: Upgrade\r\nUpgrade: WebSocket\r\n"), b"websocket"),
        (get(b"Upgrade: h2c, websocket\r\nConnection: keep-alive, upgrade\r\n"), b"websocket"),
        (get(b"Upgrade: websocket\r\n"), b""),
        (get(b"Connection: upgrade\r\n"), b""),
        (get(b"Connection: upgrade, http2-settings\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\n"), b""),
        (get(b"Connection: upgrade\r\nUpgrade: websocket\r\n", b"HTTP/1.0"), b""),
        (get(b"Connection: upgrade\r\nUpgrade: websocket\r\n", method=b"POST"), b""),
        (get(b"Connection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 5\r\n"), b""),
        (get(b"Connection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 0\r\n"), b"websocket"),
    ],
)
def test_only_a_websocket_upgrade_is_passed_on(data: bytes, upgrade: bytes) -> None:
    """RFC 6455 section 4.1; the fields themselves are the next hop's to write (RFC 9110 section 7.8)."""
    head = request(data)
    assert (head.upgrade, head.forwarded) == (upgrade, b"")


def test_te_trailers() -> None:
    """RFC 9110 section 10.1.4."""
    assert request(get(b"TE: gzip;q=0.5, Trailers\r\nConnection: te\r\n")).te_trailers
    assert not request(get(b"TE: gzip\r\n")).te_trailers


def test_what_the_balancer_and_the_log_need() -> None:
    head = request(
        get(
            b"X-Forwarded-For: 192.0.2.1\r\nx-forwarded-for: 192.0.2.2, 192.0.2.3\r\nX-Amzn-Trace-Id: Root=1\r\n"
            b"User-Agent: curl/8\r\nReferer: http://a/\r\n"
        )
    )
    assert head.x_forwarded_for == b"192.0.2.1, 192.0.2.2, 192.0.2.3"
    assert (head.trace_id, head.user_agent, head.referer) == (b"Root=1", b"curl/8", b"http://a/")
    assert head.forwarded == b"User-Agent: curl/8\r\nReferer: http://a/\r\n"
    bare = request(get(b""))
    assert (bare.x_forwarded_for, bare.trace_id, bare.user_agent, bare.referer) == (None, None, b"", b"")


def test_field_values_are_a_copy() -> None:
    head = request(get(b"A: 1\r\na: 2\r\n"))
    head.field_values(b"a").append(b"3")
    assert head.field_values(b"a") == [b"1", b"2"]
    assert head.field_values(b"missing") == []


# --- responses --------------------------------------------------------------------------------------------------


def test_response_is_read() -> None:
    head = response(
        b"HTTP/1.1 200 Very OK\r\nDate: now\r\nContent-Length: 5\r\nConnection: keep-alive, x-hop\r\nX-Hop: 1\r\n"
        b"Keep-Alive: timeout=5\r\nProxy-Connection: x\r\nSet-Cookie: a=b\r\nset-cookie: c=d\r\nTrailer: e\r\n\r\nhello"
    )
    assert (head.status, head.reason, head.minor, head.content_length, head.chunked) == (200, b"Very OK", 1, 5, False)
    assert head.forwarded == b"Date: now\r\nSet-Cookie: a=b\r\nset-cookie: c=d\r\nTrailer: e\r\n"
    assert head.field_values(b"set-cookie") == [b"a=b", b"c=d"]
    assert head.has_date
    assert head.keep_alive


def test_response_without_reason_or_fields() -> None:
    head = response(b"HTTP/1.0 200\r\n\r\n")
    assert (head.status, head.reason, head.minor, head.forwarded, head.has_date) == (200, b"", 0, b"", False)


def test_chunked_response() -> None:
    head = response(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    assert (head.chunked, head.content_length, head.forwarded) == (True, -1, b"")


def test_upgrade_of_a_101_only() -> None:
    """RFC 9110 section 15.2.2."""
    fields = b"Connection: Upgrade\r\nUpgrade: WebSocket\r\n\r\n"
    assert response(b"HTTP/1.1 101 x\r\n" + fields).upgrade == b"websocket"
    assert response(b"HTTP/1.1 101 x\r\n" + fields).forwarded == b""
    assert response(b"HTTP/1.1 426 x\r\n" + fields).upgrade == b""
    assert response(b"HTTP/1.1 101 x\r\nUpgrade: websocket\r\n\r\n").upgrade == b""


@pytest.mark.parametrize("framing", [b"Content-Length: 5", b"Transfer-Encoding: chunked"])
def test_204_that_announces_a_body_has_none_and_ends_the_connection(framing: bytes) -> None:
    """RFC 9112 section 6.3: what the target may send after it must not be read as the next response."""
    head = response(b"HTTP/1.1 204 No Content\r\n" + framing + b"\r\n\r\n")
    assert (head.content_length, head.chunked, head.keep_alive) == (-1, False, False)


def test_204_with_a_length_of_zero_keeps_the_connection() -> None:
    head = response(b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n")
    assert (head.content_length, head.keep_alive) == (-1, True)


def test_304_keeps_the_length_it_tells() -> None:
    """RFC 9110 section 8.6."""
    assert response(b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n").content_length == 5


# --- what is remembered, by the pure scanners -------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _forget() -> None:
    head_module._request_blocks.clear()
    head_module._response_blocks.clear()


def pure_request(data: bytes) -> RequestHead:
    head = head_module.pure_scan_request(data)
    assert head is not None
    return head


def test_known_field_lines_mean_the_same_in_another_request() -> None:
    fields = b"Host: a\r\nExpect: 100-continue\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
    first = pure_request(b"GET / HTTP/1.1\r\n" + fields)
    assert (first.upgrade, first.expect_continue, first.host) == (b"websocket", True, b"a")
    second = pure_request(b"POST http://b/c?d HTTP/1.0\r\n" + fields)
    assert (second.upgrade, second.expect_continue, second.host, second.target) == (b"", False, b"b", b"/c?d")
    assert pure_request(b"GET / HTTP/1.1\r\n" + fields).forwarded == first.forwarded
    assert len(head_module._request_blocks) == 1


@pytest.mark.parametrize("field", [b"Cookie: a=b", b"Authorization: Bearer x", b"proxy-authorization: Basic x"])
def test_secrets_are_not_remembered(field: bytes) -> None:
    pure_request(get(field + b"\r\n"))
    head_module.pure_scan_response(b"HTTP/1.1 200 OK\r\nSet-Cookie: a=b\r\n\r\n")
    assert not head_module._request_blocks
    assert not head_module._response_blocks


def test_memory_for_field_lines_is_bounded() -> None:
    pure_request(get(b"A: " + b"b" * 2048 + b"\r\n"))
    pure_request(get(b"A: b\r\n" * 40))
    assert len(head_module._request_blocks) == 0
    for number in range(1000):
        pure_request(get(b"A: %d\r\n" % number))
        assert len(head_module._request_blocks) <= 512


def test_refused_field_lines_are_refused_again() -> None:
    for _ in range(2):
        assert refusal(get(b"Content-Length: x\r\n")).reason == "BadContentLength"
