"""Target groups: where a listener's traffic can go."""

from __future__ import annotations

import enum

import attrs

from lbproxy.model.health import HealthCheck
from lbproxy.model.protocol import PeerProtocol
from lbproxy.model.retry import RetryPolicy
from lbproxy.model.target import Target


class TargetProtocol(PeerProtocol):
    """What is spoken to the targets of a group."""

    HTTP = "HTTP"
    HTTPS = "HTTPS"
    TCP = "TCP"
    TLS = "TLS"


class ProtocolVersion(enum.Enum):
    """Which HTTP is spoken to the targets of an HTTP or HTTPS group (ELBv2 ``ProtocolVersion``)."""

    HTTP1 = "HTTP1"
    HTTP2 = "HTTP2"
    GRPC = "GRPC"
    """HTTP/2, with the conventions of gRPC for errors, deadlines and health checks."""


class ProxyProtocolVersion(enum.Enum):
    """PROXY protocol header sent ahead of the first byte to a target."""

    OFF = "off"
    V1 = "v1"
    V2 = "v2"


class HashPart(enum.Enum):
    """Where a hash key is found."""

    SOURCE = "source"
    HOST = "host"
    PATH = "path"
    HEADER = "header"
    COOKIE = "cookie"
    QUERY = "query"


class CrossZone(enum.Enum):
    """What becomes of targets in other zones than lbproxy's own (``load_balancing.cross_zone.enabled``)."""

    ON = "on"
    """All zones are alike."""
    SPILL = "spill"
    """They take what the own zone's healthy targets cannot."""
    OFF = "off"
    """They take nothing."""


@attrs.frozen
class HashKey:
    """What of a request decides on its target, for the algorithms that hash."""

    part: HashPart = HashPart.SOURCE
    name: str = ""
    """Of the header (in lower case), cookie or query key."""

    def __str__(self) -> str:
        """As in the configuration."""
        return f"{self.part.value}.{self.name}" if self.name else self.part.value


@attrs.frozen(kw_only=True)
class OutlierDetection:
    """When a target that fails its requests is taken out for a while."""

    consecutive_failures: int = 5
    """So many requests in a row that fail, as one worker sees them; 0 for never."""

    latency_factor: float = 5.0
    """So many times the others' middle response time; 0 for never."""

    interval_seconds: float = 10.0
    """How often the targets of the group are compared."""

    base_ejection_seconds: float = 30.0
    """For the first time; twice as long each time after."""

    max_ejection_seconds: float = 300.0

    max_ejected_percentage: float = 33.0
    """At most this share of the healthy targets is out at a time; one always may be, the last one never."""


class StickinessType(enum.Enum):
    """By what a client is bound to a target (ELB ``stickiness.type``)."""

    LB_COOKIE = "lb_cookie"
    APP_COOKIE = "app_cookie"
    SOURCE_IP = "source_ip"


@attrs.frozen(kw_only=True)
class Stickiness:
    """How a client comes back to the target that served it before."""

    type: StickinessType

    duration_seconds: float = 86400.0
    """How long a cookie binds, 1-604800."""

    cookie_name: str = ""
    """The application's own cookie, for ``app_cookie``."""


@attrs.frozen(kw_only=True)
class TargetTls:
    """How connections to the targets of an HTTPS or TLS group are encrypted."""

    verify: bool = True
    """Check the chain and that the certificate names the target."""

    server_name: str | None = None
    """Name for SNI and verification; None is the target's ``host``."""

    ca_pem: bytes | None = None
    """Trusted certificates as PEM; None trusts what the system trusts."""


@attrs.frozen(kw_only=True)
class TargetGroup:
    """A named set of targets with how to choose among them, reach them and probe them."""

    name: str
    protocol: TargetProtocol
    protocol_version: ProtocolVersion = ProtocolVersion.HTTP1

    targets: tuple[Target, ...] = ()
    """The desired targets; what is still draining is in the snapshot only."""

    algorithm: str = "round_robin"
    """A name in ``dataplane.balancer``'s table of algorithms."""

    hash_key: HashKey = HashKey()
    """For ``maglev`` and ``rendezvous``."""

    hash_balance_factor: int = 0
    """How much of its fair share of what is in flight a target may have before a hashed request goes on to the next,
    in per cent; 0 for no bound."""

    stickiness: Stickiness | None = None

    slow_start_seconds: float = 0.0
    """How long a target that becomes healthy among others takes to get its full share, 30-900; 0 for at once."""

    outlier_detection: OutlierDetection | None = None

    anomaly_mitigation: bool = False
    """Whether a target that errs more than its peers gets less (``load_balancing.algorithm.anomaly_mitigation``)."""

    max_concurrent_requests: int = 0
    """How many requests a target is given at a time, over all workers; 0 for any number."""

    queue_length: int = 1024
    """How many requests wait, at all workers together, while all targets have that many."""

    queue_timeout_seconds: float = 5.0
    """How long one may wait."""

    circuit_breaker_max_requests: int = 0
    """With so many requests in flight to all targets of the group further ones are refused; 0 for any number."""

    cross_zone: CrossZone = CrossZone.ON
    """Matters where lbproxy and the targets have zones."""

    minimum_healthy_count: int = 1
    """With fewer healthy targets all of them take traffic (fail open)."""

    minimum_healthy_percentage: float = 0.0
    """The same as a share of the targets."""

    backup: str = ""
    """Name of the group that takes over, or empty."""

    backup_percentage: float = 1.0
    """It takes over while a smaller share of the targets is healthy."""

    health_check: HealthCheck = HealthCheck()

    deregistration_delay_seconds: float = 300.0
    """How long a removed target may finish what it has in flight, 0-3600."""

    connect_timeout_seconds: float = 10.0
    """For the TCP and, where encrypted, the TLS handshake with a target."""

    response_timeout_seconds: float = 60.0
    """From the end of the request to the first byte of the answer."""

    keep_alive_seconds: float = 55.0
    """How long an unused connection to a target is kept in the pool; less than the targets' own limit."""

    max_idle_connections: int = 256
    """Unused connections that each worker keeps for each target."""

    retry: RetryPolicy = RetryPolicy()

    proxy_protocol: ProxyProtocolVersion = ProxyProtocolVersion.OFF

    tls: TargetTls = TargetTls()
    """Used when ``protocol`` is HTTPS or TLS."""
