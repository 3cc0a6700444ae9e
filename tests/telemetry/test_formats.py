from __future__ import annotations

import json
import re
from collections.abc import Sequence

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbproxy.telemetry.formats import FORMATS, http_alb, http_combined, http_json, tcp_alb, tcp_combined, tcp_json

STARTED = 1700000000.25  # 2023-11-14T22:13:20.25Z


@attrs.define
class Http:
    """A typical forwarded request."""

    kind: str = "https"
    started: float = STARTED
    listener: str = "web"
    client_host: str = "192.0.2.7"
    client_port: int = 51234
    transformed_host: bytes = b""
    transformed_uri: bytes = b""
    rate_limit: str = ""
    classification: str = ""
    classification_reason: str = ""
    target_group: str = "app"
    target: str = "10.0.0.1:8080"
    request_time: float = 0.0005
    target_time: float = 0.5
    response_time: float = 0.001
    duration: float = 0.75
    status: int = 200
    target_status: int = 200
    received_bytes: int = 123
    sent_bytes: int = 456
    method: bytes = b"GET"
    scheme: str = "https"
    authority: bytes = b"example.com"
    request_target: bytes = b"/a?b=c"
    version: bytes = b"HTTP/1.1"
    user_agent: bytes = b"curl/8.0"
    referer: bytes = b"https://other.example/"
    tls_cipher: str = "TLS_AES_128_GCM_SHA256"
    tls_version: str = "TLSv1.3"
    server_name: str = "example.com"
    trace_id: bytes = b"Root=1-65540000-000000000000000000000001"
    rule: str = "canary"
    priority: int = 10
    action: str = "forward"
    redirect_url: str = ""
    error_reason: str = ""
    targets_tried: Sequence[tuple[str, int]] = (("10.0.0.1:8080", 200),)
    retry_reason: str = ""


@attrs.define
class Tcp:
    """A typical TLS connection."""

    listener: str = "postgres"
    client_address: str = "2001:db8::1"
    client_port: int = 5000
    target_group: str = "db"
    target: str = "[2001:db8::2]:5432"
    started: float = STARTED
    duration: float = 1.5
    connect_time: float = 0.002
    received_bytes: int = 10
    sent_bytes: int = 20
    tls_version: str = "TLSv1.2"
    tls_cipher: str = "ECDHE-RSA-AES128-GCM-SHA256"
    server_name: str = "db.example"
    error_reason: str = ""


def fields_of(line: str) -> list[str]:
    """Take an ELB log line apart as its readers do: by spaces, double quotes holding them together."""
    assert line.endswith("\n")
    parts: list[str] = re.findall(r'"[^"]*"|[^ "]+', line[:-1])
    assert " ".join(parts) + "\n" == line
    return parts


def test_json_http_fields_and_their_order() -> None:
    line = json.loads(http_json(Http()))
    assert " ".join(line) == (
        "time kind listener client_address client_port method scheme host request_target version status "
        "received_bytes sent_bytes duration request_time target_time response_time target_group target "
        "target_status targets_tried retry_reason rule priority action redirect_url error_reason user_agent referer "
        "tls_version tls_cipher server_name trace_id"
    )
    assert line["time"] == "2023-11-14T22:13:20.250Z"
    assert line["targets_tried"] == [{"target": "10.0.0.1:8080", "status": 200}]
    assert (line["duration"], line["target_time"]) == (0.75, 0.5)
    assert (line["host"], line["request_target"], line["priority"]) == ("example.com", "/a?b=c", 10)


def test_json_of_what_was_not_forwarded() -> None:
    line = json.loads(
        http_json(
            Http(
                target_group="",
                target="",
                target_status=0,
                request_time=-1,
                target_time=-1,
                response_time=-1,
                targets_tried=[],
                action="redirect",
                redirect_url='https://example.com/"',
                error_reason="x",
            )
        )
    )
    assert line["targets_tried"] == []
    assert line["request_time"] == line["target_time"] == line["response_time"] == -1
    assert line["redirect_url"] == 'https://example.com/"'


def test_json_of_several_attempts() -> None:
    line = json.loads(http_json(Http(targets_tried=[("a:1", 0), ("b:1", 502)], retry_reason="TargetReset")))
    assert line["targets_tried"] == [{"target": "a:1", "status": 0}, {"target": "b:1", "status": 502}]
    assert line["retry_reason"] == "TargetReset"


def test_json_tcp_fields() -> None:
    line = json.loads(tcp_json(Tcp()))
    assert line["kind"] == "tls"
    assert line["client_address"] == "2001:db8::1"
    assert (line["duration"], line["connect_time"]) == (1.5, 0.002)
    assert json.loads(tcp_json(Tcp(tls_version="")))["kind"] == "tcp"


def test_json_keeps_utf8_and_shows_other_bytes() -> None:
    line = json.loads(http_json(Http(user_agent="Zoë".encode(), request_target=b"/\xff")))
    assert line["user_agent"] == "Zoë"
    assert line["request_target"] == "/\\xff"


@pytest.mark.parametrize("field", ["method", "authority", "request_target", "version", "user_agent", "trace_id"])
@pytest.mark.parametrize("value", [b"a\nb", b'"', b"\\", b"\\n", b"\\u000a", b"", b"\x00", b"\n", b"\xe2\x80\xa8"])
def test_json_gives_back_odd_values(field: str, value: bytes) -> None:
    record = Http()
    setattr(record, field, value)
    line = json.loads(http_json(record))
    name = {"authority": "host"}.get(field, field)
    assert line[name] == value.decode()
    assert line["referer"] == "https://other.example/"


