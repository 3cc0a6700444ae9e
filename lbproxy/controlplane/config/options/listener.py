"""The options of ``[listener:NAME]``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lbproxy.controlplane.config.actions import ACTION
from lbproxy.controlplane.config.options.changes import change_rows
from lbproxy.controlplane.config.options.option import ENCRYPTED, HTTP, TCP, Option, free_part, protocol_of
from lbproxy.controlplane.config.transforms import FIELD_VALUE, RESPONSE_ATTRIBUTES, error_page, error_statuses
from lbproxy.controlplane.config.values import (
    BOOLEAN,
    NETWORKS,
    Form,
    bind,
    duration_from,
    integer_from,
    items,
    list_of,
    one_of,
    size_from,
    value_of,
)
from lbproxy.model.listener import DesyncMitigationMode, ListenerProtocol, PathNormalization, XffMode
from lbproxy.model.tls_policy import DEFAULT_TLS_POLICY, TLS_POLICIES

SELF_SIGNED = "self-signed"
_ANY_NUMBER = integer_from(0, 1_000_000_000)
_BYTES_A_SECOND = size_from("0", "1g", "bytes a second")


def _response_attribute(name: str, form: Form[Any], example: str) -> Option:
    return Option(
        name=name.lower(),
        form=form,
        protocols=HTTP,
        default_text="what the target says",
        effect=f"Give every answer the field `{name}` with this value.",
        example=example,
    )


_RESPONSE_ATTRIBUTE_FORMS: Mapping[str, tuple[Form[Any], str]] = {
    "Strict-Transport-Security": (FIELD_VALUE, "max-age=31536000; includeSubDomains"),
    "Content-Security-Policy": (FIELD_VALUE, "default-src 'self'"),
    "X-Content-Type-Options": (one_of("nosniff"), "nosniff"),
    "X-Frame-Options": (one_of("DENY", "SAMEORIGIN"), "DENY"),
    "Access-Control-Allow-Origin": (FIELD_VALUE, "https://www.example.com"),
    "Access-Control-Allow-Methods": (FIELD_VALUE, "GET, POST"),
    "Access-Control-Allow-Headers": (FIELD_VALUE, "Content-Type, X-Own"),
    "Access-Control-Allow-Credentials": (one_of("true"), "true"),
    "Access-Control-Expose-Headers": (FIELD_VALUE, "X-Own"),
    "Access-Control-Max-Age": (integer_from(0, 86400), "600"),
}


OPTIONS: tuple[Option, ...] = (
    Option(
        name="protocol",
        form=protocol_of(ListenerProtocol),
        required=True,
        effect="What clients speak. HTTPS and TLS are decrypted here.",
        example="HTTPS",
    ),
    Option(
        name="bind",
        form=list_of(Form("", bind), "list of addresses with port"),
        required=True,
        effect="Local addresses to accept connections at; port 0 lets the system pick one. `[::]` is IPv6 only.",
        example="0.0.0.0:443, [::]:443",
    ),
    Option(
        name="default-action",
        form=ACTION,
        required=True,
        effect="What happens when no rule matches; `forward` only on TCP and TLS listeners. See [Actions](#actions).",
        example="forward app",
    ),
    Option(
        name="certificates",
        form=Form("list of files or patterns of files, or self-signed", lambda text: tuple(items(text))),
        protocols=ENCRYPTED,
        required=True,
        effect="PEM files with the chain (leaf first) and its private key; the key may be beside `NAME.pem` or"
        " `NAME.crt` as `NAME.key`. The client's SNI chooses; the first one is the default. Changed files are"
        " picked up without a restart. `self-signed` makes one for this machine, kept in `state-directory`.",
        example="tls/*.pem",
    ),
    Option(
        name="tls-policy",
        form=one_of(*TLS_POLICIES),
        protocols=ENCRYPTED,
        default=DEFAULT_TLS_POLICY,
        effect="TLS versions and cipher suites, by AWS's names.",
        example="ELBSecurityPolicy-TLS13-1-3-2021-06",
    ),
    Option(
        name="request-header-timeout",
        form=duration_from("100ms", "5m"),
        default="10s",
        effect="From the first byte of a request to the end of its header; also for a TLS handshake and a PROXY"
        " header.",
        example="5s",
    ),
    Option(
        name="idle-timeout",
        form=duration_from("100ms", "4000s"),
        protocols=HTTP,
        default="60s",
        effect="A connection on which nothing moves for this long is closed.",
        example="2m",
    ),
    Option(
        name="idle-timeout",
        form=duration_from("100ms", "6000s"),
        protocols=TCP,
        default="350s",
        effect="A connection on which nothing moves for this long, in either direction, is closed.",
        example="1h",
    ),
    Option(
        name="client-keep-alive",
        form=duration_from("1s", "7d"),
        protocols=HTTP,
        default="3600s",
        effect="A client's connection is closed after the answer in progress once it is this old.",
        example="10m",
    ),
    Option(
        name="min-request-rate",
        form=_BYTES_A_SECOND,
        protocols=HTTP,
        default="240",
        effect="A request whose body comes slower than this while lbproxy waits for it is ended with 408, averaged over"
        " `slow-client-grace`; 0 lets it take any time. One whose answer has begun is a conversation and is let be.",
        example="1k",
    ),
    Option(
        name="min-response-rate",
        form=_BYTES_A_SECOND,
        protocols=HTTP,
        default="240",
        effect="A client that takes its answer slower than this while lbproxy waits for it is cut off; 0 lets it"
        " take any time. Also in WebSockets.",
        example="1k",
    ),
    Option(
        name="slow-client-grace",
        form=duration_from("1s", "1h"),
        protocols=HTTP,
        default="60s",
        effect="What `min-request-rate` and `min-response-rate` are averaged over, again and again.",
        example="15s",
    ),
    Option(
        name="max-requests-per-connection",
        form=_ANY_NUMBER,
        protocols=HTTP,
        default="0",
        effect="A client's connection is closed after so many requests; 0 for any number.",
        example="10000",
    ),
    Option(
        name="http2",
        form=BOOLEAN,
        protocols=("HTTPS",),
        default="on",
        effect="Offer HTTP/2 to clients, by ALPN; they are free to go on with HTTP/1.1.",
        example="off",
    ),
    Option(
        name="http2",
        form=BOOLEAN,
        protocols=("HTTP",),
        default="off",
        effect="Speak HTTP/2 with clients that begin with it (prior knowledge); the others get HTTP/1.1 as before."
        " `Upgrade: h2c` has no effect.",
        example="on",
    ),
    Option(
        name="http2-max-concurrent-streams",
        form=integer_from(1, 1000),
        protocols=HTTP,
        default="128",
        effect="How many requests a client may have in flight on one connection of HTTP/2.",
        example="100",
    ),
    Option(
        name="security-groups",
        form=Form("list of security groups", lambda text: tuple(dict.fromkeys(items(text)))),
        default_text="none: everybody may connect",
        effect="Who may connect: what a rule of any of these groups lets in. A change counts for new connections; those"
        " that were let in go on.",
        example="office, partners",
    ),
    Option(
        name="max-connections",
        form=_ANY_NUMBER,
        default="0",
        effect="Clients' connections at a time, in all workers together; what comes beyond is closed before anything is"
        " read from it. 0 for any number.",
        example="20000",
    ),
    Option(
        name="max-connections-per-client",
        form=_ANY_NUMBER,
        default="0",
        effect="The same for each client's address (the one in a trusted PROXY header, if there is one); an IPv6 /64"
        " is one client. Remember that many people may share an address. 0 for any number.",
        example="100",
    ),
    Option(
        name="xff-mode",
        form=value_of(XffMode),
        protocols=HTTP,
        default="append",
        effect="What becomes of `X-Forwarded-For`: the client's address is added, the field is left alone, or it is"
        " removed.",
        example="preserve",
    ),
    Option(
        name="xff-client-port",
        form=BOOLEAN,
        protocols=HTTP,
        default="off",
        effect="Add the client's port to `X-Forwarded-For` (`append` only).",
        example="on",
    ),
    Option(
        name="desync-mitigation-mode",
        form=value_of(DesyncMitigationMode),
        protocols=HTTP,
        default="defensive",
        effect="What becomes of requests that another reader might take differently: `monitor` only tells, `defensive`"
        " uses the connections of an ambiguous one for nothing else, `strictest` refuses all that is not compliant."
        " [protocols.md](protocols.md) has the classes.",
        example="strictest",
    ),
    Option(
        name="path-normalization",
        form=value_of(PathNormalization),
        protocols=HTTP,
        default="safe",
        effect="What becomes of a path before the rules and the target see it: `safe` decodes encoded letters, resolves"
        " `.` and `..`, and refuses hidden ones; `strict` also refuses `//`, `\\`, `%2f`, `%5c` and `%00`; `off` leaves"
        " it as it came.",
        example="strict",
    ),
    Option(
        name="drop-invalid-header-fields",
        form=BOOLEAN,
        protocols=HTTP,
        default="off",
        effect="Remove from requests the fields whose name has anything but letters, digits and hyphens.",
        example="on",
    ),
    *change_rows(HTTP),
    Option(
        name="server-header",
        form=BOOLEAN,
        protocols=HTTP,
        default="on",
        effect="`off` removes `Server` from every answer.",
        example="off",
    ),
    *(_response_attribute(name, *_RESPONSE_ATTRIBUTE_FORMS[name]) for name in RESPONSE_ATTRIBUTES),
    Option(
        name="cors-preflight",
        form=BOOLEAN,
        protocols=HTTP,
        default="off",
        effect="Answer the `OPTIONS` requests by which browsers ask ahead (CORS) with a 204 and the `access-control-*`"
        " fields above, without asking a target.",
        example="on",
    ),
    Option(
        name="error-page.STATUS",
        check_name=lambda option: error_statuses(free_part(option)),
        form=Form('type, then "body" or file:PATH', error_page),
        protocols=HTTP,
        default_text="a line of text",
        effect="What stands in an answer that lbproxy itself gives with this status (`503`, or `5xx` for all such)"
        " because something failed. `#{status}`, `#{reason}` and `#{trace-id}` are filled in.",
        example="text/html file:sorry.html",
    ),
    Option(
        name="proxy-protocol",
        form=BOOLEAN,
        default="off",
        effect="Expect a PROXY protocol header, version 1 or 2, from the addresses in `proxy-protocol-trusted`.",
        example="on",
    ),
    Option(
        name="proxy-protocol-trusted",
        form=NETWORKS,
        default_text="nobody",
        effect="Who may send a PROXY header. Connections from elsewhere are served as they are, without one.",
        example="10.0.0.0/8, 192.168.7.2",
    ),
)
