"""From fields to heads (RFC 9113 section 8, RFC 8441)."""

from __future__ import annotations

import pytest

from lbproxy.wire.errors import RemoteProtocolError
from lbproxy.wire.http1.head import RequestHead
from lbproxy.wire.http2.errors import PROTOCOL_ERROR, StreamFault
from lbproxy.wire.http2.fieldline import FieldLine
from lbproxy.wire.http2.heads import request_head, response_head, trailer_lines
from tests.wire.http2.raw import GET, POST, Fields

WEBSOCKET = [(":method", "CONNECT"), (":protocol", "websocket"), *GET[1:]]


def lines(fields: Fields) -> list[FieldLine]:
    return [FieldLine(name.encode("latin-1"), value.encode("latin-1")) for name, value in fields]


def head_of(*more: tuple[str, str], base: Fields = GET, ended: bool = True) -> RequestHead:
    return request_head(lines([*base, *more]), ended)


def without(name: str, base: Fields = GET) -> Fields:
    return [field for field in base if field[0] != name]


def replaced(name: str, value: str, base: Fields = GET) -> Fields:
    return [(key, value if key == name else old) for key, old in base]


def test_a_request() -> None:
    head = head_of(("user-agent", "curl"), ("accept", "*/*"), ("x-forwarded-for", "192.0.2.1"), ("referer", "r"))
    assert (head.method, head.target, head.path, head.query) == (b"GET", b"/", b"/", b"")
    assert (head.authority, head.host, head.version, head.minor) == (b"example.com", b"example.com", b"HTTP/2.0", 1)
    assert head.forwarded == b"user-agent: curl\r\naccept: */*\r\nreferer: r\r\n"
    assert (head.x_forwarded_for, head.user_agent, head.referer) == (b"192.0.2.1", b"curl", b"r")
    assert (head.content_length, head.chunked, head.upgrade, head.te_trailers) == (-1, False, b"", False)
    assert head.field_values(b"accept") == [b"*/*"]


def test_host_stands_in_for_the_authority_and_may_repeat_it() -> None:
    assert head_of(("host", "Other.example:8080"), base=without(":authority")).host == b"other.example"
    assert head_of(("host", "EXAMPLE.com")).authority == b"example.com"


def test_cookies_become_one_again() -> None:
    """Section 8.2.3."""
    head = head_of(("cookie", "a=1"), ("accept", "*/*"), ("cookie", "b=2"))
    assert head.forwarded == b"accept: */*\r\ncookie: a=1; b=2\r\n"


def test_content() -> None:
    assert head_of(base=POST, ended=False).chunked
    assert head_of(("content-length", "7"), base=POST, ended=False).content_length == 7
    assert not head_of(("content-length", "7"), base=POST, ended=False).chunked
    assert head_of(("content-length", "0"), base=POST).content_length == 0


def test_te_trailers() -> None:
    head = head_of(("te", "trailers"))
    assert head.te_trailers
    assert head.forwarded == b""


def test_options_may_ask_for_the_server() -> None:
    head = head_of(base=replaced(":method", "OPTIONS", replaced(":path", "*")))
    assert head.target == b"*"


def test_a_websocket_becomes_the_upgrade_that_it_is_to_a_target() -> None:
    head = request_head(lines([*WEBSOCKET, ("sec-websocket-version", "13")]), False)
    assert (head.method, head.upgrade, head.chunked, head.content_length) == (b"GET", b"websocket", False, -1)


MALFORMED: dict[str, Fields] = {
    "no :method": without(":method"),
    "no :scheme": without(":scheme"),
    "no :path": without(":path"),
    "no authority": without(":authority"),
    ":method twice": [(":method", "GET"), *GET],
    ":path twice": [*GET, (":path", "/")],
    ":authority twice": [*GET, (":authority", "example.com")],
    ":scheme twice": [*GET, (":scheme", "https")],
    "an unknown pseudo-header": [*GET, (":other", "x")],
    ":status in a request": [*GET, (":status", "200")],
    "a pseudo-header after a field": [*GET[:3], ("accept", "*/*"), GET[3]],
    ":path empty": replaced(":path", ""),
    ":path relative": replaced(":path", "a"),
    ":path absolute": replaced(":path", "http://example.com/"),
    ":path * with GET": replaced(":path", "*"),
    ":scheme of another kind": replaced(":scheme", "ftp"),
    ":authority empty": replaced(":authority", ""),
    ":protocol without CONNECT": [*GET, (":protocol", "websocket")],
    "CONNECT with a path": replaced(":method", "CONNECT"),
    "host that differs": [*GET, ("host", "example.org")],
    "host twice": [*without(":authority"), ("host", "a"), ("host", "a")],
    "capitals": [*GET, ("Accept", "*/*")],
    "a name that is no token": [*GET, ("a b", "c")],
    "an empty name": [*GET, ("", "c")],
    "a name with a colon": [*GET, ("a:", "c")],
    "CR in a value": [*GET, ("a", "b\rc")],
    "LF in a value": [*GET, ("a", "b\nx: y")],
    "NUL in a value": [*GET, ("a", "b\0")],
    "space before a value": [*GET, ("a", " b")],
    "tab after a value": [*GET, ("a", "b\t")],
    "LF in :path": replaced(":path", "/\r\nx: y"),
    "LF in :authority": replaced(":authority", "a\r\nx: y"),
    "LF in :method": replaced(":method", "GET / HTTP/1.1\r\nx"),
    "LF in a cookie": [*GET, ("cookie", "a\nb")],
    "connection": [*GET, ("connection", "close")],
    "keep-alive": [*GET, ("keep-alive", "1")],
    "proxy-connection": [*GET, ("proxy-connection", "close")],
    "transfer-encoding": [*GET, ("transfer-encoding", "chunked")],
    "upgrade": [*GET, ("upgrade", "h2c")],
    "te of another kind": [*GET, ("te", "trailers, deflate")],
    "content-length without content": [*GET, ("content-length", "1")],
    "a tunnel with a length": [*WEBSOCKET, ("content-length", "0")],
}