def test_combined() -> None:
    assert http_combined(Http(user_agent=b'x"\n')) == (
        '192.0.2.7 - - [14/Nov/2023:22:13:20 +0000] "GET /a?b=c HTTP/1.1" 200 456 '
        '"https://other.example/" "x\\x22\\x0A"\n'
    )
    assert tcp_combined(Tcp()) == (
        '2001:db8::1 - - [14/Nov/2023:22:13:20 +0000] "TLS [2001:db8::2]:5432" 000 20 "-" "-"\n'
    )


def test_alb() -> None:
    """AWS, "Access logs for your Application Load Balancer", order of the fields."""
    assert http_alb(Http()) == (
        "https 2023-11-14T22:13:21.000000Z web 192.0.2.7:51234 10.0.0.1:8080 0.001 0.500 0.001 200 200 123 456 "
        '"GET https://example.com:443/a?b=c HTTP/1.1" "curl/8.0" TLS_AES_128_GCM_SHA256 TLSv1.3 app '
        '"Root=1-65540000-000000000000000000000001" "example.com" "-" 10 2023-11-14T22:13:20.250000Z "forward" '
        '"-" "-" "10.0.0.1:8080" "200" "-" "-" - "-" "-" "-"\n'
    )


def test_alb_of_a_bad_request() -> None:
    record = Http(
        kind="http",
        scheme="http",
        method=b"",
        authority=b"",
        request_target=b"",
        version=b"",
        user_agent=b"",
        target_group="",
        target="",
        request_time=-1,
        target_time=-1,
        response_time=-1,
        status=400,
        target_status=0,
        tls_cipher="",
        tls_version="",
        server_name="",
        trace_id=b"",
        rule="",
        priority=-1,
        action="",
        error_reason="BadRequest",
        targets_tried=(),
    )
    assert http_alb(record) == (
        "http 2023-11-14T22:13:21.000000Z web 192.0.2.7:51234 - -1.000 -1.000 -1.000 400 - 123 456 "
        '"- http://-/ -" "-" - - - "-" "-" "-" -1 2023-11-14T22:13:20.250000Z "-" "-" "BadRequest" "-" "-" "-" "-" '
        '- "-" "-" "-"\n'
    )


@pytest.mark.parametrize(
    ("authority", "target", "url"),
    [
        (b"example.com:8443", b"/", "https://example.com:8443/"),
        (b"[::1]", b"/", "https://[::1]:443/"),
        (b"[::1]:8443", b"/", "https://[::1]:8443/"),
        (b"example.com", b"http://other.example/x", "http://other.example/x"),
        (b"example.com", b"*", "*"),
    ],
)
def test_alb_request_url(authority: bytes, target: bytes, url: str) -> None:
    assert fields_of(http_alb(Http(authority=authority, request_target=target)))[12] == f'"GET {url} HTTP/1.1"'


def test_alb_attempts() -> None:
    fields = fields_of(http_alb(Http(targets_tried=[("a:1", 0), ("b:1", 502)])))
    assert fields[25:27] == ['"a:1 b:1"', '"- 502"']


def test_nlb() -> None:
    """AWS, "Access logs for your Network Load Balancer", with the target group and the reason appended."""
    assert tcp_alb(Tcp(error_reason="ClientClosed")) == (
        "tls 2.0 2023-11-14T22:13:21 - postgres [2001:db8::1]:5000 [2001:db8::2]:5432 1500 - 10 20 - - - "
        'ECDHE-RSA-AES128-GCM-SHA256 tlsv12 - db.example - - - 2023-11-14T22:13:20 db "ClientClosed"\n'
    )


_bytes = st.binary(max_size=40)
_client_values = st.fixed_dictionaries(
    {
        "method": _bytes,
        "authority": _bytes,
        "request_target": _bytes,
        "version": _bytes,
        "user_agent": _bytes,
        "referer": _bytes,
        "trace_id": _bytes,
        "server_name": st.text(max_size=20),
        "redirect_url": st.text(max_size=20),
    }
)


@given(_client_values)
def test_no_client_forges_fields_or_lines(values: dict[str, bytes | str]) -> None:
    record = Http(**values)  # type: ignore[arg-type]
    for name, form in FORMATS.items():
        line = form.http(record)
        assert line.isascii(), name
        assert line.count("\n") == 1, name
        assert line[:-1].isprintable(), name
    parsed = json.loads(http_json(record))
    assert parsed["user_agent"] == record.user_agent.decode("utf-8", "backslashreplace")
    assert parsed["server_name"] == record.server_name
    assert http_combined(record).count('"') == 6
    fields = fields_of(http_alb(record))
    assert len(fields) == 33
    assert fields[25] == '"10.0.0.1:8080"'


@given(st.text(max_size=20), st.text(max_size=20))
def test_no_server_name_forges_tcp_fields(server_name: str, reason: str) -> None:
    record = Tcp(server_name=server_name, error_reason=reason)
    for name, form in FORMATS.items():
        line = form.tcp(record)
        assert line.isascii(), name
        assert line[:-1].isprintable(), name
    assert json.loads(tcp_json(record))["server_name"] == server_name
    assert len(fields_of(tcp_alb(record))) == 24
