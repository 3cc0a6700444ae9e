"""Properties of the HTTP/1.1 codec: we read what is written, read or refuse whatever comes, and any split alike."""

from __future__ import annotations

import itertools

import h11
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lbproxy.wire.http1.body import encode_chunk, last_chunk
from lbproxy.wire.http1.head import RequestHead, scan_request, scan_response
from tests.native.test_http1 import same_request, same_response
from tests.wire.http1.cases import (
    ACCEPTED_REQUESTS,
    ACCEPTED_RESPONSES,
    REFUSED_BODIES,
    REFUSED_REQUESTS,
    REFUSED_RESPONSES,
    outcome,
)
from tests.wire.http1.reading import read_body

bounded = settings(max_examples=200, deadline=None, derandomize=True, database=None)

TOKEN = "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
tokens = st.text(TOKEN, min_size=1, max_size=12).map(str.encode)
octets = bytes([*range(0x21, 0x7F), *range(0x80, 0x100)])
values = st.lists(st.sampled_from(sorted(octets)), max_size=20).map(bytes)
spaced_values = st.lists(values.filter(bool), max_size=3).map(b" ".join)
white_space = st.text(" \t", max_size=3).map(str.encode)
targets = st.text([chr(octet) for octet in octets if octet < 0x80 and octet != 0x23], max_size=30).map(
    lambda text: b"/" + text.encode()
)
plain_names = tokens.map(lambda name: b"x-" + name.replace(b"_", b"-").lower())
"""Names that mean nothing to a proxy."""

pieces = st.sampled_from(
    [b"GET", b" ", b"/", b"HTTP/1.1", b"HTTP/1.0", b"\r\n", b"\n", b"\r", b"\t", b":", b",", b"a", b"Host: a\r\n",
     b"Transfer-Encoding", b"Content-Length", b"chunked", b"5", b"0", b"\x00", b"\xff", b"Connection: ", b"close",
     b"http://a/", b"\r\n\r\n", b"HTTP/1.1 200 OK\r\n", b";", b"=", b'"', b"POST * HTTP/1.1\r\nHost: x\r\n"]
)  # fmt: skip
noise = st.one_of(st.binary(max_size=60), st.lists(pieces, max_size=20).map(b"".join))


@st.composite
def broken(draw: st.DrawFn, corpus: list[bytes]) -> bytes:
    """Something of the corpus with a few octets replaced, removed or put in."""
    data = draw(st.sampled_from(corpus))
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(data)))
        data = data[:at] + draw(st.one_of(pieces, st.binary(max_size=2))) + data[at + draw(st.integers(0, 3)) :]
    return data


requests = st.one_of(noise, broken(ACCEPTED_REQUESTS + [case.data for case in REFUSED_REQUESTS]))
responses = st.one_of(noise, broken(ACCEPTED_RESPONSES + [case.data for case in REFUSED_RESPONSES]))
bodies = st.one_of(noise, broken([case.data for case in REFUSED_BODIES]))


@bounded
@given(
    tokens.filter(lambda method: method not in (b"CONNECT", b"TRACE")),
    targets,
    st.lists(st.tuples(plain_names, white_space, spaced_values, white_space), max_size=10),
)
def test_request_that_is_written_is_read(
    method: bytes, target: bytes, fields: list[tuple[bytes, bytes, bytes, bytes]]
) -> None:
    lines = b"".join(b"%b:%b%b%b\r\n" % field for field in fields)
    head = scan_request(b"%b %b HTTP/1.1\r\nHost: a\r\n%b\r\n" % (method, target, lines))
    assert head is not None
    assert (head.method, head.target) == (method, target)
    assert head.target == head.path + (b"?" + head.query if b"?" in target else b"")
    expected = [(name, value) for name, _, value, _ in fields if name not in (b"x-forwarded-for", b"x-amzn-trace-id")]
    assert head.forwarded == b"".join(b"%b: %b\r\n" % field for field in expected)


@bounded
@given(
    st.integers(200, 599),
    spaced_values,
    st.lists(st.tuples(plain_names, spaced_values), max_size=10),
)
def test_response_that_is_written_is_read(status: int, reason: bytes, fields: list[tuple[bytes, bytes]]) -> None:
    lines = b"".join(b"%b: %b\r\n" % field for field in fields)
    head = scan_response(b"HTTP/1.1 %d %b\r\n%b\r\n" % (status, reason, lines))
    assert head is not None
    assert (head.status, head.reason, head.forwarded) == (status, reason, lines)


