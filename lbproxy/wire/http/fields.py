"""What fields may look like and which of them a proxy keeps (RFC 9110 sections 5 and 7.6).

Nothing here knows how a version of HTTP writes its fields: both codecs turn theirs into a list of `Field` and
let `wire.http.message` read it.
"""

from __future__ import annotations

import re
from functools import lru_cache
from ipaddress import AddressValueError, IPv6Address
from itertools import product

from lbproxy.wire.errors import RemoteProtocolError

Field = tuple[bytes, bytes, bytes]
"""Name in lower case, value without the white space around it, and ``Name: value`` as it is sent on."""

MAX_FIELD_BYTES = 16384
"""One field line of a request (ELB: a header above 16 K gets a 400)."""
MAX_FIELDS_BYTES = 65536
"""All field lines of a request (ELB: headers above 64 K get a 400)."""
MAX_FIELDS = 200
"""Field lines of a request: browsers send about 20, and each costs more than its bytes."""
MAX_TRAILERS_BYTES = 16384
MAX_TRAILERS = 64

MAX_RESPONSE_FIELDS_BYTES = 32768
"""The head of a response (ELB: response headers above 32 K give a 502)."""
MAX_RESPONSE_FIELDS = 1000
"""Field lines of a response: each costs more than its bytes."""
MAX_TARGET_BYTES = 16384
"""A request line, or HTTP/2's ``:path`` (ELB: a longer one gets a 414)."""

TOKEN_OCTETS = b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
"""``tchar`` (RFC 9110 section 5.6.2)."""
PLAIN_NAME_OCTETS = b"-0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
"""What names of fields are nearly always made of, and all that `drop-invalid-header-fields` lets pass (ELB)."""
VALUE_OCTETS = bytes([0x09, *range(0x20, 0x7F), *range(0x80, 0x100)])
"""Tab, SP, visible characters and ``obs-text`` (RFC 9110 section 5.5)."""

HOP_BY_HOP = frozenset(
    [
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"te",
        b"transfer-encoding",
        b"upgrade",
        b"http2-settings",
    ]
)
"""Meant for the next hop only, whether or not Connection names them (RFC 9110 section 7.6.1)."""

