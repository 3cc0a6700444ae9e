"""Rate limits from their sections, and what must hold of them."""

from __future__ import annotations

from collections.abc import Mapping

from lbproxy.controlplane.config.options.option import HTTP
from lbproxy.controlplane.config.sections import ReadSection
from lbproxy.controlplane.config.values import suggest
from lbproxy.model.rate_limit import RateLimit

_DEFAULT_ACTION = "default"
"""Stands for the rule of requests that no rule matched."""


def check_rate_limits(
    limits: Mapping[str, ReadSection], listeners: Mapping[str, ReadSection], rules: Mapping[str, ReadSection]
) -> None:
    """Report limits of listeners and rules that are not there."""
    for limit in limits.values():
        name = limit["listener"]
        if name is None:
            continue
        listener = listeners.get(name)
        if listener is None:
            limit.fail(f"no such listener{suggest(name, listeners)}", "listener")
        elif listener.protocol is not None and listener.protocol not in HTTP:
            limit.fail(f"is for HTTP and HTTPS listeners; [{listener.title}] is {listener.protocol}", "listener")
        elif (rule := limit["rule"]) is not None and rule != _DEFAULT_ACTION:
            own = {each.name: each for each in rules.values() if each["listener"] == name}
            if rule not in own:
                limit.fail(f"[{listener.title}] has no such rule{suggest(rule, own)}", "rule")


def rate_limit(section: ReadSection) -> RateLimit:
    """Make the model of a section that is known to be right."""
    key, header = section["key"]
    requests, seconds = section["rate"]
    return RateLimit(
        name=section.name,
        rule=section["rule"] or "",
        key=key,
        header=header,
        requests=requests,
        seconds=seconds,
        burst=section["burst"] or requests,
        dry_run=section["dry-run"],
    )
