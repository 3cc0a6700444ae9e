"""The options of ``[target-group:NAME]`` for how long a target may take, and for trying another."""

from __future__ import annotations

from lbproxy.controlplane.config.options.option import HTTP, Option
from lbproxy.controlplane.config.retries import ATTEMPTS, HEDGE_DELAY, METHODS, RETRY_ON, TIMEOUT
from lbproxy.controlplane.config.values import duration_from, integer_from
from lbproxy.model.retry import IDEMPOTENT_METHODS

OPTIONS: tuple[Option, ...] = (
    Option(
        name="deregistration-delay",
        form=duration_from("0s", "3600s"),
        default="300s",
        effect="How long a target that was removed from the file may finish what it has in flight.",
        example="30s",
    ),
    Option(
        name="connect-timeout",
        form=duration_from("10ms", "120s"),
        default="10s",
        effect="For connecting to a target, the TLS handshake included; then the next target is tried.",
        example="2s",
    ),
    Option(
        name="response-timeout",
        form=duration_from("100ms", "1d"),
        protocols=HTTP,
        default="60s",
        effect="From the end of the request to the first byte of the answer.",
        example="5m",
    ),
    Option(
        name="request-timeout",
        form=TIMEOUT,
        protocols=HTTP,
        default_text="none",
        effect="For everything: from the choice of the first target, over all tries, to the end of the answer."
        " Then the client gets 504, or what it has of the answer is cut. A WebSocket counts until it is open.",
        example="10s",
    ),
    Option(
        name="retry-on",
        form=RETRY_ON,
        protocols=HTTP,
        default="connect-failure",
        effect="What sends a request to another target: none could be connected to (nothing was sent, so this holds for"
        " every method and costs no attempt), the target closed or `reset` the connection before its answer, or"
        " it answered with one of these status codes. Never once a byte of an answer has gone to the client, nor"
        " when more than 64 KiB of a body have been sent.",
        example="connect-failure, reset, 502-504",
    ),
    Option(
        name="retry-attempts",
        form=ATTEMPTS,
        protocols=HTTP,
        default="2",
        effect="How often a request that was sent may be sent again, each time to another target.",
        example="1",
    ),
    Option(
        name="retry-methods",
        form=METHODS,
        protocols=HTTP,
        default=", ".join(IDEMPOTENT_METHODS),
        effect="Requests with other methods are not sent again once a byte of them was sent: the target may have acted"
        " on it. Add `POST` only where the targets recognise a request that they have seen.",
        example="GET, HEAD",
    ),
    Option(
        name="retry-budget",
        form=integer_from(0, 100),
        protocols=HTTP,
        default="20",
        effect="Requests that were sent are sent again, all in all, up to this percentage of the group's requests of"
        " the last seconds; three a second are always allowed, unless it is 0.",
        example="10",
    ),
    Option(
        name="try-timeout",
        form=TIMEOUT,
        protocols=HTTP,
        default_text="none",
        effect="How long the start of an answer is awaited, connecting included, before another target is tried. Where"
        " no retry is left, `response-timeout` counts.",
        example="2s",
    ),
    Option(
        name="hedge-delay",
        form=HEDGE_DELAY,
        protocols=HTTP,
        default_text="none",
        effect="When an answer has not begun after this time, the request goes to a second target as well; the first"
        " answer counts and the other try is cancelled. Only for `retry-methods`, and within the budget.",
        example="200ms",
    ),
)
