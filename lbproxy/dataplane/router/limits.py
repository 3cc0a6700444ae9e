"""Which rate limits a request counts for."""

from __future__ import annotations

from collections.abc import Iterable

from lbproxy.dataplane.router.addresses import client_key
from lbproxy.dataplane.router.request import RoutableRequest
from lbproxy.model.rate_limit import RateLimit, RateLimitKey


def bucket_of(limit: RateLimit, request: RoutableRequest, rule: str, host: str) -> bytes | None:
    """What of a request that this rule matched has a bucket of its own; None where the limit does not apply."""
    if limit.rule and limit.rule != rule:
        return None
    if limit.key is RateLimitKey.CLIENT:
        return client_key(host)
    if limit.key is RateLimitKey.ALL:
        return b""
    values = request.field_values(limit.header.encode())
    return b",".join(values) if values else None


def limits_for(limits: Iterable[RateLimit], request: RoutableRequest, rule: str, host: str) -> tuple[RateLimit, ...]:
    """Those that apply to a request which this rule matched."""
    return tuple(limit for limit in limits if bucket_of(limit, request, rule, host) is not None)
