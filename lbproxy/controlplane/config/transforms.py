"""Changes of fields, URL and host, and error pages, as they are written."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

import re2

from lbproxy.controlplane.config.actions import FixedResponseFile, fixed_response
from lbproxy.controlplane.config.values import Form
from lbproxy.model.rule import FixedResponse
from lbproxy.model.transform import PLACEHOLDERS, ChangeKind, ErrorPage, FieldChange, Rewrite, Transform

if TYPE_CHECKING:
    from lbproxy.controlplane.config.sections import ReadSection

RESPONSE_ATTRIBUTES = (
    "Strict-Transport-Security",
    "Content-Security-Policy",
    "X-Content-Type-Options",
    "X-Frame-Options",
    "Access-Control-Allow-Origin",
    "Access-Control-Allow-Methods",
    "Access-Control-Allow-Headers",
    "Access-Control-Allow-Credentials",
    "Access-Control-Expose-Headers",
    "Access-Control-Max-Age",
)
"""Fields that have an option of a listener of their own (ALB ``routing.http.response.*.header_value``)."""

_LONGEST = 1024  # ELBv2, RewriteConfig
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}$")
_VALUE = re.compile(r"[\x21-\x7e](?:[\t\x20-\x7e]*[\x21-\x7e])?$")
_PLACEHOLDER = re.compile(r"#\{([^{}]*)\}")
_GROUP = re.compile(r"\$([0-9$]?)")
_REPLACEMENT = re.compile(r"[\x21\x22\x24-\x7e]*$")
_STATUSES = re.compile(r"([45])(?:xx|[0-9]{2})$")
_OURS = frozenset(["x-forwarded-for", "x-forwarded-proto", "x-forwarded-port", "x-amzn-trace-id"])
_FRAMING = frozenset(
    [
        "connection",
        "content-length",
        "http2-settings",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ]
)


def field_value(text: str) -> str:
    """A field's new value, with or without double quotes around it."""
    value = text[1:-1] if len(text) > 1 and text[0] == text[-1] == '"' else text
    if not _VALUE.match(value):
        raise ValueError("a field's value is visible ASCII, with spaces in between")
    for name in _PLACEHOLDER.findall(value):
        if name not in PLACEHOLDERS:
            raise ValueError(f"no such placeholder as #{{{name}}}; there are {', '.join(PLACEHOLDERS)}")
    return value


FIELD_VALUE = Form("value of a field", field_value)


def changed_field(name: str, *, request: bool) -> str:
    """The name of a field that may be changed."""
    lower = name.lower()
    if not _NAME.match(name):
        raise ValueError(f"{name!r} is not a header name")
    if lower in _FRAMING:
        raise ValueError(f"{name} belongs to the connection and the framing; it cannot be changed")
    if request and lower == "host":
        raise ValueError("a rule changes Host with host-rewrite")
    if request and lower in (*_OURS, "expect"):
        raise ValueError(f"{name} is written by lbproxy" if lower in _OURS else f"{name} cannot be changed")
    return name


def changed_fields(*, request: bool) -> Form[str]:
    """The form of one name of a list."""
    return Form("", lambda text: changed_field(text, request=request))


def rewrite(text: str) -> Rewrite:
    """``REGEX REPLACEMENT``."""
    words = text.split()
    if len(words) != 2:
        raise ValueError(r"write a regular expression and what takes its place, for example ^/api/(.*)$ /$1")
    pattern, replacement = words
    if max(len(pattern), len(replacement)) > _LONGEST:
        raise ValueError(f"longer than {_LONGEST} characters")
    options = re2.Options()
    options.log_errors = False
    try:
        groups = re2.compile(pattern, options).groups
    except re2.error as error:
        raise ValueError(f"{pattern} is not a regular expression of RE2 ({error})") from None
    if not _REPLACEMENT.match(replacement):
        raise ValueError("what takes its place is visible ASCII without #")
    for group in _GROUP.findall(replacement):
        if not group or (group != "$" and int(group) > groups):
            raise ValueError(f"${group} is not understood: there are $0 to ${groups}, and $$ for a dollar")
    return Rewrite(pattern, replacement)


def error_page(text: str) -> FixedResponse | FixedResponseFile:
    """``TYPE "BODY"`` or ``TYPE file:PATH``."""
    return fixed_response(f"500 {text}")


def error_statuses(text: str) -> tuple[int, int]:
    """First and last status of ``503`` or ``5xx``."""
    found = _STATUSES.match(text)
    if found is None:
        raise ValueError(f"{text} is no status of an error; write for example error-page.503 or error-page.5xx")
    return (int(text), int(text)) if text.isdecimal() else (int(found[1]) * 100, int(found[1]) * 100 + 99)


def transform_of(section: ReadSection) -> Transform:
    """What a listener's or rule's section changes."""
    return Transform(
        request=tuple(_changes(section, "request")),
        response=(*_attributes(section), *_changes(section, "response")),
        url=section.values.get("url-rewrite"),
        host=section.values.get("host-rewrite"),
    )


def _changes(section: ReadSection, message: str) -> Iterator[FieldChange]:
    for name in section.values.get(f"remove-{message}-headers", ()):
        yield FieldChange(ChangeKind.REMOVE, name)
    for kind in (ChangeKind.SET, ChangeKind.ADD):
        prefix = f"{kind.value}-{message}-header."
        for option, value in section.starting_with(prefix):
            yield FieldChange(kind, option[len(prefix) :], value)


def _attributes(section: ReadSection) -> Iterator[FieldChange]:
    if section.values.get("server-header") is False:
        yield FieldChange(ChangeKind.REMOVE, "Server")
    for name in RESPONSE_ATTRIBUTES:
        value = section.values.get(name.lower())
        if value is not None:
            yield FieldChange(ChangeKind.SET, name, str(value))


def error_pages_of(section: ReadSection, bodies: dict[FixedResponseFile, str]) -> tuple[ErrorPage, ...]:
    """A listener's pages, those for one status before those for many."""
    pages = []
    for option, page in section.starting_with("error-page."):
        first, last = error_statuses(option.partition(".")[2])
        body = bodies[page] if isinstance(page, FixedResponseFile) else page.body
        pages.append(ErrorPage(first_status=first, last_status=last, content_type=page.content_type, body=body))
    return tuple(sorted(pages, key=lambda page: page.last_status - page.first_status))
