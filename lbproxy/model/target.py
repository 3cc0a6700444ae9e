"""Targets, their states and the reasons for them (ELBv2 ``TargetHealth``)."""

from __future__ import annotations

import enum

import attrs


@attrs.frozen(kw_only=True)
class Target:
    """One server that receives traffic."""

    host: str
    """IP literal (IPv6 without brackets); a host name only while its addresses are not known, never in a snapshot."""

    port: int
    """TCP port, 1-65535."""

    address: str
    """IP literal to connect to; empty while ``host`` is a name."""

    weight: int = 1
    """Share of the traffic relative to the group's other targets, 0-999; 0 takes none."""

    zone: str = ""
    """Where it stands, in the operator's words; empty counts as every zone."""
    priority: int = 0
    """Targets with a higher number take traffic while none with a lower one is good."""

    name: str = ""
    """The host name that led to this address, if one did: it stands in SNI, is looked for in the certificate, and is
    the Host of probes."""

    @property
    def server_name(self) -> str:
        """What the target is called when one speaks to it."""
        return self.name or self.host

    @property
    def key(self) -> str:
        """``host:port``, the target's name in its group, in the log and in the API."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class TargetState(enum.Enum):
    """ELBv2 target states."""

    INITIAL = "initial"
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"
    UNUSED = "unused"
    DRAINING = "draining"
    UNAVAILABLE = "unavailable"


class TargetReason(enum.Enum):
    """ELBv2 reason codes that go with a state."""

    NONE = ""
    REGISTRATION_IN_PROGRESS = "Elb.RegistrationInProgress"
    INITIAL_HEALTH_CHECKING = "Elb.InitialHealthChecking"
    INTERNAL_ERROR = "Elb.InternalError"
    RESPONSE_CODE_MISMATCH = "Target.ResponseCodeMismatch"
    TIMEOUT = "Target.Timeout"
    FAILED_HEALTH_CHECKS = "Target.FailedHealthChecks"
    NOT_REGISTERED = "Target.NotRegistered"
    NOT_IN_USE = "Target.NotInUse"
    DEREGISTRATION_IN_PROGRESS = "Target.DeregistrationInProgress"
    INVALID_STATE = "Target.InvalidState"
    IP_UNUSABLE = "Target.IpUnusable"
    HEALTH_CHECK_DISABLED = "Target.HealthCheckDisabled"


@attrs.frozen(kw_only=True)
class TargetHealth:
    """What is known of one target in one target group."""

    state: TargetState
    reason: TargetReason = TargetReason.NONE
    description: str = ""
    """For people, for example ``Health checks failed with these codes: [503]``."""


@attrs.frozen(kw_only=True)
class RegisteredTarget:
    """A target in its group as the workers see it."""

    target: Target
    health: TargetHealth
    share: int = 100
    """Per cent of its weight that it gets now: less in slow start, for example."""
    share_reason: str = ""
    """Why it is not 100, for people."""
    cell: int
    """Index of this target's run of in-flight counters in the shared cells, one for each worker slot."""
    checked: TargetHealth | None = None
    """What health checks find while ``health`` is an operator's decision; None while it is that of the checks."""

    @property
    def probed(self) -> TargetHealth:
        """The health that checks go by, whatever an operator has decided."""
        return self.checked or self.health


class OverrideState(enum.Enum):
    """What an operator may decide for a target."""

    UP = "up"
    """It counts as healthy."""
    DOWN = "down"
    """It takes no new traffic, not even when no other target is healthy."""
    DRAIN = "drain"
    """It is deregistered, though the configuration or a source still names it."""


@attrs.frozen(kw_only=True)
class Override:
    """An operator's decision on a target, which stands until it is taken back."""

    state: OverrideState | None = None
    weight: int | None = None
    """In place of the configured one, 0-999."""
