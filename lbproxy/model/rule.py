"""Rules: conditions and the action that they lead to (ELBv2 ``Rule``).

A rule matches when each of its conditions does; a condition matches when one of
its values does.  ``dataplane.router`` gives these values their effect.
"""

from __future__ import annotations

import attrs

from lbproxy.model.retry import RetryChange
from lbproxy.model.transform import Transform

DEFAULT_QUEUE_PRIORITY = 5


@attrs.frozen
class Pattern:
    """One value of a condition.

    A wildcard pattern knows ``*`` (any characters, none included, ``/`` and ``.``
    too) and ``?`` (exactly one) and matches the whole string; a regular
    expression (``regex:`` in the configuration) is RE2 syntax and matches anywhere in the string unless anchored.
    """

    text: str
    is_regex: bool = False

    @property
    def is_literal(self) -> bool:
        """No wildcard in it and no regular expression (a backslash may escape, so it is not literal)."""
        return not self.is_regex and not any(c in self.text for c in "*?\\")


@attrs.frozen
class HostCondition:
    """The Host of the request without its port, letter case ignored."""

    patterns: tuple[Pattern, ...]


@attrs.frozen
class PathCondition:
    """The path as received, without the query, letter case significant."""

    patterns: tuple[Pattern, ...]


@attrs.frozen
class MethodCondition:
    """The request method, exactly."""

    methods: tuple[str, ...]


@attrs.frozen
class HeaderCondition:
    """A header field's value, letter case ignored; fields of the same name are tried in order."""

    name: str
    """Lower case."""
    patterns: tuple[Pattern, ...]


@attrs.frozen
class QueryCondition:
    """A ``key=value`` pair of the query, letter case ignored; any pair may match.

    ``key`` None matches the value of any key.  The key may hold wildcards.
    A backslash in a pattern takes the next character literally.
    """

    key: Pattern | None
    patterns: tuple[Pattern, ...]


@attrs.frozen
class SourceIpCondition:
    """The address of the TCP peer (or the one a trusted PROXY header gave), never X-Forwarded-For."""

    networks: tuple[str, ...]
    """CIDR blocks in canonical form."""


Condition = HostCondition | PathCondition | MethodCondition | HeaderCondition | QueryCondition | SourceIpCondition


@attrs.frozen
class WeightedGroup:
    """A target group's share in a forward action."""

    group: str
    weight: int = 1
    """0-999; 0 takes none."""


@attrs.frozen
class Forward:
    """Send the request to one of these target groups, chosen by weight."""

    groups: tuple[WeightedGroup, ...]
    stickiness_seconds: float = 0.0
    """How long a client stays with the group that it got, by cookie; 0 for not at all."""


@attrs.frozen(kw_only=True)
class Redirect:
    """Answer with a redirect.  Each part may hold ``#{protocol} #{host} #{port} #{path} #{query}``."""

    status: int = 302
    """301, 302, 303, 307 or 308."""
    protocol: str = "#{protocol}"
    host: str = "#{host}"
    port: str = "#{port}"
    path: str = "/#{path}"
    """With its leading slash; ``#{path}`` stands for the path without one."""
    query: str = "#{query}"


@attrs.frozen(kw_only=True)
class FixedResponse:
    """Answer with this."""

    status: int
    content_type: str = "text/plain"
    body: str = ""


Action = Forward | Redirect | FixedResponse


@attrs.frozen(kw_only=True)
class Rule:
    """One rule of a listener."""

    name: str
    priority: int
    """1-50000, unique in the listener, lowest first."""
    conditions: tuple[Condition, ...]
    action: Action
    transform: Transform = Transform()
    """Carried out after the listener's."""
    queue_priority: int = DEFAULT_QUEUE_PRIORITY
    """Who goes first of the requests that wait for a target, 0-9, highest first."""
    retry: RetryChange = RetryChange()
