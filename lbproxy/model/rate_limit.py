"""Rate limits: how many requests a listener, a rule, a client or a header's value may make."""

from __future__ import annotations

import enum

import attrs


class RateLimitKey(enum.Enum):
    """What has a bucket of its own."""

    ALL = "all"
    """All requests together."""
    CLIENT = "client"
    """Each client address; of IPv6 each /64."""
    HEADER = "header"
    """Each value of a header field; requests without it are not limited."""


@attrs.frozen(kw_only=True)
class RateLimit:
    """A token bucket for each key, which all workers share."""

    name: str
    rule: str = ""
    """Only requests that this rule matched, ``default`` for the default action; empty for all of the listener."""
    key: RateLimitKey = RateLimitKey.CLIENT
    header: str = ""
    """Lower case; for `RateLimitKey.HEADER`."""
    requests: int
    """So many, and never more than ``burst`` at once ..."""
    seconds: float = 1.0
    """... in so many seconds."""
    burst: int
    dry_run: bool = False
    """Count and log what is over the limit, and serve it."""

    def __str__(self) -> str:
        """For people: ``100/s burst 200 by client``."""
        unit = {1.0: "s", 60.0: "m", 3600.0: "h"}.get(self.seconds, f"{self.seconds:g}s")
        who = f"header.{self.header}" if self.key is RateLimitKey.HEADER else self.key.value
        return f"{self.requests}/{unit} burst {self.burst} by {who}{' (dry run)' if self.dry_run else ''}"
