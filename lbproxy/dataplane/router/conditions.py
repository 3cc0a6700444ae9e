"""Conditions of rules, made into checks of a request.

A check knows how to answer fast (``matches``) and how to explain itself (``kind``,
``wanted``, ``seen``).  Kinds are the option names of the configuration.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from lbproxy.dataplane.router.ingress import Networks
from lbproxy.dataplane.router.patterns import any_of, compile_pattern
from lbproxy.dataplane.router.request import RoutableRequest
from lbproxy.model.rule import (
    Condition,
    HeaderCondition,
    HostCondition,
    MethodCondition,
    PathCondition,
    Pattern,
    QueryCondition,
    SourceIpCondition,
)


class Check(Protocol):
    """One condition of one rule."""

    kind: str
    """What is looked at, as the configuration calls it: ``host``, ``header.x-tenant``."""
    wanted: tuple[str, ...]
    """The condition's values; one of them has to match."""

    def matches(self, request: RoutableRequest, source: str) -> bool:
        """Tell whether the request meets the condition; ``source`` is the client's address."""
        ...

    def seen(self, request: RoutableRequest, source: str) -> str:
        """What the request has where the condition looks, for people."""
        ...


class HostCheck:
    """Host of the request, letter case ignored."""

    __slots__ = ("_match", "wanted")
    kind = "host"

    def __init__(self, condition: HostCondition) -> None:
        self.wanted = _texts(condition.patterns)
        self._match = any_of([compile_pattern(pattern, ignore_case=True) for pattern in condition.patterns])

    def matches(self, request: RoutableRequest, source: str) -> bool:
        return self._match(request.host)

    def seen(self, request: RoutableRequest, source: str) -> str:
        return _readable(request.host)


class PathCheck:
    """Path as received, letter case significant."""

    __slots__ = ("_match", "wanted")
    kind = "path"

    def __init__(self, condition: PathCondition) -> None:
        self.wanted = _texts(condition.patterns)
        self._match = any_of([compile_pattern(pattern, ignore_case=False) for pattern in condition.patterns])

    def matches(self, request: RoutableRequest, source: str) -> bool:
        return self._match(request.path)

    def seen(self, request: RoutableRequest, source: str) -> str:
        return _readable(request.path)


class MethodCheck:
    """Request method, exactly."""

    __slots__ = ("_methods", "wanted")
    kind = "method"

    def __init__(self, condition: MethodCondition) -> None:
        self.wanted = condition.methods
        self._methods = frozenset(method.encode() for method in condition.methods)

    def matches(self, request: RoutableRequest, source: str) -> bool:
        return request.method in self._methods

    def seen(self, request: RoutableRequest, source: str) -> str:
        return _readable(request.method)


class HeaderCheck:
    """Values of one header field, letter case ignored; several fields are tried in order."""

    __slots__ = ("_match", "_name", "kind", "wanted")

    def __init__(self, condition: HeaderCondition) -> None:
        self.kind = f"header.{condition.name}"
        self.wanted = _texts(condition.patterns)
        self._name = condition.name.lower().encode()
        self._match = any_of([compile_pattern(pattern, ignore_case=True) for pattern in condition.patterns])

    def matches(self, request: RoutableRequest, source: str) -> bool:
        for value in request.field_values(self._name):  # noqa: SIM110 (any() with a generator costs twice as much)
            if self._match(value.lower()):
                return True
        return False

    def seen(self, request: RoutableRequest, source: str) -> str:
        return ", ".join(_readable(value) for value in request.field_values(self._name)) or "(no such field)"


class QueryCheck:
    """Pairs of the query, letter case ignored; any pair may match.

    Pairs are separated by ``&`` and compared as received, as ALB does: ``%41`` is not ``a``.
    A pair without ``=`` has an empty value.
    """

    __slots__ = ("_key", "_match", "kind", "wanted")

    def __init__(self, condition: QueryCondition) -> None:
        key = condition.key
        self.kind = "query" if key is None else f"query.{_text(key)}"
        self.wanted = _texts(condition.patterns)
        self._key = None if key is None else compile_pattern(key, ignore_case=True, escapes=True)
        self._match = any_of(
            [compile_pattern(pattern, ignore_case=True, escapes=True) for pattern in condition.patterns]
        )

    def matches(self, request: RoutableRequest, source: str) -> bool:
        query = request.query
        if not query:
            return False
        key_matches = self._key
        for pair in query.lower().split(b"&"):
            if not pair:
                continue
            key, _, value = pair.partition(b"=")
            if (key_matches is None or key_matches(key)) and self._match(value):
                return True
        return False

    def seen(self, request: RoutableRequest, source: str) -> str:
        return _readable(request.query) or "(no query)"


class SourceIpCheck:
    """Address of the client in one of the CIDR blocks."""

    __slots__ = ("_networks", "wanted")
    kind = "source-ip"

    def __init__(self, condition: SourceIpCondition) -> None:
        self.wanted = condition.networks
        self._networks = Networks(condition.networks)

    def matches(self, request: RoutableRequest, source: str) -> bool:
        return source in self._networks

    def seen(self, request: RoutableRequest, source: str) -> str:
        return source


CHECKS: Mapping[type[Condition], Callable[[Any], Check]] = {
    HostCondition: HostCheck,
    PathCondition: PathCheck,
    MethodCondition: MethodCheck,
    HeaderCondition: HeaderCheck,
    QueryCondition: QueryCheck,
    SourceIpCondition: SourceIpCheck,
}
"""Which check stands for which condition of the model."""


def compile_condition(condition: Condition) -> Check:
    """Make a condition of the model into a check."""
    return CHECKS[type(condition)](condition)


def _text(pattern: Pattern) -> str:
    return f"regex:{pattern.text}" if pattern.is_regex else pattern.text


def _texts(patterns: tuple[Pattern, ...]) -> tuple[str, ...]:
    return tuple(_text(pattern) for pattern in patterns)


def _readable(data: bytes) -> str:
    return data.decode("utf-8", "backslashreplace")
