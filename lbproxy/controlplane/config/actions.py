"""What a rule or a listener does with a request, as it is written.

::

    forward app
    forward app weight=90, canary weight=10
    forward stickiness=1h app weight=90, canary weight=10
    redirect https://#{host}:8443/#{path}?#{query} 301
    fixed-response 503 text/html "<h1>Back soon</h1>"
    fixed-response 503 text/html file:maintenance.html
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import attrs

from lbproxy.controlplane.config.values import Form, duration_from, integer_from, items
from lbproxy.model.rule import Action, FixedResponse, Forward, Redirect, WeightedGroup

MAX_BODY_BYTES = 64 * 1024
"""A fixed response travels in every snapshot and is kept in memory by every worker."""

WEIGHT = integer_from(0, 999)
STICKINESS = duration_from("1s", "7d")
REDIRECT_STATUSES = (301, 302, 303, 307, 308)
_NO_CONTENT = (204, 205)

_PLACEHOLDER = re.compile(r"#\{([^{}]*)\}")
_PLACEHOLDERS = ("protocol", "host", "port", "path", "query")
_URL = re.compile(
    r"(?P<protocol>https?|\#\{protocol\})://"
    r"(?P<host>\[[0-9A-Fa-f:.]+\]|(?:\#\{host\}|[A-Za-z0-9._-])+)"
    r"(?::(?P<port>\#\{port\}|\d+))?"
    r"(?P<rest>[/?].*)?$",
    re.IGNORECASE | re.VERBOSE,
)
_VISIBLE = re.compile(r"[\x21-\x7e]+$")
_CONTENT_TYPE = re.compile(r"[A-Za-z0-9!#$&^_.+-]+/[A-Za-z0-9!#$&^_.+-]+(\s*;\s*[A-Za-z0-9_-]+=[A-Za-z0-9_.-]+)*$")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"$', re.DOTALL)
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_ESCAPES = {"n": "\n", "t": "\t", '"': '"', "\\": "\\"}


@attrs.frozen(kw_only=True)
class FixedResponseFile:
    """A fixed response whose body is still to be read from a file."""

    status: int
    content_type: str
    path: str


def parse(text: str) -> Action | FixedResponseFile:
    """Read an action; raises ValueError with what would be right."""
    verb, *rest = text.split(None, 1)
    argument = rest[0] if rest else ""
    if verb == "forward":
        return _forward(argument)
    if verb == "redirect":
        return _redirect(argument)
    if verb == "fixed-response":
        return fixed_response(argument)
    raise ValueError(
        f"no such action as {verb}; write forward GROUP, redirect URL STATUS or fixed-response STATUS TYPE BODY"
    )


ACTION: Form[Action | FixedResponseFile] = Form("action", parse)


def named_values(text: str, forms: Mapping[str, Form[Any]]) -> tuple[str, dict[str, Any]]:
    """``NAME`` or ``NAME weight=10 zone=a``, with those of these forms that are given."""
    name, *rest = text.split()
    values: dict[str, Any] = {}
    for word in rest:
        key, equals, value = word.partition("=")
        form = forms.get(key)
        if form is None or not equals:
            raise ValueError(f"{word!r} is not understood; write {name} {' '.join(_EXAMPLES[key] for key in forms)}")
        try:
            values[key] = form.parse(value)
        except ValueError as error:
            raise ValueError(f"{key} {value}: {error}") from None
    return name, values


_EXAMPLES = {"weight": "weight=10", "zone": "zone=a", "priority": "priority=1"}


def _weighted_group(text: str) -> WeightedGroup:
    name, values = named_values(text, {"weight": WEIGHT})
    return WeightedGroup(name, values.get("weight", 1))


def _forward(argument: str) -> Forward:
    seconds = 0.0
    first, *rest = argument.split(None, 1) or [""]
    if first.startswith("stickiness="):
        text = first.removeprefix("stickiness=")
        try:
            seconds = STICKINESS.parse(text)
        except ValueError as error:
            raise ValueError(f"stickiness {text}: {error}") from None
        argument = rest[0] if rest else ""
    groups = tuple(_weighted_group(item) for item in items(argument))
    if not groups:
        raise ValueError("forward needs a target group; write forward NAME")
    names = [group.group for group in groups]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"target group {twice} is named twice; add the weights up")
    if not any(group.weight for group in groups):
        raise ValueError("all weights are zero; give at least one target group a weight from 1 to 999")
    return Forward(groups, seconds)


def _redirect(argument: str) -> Redirect:
    url, *rest = argument.split() or [""]
    status = rest[0] if rest else "302"
    if len(rest) > 1 or not url:
        raise ValueError("write redirect URL STATUS, for example redirect https://#{host}:443/#{path}?#{query} 301")
    if not status.isdecimal() or int(status) not in REDIRECT_STATUSES:
        raise ValueError(f"status {status} is no redirect; write 301, 302, 303, 307 or 308")
    for name in _PLACEHOLDER.findall(url):
        if name not in _PLACEHOLDERS:
            raise ValueError(f"no such placeholder as #{{{name}}}; there are {_words(_PLACEHOLDERS)}")
    if not _VISIBLE.match(url):
        raise ValueError("a URL has only visible ASCII; percent-encode other characters")
    if url.startswith("/") and not url.startswith("//"):
        path, query = _path_and_query(url)
        return Redirect(status=int(status), path=path, query=query)
    match = _URL.match(url)
    if match is None:
        raise ValueError("not a URL; it starts with http://, https://, #{protocol}:// or /, then #{host} or a host")
    protocol = match["protocol"].lower()
    path, query = _path_and_query(match["rest"] or "/")
    return Redirect(
        status=int(status),
        protocol=protocol,
        host=match["host"],
        port=_port(match["port"], protocol),
        path=path,
        query=query,
    )


def _port(written: str | None, protocol: str) -> str:
    """The port of a URL; without one it is the protocol's own, or the request's where the protocol is the request's."""
    if written is None:
        return {"http": "80", "https": "443"}.get(protocol, "#{port}")
    if written.isdecimal() and not 1 <= int(written) <= 65535:
        raise ValueError(f"port {written} is out of range; 1 to 65535 is allowed")
    return written


