"""The options of ``[target-group:NAME]`` for how much is in flight at a time, and what waits."""

from __future__ import annotations

from lbproxy.controlplane.config.options.option import HTTP, Option
from lbproxy.controlplane.config.values import duration_from, integer_from

_MOST = integer_from(0, 1_000_000)

OPTIONS: tuple[Option, ...] = (
    Option(
        name="max-concurrent-requests",
        form=_MOST,
        protocols=HTTP,
        default="0",
        effect="How many requests a target is given at a time, by all workers together; further ones wait. 0 is no"
        " limit.",
        example="100",
    ),
    Option(
        name="queue-length",
        form=integer_from(0, 100000),
        protocols=HTTP,
        default="1024",
        effect="How many requests wait, at all workers together, when all targets have `max-concurrent-requests`; one"
        " more is answered with 503.",
        example="0",
    ),
    Option(
        name="queue-timeout",
        form=duration_from("10ms", "10m"),
        protocols=HTTP,
        default="5s",
        effect="How long one waits, then it is answered with 503.",
        example="500ms",
    ),
    Option(
        name="circuit-breaker-max-requests",
        form=_MOST,
        protocols=HTTP,
        default="0",
        effect="How many requests may be in flight to all targets of the group at a time, by all workers together; one"
        " more is answered with 503 at once. 0 is no limit.",
        example="1024",
    ),
    Option(
        name="circuit-breaker-max-retries",
        form=_MOST,
        protocols=HTTP,
        default="0",
        effect="How many requests of the group may be in a retry at a time, by all workers together; further ones are"
        " not retried. 0 is no limit but `retry-budget`.",
        example="16",
    ),
)
