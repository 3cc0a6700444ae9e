"""What the admin API's paths are made of: routes, and whole answers."""

from __future__ import annotations

import enum
import json
from collections.abc import Callable, Mapping
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.web.server import Request

TEXT = "text/plain; charset=utf-8"
JSON = "application/json"


@attrs.frozen
class Answer:
    """A whole answer."""

    status: int
    body: bytes
    content_type: str = JSON

    @classmethod
    def of_json(cls, status: int, value: object) -> Answer:
        return cls(status, json.dumps(value, indent=2).encode("utf-8") + b"\n")

    @classmethod
    def of_text(cls, status: int, text: str) -> Answer:
        return cls(status, text.encode("utf-8"), TEXT)


class Right(enum.Enum):
    """What a request needs."""

    READ = "read"
    CHANGE = "change"
    """An operator's."""
    REGISTER = "register"
    """A target's: the route looks at the token itself."""


@attrs.frozen
class Route:
    """One method of one path."""

    respond: Callable[[Request], Answer | Deferred[Answer]]
    right: Right = Right.READ


Routes = Mapping[str, Route]
"""By method."""


class BadBody(Exception):
    """A request's body is not what the path takes; the message says what would be right."""


def json_body(request: Request) -> dict[str, Any]:
    """Read a JSON object; no body is an empty one.  Raises `BadBody`."""
    assert request.content is not None
    data = request.content.read()
    try:
        value = json.loads(data) if data else {}
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise BadBody("the body is no JSON object")
    return value
