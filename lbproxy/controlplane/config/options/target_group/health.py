"""The options of ``[target-group:NAME]`` for health checks."""

from __future__ import annotations

from lbproxy.controlplane.config.options.option import HTTP, TCP, Option
from lbproxy.controlplane.config.values import (
    BOOLEAN,
    Form,
    duration_from,
    host_field,
    integer_from,
    ranges,
    request_path,
    value_of,
)
from lbproxy.model.health import HealthCheckProtocol

_HEALTH_THRESHOLD = integer_from(1, 10)


def _probe_port(text: str) -> int | None:
    if text == "traffic-port":
        return None
    try:
        return integer_from(1, 65535).parse(text)
    except ValueError:
        raise ValueError("write traffic-port or a number from 1 to 65535") from None


def _probe_protocol(default: str, protocols: tuple[str, ...], effect: str, example: str) -> Option:
    return Option(
        name="health-check-protocol",
        form=value_of(HealthCheckProtocol),
        protocols=protocols,
        default=default,
        effect=effect,
        example=example,
    )


OPTIONS: tuple[Option, ...] = (
    Option(
        name="health-check",
        form=BOOLEAN,
        default="on",
        effect="Probe the targets. When off, all of them get traffic.",
        example="off",
    ),
    _probe_protocol("HTTP", ("HTTP",), "What a probe speaks.", "TCP"),
    _probe_protocol("HTTPS", ("HTTPS",), "What a probe speaks.", "TCP"),
    _probe_protocol("TCP", TCP, "What a probe speaks. `TCP` only connects.", "HTTP"),
    Option(
        name="health-check-port",
        form=Form("traffic-port or number, 1 to 65535", _probe_port),
        default="traffic-port",
        effect="The port to probe; `traffic-port` is the target's own.",
        example="8081",
    ),
    Option(
        name="health-check-path",
        form=Form("path", request_path),
        default="/",
        effect="What an HTTP or HTTPS probe asks for. In a GRPC group it is a method, by default"
        " `/AWS.ALB/healthcheck`; of `/grpc.health.v1.Health/Check` the answer must be SERVING.",
        example="/healthz",
    ),
    Option(
        name="health-check-host",
        form=Form("host, perhaps with port", host_field),
        default_text="the target's `host:port`",
        effect="The Host field of an HTTP or HTTPS probe.",
        example="app.example.com",
    ),
    Option(
        name="health-check-interval",
        form=duration_from("100ms", "300s"),
        default="30s",
        effect="From the start of one probe to the start of the next.",
        example="5s",
    ),
    Option(
        name="health-check-timeout",
        form=duration_from("100ms", "120s"),
        protocols=HTTP,
        default="5s",
        effect="For the whole probe, connecting included; not longer than the interval. The default shrinks to the"
        " interval.",
        example="2s",
    ),
    Option(
        name="health-check-timeout",
        form=duration_from("100ms", "120s"),
        protocols=TCP,
        default="10s",
        effect="As above; 6s by default where `health-check-protocol` is HTTP.",
        example="2s",
    ),
    Option(
        name="healthy-threshold",
        form=_HEALTH_THRESHOLD,
        default="5",
        effect="Successes in a row that bring an unhealthy target back. A new target needs only one.",
        example="2",
    ),
    Option(
        name="unhealthy-threshold",
        form=_HEALTH_THRESHOLD,
        default="2",
        effect="Failures in a row that take a target out.",
        example="3",
    ),
    Option(
        name="matcher",
        form=ranges(0, 499),
        protocols=HTTP,
        default="200",
        effect="Status codes by which an HTTP or HTTPS probe succeeds: 200 to 499; in a GRPC group those of gRPC, 0 to"
        " 99, and by default 12 (UNIMPLEMENTED, as nobody has the default path's method), or 0 for gRPC's own health"
        " service.",
        example="200-299, 301",
    ),
    Option(
        name="matcher",
        form=ranges(200, 599),
        protocols=TCP,
        default="200-399",
        effect="Status codes by which an HTTP or HTTPS probe succeeds.",
        example="200-299",
    ),
)
