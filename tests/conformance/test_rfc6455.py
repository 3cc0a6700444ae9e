"""RFC 6455 (WebSocket), what concerns who stands between the ends: the opening handshake, frames, the end.

Each exchange runs at every split; `tests/integration/test_websocket_cases.py` compares all kinds of frames on real
sockets.
"""

from __future__ import annotations

import pytest

from tests.conformance.exchanges import Walk, message, outcomes
from tests.integration.websocket_cases import CLOSE, PING, TEXT, close, frame
from tests.integration.websocket_ends import server_frame

pytestmark = pytest.mark.conformance

KEY = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
OWN_FIELDS = ["Connection: upgrade", "Upgrade: websocket"]
OFFER = [
    KEY,
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Protocol: chat, superchat",
    "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits, x",
    "Origin: http://example.com",
]


def asks(*fields: str, first: str = "GET /chat HTTP/1.1") -> bytes:
    return message(first, "Host: a", *fields)


HANDSHAKE = asks("Upgrade: websocket", "Connection: Upgrade", *OFFER)
ANSWER = [ACCEPT, "Sec-WebSocket-Protocol: chat", "Sec-WebSocket-Extensions: permessage-deflate"]
SWITCH = message("HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade", *ANSWER)
SWITCHED = message("HTTP/1.1 101 Switching Protocols", *ANSWER, *OWN_FIELDS)


def test_4_1_4_2_2_the_handshake_passes_with_all_that_was_negotiated() -> None:
    for outcome, pieces in outcomes(HANDSHAKE, SWITCH):
        assert outcome == (asks(*OFFER, *OWN_FIELDS), SWITCHED, "", ""), pieces


@pytest.mark.parametrize(
    "fields",
    [
        ["Upgrade: WebSocket", "Connection: keep-alive, UPGRADE"],
        ["Upgrade: foo/2, websocket", "Connection: x", "Connection: upgrade"],
    ],
)
def test_4_2_1_names_are_case_insensitive_and_may_be_listed(fields: list[str]) -> None:
    for outcome, pieces in outcomes(asks(*fields, KEY), SWITCH):
        assert outcome.target == asks(KEY, *OWN_FIELDS), pieces
        assert outcome.client == SWITCHED, pieces


@pytest.mark.parametrize(
    ("first", "fields"),
    [
        ("POST /chat HTTP/1.1", ["Upgrade: websocket", "Connection: Upgrade"]),
        ("GET /chat HTTP/1.0", ["Upgrade: websocket", "Connection: Upgrade"]),
        ("GET /chat HTTP/1.1", ["Upgrade: websocket"]),
        ("GET /chat HTTP/1.1", ["Connection: Upgrade"]),
        ("GET /chat HTTP/1.1", ["Upgrade: websockets", "Connection: Upgrade"]),
    ],
)
def test_4_2_1_what_is_no_handshake_opens_no_tunnel(first: str, fields: list[str]) -> None:
    """Else a target that says 101 all the same would open a blind one."""
    for outcome, pieces in outcomes(asks(*fields, KEY, first=first), SWITCH):
        assert b"Upgrade" not in outcome.target, pieces
        assert outcome.client.startswith(b"HTTP/1.1 502 "), pieces
        assert outcome.target_ended == "aborted", pieces


@pytest.mark.parametrize(
    "refusal",
    [
        message("HTTP/1.1 403 Forbidden", "Content-Length: 2", body=b"no"),
        message("HTTP/1.1 400 Bad Request", "Sec-WebSocket-Version: 13, 8", "Content-Length: 0"),
        message("HTTP/1.1 401 Unauthorized", "WWW-Authenticate: Basic", "Content-Length: 0"),
    ],
)
def test_4_2_2_4_4_a_refusal_is_an_ordinary_answer(refusal: bytes) -> None:
    for outcome, pieces in outcomes(HANDSHAKE, refusal):
        assert outcome[1:] == (refusal, "", ""), pieces


def test_4_2_2_another_protocol_in_the_answer_is_refused() -> None:
    for outcome, pieces in outcomes(HANDSHAKE, SWITCH.replace(b"Upgrade: websocket", b"Upgrade: other")):
        assert outcome.client.startswith(b"HTTP/1.1 502 "), pieces


SENT = frame(TEXT, b"Hello") + frame(PING, b"?") + frame(TEXT, b"", False) + frame(0, b"x" * 126) + frame(11, b"odd")
RECEIVED = server_frame(TEXT, b"Hello") + server_frame(PING, b"!") + b"\xf1\x00" + server_frame(2, bytes(range(200)))


def test_5_frames_pass_as_they_are_whatever_they_are() -> None:
    """What they mean, RSV bits, opcodes and masks included, is between the ends."""
    for outcome, pieces in outcomes(HANDSHAKE + SENT, SWITCH + RECEIVED, start=(len(HANDSHAKE) - 2, len(SWITCH) - 2)):
        assert outcome == (asks(*OFFER, *OWN_FIELDS) + SENT, SWITCHED + RECEIVED, "", ""), pieces


def test_7_1_1_the_server_closes_after_the_closing_handshake() -> None:
    sent, received = SENT + close(1000, b"bye"), RECEIVED + server_frame(CLOSE, b"\x03\xe8bye")
    starts = len(HANDSHAKE) + len(SENT), len(SWITCH) + len(RECEIVED)
    for outcome, pieces in outcomes(HANDSHAKE + sent, SWITCH + received, target_ends=True, start=starts):
        assert outcome == (asks(*OFFER, *OWN_FIELDS) + sent, SWITCHED + received, "closed", "lost"), pieces


def test_7_1_7_a_client_that_fails_the_connection_takes_the_server_along() -> None:
    walk = Walk({})
    walk.run([HANDSHAKE], [SWITCH], False)
    target = walk.target
    assert target is not None
    walk.client.deliver(SENT)
    walk.client.reset()
    walk.world.turn()
    assert target.sent.endswith(SENT)
    assert target.write_closed


def test_7_2_1_a_server_that_fails_the_connection_takes_the_client_along() -> None:
    walk = Walk({})
    walk.run([HANDSHAKE], [SWITCH + RECEIVED], False)
    target = walk.target
    assert target is not None
    target.reset()
    walk.world.turn()
    assert walk.client.sent.endswith(RECEIVED)
    assert walk.client.ended == "aborted"
