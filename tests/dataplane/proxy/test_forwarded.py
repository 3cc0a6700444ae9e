"""X-Forwarded-* in its three modes, and X-Amzn-Trace-Id as ALB writes it."""

from __future__ import annotations

import re
from random import Random

import pytest

from lbproxy.dataplane.proxy.forwarded import (
    MAX_FORWARDED_ADDRESSES,
    ForwardedFields,
    ForwardedStyle,
    TraceIds,
    too_many_addresses,
)
from lbproxy.model.listener import Bind, Listener, ListenerProtocol, XffMode
from lbproxy.model.rule import FixedResponse


def fields(
    received: bytes | None,
    mode: XffMode = XffMode.APPEND,
    *,
    client_port: bool = False,
    host: str = "192.0.2.7",
    protocol: ListenerProtocol = ListenerProtocol.HTTP,
) -> list[str]:
    listener = Listener(
        name="web",
        protocol=protocol,
        binds=(Bind("198.51.100.1", 8080),),
        default_action=FixedResponse(status=200),
        xff_mode=mode,
        xff_client_port=client_port,
    )
    written = ForwardedFields(ForwardedStyle(listener, 8080), host, 40000).fields(received).decode()
    assert written.endswith("\r\n")
    return written.split("\r\n")[:-1]


@pytest.mark.parametrize(
    ("mode", "received", "expected"),
    [
        (XffMode.APPEND, None, "192.0.2.7"),
        (XffMode.APPEND, b"", "192.0.2.7"),
        (XffMode.APPEND, b"203.0.113.1", "203.0.113.1, 192.0.2.7"),
        (XffMode.APPEND, b"203.0.113.1, 203.0.113.2", "203.0.113.1, 203.0.113.2, 192.0.2.7"),
        (XffMode.APPEND, b"what ever", "what ever, 192.0.2.7"),
        (XffMode.PRESERVE, None, None),
        (XffMode.PRESERVE, b"", ""),
        (XffMode.PRESERVE, b"203.0.113.1", "203.0.113.1"),
        (XffMode.REMOVE, None, None),
        (XffMode.REMOVE, b"203.0.113.1", None),
    ],
)
def test_the_modes(mode: XffMode, received: bytes | None, expected: str | None) -> None:
    first = [] if expected is None else [f"X-Forwarded-For: {expected}"]
    assert fields(received, mode) == [*first, "X-Forwarded-Proto: http", "X-Forwarded-Port: 8080"]


def test_the_scheme() -> None:
    assert "X-Forwarded-Proto: https" in fields(None, protocol=ListenerProtocol.HTTPS)


def test_ipv6() -> None:
    assert fields(None, host="2001:db8::7")[0] == "X-Forwarded-For: 2001:db8::7"
    assert fields(None, host="2001:db8::7", client_port=True)[0] == "X-Forwarded-For: [2001:db8::7]:40000"


def test_the_clients_port_goes_with_append_only() -> None:
    assert fields(b"203.0.113.1", client_port=True)[0] == "X-Forwarded-For: 203.0.113.1, 192.0.2.7:40000"
    assert fields(b"203.0.113.1", XffMode.PRESERVE, client_port=True)[0] == "X-Forwarded-For: 203.0.113.1"
    assert len(fields(b"203.0.113.1", XffMode.REMOVE, client_port=True)) == 2


def test_thirty_addresses_are_enough() -> None:
    assert not too_many_addresses(b"")
    assert not too_many_addresses(b", ".join([b"192.0.2.1"] * MAX_FORWARDED_ADDRESSES))
    assert too_many_addresses(b", ".join([b"192.0.2.1"] * (MAX_FORWARDED_ADDRESSES + 1)))


EPOCH = 0x67891233
FRESH = rb"1-67891233-[0-9a-f]{24}"


@pytest.mark.parametrize(
    ("received", "expected"),
    [
        (None, rb"Root=" + FRESH),
        (b"", rb"Root=" + FRESH),
        (b" ; ;", rb"Root=" + FRESH),
        (b"Root=1-1-a", rb"Self=" + FRESH + rb";Root=1-1-a"),
        (b"Root=1-1-a;CalledFrom=app", rb"Self=" + FRESH + rb";Root=1-1-a;CalledFrom=app"),
        (b"Self=1-2-b; Root=1-1-a ;", rb"Self=" + FRESH + rb";Root=1-1-a"),
        (b"CalledFrom=app;Root=1-1-a", rb"Self=" + FRESH + rb";CalledFrom=app;Root=1-1-a"),
        (b"CalledFrom=app", rb"Root=" + FRESH + rb";CalledFrom=app"),
        (b"TotalTimeSoFar=1ms;Lineage=a|b:1", rb"Root=" + FRESH + rb";TotalTimeSoFar=1ms;Lineage=a\|b:1"),
    ],
)
def test_trace_ids(received: bytes | None, expected: bytes) -> None:
    value = TraceIds(Random(1), lambda: EPOCH + 0.9).value(received)
    assert re.fullmatch(expected, value), value


def test_trace_ids_differ_and_follow_the_clock() -> None:
    now = 1.0
    ids = TraceIds(Random(1), lambda: now)
    values = {ids.value(None) for _ in range(1000)}
    assert len(values) == 1000
    now = 255.0
    assert ids.value(None).startswith(b"Root=1-000000ff-")
