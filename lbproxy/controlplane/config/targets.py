"""Targets as they are written: ``10.0.0.1:8080, app2.internal:8080 weight=2 zone=a``."""

from __future__ import annotations

import re

import attrs

from lbproxy.controlplane.config.actions import WEIGHT, named_values
from lbproxy.controlplane.config.values import Form, host_name, integer_from, is_address, list_of, split_address
from lbproxy.model.target import Target


@attrs.frozen
class TargetText:
    """One target as written."""

    host: str
    port: int
    # not compared, so that one target with two weights counts as named twice
    weight: int = attrs.field(default=1, eq=False)
    zone: str = attrs.field(default="", eq=False)
    priority: int = attrs.field(default=0, eq=False)

    def target(self) -> Target:
        """The target, without an address where its host is a name."""
        return Target(
            host=self.host,
            port=self.port,
            address=self.host if is_address(self.host) else "",
            weight=self.weight,
            zone=self.zone,
            priority=self.priority,
        )


@attrs.frozen
class DemoTargets:
    """``demo:N``: targets that lbproxy starts itself."""

    count: int


_DEMO_COUNT = integer_from(1, 16)


def _targets(text: str) -> tuple[TargetText, ...] | DemoTargets:
    if text.startswith("demo:"):
        try:
            return DemoTargets(_DEMO_COUNT.parse(text[len("demo:") :].strip()))
        except ValueError as error:
            raise ValueError(f"{error}; write for example demo:3, alone") from None
    return _TARGET_LIST.parse(text)


def _zone(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", text):
        raise ValueError("no name of a zone; it has up to 63 letters, digits, hyphens, dots and underscores")
    return text


ZONE = Form("name", _zone)
_PRIORITY = integer_from(0, 65535)


def _target(text: str) -> TargetText:
    address, values = named_values(text, {"weight": WEIGHT, "zone": ZONE, "priority": _PRIORITY})
    host, port = split_address(address)
    if port == 0:
        raise ValueError("port 0 cannot be connected to; 1 to 65535 is allowed")
    return TargetText(host_name(host), port, **values)


_TARGET_LIST = list_of(Form("", _target), "targets")


def parse_target(text: str) -> Target:
    """Read one target, as in ``targets``; raises ValueError with what would be right."""
    return _target(text).target()


TARGETS = Form(
    f"list of host:port, each with weight={WEIGHT.text.removeprefix('number, ')}, zone=name and priority=N if need be,"
    " or demo:N",
    _targets,
)
