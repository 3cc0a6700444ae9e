"""The configuration as a value, and the snapshot that workers work from."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from lbproxy.model.listener import Listener
from lbproxy.model.security_group import SecurityGroup
from lbproxy.model.target import RegisteredTarget
from lbproxy.model.target_group import TargetGroup


@attrs.frozen(kw_only=True)
class AccessLogSettings:
    """Where each request leaves its line."""

    destination: str = "off"
    """An absolute path, ``stdout`` or ``off``."""
    format: str = "json"
    """``json``, ``combined`` or ``alb``."""


@attrs.frozen(kw_only=True)
class Configuration:
    """Everything that the data plane is told by the operator."""

    listeners: tuple[Listener, ...] = ()
    target_groups: tuple[TargetGroup, ...] = ()
    security_groups: tuple[SecurityGroup, ...] = ()
    access_log: AccessLogSettings = AccessLogSettings()
    drain_timeout_seconds: float = 30.0
    """How long a stopping worker may finish what is in flight."""
    zone: str = ""
    """Where lbproxy stands, in the operator's words."""


@attrs.frozen(kw_only=True)
class GroupState:
    """A target group's targets with their health: the desired ones, and those still draining."""

    targets: tuple[RegisteredTarget, ...] = ()
    cell: int = 0
    """Index of the group's round-robin position in the shared cells."""
    waiting: int = 0
    """Index of the first of the cells that count, by worker slot, the requests that wait for a target."""
    retrying: int = 0
    """The same for those that are being retried."""


@attrs.frozen(kw_only=True)
class Snapshot:
    """What a worker works from: immutable, versioned, complete.

    A request keeps the snapshot that it started with.
    """

    version: int
    """Grows by one with each change of any kind."""
    configuration_version: int
    """Grows only when ``configuration`` differs, so that a worker need not compare it."""
    configuration: Configuration
    groups: Mapping[str, GroupState]
    """By target group name."""
    worker_slots: int = 1
    """Workers that share the traffic; the first this many cells of a target's run are in use."""
