"""How a target group probes its targets (ELBv2 health-check settings)."""

from __future__ import annotations

import enum

import attrs

GRPC_HEALTH_PATH = "/grpc.health.v1.Health/Check"
"""The method of gRPC's own health service; its answer says whether the server serves."""

GRPC_DEFAULT_PATH = "/AWS.ALB/healthcheck"
"""A method that no server has: that it says so (status 12) is a sign of life."""


class HealthCheckProtocol(enum.Enum):
    """What a probe speaks."""

    HTTP = "HTTP"
    HTTPS = "HTTPS"
    TCP = "TCP"


@attrs.frozen(kw_only=True)
class HealthCheck:
    """Probe settings of one target group (elb ``CreateTargetGroup``)."""

    enabled: bool = True
    """When false, targets are ``unavailable`` (Target.HealthCheckDisabled) and all used."""

    protocol: HealthCheckProtocol = HealthCheckProtocol.HTTP

    port: int | None = None
    """Port to probe; None is ``traffic-port``, the target's own."""

    path: str = "/"
    """Request target of an HTTP(S) probe."""

    host: str | None = None
    """Host field of an HTTP(S) probe; None sends the target's ``host:port`` as ALB does."""

    interval_seconds: float = 30.0
    """From the start of one probe to the start of the next."""

    timeout_seconds: float = 5.0
    """For the whole probe, connecting included."""

    healthy_threshold: int = 5
    """Successes in a row that make an unhealthy target healthy; the first success suffices on registration."""

    unhealthy_threshold: int = 2
    """Failures in a row that make a healthy target unhealthy."""

    matcher: tuple[tuple[int, int], ...] = ((200, 200),)
    """Inclusive ranges of status codes that count as success; of gRPC's where the group speaks that."""

    def matches(self, status: int) -> bool:
        """Tell whether an answer with this status is a success."""
        return any(low <= status <= high for low, high in self.matcher)