@bounded
@given(
    st.sampled_from([b"GET", b"POST", b"PUT", b"OPTIONS"]),
    targets,
    st.lists(st.tuples(plain_names, values), max_size=10),
    st.one_of(st.none(), st.integers(0, 10**12), st.just("chunked")),
)
def test_request_that_h11_writes_is_read(
    method: bytes, target: bytes, fields: list[tuple[bytes, bytes]], framing: int | str | None
) -> None:
    headers = [(b"Host", b"example.com"), *fields]
    if framing == "chunked":
        headers.append((b"Transfer-Encoding", b"chunked"))
    elif framing is not None:
        headers.append((b"Content-Length", b"%d" % framing))
    client = h11.Connection(h11.CLIENT)
    data = client.send(h11.Request(method=method, target=target, headers=headers))
    assert data is not None
    head = scan_request(data)
    assert head is not None
    assert (head.end, head.method, head.target, head.host) == (len(data), method, target, b"example.com")
    assert head.chunked is (framing == "chunked")
    assert head.content_length == (framing if isinstance(framing, int) else -1)
    for name, value in fields:
        assert value in head.field_values(name)


@bounded
@given(requests)
@example(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n")
def test_request_that_we_accept_h11_reads_alike(data: bytes) -> None:
    """We are the stricter: what passes us has the same framing for another parser."""
    head = accepted(data)
    if head is None or head.version not in (b"HTTP/1.0", b"HTTP/1.1"):
        return
    server = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    server.receive_data(data[: head.end].lstrip(b"\r\n"))
    request = server.next_event()
    assert isinstance(request, h11.Request)
    assert request.method == head.method
    headers = dict(request.headers)
    assert (headers.get(b"transfer-encoding") == b"chunked") is head.chunked
    assert int(headers.get(b"content-length", b"-1")) == head.content_length


@bounded
@given(requests)
def test_forwarded_fields_are_read_back_unchanged(data: bytes) -> None:
    """What is sent on neither frames the message nor loses or gains a field on the next hop."""
    head = accepted(data)
    if head is None:
        return
    again = scan_request(b"GET %b HTTP/1.1\r\nHost: a\r\n%b\r\n" % (b"/", head.forwarded))
    assert again is not None
    assert again.forwarded == head.forwarded
    assert (again.content_length, again.chunked, again.upgrade, again.x_forwarded_for) == (-1, False, b"", None)


def accepted(data: bytes) -> RequestHead | None:
    """The head, if it is whole and accepted."""
    head = outcome(scan_request, data)
    return head if isinstance(head, RequestHead) else None


@bounded
@given(requests, st.integers(0, 200))
def test_a_longer_input_changes_no_decision_on_a_request(data: bytes, cut: int) -> None:
    """Once a prefix is accepted or refused, so is all that begins with it."""
    early, late = outcome(scan_request, data[:cut]), outcome(scan_request, data)
    if isinstance(early, RequestHead):
        assert isinstance(late, RequestHead)
        assert (late.end, late.forwarded, late.target) == (early.end, early.forwarded, early.target)
    elif early is not None:
        assert isinstance(late, tuple), f"{data[:cut]!r} is refused, {data!r} is not"


@bounded
@given(responses)
def test_response_is_read_or_refused_with_502(data: bytes) -> None:
    result = outcome(scan_response, data)
    assert not isinstance(result, tuple) or result[1] == 502


@bounded
@given(requests)
def test_request_is_read_or_refused_with_a_known_status(data: bytes) -> None:
    result = outcome(scan_request, data)
    assert not isinstance(result, tuple) or result[1] in (400, 405, 414, 501, 505)


@bounded
@given(bodies, st.lists(st.integers(0, 100), max_size=5))
def test_body_is_read_alike_in_any_split(data: bytes, cuts: list[int]) -> None:
    places = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    parts = [data[start:end] for start, end in itertools.pairwise(places)]
    assert read_body(parts) == read_body([data])
    assert read_body([data[at : at + 1] for at in range(len(data))]) == read_body([data])


@bounded
@given(st.lists(st.binary(max_size=40), max_size=6), st.lists(st.tuples(plain_names, spaced_values), max_size=3))
def test_body_that_is_written_is_read(chunks: list[bytes], fields: list[tuple[bytes, bytes]]) -> None:
    trailers = b"".join(
        b"%b: %b\r\n" % field for field in fields if not field[0].startswith((b"x-forwarded-", b"x-amzn-"))
    )
    data = b"".join(map(encode_chunk, chunks)) + last_chunk(trailers)
    assert read_body([data + b"rest"]) == (b"".join(chunks), trailers, b"rest", True)


@bounded
@given(bodies)
def test_body_that_we_accept_h11_reads_alike(data: bytes) -> None:
    ours = read_body([data])
    if ours is None or not ours[3]:
        return
    server = h11.Connection(h11.SERVER)
    server.receive_data(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + data)
    assert isinstance(server.next_event(), h11.Request)
    payload = b""
    while isinstance(event := server.next_event(), h11.Data):
        payload += bytes(event.data)
    assert isinstance(event, h11.EndOfMessage)
    assert (payload, server.trailing_data[0]) == (ours[0], ours[2])


@settings(bounded, max_examples=2000)
@given(requests, st.integers(0, 5))
def test_both_scanners_say_the_same_of_a_request(data: bytes, start: int) -> None:
    same_request(data, start)


@settings(bounded, max_examples=2000)
@given(responses, st.integers(0, 5))
def test_both_scanners_say_the_same_of_a_response(data: bytes, start: int) -> None:
    same_response(data, start)
