"""The options of ``[target-group:NAME]`` for connections to targets and TLS on them."""

from __future__ import annotations

from lbproxy.controlplane.config.options.option import ENCRYPTED, HTTP, TCP, Option
from lbproxy.controlplane.config.values import (
    BOOLEAN,
    Form,
    as_written,
    duration_from,
    host_name,
    integer_from,
    value_of,
)
from lbproxy.model.target_group import ProxyProtocolVersion

OPTIONS: tuple[Option, ...] = (
    Option(
        name="keep-alive-timeout",
        form=duration_from("0s", "4000s"),
        protocols=HTTP,
        default="55s",
        effect="How long an unused connection to a target is kept. Choose less than the targets' own limit.",
        example="4s",
    ),
    Option(
        name="max-idle-connections",
        form=integer_from(0, 65535),
        protocols=HTTP,
        default="256",
        effect="Unused connections that each worker keeps for each target.",
        example="32",
    ),
    Option(
        name="proxy-protocol",
        form=value_of(ProxyProtocolVersion),
        protocols=TCP,
        default="off",
        effect="Tell the targets the client's address in a PROXY protocol header ahead of the first byte.",
        example="v2",
    ),
    Option(
        name="tls-verify",
        form=BOOLEAN,
        protocols=ENCRYPTED,
        default="on",
        effect="Refuse a target whose certificate is not trusted or does not name it.",
        example="off",
    ),
    Option(
        name="tls-server-name",
        form=Form("host name", host_name),
        protocols=ENCRYPTED,
        default_text="the target's host",
        effect="The name for SNI and verification.",
        example="app.internal",
    ),
    Option(
        name="tls-ca",
        form=as_written("path"),
        protocols=ENCRYPTED,
        default_text="what the system trusts",
        effect="A PEM file with the certificates to trust instead.",
        example="tls/internal-ca.pem",
    ),
)
