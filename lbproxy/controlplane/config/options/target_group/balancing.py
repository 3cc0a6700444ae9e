"""The options of ``[target-group:NAME]`` for the choice of a target."""

from __future__ import annotations

import re

from lbproxy.controlplane.config.actions import STICKINESS
from lbproxy.controlplane.config.options.option import HTTP, TCP, Option
from lbproxy.controlplane.config.values import (
    BOOLEAN,
    Form,
    either,
    field_name,
    integer_from,
    one_of,
    suggest,
)
from lbproxy.model.target_group import HashKey, HashPart, StickinessType

ALGORITHMS = (
    "round_robin",
    "least_outstanding_requests",
    "weighted_random",
    "least_time",
    "random_two",
    "maglev",
    "rendezvous",
    "first",
)
HASHING = ("maglev", "rendezvous")


def _algorithm(text: str) -> str:
    if text in ALGORITHMS:
        return text
    raise ValueError(f"no such algorithm{suggest(text, ALGORITHMS) or '; write ' + either(ALGORITHMS)}")


def _hash_key(text: str) -> HashKey:
    word, dot, name = text.partition(".")
    try:
        part = HashPart(word.lower())
    except ValueError:
        raise ValueError(f"write {either(_HASH_KEYS)}") from None
    if (part in _NAMED_HASH_PARTS) != bool(name) or (dot and not name):
        raise ValueError(f"write {part.value}.NAME" if part in _NAMED_HASH_PARTS else f"write {part.value} alone")
    if part is HashPart.HEADER:
        name = field_name(name)
    return HashKey(part, name)


_NAMED_HASH_PARTS = (HashPart.HEADER, HashPart.COOKIE, HashPart.QUERY)
_HASH_KEYS = tuple(f"{part.value}.NAME" if part in _NAMED_HASH_PARTS else part.value for part in HashPart)


def _balance_factor(text: str) -> int:
    factor = integer_from(0, 1000).parse(text)
    if 0 < factor <= 100:
        raise ValueError("no target may then have its fair share; write 0 for no bound, or 101 to 1000")
    return factor


def _cookie_name(text: str) -> str:
    if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", text):
        raise ValueError("no name of a cookie")
    if text.upper().startswith("AWSALB"):
        raise ValueError("names that start with AWSALB are lbproxy's own")
    return text


OPTIONS: tuple[Option, ...] = (
    Option(
        name="algorithm",
        form=Form(either(ALGORITHMS), _algorithm),
        default="round_robin",
        effect="How a target is chosen; see [balancing.md](balancing.md).",
        example="least_outstanding_requests",
    ),
    Option(
        name="hash-key",
        form=Form(either(_HASH_KEYS), _hash_key),
        default="source",
        effect="What `maglev` and `rendezvous` hash, so that requests with the same value go to the same target; only"
        " `source`, the client's address, in TCP and TLS groups. A request without the value takes its turn.",
        example="cookie.session",
    ),
    Option(
        name="hash-balance-factor",
        form=Form("0, or per cent from 101 to 1000", _balance_factor),
        default="0",
        effect="How much of its fair share of what is in flight a target may have before `maglev` and `rendezvous` go"
        " on to the key's next target; 0 is no bound.",
        example="150",
    ),
    Option(
        name="stickiness",
        form=BOOLEAN,
        default="off",
        effect="A client comes back to the target that served it before, as long as it can.",
        example="on",
    ),
    Option(
        name="stickiness-type",
        form=one_of(StickinessType.LB_COOKIE.value, StickinessType.APP_COOKIE.value),
        protocols=HTTP,
        default=StickinessType.LB_COOKIE.value,
        effect="`lb_cookie`: by the cookie `AWSALB` of each answer. `app_cookie`: by `AWSALBAPP-0`, which goes with the"
        " application's own cookie.",
        example="app_cookie",
    ),
    Option(
        name="stickiness-type",
        form=one_of(StickinessType.SOURCE_IP.value),
        protocols=TCP,
        default=StickinessType.SOURCE_IP.value,
        effect="By the client's address, in place of `algorithm`.",
        example="source_ip",
    ),
    Option(
        name="stickiness-lb-cookie-duration",
        form=STICKINESS,
        protocols=HTTP,
        default="1d",
        effect="How long the cookie of the last answer binds.",
        example="1h",
    ),
    Option(
        name="stickiness-app-cookie-name",
        form=Form("name", _cookie_name),
        protocols=HTTP,
        default_text="none",
        effect="The application's own cookie, which it sets itself.",
        example="JSESSIONID",
    ),
    Option(
        name="stickiness-app-cookie-duration",
        form=STICKINESS,
        protocols=HTTP,
        default="1d",
        effect="How long a client is bound from when the application set its cookie.",
        example="1h",
    ),
    Option(
        name="anomaly-mitigation",
        form=BOOLEAN,
        protocols=HTTP,
        default="off",
        effect="Give a target whose requests fail more often than its peers' less and less, until that is over; with"
        " `algorithm = weighted_random` and three healthy targets at least.",
        example="on",
    ),
)
