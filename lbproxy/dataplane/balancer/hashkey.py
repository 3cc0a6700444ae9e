"""What of a request decides on its target where the algorithm hashes (``hash-key``)."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b

from lbproxy.dataplane.router.request import RoutableRequest
from lbproxy.model.target_group import HashKey, HashPart
from lbproxy.wire.http.cookies import cookie_value

KeyOf = Callable[[RoutableRequest | None, str], bytes | None]
"""From a request and its client's address to the bytes to hash; None when the request has no such thing."""


def key_function(key: HashKey) -> KeyOf:
    """The function that finds this key; of a TCP connection (request None) only the source is known."""
    if key.part is HashPart.SOURCE:
        return lambda request, source: source.encode()
    if key.part is HashPart.HOST:
        return lambda request, source: None if request is None else request.host or None
    if key.part is HashPart.PATH:
        return lambda request, source: None if request is None else request.path
    name = key.name.encode()
    if key.part is HashPart.HEADER:
        return lambda request, source: None if request is None else _first(request.field_values(name))
    if key.part is HashPart.COOKIE:
        return lambda request, source: None if request is None else cookie_value(request.field_values(b"cookie"), name)
    return lambda request, source: None if request is None else _query_value(request.query, name)


def hash_of(data: bytes) -> int:
    """64 bits, the same in every process and after every restart."""
    return int.from_bytes(blake2b(data, digest_size=8).digest(), "little")


def _first(values: list[bytes]) -> bytes | None:
    return values[0] if values else None


def _query_value(query: bytes, name: bytes) -> bytes | None:
    """The value of the first pair with this key, compared as received."""
    if name not in query:
        return None
    for pair in query.split(b"&"):
        key, _, value = pair.partition(b"=")
        if key == name:
            return value
    return None
