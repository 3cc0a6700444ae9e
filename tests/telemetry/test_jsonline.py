"""The compiled formatter of the ``json`` line writes exactly what the pure one does."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lbproxy.telemetry.formats import http_json, pure_http_json, pure_tcp_json, tcp_json
from lbproxy.telemetry.records import HttpRecord, TcpRecord

pytestmark = pytest.mark.skipif(http_json is pure_http_json, reason="the compiled formatter was not built")

TEXTS = [
    "kind",
    "listener",
    "client_host",
    "scheme",
    "target_group",
    "target",
    "rule",
    "action",
    "redirect_url",
    "error_reason",
    "server_name",
    "tls_version",
    "tls_cipher",
]
BYTES = ["method", "authority", "request_target", "version", "user_agent", "referer", "trace_id"]
SECONDS = ["request_time", "target_time", "response_time", "duration"]
COUNTS = ["received_bytes", "sent_bytes"]
NUMBERS = ["client_port", "status", "target_status", "priority"]


def record(**values: Any) -> HttpRecord:
    """A usual request, with these values."""
    made = HttpRecord()
    for name in TEXTS:
        setattr(made, name, name)
    for name in BYTES:
        setattr(made, name, name.encode())
    made.started = 1_700_000_000.25
    made.client_port = 40000
    made.targets_tried = (("10.0.0.1:80", 0), ("10.0.0.2:80", 200))
    made.retry_reason = "ConnectRefused"
    for name, value in values.items():
        setattr(made, name, value)
    return made


def check(**values: Any) -> None:
    made = record(**values)
    assert http_json(made) == pure_http_json(made)


plain = st.text([chr(octet) for octet in range(0x20, 0x7F) if octet not in (0x22, 0x5C)], max_size=20)
texts = st.one_of(plain, st.text(max_size=5))
octets = st.one_of(plain.map(str.encode), st.binary(max_size=5))
seconds = st.one_of(
    st.just(-1.0),
    st.floats(0, 100),
    st.integers(0, 10**12).map(lambda half_millionths: half_millionths / 2e6),
    st.floats(allow_nan=True, allow_infinity=True).map(lambda value: value + 0.0),  # no time is minus zero
)


@settings(max_examples=1000, deadline=None, derandomize=True, database=None)
@given(
    st.fixed_dictionaries(
        {},
        optional={
            **dict.fromkeys(TEXTS, texts),
            **dict.fromkeys(BYTES, octets),
            **dict.fromkeys(SECONDS, seconds),
            **dict.fromkeys(COUNTS, st.integers(-(2**63), 2**63 - 1)),
            **dict.fromkeys(NUMBERS, st.integers(-(2**31), 2**31 - 1)),
            "started": st.floats(0, 4e9),
            "targets_tried": st.lists(st.tuples(texts, st.integers(0, 999)), max_size=3).map(tuple),
        },
    )
)
@example({"duration": 0.0000005, "request_time": 0.0000015, "target_time": 999999.9999995, "response_time": 1e6})
@example({"duration": -0.0, "request_time": 5e-324, "target_time": 1e300, "response_time": math.nan})
@example({"received_bytes": -(2**63), "targets_tried": ()})
def test_it_writes_the_same(values: dict[str, Any]) -> None:
    check(**values)


@settings(max_examples=2000, deadline=None, derandomize=True, database=None)
@given(seconds, seconds, seconds, seconds)
def test_seconds_are_rounded_alike(one: float, two: float, three: float, four: float) -> None:
    check(request_time=one, target_time=two, response_time=three, duration=four)


def test_nothing_goes_wrong_around_the_room_of_a_line() -> None:
    shortest = len(http_json(record(user_agent=b"")))
    for size in (*range(8192 - shortest - 40, 8192 - shortest + 40), 20000):
        check(user_agent=b"a" * size)
        check(trace_id=b"a" * size)
        check(targets_tried=(("a" * size, 1),))


def test_an_odd_octet_is_seen_at_each_place_of_a_text_of_each_size() -> None:
    """Texts are looked at sixteen octets at a time, and their ends in other ways."""
    for size in range(40):
        check(user_agent=b"~" * size)
        for place in range(size):
            for octet in (0x00, 0x1F, 0x22, 0x5C, 0x7F, 0x80, 0xFF):
                odd = bytearray(b"a" * size)
                odd[place] = octet
                check(user_agent=bytes(odd))


def test_times_of_each_second_are_right() -> None:
    for started in (0.0, 0.999, 1.0, 1_700_000_000.9999, 1_700_000_001.0, 1_700_000_000.0, 253402300799.0):
        check(started=started)
        assert json.loads(http_json(record(started=started)))["time"].endswith("Z")


def test_a_rate_limit_is_told_where_there_was_one() -> None:
    check(rate_limit="few dry-run")
    assert json.loads(http_json(record(rate_limit="few")))["rate_limit"] == "few"
    assert "rate_limit" not in json.loads(http_json(record()))


def test_what_is_no_record_of_ours_is_formatted_too() -> None:
    class Other:
        def __getattr__(self, name: str) -> Any:
            return getattr(usual, name)

    usual = record()
    assert http_json(Other()) == http_json(usual)  # type: ignore[arg-type]


TCP_TEXTS = ["target_group", "target", "tls_version", "tls_cipher", "server_name", "error_reason"]


def connection(**values: Any) -> TcpRecord:
    made = TcpRecord("db", "192.0.2.1", 50000, 1_700_000_000.25)
    for name, value in values.items():
        setattr(made, name, value)
    return made


@settings(max_examples=500, deadline=None, derandomize=True, database=None)
@given(
    st.fixed_dictionaries(
        {},
        optional={
            **dict.fromkeys(["listener", "client_address", *TCP_TEXTS], texts),
            **dict.fromkeys(["duration", "connect_time"], seconds),
            **dict.fromkeys(COUNTS, st.integers(-(2**63), 2**63 - 1)),
            "client_port": st.integers(-(2**31), 2**31 - 1),
            "started": st.floats(0, 4e9),
        },
    )
)
@example({})
@example({"tls_version": "TLSv1.3"})
def test_it_writes_the_same_of_a_connection(values: dict[str, Any]) -> None:
    made = connection(**values)
    assert tcp_json(made) == pure_tcp_json(made)


def test_a_long_line_of_a_connection_is_whole() -> None:
    for size in (7800, 8192, 20000):
        made = connection(server_name="a" * size)
        assert tcp_json(made) == pure_tcp_json(made)
        assert json.loads(tcp_json(made))["server_name"] == "a" * size
