"""The options of ``[rate-limit:NAME]``."""

from __future__ import annotations

from lbproxy.controlplane.config.options.option import Option
from lbproxy.controlplane.config.values import BOOLEAN, Form, as_written, field_name, integer_from, request_rate
from lbproxy.model.rate_limit import RateLimitKey


def _limit_key(text: str) -> tuple[RateLimitKey, str]:
    if text.startswith("header."):
        return RateLimitKey.HEADER, field_name(text[len("header.") :])
    if text in (RateLimitKey.ALL.value, RateLimitKey.CLIENT.value):
        return RateLimitKey(text), ""
    raise ValueError("write client, all or header.NAME")


OPTIONS: tuple[Option, ...] = (
    Option(
        name="listener",
        form=as_written("name"),
        required=True,
        effect="The listener whose requests are limited.",
        example="web",
    ),
    Option(
        name="rule",
        form=as_written("name"),
        default_text="all of the listener's requests",
        effect="Only requests that this rule matched; `default` for those that the default action gets.",
        example="api",
    ),
    Option(
        name="key",
        form=Form("client, all or header.NAME", _limit_key),
        default="client",
        effect="What has a limit of its own: each client address (an IPv6 /64 is one client), each value of a header"
        " field (requests without it are not limited by this), or all requests together.",
        example="header.X-Api-Key",
    ),
    Option(
        name="rate",
        form=Form("N/s, N/m or N/h", request_rate),
        required=True,
        effect="Requests a second, minute or hour in the long run.",
        example="100/s",
    ),
    Option(
        name="burst",
        form=integer_from(1, 1_000_000_000),
        default_text="the number in `rate`",
        effect="Requests at once after a pause.",
        example="200",
    ),
    Option(
        name="dry-run",
        form=BOOLEAN,
        default="off",
        effect="Count and log what would be refused, and serve it.",
        example="on",
    ),
)
