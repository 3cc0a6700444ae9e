"""Parsers for the values of options.

A `Form` is a parser with the words that describe what it takes; the words stand in the manual
and, as "what would be right", in errors.  A parser takes text that is not empty and raises ValueError.
"""

from __future__ import annotations

import difflib
import ipaddress
import re
from collections.abc import Callable, Iterable
from enum import Enum
from typing import Any, Generic, TypeVar

import attrs
import re2  # linear time, so a pattern that an operator wrote cannot stall a worker

from lbproxy.model.listener import Bind
from lbproxy.model.rule import Pattern
from lbproxy.model.security_group import ANY_PORT, IngressRule

T = TypeVar("T")

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)?$", re.ASCII)
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SIZE = re.compile(r"(\d+)\s*([kmg]?)b?$", re.ASCII | re.IGNORECASE)
_BYTES = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
_RATE = re.compile(r"(\d{1,9})\s*/\s*(s|m|h)$", re.ASCII)
_NUMBER = re.compile(r"\d{1,18}$", re.ASCII)
_RANGE = re.compile(r"(\d{1,9})\s*(?:-\s*(\d{1,9}))?$", re.ASCII)
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+$")  # RFC 9110 section 5.6.2
_METHOD = re.compile(r"[A-Z][A-Z_-]{0,39}$")
_LABEL = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)$")
_VISIBLE = re.compile(r"[\x21-\x7e]+$")
_LONGEST_PATTERN = 1024
_TRUE = frozenset(("true", "on", "yes"))
_FALSE = frozenset(("false", "off", "no"))


@attrs.frozen
class Form(Generic[T]):
    """A parser and how to say what it takes."""

    text: str
    """For example ``duration, 100ms to 5m``."""
    parse: Callable[[str], T]


# Scalars


def duration(text: str) -> float:
    """Seconds of ``500ms``, ``1.5s``, ``2m``, ``1h`` or ``1d``; a bare number is seconds."""
    match = _DURATION.match(text)
    if match is None:
        raise ValueError("not a duration; write for example 60s or 1m")
    return float(match[1]) * _SECONDS[match[2] or "s"]


def size(text: str) -> int:
    """Bytes of ``512``, ``64k``, ``10m`` or ``1g`` (powers of 1024)."""
    match = _SIZE.match(text)
    if match is None:
        raise ValueError("not a size; write for example 64k or 10m")
    return int(match[1]) * _BYTES[match[2].lower()]


def boolean(text: str) -> bool:
    word = text.lower()
    if word not in _TRUE and word not in _FALSE:
        raise ValueError("neither true nor false; write on or off")
    return word in _TRUE


BOOLEAN = Form("on or off", boolean)


def integer(text: str) -> int:
    if not _NUMBER.match(text):
        raise ValueError("not a whole number")
    return int(text)


def as_written(words: str) -> Form[str]:
    """The text as it is."""
    return Form(words, lambda text: text)


def one_of(*words: str) -> Form[str]:
    """One of these words, in their letter case."""

    def parse(text: str) -> str:
        if text in words:
            return text
        raise ValueError(f"write {either(words)}")

    return Form(either(words), parse)


def value_of(members: Iterable[Enum]) -> Form[str]:
    """The value of a member of an enumeration."""
    return one_of(*(member.value for member in members))


def duration_from(low: str, high: str) -> Form[float]:
    """A duration in these bounds, both included."""
    return Form(f"duration, {low} to {high}", _bounded(duration, duration(low), duration(high), f"{low} to {high}"))


def integer_from(low: int, high: int) -> Form[int]:
    return Form(f"number, {low} to {high}", _bounded(integer, low, high, f"{low} to {high}"))


def size_from(low: str, high: str, what: str = "size") -> Form[int]:
    """A number of bytes in these bounds, both included."""
    return Form(f"{what}, {low} to {high}", _bounded(size, size(low), size(high), f"{low} to {high}"))


def _bounded(parse: Callable[[str], Any], low: float, high: float, words: str) -> Callable[[str], Any]:
    def bounded(text: str) -> Any:
        value = parse(text)
        if not low <= value <= high:
            raise ValueError(f"out of range; {words} is allowed")
        return value

    return bounded


PERCENTAGE = integer_from(1, 100)


def either(words: Iterable[str]) -> str:
    """``a, b or c``."""
    *first, last = words
    return f"{', '.join(first)} or {last}" if first else last


def suggest(word: str, words: Iterable[str]) -> str:
    """``; did you mean X?`` or nothing."""
    close = difflib.get_close_matches(word.lower(), list(words), n=1, cutoff=0.6)
    return f"; did you mean {close[0]}?" if close else ""


# Lists


def items(text: str) -> list[str]:
    """Split at commas and new lines; empty items are dropped, so a list may end with a comma."""
    return [item for part in text.replace("\n", ",").split(",") if (item := part.strip())]


def list_of(form: Form[T], what: str) -> Form[tuple[T, ...]]:
    """A list of such items, each only once; every bad item is named."""
    return Form(what, lambda text: _each(items(text), form.parse))