def _path_and_query(text: str) -> tuple[str, str]:
    path, _, query = text.partition("?")
    return path or "/", query


def fixed_response(argument: str) -> FixedResponse | FixedResponseFile:
    """``STATUS TYPE "BODY"`` or ``STATUS TYPE file:PATH``."""
    status_text, *rest = argument.split(None, 1) or [""]
    if not (status_text.isdecimal() and len(status_text) == 3 and status_text[0] in "245"):
        raise ValueError(f"status {status_text or 'missing'}; write one from 200-299, 400-499 or 500-599")
    status = int(status_text)
    content_type, body = _type_and_body(rest[0] if rest else "")
    if content_type is not None and not _CONTENT_TYPE.match(content_type):
        raise ValueError(f'{content_type!r} is no content type; write for example text/plain, then "the body"')
    content_type = content_type or "text/plain"
    if body and status in _NO_CONTENT:
        raise ValueError(f"a {status} answer has no body")
    if body.startswith("file:"):
        path = body[len("file:") :].strip()
        if not path:
            raise ValueError("file: needs a path")
        return FixedResponseFile(status=status, content_type=content_type, path=path)
    text = _unquote(body) if body else ""
    if len(text.encode()) > MAX_BODY_BYTES:
        raise ValueError(f"the body is longer than {MAX_BODY_BYTES // 1024} KiB")
    return FixedResponse(status=status, content_type=content_type, body=text)


def _type_and_body(text: str) -> tuple[str | None, str]:
    """Split what follows the status; either part may be missing."""
    start = min((at for at in (text.find('"'), text.find("file:")) if at >= 0), default=len(text))
    return text[:start].strip() or None, text[start:].strip()


def _unquote(text: str) -> str:
    match = _QUOTED.match(text)
    if match is None:
        raise ValueError('the body ends with a double quote; write \\" for a quote inside it')
    return _ESCAPE.sub(_escaped, match[1])


def _escaped(found: re.Match[str]) -> str:
    if found[1] not in _ESCAPES:
        raise ValueError(f'\\{found[1]} is not understood; there are \\", \\\\, \\n and \\t')
    return _ESCAPES[found[1]]


def _words(names: tuple[str, ...]) -> str:
    return " ".join(f"#{{{name}}}" for name in names)
