"""The options for retries of target groups and rules, as text and as a policy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from lbproxy.controlplane.config.values import Form, duration_from, integer_from, items, list_of, method, ranges
from lbproxy.model.retry import RetryChange, RetryPolicy

if TYPE_CHECKING:
    from lbproxy.controlplane.config.sections import ReadSection  # which reads the table that this is for

_STATUSES = ranges(400, 599)
_CONNECT_FAILURE = "connect-failure"
_RESET = "reset"


@attrs.frozen
class RetryOn:
    """``retry-on``."""

    connect_failure: bool = False
    reset: bool = False
    statuses: tuple[tuple[int, int], ...] = ()


def _retry_on(text: str) -> RetryOn:
    if text == "off":
        return RetryOn()
    words = items(text)
    statuses = [word for word in words if word not in (_CONNECT_FAILURE, _RESET)]
    for word in statuses:
        if not word[0].isdigit():
            raise ValueError(
                f"{word!r}: write {_CONNECT_FAILURE}, {_RESET}, status codes such as 502-504, or off alone"
            )
    return RetryOn(
        connect_failure=_CONNECT_FAILURE in words,
        reset=_RESET in words,
        statuses=_STATUSES.parse(", ".join(statuses)) if statuses else (),
    )


RETRY_ON = Form(f"{_CONNECT_FAILURE}, {_RESET} and status codes in 400 to 599, or off", _retry_on)
ATTEMPTS = integer_from(0, 10)
METHODS = list_of(Form("", method), "methods")
TIMEOUT = duration_from("10ms", "1d")
"""For a try, and for the request with all of its tries."""
HEDGE_DELAY = duration_from("1ms", "1d")


def retry_policy(section: ReadSection) -> RetryPolicy:
    """The policy of an HTTP or HTTPS target group."""
    on: RetryOn = section["retry-on"]
    return RetryPolicy(
        on_connect_failure=on.connect_failure,
        on_reset=on.reset,
        statuses=on.statuses,
        attempts=section["retry-attempts"],
        methods=section["retry-methods"],
        budget_percent=section["retry-budget"],
        most_at_once=section["circuit-breaker-max-retries"],
        try_timeout_seconds=section["try-timeout"],
        request_timeout_seconds=section["request-timeout"],
        hedge_delay_seconds=section["hedge-delay"],
    )


def retry_change(section: ReadSection) -> RetryChange:
    """What a rule changes of the policy of its target groups."""
    on: RetryOn | None = section["retry-on"]
    return RetryChange(
        on_connect_failure=None if on is None else on.connect_failure,
        on_reset=None if on is None else on.reset,
        statuses=None if on is None else on.statuses,
        attempts=section["retry-attempts"],
        methods=section["retry-methods"],
        try_timeout_seconds=section["try-timeout"],
        request_timeout_seconds=section["request-timeout"],
        hedge_delay_seconds=section["hedge-delay"],
    )