@pytest.mark.parametrize("name", MALFORMED)
def test_what_is_malformed_ends_the_stream(name: str) -> None:
    """Section 8.1.1."""
    with pytest.raises(StreamFault) as caught:
        request_head(lines(MALFORMED[name]), True)
    assert caught.value.code == PROTOCOL_ERROR


REFUSED: dict[str, tuple[Fields, int, str]] = {
    "CONNECT": ([(":method", "CONNECT"), (":authority", "a:1")], 405, "MethodNotAllowed"),
    "TRACE": (replaced(":method", "TRACE"), 405, "MethodNotAllowed"),
    "a method that is no token": (replaced(":method", "G ET"), 400, "SpaceInUri"),
    "an empty method": (replaced(":method", ""), 400, "BadMethod"),
    "a space in the path": (replaced(":path", "/a b"), 400, "SpaceInUri"),
    "a fragment": (replaced(":path", "/a#b"), 400, "BadUri"),
    "a long path": (replaced(":path", "/" + "a" * 17000), 414, "UriTooLong"),
    "a host that is none": (replaced(":authority", "a@b"), 400, "BadHost"),
    "a large field": ([*GET, ("a", "b" * 17000)], 400, "HeaderTooLarge"),
    "lengths that differ": ([*POST, ("content-length", "1"), ("content-length", "2")], 400, "MultipleContentLength"),
    "a length that is none": ([*POST, ("content-length", "+1")], 400, "BadContentLength"),
    "an unknown protocol": ([(":protocol", "other"), *WEBSOCKET[:1], *GET[1:]], 501, "BadProtocol"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_no_version_of_http_takes_is_answered_as_in_http_1(name: str) -> None:
    fields, status, reason = REFUSED[name]
    with pytest.raises(RemoteProtocolError) as caught:
        request_head(lines(fields), False)
    assert not isinstance(caught.value, StreamFault)
    assert (caught.value.status, caught.value.reason) == (status, reason)


def test_a_response() -> None:
    head = response_head(lines([(":status", "200"), ("content-length", "5"), ("server", "x"), ("set-cookie", "a=b")]))
    assert (head.status, head.content_length, head.forwarded) == (200, 5, b"server: x\r\nset-cookie: a=b\r\n")


@pytest.mark.parametrize(
    "fields",
    [
        [],
        [("server", "x")],
        [(":status", "20")],
        [(":status", "2000")],
        [(":status", "abc")],
        [(":status", "101")],
        [(":status", "200"), (":status", "200")],
        [("server", "x"), (":status", "200")],
        [(":status", "200"), (":path", "/")],
        [(":status", "200"), ("connection", "close")],
        [(":status", "200"), ("Server", "x")],
    ],
)
def test_a_malformed_response_is_refused(fields: Fields) -> None:
    with pytest.raises(StreamFault):
        response_head(lines(fields))


def test_trailers() -> None:
    assert trailer_lines(lines([("grpc-status", "0"), ("x", "")])) == b"grpc-status: 0\r\nx: \r\n"


@pytest.mark.parametrize("name", [":status", "connection", "cookie", "host", "Upper", "te"])
def test_what_is_no_trailer_is_malformed(name: str) -> None:
    with pytest.raises(StreamFault):
        trailer_lines(lines([(name, "x")]))


@pytest.mark.parametrize("name", ["content-length", "authorization", "x-forwarded-for", "content_type"])
def test_what_must_not_be_a_trailer_is_refused(name: str) -> None:
    """RFC 9110 section 6.5.1."""
    with pytest.raises(RemoteProtocolError) as caught:
        trailer_lines(lines([(name, "x")]))
    assert caught.value.reason == "BadTrailer"


def test_too_many_trailers_are_refused() -> None:
    with pytest.raises(RemoteProtocolError):
        trailer_lines(lines([("a", "b")] * 65))
