"""Listeners: where clients come in."""

from __future__ import annotations

import enum

import attrs

from lbproxy.model.protocol import PeerProtocol
from lbproxy.model.rate_limit import RateLimit
from lbproxy.model.rule import Action, Rule
from lbproxy.model.transform import ErrorPage, Transform


class ListenerProtocol(PeerProtocol):
    """What clients speak to a listener."""

    HTTP = "HTTP"
    HTTPS = "HTTPS"
    TCP = "TCP"
    TLS = "TLS"


class XffMode(enum.Enum):
    """What becomes of X-Forwarded-For (ALB ``routing.http.xff_header_processing.mode``)."""

    APPEND = "append"
    PRESERVE = "preserve"
    REMOVE = "remove"


class DesyncMitigationMode(enum.Enum):
    """What becomes of requests that readers may take differently (ALB ``routing.http.desync_mitigation_mode``)."""

    MONITOR = "monitor"
    DEFENSIVE = "defensive"
    STRICTEST = "strictest"


class PathNormalization(enum.Enum):
    """What becomes of a path that targets may read differently, before the rules see it."""

    OFF = "off"
    SAFE = "safe"
    STRICT = "strict"


@attrs.frozen(order=True)
class Bind:
    """A local address to accept connections at."""

    host: str
    """IPv4 or IPv6 literal without brackets."""
    port: int
    """1-65535, or 0 for one that the kernel picks (tests)."""

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@attrs.frozen(kw_only=True)
class Certificate:
    """A certificate chain with its private key, read by the supervisor."""

    source: str
    """The file it came from, for messages."""
    pem: bytes = attrs.field(repr=False)
    """Chain (leaf first) and key."""


@attrs.frozen(kw_only=True)
class Listener:
    """A listener with its rules, sorted by priority, and its default action."""

    name: str
    protocol: ListenerProtocol
    binds: tuple[Bind, ...]
    default_action: Action
    rules: tuple[Rule, ...] = ()

    certificates: tuple[Certificate, ...] = ()
    """For HTTPS and TLS; the first is the default."""
    tls_policy: str = "ELBSecurityPolicy-TLS13-1-2-2021-06"
    """A name in ``model.tls_policy``."""

    request_header_timeout_seconds: float = 10.0
    """From the first byte of a request to the end of its head; also for the TLS handshake and a PROXY header."""
    idle_timeout_seconds: float = 60.0
    """Without a byte in either direction while a connection waits (ALB idle_timeout); 350 for TCP and TLS."""
    client_keep_alive_seconds: float = 3600.0
    """Age at which a client connection is closed after the answer in progress (ALB client_keep_alive)."""

    min_request_rate: int = 240
    """Bytes a second in which a request's body has to come while it is waited for; 0 for any rate."""
    min_response_rate: int = 240
    """Bytes a second in which a client has to take its answer while it is waited for; 0 for any rate."""
    slow_client_grace_seconds: float = 60.0
    """What the rates are averaged over."""
    max_requests_per_connection: int = 0
    """After so many a client connection is closed; 0 for any number."""

    http2: bool = False
    """HTTPS: offer HTTP/2 by ALPN (ALB routing.http2.enabled).  HTTP: take it from clients that begin with it."""
    http2_max_concurrent_streams: int = 128
    """Requests at once on one connection of HTTP/2."""
    rate_limits: tuple[RateLimit, ...] = ()
    security_groups: tuple[str, ...] = ()
    """Names of those that say who may connect; without any everybody may."""
    max_connections: int = 0
    """Open at a time in all workers; further ones are closed at once.  0 for any number."""
    max_connections_per_client: int = 0
    """The same for each client address (IPv6: /64)."""

    xff_mode: XffMode = XffMode.APPEND
    xff_client_port: bool = False
    """Add the client's port to X-Forwarded-For (``append`` only)."""

    desync_mitigation_mode: DesyncMitigationMode = DesyncMitigationMode.DEFENSIVE
    transform: Transform = Transform()
    """For every request, whatever its rule."""
    error_pages: tuple[ErrorPage, ...] = ()
    """The first that has the status is used."""
    cors_preflight: bool = False
    """Answer the questions that browsers ask ahead of a request from another origin."""
    path_normalization: PathNormalization = PathNormalization.SAFE
    drop_invalid_header_fields: bool = False
    """Remove fields whose name has anything but letters, digits and hyphens (ALB)."""

    proxy_protocol: bool = False
    """Expect a PROXY protocol header (v1 or v2) on connections from ``proxy_protocol_trusted``."""
    proxy_protocol_trusted: tuple[str, ...] = ()
    """CIDR blocks whose PROXY header is believed; a connection from elsewhere is served as it is, without one."""
