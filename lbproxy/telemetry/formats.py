r"""One line of the access log for each request or TCP connection, in three formats.

A formatter is a function from a record to a line of ASCII text that ends with a line
feed.  What a client sent is escaped, so that it can forge neither a field nor a line:
``json`` as JSON does, ``combined`` and ``alb`` with ``\xNN`` for the double quote, the
backslash and every byte that is not printable ASCII.

The ``json`` fields of an HTTP line, in order::

    time kind listener client_address client_port method scheme host request_target version status
    received_bytes sent_bytes duration request_time target_time response_time target_group target
    target_status targets_tried retry_reason rule priority action redirect_url error_reason user_agent
    referer tls_version tls_cipher server_name trace_id

and of a TCP or TLS line::

    time kind listener client_address client_port target_group target duration connect_time
    received_bytes sent_bytes tls_version tls_cipher server_name error_reason

``time`` is when the first byte came (UTC, ISO 8601 with milliseconds), durations are seconds,
-1 where a phase was not reached.  An absent text is ``""``, an absent target status 0.  Every
field is always there.  Bytes that are not UTF-8 appear as ``\xNN``.

``alb`` is AWS's order of fields (Application Load Balancers, "Access log entries"; for TCP
Network Load Balancers, "Access log entries", with the target group and the error reason appended).
The listener's name stands for the load balancer and the target group's for its ARN.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import lru_cache
from json.encoder import encode_basestring_ascii as _json_string
from typing import TYPE_CHECKING

import attrs

from lbproxy.native.choice import available
from lbproxy.telemetry.records import HttpRecord, TcpRecord


@attrs.frozen
class Format:
    """The formatters that go by one name."""

    http: Callable[[HttpRecord], str]
    tcp: Callable[[TcpRecord], str]


# Time


@lru_cache(maxsize=16)
def _second(whole: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole))


_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


@lru_cache(maxsize=16)
def _second_combined(whole: int) -> str:
    t = time.gmtime(whole)
    month = _MONTHS[t.tm_mon - 1]  # strftime's would depend on the locale
    return f"{t.tm_mday:02}/{month}/{t.tm_year}:{t.tm_hour:02}:{t.tm_min:02}:{t.tm_sec:02} +0000"


@lru_cache(maxsize=64)
def _milliseconds(milliseconds: int) -> str:
    return f"{_second(milliseconds // 1000)}.{milliseconds % 1000:03}Z"


def _microseconds(unix_time: float) -> str:
    microseconds = int(unix_time * 1000000)
    return f"{_second(microseconds // 1000000)}.{microseconds % 1000000:06}Z"


_PLAIN = bytes(byte for byte in range(0x20, 0x7F) if byte not in b'"\\')
"""What needs no escape in any format."""
_PLAIN_OR_LINE_FEED = _PLAIN + b"\n"

# JSON


def _json_texts(fields: tuple[bytes, ...]) -> list[str]:
    """Escape the client's fields, for places between double quotes.

    Nearly always nothing needs an escape; one look at all of them together costs less than a call for each.
    """
    joined = b"\n".join(fields)
    if not joined.translate(None, _PLAIN_OR_LINE_FEED):  # nothing is left when the plain bytes are deleted
        parts = joined.decode("ascii").split("\n")
        if len(parts) == len(fields):
            return parts
    return [_json_string(field.decode("utf-8", "backslashreplace"))[1:-1] for field in fields]


# What follows depends on configuration and few other values, so most calls are answered from the cache.


@lru_cache(maxsize=1024)
def _json_listener(kind: str, listener: str) -> str:
    return f'"kind":"{kind}","listener":{_json_string(listener)}'


@lru_cache(maxsize=4096)
def _json_target(group: str, target: str) -> str:
    return f'"target_group":{_json_string(group)},"target":{_json_string(target)}'


@lru_cache(maxsize=4096)
def _json_tried(target: str, status: int) -> str:
    return f'{{"target":{_json_string(target)},"status":{status}}}'


@lru_cache(maxsize=4096)
def _json_rule(rule: str, priority: int, action: str) -> str:
    return f'"rule":{_json_string(rule)},"priority":{priority},"action":"{action}"'


def http_json(record: HttpRecord) -> str:
    """Format a request as one JSON object."""
    method, host, request_target, version, user_agent, referer, trace_id = _json_texts(
        (
            record.method,
            record.authority,
            record.request_target,
            record.version,
            record.user_agent,
            record.referer,
            record.trace_id,
        )
    )
    tried = record.targets_tried
    if len(tried) == 1:
        tried_json = _json_tried(*tried[0])
    else:
        tried_json = ",".join([_json_tried(target, status) for target, status in tried])
    redirect_url = _json_string(record.redirect_url) if record.redirect_url else '""'
    error_reason = _json_string(record.error_reason) if record.error_reason else '""'
    server_name = _json_string(record.server_name) if record.server_name else '""'
    rare = ""
    if record.rate_limit:
        rare = f',"rate_limit":{_json_string(record.rate_limit)}'
    if record.classification:
        rare += f',"classification":"{record.classification}","classification_reason":"{record.classification_reason}"'
    if record.transformed_uri or record.transformed_host:
        uri, new_host = _json_texts((record.transformed_uri, record.transformed_host))
        rare += f',"transformed_uri":"{uri}","transformed_host":"{new_host}"'
    return (
        f'{{"time":"{_milliseconds(int(record.started * 1000))}",{_json_listener(record.kind, record.listener)},'
        f'"client_address":"{record.client_host}","client_port":{record.client_port},"method":"{method}",'
        f'"scheme":"{record.scheme}","host":"{host}","request_target":"{request_target}","version":"{version}",'
        f'"status":{record.status},"received_bytes":{record.received_bytes},"sent_bytes":{record.sent_bytes},'
        f'"duration":{record.duration:.6f},"request_time":{record.request_time:.6f},'
        f'"target_time":{record.target_time:.6f},"response_time":{record.response_time:.6f},'
        f'{_json_target(record.target_group, record.target)},"target_status":{record.target_status},'
        f'"targets_tried":[{tried_json}],"retry_reason":"{record.retry_reason}",'
        f"{_json_rule(record.rule, record.priority, record.action)},"
        f'"redirect_url":{redirect_url},"error_reason":{error_reason},"user_agent":"{user_agent}",'
        f'"referer":"{referer}","tls_version":"{record.tls_version}","tls_cipher":"{record.tls_cipher}",'
        f'"server_name":{server_name},"trace_id":"{trace_id}"{rare}}}\n'
    )


def tcp_json(record: TcpRecord) -> str:
    """Format a TCP or TLS connection as one JSON object."""
    kind = "tls" if record.tls_version else "tcp"
    return (
        f'{{"time":"{_milliseconds(int(record.started * 1000))}",{_json_listener(kind, record.listener)},'
        f'"client_address":"{record.client_address}","client_port":{record.client_port},'
        f"{_json_target(record.target_group, record.target)},"
        f'"duration":{record.duration:.6f},"connect_time":{record.connect_time:.6f},'
        f'"received_bytes":{record.received_bytes},"sent_bytes":{record.sent_bytes},'
        f'"tls_version":"{record.tls_version}","tls_cipher":"{record.tls_cipher}",'
        f'"server_name":{_json_string(record.server_name)},"error_reason":{_json_string(record.error_reason)}}}\n'
    )


# Text

_ESCAPES = {byte: f"\\x{byte:02X}" for byte in range(256) if byte not in _PLAIN}
_WORD_ESCAPES = {**_ESCAPES, 0x20: "\\x20"}


def _escape(data: bytes) -> str:
    """For a place between double quotes."""
    text = data.decode("latin-1")
    if data.translate(None, _PLAIN):  # something is left when the plain bytes are deleted
        return text.translate(_ESCAPES)
    return text


def _quoted(data: bytes) -> str:
    """For a place between double quotes; ``-`` if empty."""
    return _escape(data) or "-"


def _quoted_text(text: str) -> str:
    return _escape(text.encode("utf-8", "backslashreplace")) if text else "-"


def _word(text: str) -> str:
    """For a place of its own between spaces; ``-`` if empty."""
    if not text:
        return "-"
    return text.encode("utf-8", "backslashreplace").decode("latin-1").translate(_WORD_ESCAPES)


_name = lru_cache(maxsize=4096)(_word)
"""`_word` for names from the configuration: few, and ever the same."""


def _endpoint(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def http_combined(record: HttpRecord) -> str:
    """Format a request as the combined log format of Apache and nginx (sizes count the head, too).

    One that is not compliant has a last field more, ``"Ambiguous:DuplicateContentLength"``.
    """
    desync = f' "{record.classification}:{record.classification_reason}"' if record.classification else ""
    return (
        f"{record.client_host} - - [{_second_combined(int(record.started))}] "
        f'"{_quoted(record.method)} {_quoted(record.request_target)} {_quoted(record.version)}" '
        f'{record.status} {record.sent_bytes} "{_quoted(record.referer)}" "{_quoted(record.user_agent)}"{desync}\n'
    )


def tcp_combined(record: TcpRecord) -> str:
    """Format a TCP connection in the shape of the combined format: ``"TCP target"``, status 000."""
    kind = "TLS" if record.tls_version else "TCP"
    return (
        f"{record.client_address} - - [{_second_combined(int(record.started))}] "
        f'"{kind} {_name(record.target)}" 000 {record.sent_bytes} "-" "-"\n'
    )


def http_alb(record: HttpRecord) -> str:
    """Format a request as an Application Load Balancer does.

    ``time`` is when the answer was complete, ``request_creation_time`` when the first byte came.
    """
    url = _escape(record.request_target)
    if url.startswith("/") or not url:  # origin form; the other forms are whole already
        url = f"{record.scheme}://{_with_port(_escape(record.authority), record.scheme)}{url or '/'}"
    transformed = "TransformSuccess" if record.transformed_host or record.transformed_uri else "-"
    tried = record.targets_tried
    return (
        f"{record.kind} {_microseconds(record.started + record.duration)} {_name(record.listener)} "
        f"{_endpoint(record.client_host, record.client_port)} {_name(record.target)} "
        f"{record.request_time:.3f} {record.target_time:.3f} {record.response_time:.3f} "
        f"{record.status} {record.target_status or '-'} {record.received_bytes} {record.sent_bytes} "
        f'"{_quoted(record.method)} {url} {_quoted(record.version)}" "{_quoted(record.user_agent)}" '
        f"{record.tls_cipher or '-'} {record.tls_version or '-'} {_name(record.target_group)} "
        f'"{_quoted(record.trace_id)}" "{_quoted_text(record.server_name)}" "-" '
        f'{record.priority} {_microseconds(record.started)} "{record.action or "-"}" '
        f'"{_quoted_text(record.redirect_url)}" "{_quoted_text(record.error_reason)}" '
        f'"{" ".join([_name(key) for key, _ in tried]) or "-"}" '
        f'"{" ".join([str(status) if status else "-" for _, status in tried]) or "-"}" '
        f'"{record.classification or "-"}" "{record.classification_reason or "-"}" - '
        f'"{_quoted(record.transformed_host)}" "{_quoted(record.transformed_uri)}" "{transformed}"\n'
    )


def _with_port(authority: str, scheme: str) -> str:
    """AWS always writes the port; a Host field leaves the usual one out."""
    if not authority or ":" in authority.rpartition("]")[2]:
        return authority or "-"
    return authority + (":443" if scheme == "https" else ":80")


def tcp_alb(record: TcpRecord) -> str:
    """Format a connection as a Network Load Balancer does (its times are whole seconds and milliseconds)."""
    kind = "tls" if record.tls_version else "tcp"
    tls_version = record.tls_version.lower().replace(".", "") or "-"
    return (
        f"{kind} 2.0 {_second(int(record.started + record.duration))} - {_name(record.listener)} "
        f"{_endpoint(record.client_address, record.client_port)} {_name(record.target)} "
        f"{int(record.duration * 1000)} - {record.received_bytes} {record.sent_bytes} - - - "
        f"{record.tls_cipher or '-'} {tls_version} - {_word(record.server_name)} - - - "
        f'{_second(int(record.started))} {_name(record.target_group)} "{_quoted_text(record.error_reason)}"\n'
    )


pure_http_json, pure_tcp_json = http_json, tcp_json
"""The formatters of this module, whichever are in use."""

if not TYPE_CHECKING and available:
    from lbproxy.telemetry._jsonline import fall_back_to, http_json, tcp_json

    fall_back_to(pure_http_json, pure_tcp_json)

FORMATS = {
    "json": Format(http_json, tcp_json),
    "combined": Format(http_combined, tcp_combined),
    "alb": Format(http_alb, tcp_alb),
}
"""By the value of ``access-log-format``."""