_SET_BY_US = frozenset([b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-port", b"x-amzn-trace-id"])

NOT_OPTIONS = frozenset([b"host", b"content-length", b"transfer-encoding", b"expect", *_SET_BY_US])
"""Connection cannot take these away: they frame or route the message, or a target trusts them as ours.

A client may name them; it has no effect (HAProxy and nginx do the same).
"""

FORBIDDEN_TRAILERS = HOP_BY_HOP | _SET_BY_US | frozenset(
    [
        # framing and routing
        b"content-length",
        b"host",
        b"trailer",
        b"forwarded",
        # modifiers of the request and of the response
        b"age",
        b"cache-control",
        b"expect",
        b"expires",
        b"date",
        b"location",
        b"max-forwards",
        b"pragma",
        b"range",
        b"retry-after",
        b"vary",
        b"warning",
        b"if-match",
        b"if-none-match",
        b"if-modified-since",
        b"if-unmodified-since",
        b"if-range",
        # authentication and cookies
        b"authorization",
        b"authentication-info",
        b"cookie",
        b"proxy-authenticate",
        b"proxy-authentication-info",
        b"proxy-authorization",
        b"set-cookie",
        b"www-authenticate",
        # how the content is to be read
        b"content-encoding",
        b"content-range",
        b"content-type",
    ]
)  # fmt: skip
"""What a trailer section must not hold (RFC 9110 section 6.5.1), and what targets trust as ours."""


def underscored(name: bytes) -> list[bytes]:
    """The spellings of ``name`` with one or more ``_`` for ``-``.

    CGI and WSGI make one variable of ``X-Forwarded-For`` and ``X_Forwarded_For``, so where we guard one we guard all.
    """
    first, *others = name.split(b"-")
    spellings = (
        first + b"".join(dash + part for dash, part in zip(dashes, others, strict=True))
        for dashes in product((b"-", b"_"), repeat=len(others))
    )
    return [spelling for spelling in spellings if spelling != name]


_NOT_LETTERS = bytes(octet for octet in range(256) if not bytes([octet]).isalnum())
_FRAMING_LETTERS = frozenset([b"contentlength", b"transferencoding"])


def looks_like_framing(name: bytes) -> bool:
    """Whether a target that is careless with signs could take this for Content-Length or Transfer-Encoding.

    ``name`` is in lower case and has such a sign: ``content_length``, but not ``content--length``.
    """
    letters = name.translate(None, _NOT_LETTERS)
    return letters in _FRAMING_LETTERS and bool(name.translate(None, PLAIN_NAME_OCTETS))


def without_odd_names(lines: bytes) -> bytes:
    """Field lines without those whose name has anything but letters, digits and hyphens."""
    kept = [line for line in lines.splitlines(keepends=True) if not _name_of(line).translate(None, PLAIN_NAME_OCTETS)]
    return b"".join(kept)


_MAX_FORWARDS = re.compile(rb"^(max-forwards: )[0-9]+", re.IGNORECASE | re.MULTILINE)


def with_max_forwards(lines: bytes, left: int) -> bytes:
    """Field lines whose Max-Forwards says so many (RFC 9110 section 7.6.2)."""
    return _MAX_FORWARDS.sub(rb"\g<1>%d" % left, lines)


def _name_of(line: bytes) -> bytes:
    return line.partition(b":")[0]


@lru_cache(maxsize=256)
def check_trailer(name: bytes) -> None:
    """Refuse a field, by its name in lower case, that must not stand in a trailer section."""
    if name.replace(b"_", b"-") in FORBIDDEN_TRAILERS or name.startswith(b"x-forwarded-"):
        raise RemoteProtocolError(f"{name[:40]!r} in the trailers", reason="BadTrailer")


def is_token(value: bytes) -> bool:
    """Whether this is a token (RFC 9110 section 5.6.2)."""
    return bool(value) and not value.translate(None, TOKEN_OCTETS)


def list_elements(value: bytes) -> list[bytes]:
    """The elements of a comma-separated list without quoted strings, empty ones left out (RFC 9110 section 5.6.1)."""
    return [element for part in value.split(b",") if (element := part.strip(b" \t"))]


def connection_options(value: bytes) -> frozenset[bytes]:
    """The options of a Connection field, in lower case (RFC 9110 section 7.6.1)."""
    usual = _USUAL_OPTIONS.get(value)
    if usual is not None:
        return usual
    options = list_elements(value.lower())
    for option in options:
        if not is_token(option):
            raise RemoteProtocolError(f"connection option {option[:40]!r} is no token", reason="BadHeader")
    return frozenset(options)


_USUAL_OPTIONS = {
    spelling: frozenset([spelling.lower()])
    for spelling in (b"keep-alive", b"Keep-Alive", b"close", b"Close", b"upgrade", b"Upgrade")
}


_AUTHORITY = re.compile(
    rb"(\[[0-9A-Fa-f:.]{2,45}\]|[0-9A-Za-z\-._~!$&'()*+;=]+)"  # IPv6 in brackets, or IPv4 or a registered name
    rb"(?::([0-9]{0,5}))?"
).fullmatch


def host_of(authority: bytes) -> bytes:
    """The host in ``host[:port]``, in lower case and without the port; an IPv6 address keeps its brackets.

    Stricter than RFC 3986 section 3.2: no user information, an address in brackets must be one, the port is at most
    65535, and percent-encoding and commas are refused, for targets disagree on what they mean.
    """
    match = _AUTHORITY(authority)
    if match is None:
        raise RemoteProtocolError(f"{authority[:80]!r} is no host", reason="BadHost")
    host: bytes = match[1].lower()
    if match[2] and int(match[2]) > 65535:
        raise RemoteProtocolError(f"no such port: {authority[:80]!r}", reason="BadHost")
    if host.startswith(b"[") and not _is_ipv6(host[1:-1]):
        raise RemoteProtocolError(f"{authority[:80]!r} is no IPv6 address", reason="BadHost")
    return host


def _is_ipv6(text: bytes) -> bool:
    try:
        IPv6Address(text.decode("ascii"))
    except AddressValueError:
        return False
    return True
