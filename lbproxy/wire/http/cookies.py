"""Cookies of a request (RFC 6265 section 4.2), as far as a load balancer reads them."""

from __future__ import annotations

from collections.abc import Iterable


def cookie_value(lines: Iterable[bytes], name: bytes) -> bytes | None:
    """The value of the first cookie of this name in these Cookie fields, as received; None when there is none.

    Names are compared letter by letter: they are case-sensitive.
    """
    for line in lines:
        if name not in line:
            continue
        for pair in line.split(b";"):
            key, equals, value = pair.partition(b"=")
            if equals and key.strip(b" \t") == name:
                return value.strip(b" \t")
    return None
