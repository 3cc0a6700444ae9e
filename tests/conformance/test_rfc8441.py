"""RFC 8441 (WebSocket over HTTP/2), section by section, at every split of what the client sends and of the answer."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import pytest

from tests.conformance.exchanges import cuts, message
from tests.dataplane.doubles import World
from tests.integration.websocket_cases import TEXT, close, frame
from tests.integration.websocket_ends import server_frame
from tests.wire.http2.raw import (
    CLIENT_PREFACE,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    RST_STREAM,
    SETTINGS,
    Decoder,
    Fields,
    data,
    frames,
    headers,
    reset,
)

pytestmark = pytest.mark.conformance

CONNECT = [
    (":method", "CONNECT"),
    (":protocol", "websocket"),
    (":scheme", "http"),
    (":path", "/chat?x"),
    (":authority", "a"),
]
KEY = ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
"""There is none in RFC 8441; sent here, it makes the handshake with the target the same each time."""
ACCEPT = "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
SWITCH = message("HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade", ACCEPT)
PROTOCOL_ERROR, INTERNAL_ERROR, NO_ERROR, CANCEL = 1, 2, 0, 8


class Outcome(NamedTuple):
    """What both ends have seen."""

    asked: bytes
    """The request that the target got, without what we add about the client."""
    sent: bytes
    """What went through the tunnel to the target."""
    status: bytes
    fields: Fields
    content: bytes
    """What came back on the stream."""
    ended: bool
    reset: int | None
    target_ended: str


def run(asked: Sequence[bytes], answered: Sequence[bytes], end: str = "") -> Outcome:
    world = World(http2=True, rules=())
    client = world.client()
    client.deliver(CLIENT_PREFACE)
    for piece in asked:
        client.deliver(piece)
        world.turn()
    attempts = world.connector.attempts
    target = attempts[0].succeed() if attempts and not attempts[0].cancelled else None
    world.turn()
    if target is not None:
        for piece in answered:
            target.deliver(piece)
            world.turn()
        if end == "eof":
            target.deliver_eof()
        elif end == "reset":
            target.reset()
        world.turn()
    got, _, sent = (target.sent if target else b"").partition(b"\r\n\r\n")
    got = re.sub(rb"\r\n(?:X-Forwarded-\w+|X-Amzn-Trace-Id): [^\r]*", b"", got)
    status, fields, content, ended, code = b"", [], b"", False, None
    decoder = Decoder()
    for each in frames(client.sent):
        assert each.kind != GOAWAY
        if each.kind == HEADERS:
            (_, status), *rest = [(field.name, field.value) for field in decoder.decode(each.payload)]
            fields = [(name.decode(), value.decode()) for name, value in rest if name != b"date"]
        elif each.kind == DATA:
            content += each.payload
        elif each.kind == RST_STREAM:
            code = int.from_bytes(each.payload, "big")
        ended = ended or (each.kind in (HEADERS, DATA) and bool(each.flags & END_STREAM))
    return Outcome(got, sent, status, fields, content, ended, code, target.ended if target else "")


def everywhere(asked: bytes, answered: bytes = b"", end: str = "") -> Outcome:
    """What becomes of it, the same at every split."""
    first = run([asked], [answered] if answered else [], end)
    for pieces in cuts(asked):
        assert run(pieces, [answered] if answered else [], end) == first, pieces
    for pieces in cuts(answered):
        assert run([asked], pieces, end) == first, pieces
    return first


def opening(*fields: tuple[str, str]) -> bytes:
    return headers(1, [*CONNECT, KEY, *fields], END_HEADERS)


def test_3_the_server_says_that_it_knows_extended_connect() -> None:
    client = World(http2=True).client()
    client.deliver(CLIENT_PREFACE)
    [first, *_] = [each for each in frames(client.sent) if each.kind == SETTINGS]
    assert b"\x00\x08\x00\x00\x00\x01" in [first.payload[at : at + 6] for at in range(0, len(first.payload), 6)]


@pytest.mark.parametrize("missing", [":scheme", ":path", ":authority"])
def test_4_scheme_path_and_authority_are_needed(missing: str) -> None:
    outcome = everywhere(headers(1, [field for field in CONNECT if field[0] != missing], END_HEADERS))
    assert (outcome.status, outcome.reset, outcome.asked) == (b"", PROTOCOL_ERROR, b"")


@pytest.mark.parametrize("method", ["GET", "OPTIONS"])
def test_4_protocol_is_for_connect_alone(method: str) -> None:
    outcome = everywhere(headers(1, [(":method", method), *CONNECT[1:]]))
    assert (outcome.status, outcome.reset, outcome.asked) == (b"", PROTOCOL_ERROR, b"")


def test_4_another_protocol_is_501() -> None:
    asked = headers(1, [CONNECT[0], (":protocol", "connect-ip"), *CONNECT[2:]], END_HEADERS)
    outcome = everywhere(asked)
    assert (outcome.status, outcome.asked) == (b"501", b"")


def test_5_the_handshake_is_that_of_rfc_6455_to_the_target() -> None:
    offered = ("sec-websocket-version", "13"), ("sec-websocket-protocol", "chat, superchat"), ("origin", "http://a")
    answered = SWITCH[:-2] + b"Sec-WebSocket-Protocol: chat\r\n\r\n"
    outcome = everywhere(opening(*offered), answered)
    assert outcome.asked == (
        b"GET /chat?x HTTP/1.1\r\nHost: a\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        b"sec-websocket-version: 13\r\nsec-websocket-protocol: chat, superchat\r\n"
        b"origin: http://a\r\nConnection: upgrade\r\nUpgrade: websocket"
    )
    assert (outcome.status, outcome.fields) == (b"200", [("sec-websocket-protocol", "chat")])
    assert (outcome.ended, outcome.reset, outcome.target_ended) == (False, None, "")


def test_5_connection_and_upgrade_are_malformed() -> None:
    for name, value in (("connection", "upgrade"), ("upgrade", "websocket")):
        outcome = everywhere(opening((name, value)))
        assert (outcome.reset, outcome.asked) == (PROTOCOL_ERROR, b"")


def test_5_frames_go_in_data_as_they_are() -> None:
    sent, received = frame(TEXT, b"Hello"), server_frame(TEXT, b"Hello" * 30)
    outcome = everywhere(opening() + data(1, sent[:3]) + data(1, sent[3:]), SWITCH + received)
    assert (outcome.sent, outcome.content) == (sent, received)
    assert (outcome.ended, outcome.reset, outcome.target_ended) == (False, None, "")


def test_5_the_end_of_the_targets_connection_is_end_stream() -> None:
    received = server_frame(8, b"\x03\xe8")
    outcome = everywhere(opening() + data(1, close()), SWITCH + received, "eof")
    assert (outcome.sent, outcome.content, outcome.ended, outcome.reset) == (close(), received, True, NO_ERROR)


def test_5_its_reset_is_cancel() -> None:
    outcome = everywhere(opening(), SWITCH + server_frame(TEXT, b"cut"), "reset")
    assert (outcome.content, outcome.ended, outcome.reset) == (server_frame(TEXT, b"cut"), False, CANCEL)


@pytest.mark.parametrize("end", [data(1, b"", END_STREAM), reset(1)], ids=["END_STREAM", "RST_STREAM"])
def test_5_the_end_of_the_stream_ends_the_targets_connection(end: bytes) -> None:
    for pieces in cuts(close()):
        walk = World(http2=True, rules=())
        client = walk.client()
        client.deliver(CLIENT_PREFACE + opening())
        target = walk.target()
        target.deliver(SWITCH)
        for piece in pieces:
            client.deliver(data(1, piece))
        client.deliver(end)
        walk.turn()
        assert target.sent.endswith(b"\r\n\r\n" + close())
        assert target.write_closed


def test_5_1_a_target_without_websockets_answers_as_to_any_request() -> None:
    outcome = everywhere(opening(), message("HTTP/1.1 404 Not Found", "Content-Length: 2", body=b"no"))
    assert (outcome.status, outcome.content, outcome.ended) == (b"404", b"no", True)


def test_rfc6455_4_1_an_accept_that_is_not_right_opens_no_tunnel() -> None:
    outcome = everywhere(opening(), SWITCH.replace(b"s3pP", b"S3pP") + server_frame(TEXT, b"x"))
    assert (outcome.status, outcome.content, outcome.target_ended) == (b"", b"", "aborted")
    assert outcome.reset == INTERNAL_ERROR
