"""The kinds of load: what each is called, which proxies' port it goes to and what makes it."""

from __future__ import annotations

import enum

import attrs

CONNECTIONS = 64
H2_CONNECTIONS = 8
H2_STREAMS = 32
IDLE_CONNECTIONS = 10_000
LARGE_CONNECTIONS = 4
DOWNLOAD_BYTES = 100 << 20
UPLOAD_BYTES = 100 << 20
BODY = "x" * 127
MESSAGE = b"\0\0\0\0\x3b" + b"m" * 59
"""Of a call."""
RULES = 1000
"""Host rules, and as many path rules."""


class Unit(enum.Enum):
    """What the cost is divided by; the titles of cost and rate."""

    REQUEST = ("CPU us/request", "requests/s")
    GIGABYTE = ("CPU s/GB", "GB/s")
    CONNECTION = ("KiB each", "")


class Tool(enum.Enum):
    """What makes the load."""

    WRK = enum.auto()
    H2LOAD = enum.auto()
    OWN = enum.auto()
    """``load.c``."""


@attrs.frozen(kw_only=True)
class Case:
    """One kind of load."""

    name: str
    title: str
    port: str = "HTTP"
    tool: Tool = Tool.OWN
    options: tuple[str, ...] = ()
    """Words for the tool."""
    unit: Unit = Unit.REQUEST
    rules: bool = False
    upload: bool = False
    call: bool = False
    """Whether requests are calls of gRPC, answered with trailers."""
    path: str = "/"
    resumes: bool | None = None
    """Whether every TLS handshake must be a resumed one, or none may be."""
    paced: bool = False
    """At half of the rate that HAProxy (else the first proxy) can do."""
    workers: int = 1
    shared_cpus: bool = False
    """Whether proxy, load and target have two CPUs together, instead of one for the proxy and one for the rest."""


_FEW = ("-c", str(LARGE_CONNECTIONS))
_DOWNLOAD = (*_FEW, "-e", str(DOWNLOAD_BYTES))
_SMALL = ("-c", str(CONNECTIONS), "-e", str(len(BODY) + 1))
_IDLE = ("-i", "-c", str(IDLE_CONNECTIONS), "-e", str(len(BODY) + 1))
_LARGE = "/files/large"

CASES = (
    Case(name="keepalive", title=f"HTTP keep-alive, {CONNECTIONS} connections", tool=Tool.WRK),
    Case(
        name="paced",
        title="the same at a fixed rate, half of what HAProxy (else the first proxy) can do",
        options=_SMALL,
        paced=True,
    ),
    Case(
        name="oneshot",
        title="HTTP, one connection per request",
        tool=Tool.WRK,
        options=("-H", "Connection: close"),
    ),
    Case(name="https", title=f"HTTPS keep-alive, {CONNECTIONS} connections", port="HTTPS", tool=Tool.WRK),
    Case(
        name="tls-full",
        title="HTTPS, a full handshake per request",
        port="HTTPS",
        options=("-t", "-o", *_SMALL),
        resumes=False,
    ),
    Case(
        name="tls-resumed",
        title="HTTPS, a resumed handshake per request",
        port="HTTPS",
        options=("-t", "-o", "-z", *_SMALL),
        resumes=True,
    ),
    Case(
        name="http2",
        title=f"HTTP/2 over TLS, {H2_CONNECTIONS} connections x {H2_STREAMS} streams",
        port="HTTPS",
        tool=Tool.H2LOAD,
    ),
    Case(
        name="grpc",
        title=f"calls of gRPC, HTTP/2 over TLS to HTTP/2, {H2_CONNECTIONS} connections x {H2_STREAMS} streams",
        port="GRPC",
        tool=Tool.H2LOAD,
        call=True,
    ),
    Case(name="tcp", title=f"TCP ping-pong, {CONNECTIONS} connections", port="TCP", tool=Tool.WRK),
    Case(name="tcp-oneshot", title="TCP, one connection per request", port="TCP", options=("-o", *_SMALL)),
    Case(name="rules", title=f"HTTP keep-alive, {2 * RULES:,} rules", tool=Tool.WRK, rules=True),
    Case(name="download", title="100 MiB downloads, HTTP", options=_DOWNLOAD, path=_LARGE, unit=Unit.GIGABYTE),
    Case(
        name="download-https",
        title="100 MiB downloads, HTTPS",
        port="HTTPS",
        options=("-t", *_DOWNLOAD),
        path=_LARGE,
        unit=Unit.GIGABYTE,
    ),
    Case(
        name="download-tcp",
        title="100 MiB downloads, TCP",
        port="TCP",
        options=_DOWNLOAD,
        path=_LARGE,
        unit=Unit.GIGABYTE,
    ),
    Case(
        name="upload",
        title="100 MiB uploads, HTTP",
        options=("-b", str(UPLOAD_BYTES), *_FEW),
        upload=True,
        unit=Unit.GIGABYTE,
    ),
    Case(name="idle", title=f"{IDLE_CONNECTIONS:,} idle connections, HTTP", options=_IDLE, unit=Unit.CONNECTION),
    Case(
        name="idle-https",
        title=f"{IDLE_CONNECTIONS:,} idle connections, HTTPS",
        port="HTTPS",
        options=("-t", *_IDLE),
        unit=Unit.CONNECTION,
    ),
    Case(
        name="one-worker",
        title="HTTP keep-alive, one worker, two CPUs shared with load and target",
        tool=Tool.WRK,
        shared_cpus=True,
    ),
    Case(
        name="two-workers",
        title="HTTP keep-alive, two workers, the same two CPUs",
        tool=Tool.WRK,
        shared_cpus=True,
        workers=2,
    ),
)