def _each(texts: Iterable[str], parse: Callable[[str], T]) -> tuple[T, ...]:
    values: dict[T, None] = {}
    mistakes: list[str] = []
    for text in texts:
        try:
            value = parse(text)
        except ValueError as error:
            mistakes.append(f"{text!r}: {error}")
            continue
        if value in values:
            mistakes.append(f"{text!r}: is in the list twice")
        values[value] = None
    if mistakes:
        raise ValueError("; ".join(mistakes))
    if not values:
        raise ValueError("an empty list; give at least one item")
    return tuple(values)


def ranges(low: int, high: int) -> Form[tuple[tuple[int, int], ...]]:
    """Inclusive ranges: ``200-299, 301``."""

    def one(text: str) -> tuple[int, int]:
        match = _RANGE.match(text)
        if match is None:
            raise ValueError("not a number or range; write for example 200-299 or 301")
        first, last = int(match[1]), int(match[2] or match[1])
        if first > last:
            raise ValueError(f"the range is empty; write {last}-{first}")
        if first < low or last > high:
            raise ValueError(f"out of range; {low} to {high} is allowed")
        return first, last

    return list_of(Form("", one), f"numbers and ranges in {low} to {high}")


# Addresses


def split_address(text: str) -> tuple[str, int]:
    """``host:port`` or ``[v6]:port`` as host (without brackets) and port 0-65535; the host is not looked at further."""
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or not rest.startswith(":"):
            raise ValueError("not an address; write for example [::1]:8080")
        port_text = rest[1:]
    else:
        host, _, port_text = text.rpartition(":")
        if ":" in host:
            raise ValueError(f"an IPv6 address needs brackets; write [{text}]:8080 or [{host}]:{port_text}")
    if not host or not _NUMBER.match(port_text):
        raise ValueError("needs an address and a port; write for example 127.0.0.1:8080 or [::1]:8080")
    port = int(port_text)
    if port > 65535:
        raise ValueError(f"port {port} is out of range; 1 to 65535 is allowed")
    return host, port


def bind(text: str) -> Bind:
    """A local address with a port; port 0 lets the kernel pick one."""
    host, port = split_address(text)
    try:
        return Bind(str(ipaddress.ip_address(host)), port)
    except ValueError:
        pass
    raise ValueError(
        f"{host} is not an IP address to listen at; write for example 0.0.0.0:{port} (all of IPv4) or [::]:{port}"
    )


def is_address(host: str) -> bool:
    """Tell whether what `host_name` gave is an IP address."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def host_name(text: str) -> str:
    """An IP address or a DNS name, in lower case, without brackets.

    The resolver would take a name whose last label is a number for an odd IPv4 address (``10.1`` for ``10.0.0.1``).
    """
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        pass
    name = text.lower().removesuffix(".")
    labels = name.split(".")
    if len(name) > 253 or not all(_LABEL.match(label) for label in labels):
        raise ValueError(f"{text!r} is not a host name or IP address")
    if labels[-1].isdigit():
        raise ValueError(f"{text} is not an IP address")
    return name


def network(text: str) -> str:
    """A CIDR block in canonical form; a bare address is a block of one."""
    try:
        return str(ipaddress.ip_network(text))
    except ValueError:
        pass
    try:
        meant = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise ValueError("not a CIDR block; write for example 10.0.0.0/8 or 2001:db8::/32") from None
    raise ValueError(f"the address has bits beyond its prefix; write {meant}")


NETWORKS = list_of(Form("", network), "list of CIDR blocks")


def request_rate(text: str) -> tuple[int, float]:
    """``100/s``, ``600/m`` or ``5000/h``: requests, and the seconds for them."""
    match = _RATE.match(text)
    if match is None or not int(match[1]):
        raise ValueError("not a rate; write for example 100/s, 600/m or 5000/h")
    return int(match[1]), _SECONDS[match[2]]


def ingress_rule(text: str) -> IngressRule:
    """``tcp 443 10.0.0.0/8 group:admins``: protocol, port or ports, and one source or more."""
    protocol, *rest = text.split()
    if protocol not in ("tcp", "udp", "all"):
        raise ValueError("starts with no protocol; write for example tcp 443 10.0.0.0/8, or all in place of tcp")
    if len(rest) < 2:
        raise ValueError("needs a protocol, ports and a source; write for example tcp 443 10.0.0.0/8")
    ports, *sources = rest
    return IngressRule(
        protocol=protocol,
        ports=ANY_PORT if ports == "all" else _ports(ports),
        networks=tuple(network(source) for source in sources if not source.startswith("group:")),
        groups=tuple(source.removeprefix("group:") for source in sources if source.startswith("group:")),
    )


def _ports(text: str) -> tuple[int, int]:
    match = _RANGE.match(text)
    if match is None:
        raise ValueError(f"{text} is no port; write for example 443, 8000-8999 or all")
    first, last = int(match[1]), int(match[2] or match[1])
    if not first <= last <= 65535:
        raise ValueError(f"{text} is no range of ports; 0 to 65535 is allowed, the lower number first")
    return first, last


# HTTP


def method(text: str) -> str:
    if not _METHOD.match(text):
        raise ValueError("not a method; write for example GET, in capitals")
    return text


def field_name(text: str) -> str:
    """A header field's name in lower case (RFC 9110 section 5.1)."""
    if len(text) > 40 or not _TOKEN.match(text):
        raise ValueError(f"{text!r} is not a header name of at most 40 letters, digits and hyphens")
    return text.lower()


