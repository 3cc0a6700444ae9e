"""What a listener or a rule changes in a message on its way (ELBv2 ``RuleTransform`` and listener attributes)."""

from __future__ import annotations

import enum

import attrs


class ChangeKind(enum.Enum):
    """What becomes of a field."""

    SET = "set"
    ADD = "add"
    REMOVE = "remove"


@attrs.frozen
class FieldChange:
    """One change of the fields; they are carried out in order."""

    kind: ChangeKind
    name: str
    """As it is written."""
    value: str = ""
    """May hold placeholders: `PLACEHOLDERS` between ``#{`` and ``}``."""


PLACEHOLDERS = ("protocol", "host", "port", "path", "query", "client-ip", "client-port", "trace-id")
"""The request's and the client's, as they came in."""


@attrs.frozen
class Rewrite:
    """A regular expression and what takes the place of what it finds first."""

    pattern: str
    """RE2 syntax."""
    replacement: str
    """``$1`` to ``$9`` stand for what the groups found, ``$0`` for all of it, ``$$`` for a dollar."""


@attrs.frozen(kw_only=True)
class Transform:
    """Changes of a request that is forwarded, and of its answer, whoever gives that."""

    request: tuple[FieldChange, ...] = ()
    response: tuple[FieldChange, ...] = ()
    url: Rewrite | None = None
    """Of path and query."""
    host: Rewrite | None = None
    """Of the host without its port."""

    def followed_by(self, other: Transform) -> Transform:
        """This one and then the other."""
        return Transform(
            request=self.request + other.request,
            response=self.response + other.response,
            url=other.url or self.url,
            host=other.host or self.host,
        )


@attrs.frozen(kw_only=True)
class ErrorPage:
    """What stands in an answer that the balancer makes itself because something failed."""

    first_status: int
    last_status: int
    content_type: str
    body: str
    """May hold ``#{status}``, ``#{reason}`` and ``#{trace-id}``."""
