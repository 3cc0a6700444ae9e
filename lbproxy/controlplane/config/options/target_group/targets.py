"""The options of ``[target-group:NAME]`` for what the targets are and where they come from."""

from __future__ import annotations

from lbproxy.controlplane.config.options.option import HTTP, Option, protocol_of
from lbproxy.controlplane.config.sources import PROTECT, SOURCES
from lbproxy.controlplane.config.targets import TARGETS
from lbproxy.controlplane.config.tokens import PASSWORD, TOKENS
from lbproxy.controlplane.config.values import as_written, value_of
from lbproxy.model.target_group import ProtocolVersion, TargetProtocol

OPTIONS: tuple[Option, ...] = (
    Option(
        name="protocol",
        form=protocol_of(TargetProtocol),
        required=True,
        effect="What is spoken to the targets. HTTP and HTTPS listeners need an HTTP or HTTPS group, TCP and TLS"
        " listeners a TCP or TLS group.",
        example="HTTP",
    ),
    Option(
        name="protocol-version",
        form=value_of(ProtocolVersion),
        protocols=HTTP,
        default="HTTP1",
        effect="Which HTTP the targets speak. HTTP2 and GRPC need targets that take HTTP/2 without asking first (by"
        " prior knowledge; for HTTPS groups by ALPN `h2`). GRPC has errors, deadlines and health checks as gRPC has"
        " them. WebSocket goes to HTTP1 groups only.",
        example="GRPC",
    ),
    Option(
        name="targets",
        form=TARGETS,
        default_text="none: answers are 503",
        effect="The servers. A name is looked up and followed: each of its addresses is a target. The weight is 1"
        " unless given; 0 takes no traffic. `zone` is for `cross-zone`. Targets with a higher `priority` number (0"
        " unless given) wait until none with a lower one is healthy. `demo:3` starts three little servers to try"
        " things with (HTTP and TCP groups).",
        example="10.0.0.1:8080, app2.internal:8080 weight=2 zone=a",
    ),
    Option(
        name="discovery",
        form=SOURCES,
        default_text="none",
        effect="Where more targets are found, and followed as they come and go. See [discovery.md](discovery.md).",
        example="dns:app.internal:8080, file:targets.yaml",
    ),
    Option(
        name="discovery-protect",
        form=PROTECT,
        default="1",
        effect="The fewest targets that discovery may leave in the group, or which part of those that are in it. An"
        " answer that would leave fewer is held back: the targets of before stay.",
        example="50%",
    ),
    Option(
        name="registration-token",
        form=TOKENS,
        is_secret=True,
        default_text="none: no registration",
        effect="Files with tokens, one a line, with which targets may register themselves at the admin API; see"
        " [discovery.md](discovery.md).",
        example="file:app.token",
    ),
    Option(
        name="etcd-user",
        form=as_written("name"),
        default_text="none: etcd is asked without",
        effect="The user of etcd that lbproxy logs in as, for an etcd with authentication; it needs to read the keys of"
        " the `etcd:` sources of the group.",
        example="lbproxy",
    ),
    Option(
        name="etcd-password",
        form=PASSWORD,
        is_secret=True,
        default_text="none",
        effect="The file with the password of `etcd-user`, in one line.",
        example="file:etcd.password",
    ),
    Option(
        name="etcd-ca",
        form=as_written("path"),
        default_text="the system's authorities",
        effect="The authorities (PEM) that may have signed the certificate of an etcd at an `https://` URL.",
        example="etcd-ca.pem",
    ),
)