def request_path(text: str) -> str:
    """What a probe asks for: a path, perhaps with a query."""
    if not text.startswith("/") or not _VISIBLE.match(text):
        raise ValueError("not a path; it starts with / and has only visible ASCII, for example /healthz")
    return text


def host_field(text: str) -> str:
    """A Host field's value: a name or address, perhaps with a port."""
    if ":" in text:
        host, port = split_address(text)
        name = host_name(host)
        return f"[{name}]:{port}" if ":" in name else f"{name}:{port}"
    return host_name(text)


# Conditions


def host_pattern(text: str) -> Pattern:
    """A host in lower case, with wildcards, or ``regex:...``."""
    if regex := _regex(text):
        return regex
    if not text.isascii():
        raise ValueError("host names are compared in ASCII; write the name's xn-- form")
    if "/" in text or (":" in text and not text.startswith("[")):
        raise ValueError("only a host, without scheme, port and path; write for example www.example.com")
    return Pattern(_visible(text).lower())


def path_pattern(text: str) -> Pattern:
    if regex := _regex(text):
        return regex
    if text[0] not in "/*?":
        raise ValueError(f"a path starts with /; write /{text} or *{text}")
    return Pattern(_visible(text))


def value_pattern(text: str) -> Pattern:
    """A header's value."""
    return _regex(text) or _short(text)


def query_pattern(text: str) -> Pattern:
    """A query's key or value; no regular expressions, as in ELBv2."""
    if text.startswith("regex:"):
        raise ValueError("a query takes no regex:; write a pattern with * and ?")
    return _short(text)


def patterns(form: Form[Pattern], what: str) -> Form[tuple[Pattern, ...]]:
    """A list of patterns; a comma inside double quotes, or inside brackets of a ``regex:``, is part of the pattern."""
    return Form(what, lambda text: _each(_pattern_items(text), form.parse))


def _regex(text: str) -> Pattern | None:
    if not text.startswith("regex:"):
        return None
    expression = _short(text[len("regex:") :]).text
    if not expression:
        raise ValueError("regex: needs an expression after it")
    options = re2.Options()
    options.log_errors = False  # it would write to standard error
    try:
        re2.compile(expression, options)
    except re2.error as error:
        detail = error.args[0] if error.args else ""
        words = detail.decode("utf-8", "replace") if isinstance(detail, bytes) else str(detail)
        raise ValueError(f"not a regular expression of RE2 ({words}); it has no look-around and no back-references")
    return Pattern(expression, is_regex=True)


def _short(text: str) -> Pattern:
    if len(text) > _LONGEST_PATTERN:
        raise ValueError(f"longer than {_LONGEST_PATTERN} characters")
    return Pattern(text)


def _visible(text: str) -> str:
    if not _VISIBLE.match(text):
        raise ValueError(
            "only visible ASCII can match; write other characters as they are on the wire, for example %20"
        )
    return _short(text).text


def _pattern_items(text: str) -> list[str]:
    if '"' not in text and "regex:" not in text:
        return items(text)
    found: list[str] = []
    position = 0
    while position < len(text):
        if text[position] in ", \t\n":
            position += 1
            continue
        if text[position] == '"' and (end := _quoted_end(text, position)):
            found.append(text[position + 1 : end - 1].replace('\\"', '"'))
        elif text.startswith("regex:", position):
            end = _regex_end(text, position)
            found.append(text[position:end].strip())
        else:
            end = position
            while end < len(text) and text[end] not in ",\n":
                end += 1
            found.append(text[position:end].strip())
        position = end
    return [item for item in found if item]


def _quoted_end(text: str, start: int) -> int:
    """Index after the quote that closes an item and is followed by a comma or an end, or 0."""
    position = start + 1
    while (position := text.find('"', position)) > 0:
        rest = text[position + 1 :].lstrip(" \t")
        if text[position - 1] != "\\" and (not rest or rest[0] in ",\n"):
            return position + 1
        position += 1
    return 0


def _regex_end(text: str, start: int) -> int:
    """Index of the comma or new line that ends a regular expression; those in brackets do not."""
    depth = 0
    position = start
    while position < len(text):
        char = text[position]
        if char == "\\":
            position += 1
        elif char in "([{":
            depth += 1
        elif char in ")]}":
            depth = max(0, depth - 1)
        elif char == "\n" or (char == "," and depth == 0):
            return position
        position += 1
    return len(text)
