"""The options of ``[rule:NAME]``."""

from __future__ import annotations

from collections.abc import Iterable

from lbproxy.controlplane.config.actions import ACTION
from lbproxy.controlplane.config.options.changes import change_rows
from lbproxy.controlplane.config.options.option import Option, free_part
from lbproxy.controlplane.config.retries import ATTEMPTS, HEDGE_DELAY, METHODS, RETRY_ON, TIMEOUT
from lbproxy.controlplane.config.transforms import rewrite
from lbproxy.controlplane.config.values import (
    NETWORKS,
    Form,
    as_written,
    field_name,
    host_pattern,
    integer_from,
    list_of,
    method,
    path_pattern,
    patterns,
    query_pattern,
    value_pattern,
)
from lbproxy.model.rule import DEFAULT_QUEUE_PRIORITY, Pattern

_PATTERN_LIST = "list of patterns"


def _rule_retry_rows() -> Iterable[Option]:
    for name, form, example in (
        ("retry-on", RETRY_ON, "connect-failure, reset, 503"),
        ("retry-attempts", ATTEMPTS, "1"),
        ("retry-methods", METHODS, "GET, POST"),
        ("try-timeout", TIMEOUT, "500ms"),
        ("request-timeout", TIMEOUT, "3s"),
        ("hedge-delay", HEDGE_DELAY, "50ms"),
    ):
        yield Option(
            name=name,
            form=form,
            default_text="the target group's",
            effect=f"For requests of this rule, in the place of the target group's `{name}`.",
            example=example,
        )


def header_of(option: str) -> str:
    """The field name of ``header.NAME``; raises ValueError where it cannot be a condition."""
    name = field_name(free_part(option))
    if name == "host":
        raise ValueError("Host is not matched as a header; write host = ...")
    return name


def query_key_of(option: str) -> Pattern:
    """The key of ``query.KEY``, which may hold wildcards."""
    return query_pattern(free_part(option))


OPTIONS: tuple[Option, ...] = (
    Option(
        name="listener",
        form=as_written("name"),
        required=True,
        effect="The listener that the rule belongs to.",
        example="web",
    ),
    Option(
        name="priority",
        form=integer_from(1, 50000),
        required=True,
        effect="Lowest first; each number once in a listener.",
        example="10",
    ),
    Option(
        name="host",
        form=patterns(Form("", host_pattern), _PATTERN_LIST),
        effect="The request's host without its port, letter case ignored.",
        example="www.example.com, *.example.org",
    ),
    Option(
        name="path",
        form=patterns(Form("", path_pattern), _PATTERN_LIST),
        effect="The path as the client sent it, without the query, letter case kept.",
        example="/api/*, regex:^/v[0-9]+/",
    ),
    Option(
        name="method",
        form=list_of(Form("", method), "list of methods"),
        effect="The request method.",
        example="GET, HEAD",
    ),
    Option(
        name="header.NAME",
        check_name=header_of,
        form=patterns(Form("", value_pattern), _PATTERN_LIST),
        effect="A header field's value, letter case ignored. Quote a pattern with a comma.",
        example="acme*, globex",
    ),
    Option(
        name="query.KEY",
        check_name=query_key_of,
        form=patterns(Form("", query_pattern), _PATTERN_LIST),
        effect="The value of `KEY=value` in the query, letter case ignored; `KEY` may hold wildcards. `\\` takes the"
        " next character as it is. No regular expressions.",
        example="2",
    ),
    Option(
        name="query",
        form=patterns(Form("", query_pattern), _PATTERN_LIST),
        effect="The value of any key in the query.",
        example="*debug*",
    ),
    Option(
        name="source-ip",
        form=NETWORKS,
        effect="The client's address (or the one in a trusted PROXY header), never `X-Forwarded-For`.",
        example="10.0.0.0/8, 2001:db8::/32",
    ),
    *change_rows(),
    Option(
        name="url-rewrite",
        form=Form("regular expression, then replacement", rewrite),
        default_text="none",
        effect="Replace in path and query of what is forwarded the first that the expression (RE2) finds; `$1` to `$9`"
        " are its groups. What is no path any more gets a 500"
        " `TransformFailed`. The rules have seen the path as it came.",
        example="^/api/(.*)$ /$1",
    ),
    Option(
        name="host-rewrite",
        form=Form("regular expression, then replacement", rewrite),
        default_text="none",
        effect="The same for the host (in lower case, without its port) in the Host field.",
        example=r"^(.*)\.example\.com$ $1.internal",
    ),
    Option(
        name="queue-priority",
        form=integer_from(0, 9),
        default=str(DEFAULT_QUEUE_PRIORITY),
        effect="Which requests go first where some wait because of `max-concurrent-requests`: the highest. In a full"
        " queue they take the place of lower ones.",
        example="9",
    ),
    *_rule_retry_rows(),
    Option(
        name="action",
        form=ACTION,
        required=True,
        effect="What happens to the request. See [Actions](#actions).",
        example="forward app weight=90, canary weight=10",
    ),
)
