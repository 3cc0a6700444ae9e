"""Every option there is: one table.

The reader takes parsers and defaults from it, errors their suggestions, and `manual` the document.
An option that differs by protocol has a row for each group of protocols.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import attrs

from lbproxy.controlplane.config.actions import ACTION
from lbproxy.controlplane.config.retries import METHODS, RETRY_ON
from lbproxy.controlplane.config.sources import PROTECT, SOURCES
from lbproxy.controlplane.config.targets import TARGETS, ZONE
from lbproxy.controlplane.config.tokens import PASSWORD, TOKENS
from lbproxy.controlplane.config.transforms import (
    FIELD_VALUE,
    RESPONSE_ATTRIBUTES,
    changed_field,
    changed_fields,
    error_page,
    error_statuses,
    rewrite,
)
from lbproxy.controlplane.config.values import (
    BOOLEAN,
    NETWORKS,
    Form,
    as_written,
    bind,
    duration_from,
    either,
    field_name,
    host_field,
    host_name,
    host_pattern,
    ingress_rule,
    integer_from,
    is_address,
    items,
    list_of,
    method,
    one_of,
    path_pattern,
    patterns,
    query_pattern,
    ranges,
    request_path,
    request_rate,
    size_from,
    split_address,
    suggest,
    value_pattern,
)
from lbproxy.ipc.cells import SLOT_LIMIT
from lbproxy.model.health import HealthCheckProtocol
from lbproxy.model.listener import Bind, DesyncMitigationMode, ListenerProtocol, PathNormalization, XffMode
from lbproxy.model.rate_limit import RateLimitKey
from lbproxy.model.retry import IDEMPOTENT_METHODS
from lbproxy.model.rule import DEFAULT_QUEUE_PRIORITY, Pattern
from lbproxy.model.target_group import (
    CrossZone,
    HashKey,
    HashPart,
    ProtocolVersion,
    ProxyProtocolVersion,
    StickinessType,
    TargetProtocol,
)
from lbproxy.model.tls_policy import DEFAULT_TLS_POLICY, TLS_POLICIES

HTTP = ("HTTP", "HTTPS")
TCP = ("TCP", "TLS")
ENCRYPTED = ("HTTPS", "TLS")

ALGORITHMS = (
    "round_robin",
    "least_outstanding_requests",
    "weighted_random",
    "least_time",
    "random_two",
    "maglev",
    "rendezvous",
    "first",
)
HASHING = ("maglev", "rendezvous")
SELF_SIGNED = "self-signed"


@attrs.frozen(kw_only=True)
class Option:
    """One row."""

    kind: str
    """The kind of section that it belongs to."""
    name: str
    """For ``header.NAME`` and ``query.KEY`` the part after the dot is free."""
    form: Form[Any]
    effect: str
    """A sentence or two for the manual."""
    example: str
    default: str | None = None
    """As one would write it; None where there is none (``default_text`` says what that means)."""
    default_text: str = ""
    """What the manual says where there is no ``default``."""
    required: bool = False
    protocols: tuple[str, ...] = ()
    """Protocols (of the listener or target group) that know it; empty for all."""
    is_secret: bool = False
    """Whether its value is a file with a secret; what else stands there is not shown."""

    @property
    def prefix(self) -> str | None:
        """``header.`` of ``header.NAME``; None for an ordinary option."""
        start, dot, _ = self.name.partition(".")
        return start + dot if dot else None

    def applies_to(self, protocol: str | None) -> bool:
        """Tell whether the protocol knows this option; an unknown protocol (None) gets the benefit of the doubt."""
        return not self.protocols or protocol is None or protocol in self.protocols


@attrs.frozen(kw_only=True)
class Kind:
    """A kind of section."""

    name: str
    named: bool
    """Written ``[kind:NAME]``."""
    effect: str


KINDS = (
    Kind(name="lbproxy", named=False, effect="The process itself. The section may be left out."),
    Kind(name="listener", named=True, effect="Where clients come in."),
    Kind(
        name="rule",
        named=True,
        effect="Which requests of an HTTP or HTTPS listener go where. The rules of a listener are tried by priority,"
        " lowest first; the first one whose conditions all hold decides, else the listener's `default-action`."
        " A condition holds when one of its values matches. In a pattern `*` stands for any characters (also"
        " `/` and `.`), `?` for exactly one, and the whole text must match. `regex:` starts a regular"
        " expression in RE2's syntax, which matches anywhere unless anchored with `^` and `$`.",
    ),
    Kind(
        name="target-group",
        named=True,
        effect="Targets that do the same work, how to choose among them, reach them and check their health.",
    ),
    Kind(
        name="rate-limit",
        named=True,
        effect="How many requests an HTTP or HTTPS listener takes; what is beyond is answered with 429 and"
        " `Retry-After`. The limits of a listener are asked in the order of the file. All workers share them.",
    ),
    Kind(
        name="security-group",
        named=True,
        effect="Who may connect to the listeners that name it in `security-groups`. What no rule of an attached group"
        " lets in is closed before a byte of it is read.",
    ),
)


# Forms that only this table needs


def _workers(text: str) -> int | None:
    if text == "auto":
        return None
    try:
        return integer_from(0, SLOT_LIMIT).parse(text)
    except ValueError:
        raise ValueError(f"write auto or a number from 0 to {SLOT_LIMIT}") from None


def _admin(text: str) -> Bind | str | None:
    """An address, the path of a UNIX socket, or None for none."""
    if text == "off":
        return None
    if text.startswith("unix:"):
        if path := text[len("unix:") :].strip():
            return path
        raise ValueError("unix: needs a path, for example unix:/run/lbproxy/admin.sock")
    try:
        return bind(text)
    except ValueError as error:
        raise ValueError(f"{error}; or unix:PATH, or off") from None


def _protocol(supported: Iterable[str], later: Iterable[str]) -> Form[str]:
    words, not_yet = tuple(supported), frozenset(later)

    def parse(text: str) -> str:
        if text in words:
            return text
        if text in not_yet:
            raise ValueError(f"{text} is not supported by this version; write {either(words)}")
        if text.upper() in words:
            raise ValueError(f"write {text.upper()}, in capitals")
        raise ValueError(f"no such protocol; write {either(words)}")

    return Form(either(words), parse)


def _algorithm(text: str) -> str:
    if text in ALGORITHMS:
        return text
    raise ValueError(f"no such algorithm{suggest(text, ALGORITHMS) or '; write ' + either(ALGORITHMS)}")


def _hash_key(text: str) -> HashKey:
    word, dot, name = text.partition(".")
    try:
        part = HashPart(word.lower())
    except ValueError:
        raise ValueError(f"write {either(_HASH_KEYS)}") from None
    if (part in _NAMED_HASH_PARTS) != bool(name) or (dot and not name):
        raise ValueError(f"write {part.value}.NAME" if part in _NAMED_HASH_PARTS else f"write {part.value} alone")
    if part is HashPart.HEADER:
        name = field_name(name)
    return HashKey(part, name)


_NAMED_HASH_PARTS = (HashPart.HEADER, HashPart.COOKIE, HashPart.QUERY)
_HASH_KEYS = tuple(f"{part.value}.NAME" if part in _NAMED_HASH_PARTS else part.value for part in HashPart)


def _balance_factor(text: str) -> int:
    factor = integer_from(0, 1000).parse(text)
    if 0 < factor <= 100:
        raise ValueError("no target may then have its fair share; write 0 for no bound, or 101 to 1000")
    return factor


def _cookie_name(text: str) -> str:
    if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", text):
        raise ValueError("no name of a cookie")
    if text.upper().startswith("AWSALB"):
        raise ValueError("names that start with AWSALB are lbproxy's own")
    return text


def _probe_port(text: str) -> int | None:
    if text == "traffic-port":
        return None
    try:
        return integer_from(1, 65535).parse(text)
    except ValueError:
        raise ValueError("write traffic-port or a number from 1 to 65535") from None


def _slow_start(text: str) -> float:
    seconds = duration_from("0s", "900s").parse(text)
    if 0 < seconds < 30:
        raise ValueError("too short; write 0s for none, or 30s to 900s")
    return seconds


def _name_server(text: str) -> tuple[str, int]:
    host, port = split_address(text) if ":" in text.removeprefix("[") and not is_address(text) else (text, 53)
    if not is_address(host):
        raise ValueError("not the address of a name server; write for example 10.0.0.53 or 127.0.0.1:5353")
    return host, port


def _limit_key(text: str) -> tuple[RateLimitKey, str]:
    if text.startswith("header."):
        return RateLimitKey.HEADER, field_name(text[len("header.") :])
    if text in (RateLimitKey.ALL.value, RateLimitKey.CLIENT.value):
        return RateLimitKey(text), ""
    raise ValueError("write client, all or header.NAME")


def _percentage_or_off(text: str) -> int:
    return 0 if text == "off" else integer_from(1, 100).parse(text)


_PERCENTAGE_OR_OFF = Form("number, 1 to 100, or off", _percentage_or_off)
_PATTERN_LIST = "list of patterns"
_HEALTH_THRESHOLD = integer_from(1, 10)
_BYTES_A_SECOND = size_from("0", "1g", "bytes a second")


def _change_rows(kind: str) -> Iterable[Option]:
    """The rows for changes of fields, which listeners and rules have alike."""
    protocols = HTTP if kind == "listener" else ()
    for message, whose, example in (
        ("request", "requests that are forwarded", "#{client-ip}"),
        ("response", "answers", "public, max-age=60"),
    ):
        name = "X-Real-IP" if message == "request" else "Cache-Control"
        yield Option(
            kind=kind,
            name=f"set-{message}-header.NAME",
            form=FIELD_VALUE,
            protocols=protocols,
            default_text="none",
            effect=f"Give {whose} the field `NAME` with this value, in place of any that they have."
            " `#{...}` stands for `protocol`, `host`, `port`, `path`, `query`, `client-ip`, `client-port` or"
            f" `trace-id`; for example `set-{message}-header.{name}`.",
            example=example,
        )
        yield Option(
            kind=kind,
            name=f"add-{message}-header.NAME",
            form=FIELD_VALUE,
            protocols=protocols,
            default_text="none",
            effect=f"Add the field `NAME` to {whose}, whether or not they have one.",
            example=example,
        )
        yield Option(
            kind=kind,
            name=f"remove-{message}-headers",
            form=list_of(changed_fields(request=message == "request"), "list of header names"),
            protocols=protocols,
            default_text="none",
            effect=f"Remove these fields from {whose}.",
            example="X-Debug, X-Internal" if message == "request" else "X-Powered-By",
        )


def _rule_retry_rows() -> Iterable[Option]:
    for name, form, example in (
        ("retry-on", RETRY_ON, "connect-failure, reset, 503"),
        ("retry-attempts", integer_from(0, 10), "1"),
        ("retry-methods", METHODS, "GET, POST"),
        ("try-timeout", duration_from("10ms", "1d"), "500ms"),
        ("request-timeout", duration_from("10ms", "1d"), "3s"),
        ("hedge-delay", duration_from("1ms", "1d"), "50ms"),
    ):
        yield Option(
            kind="rule",
            name=name,
            form=form,
            default_text="the target group's",
            effect=f"For requests of this rule, in the place of the target group's `{name}`.",
            example=example,
        )


def _response_attribute(name: str, form: Form[Any], example: str) -> Option:
    return Option(
        kind="listener",
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
        kind="lbproxy",
        name="workers",
        form=Form(f"auto or number, 0 to {SLOT_LIMIT}", _workers),
        default="auto",
        effect="Worker processes: `auto` is one for each CPU; 0 runs everything in one process, for development.",
        example="4",
    ),
    Option(
        kind="lbproxy",
        name="admin",
        form=Form("address with port, unix:PATH or off", _admin),
        default="off",
        effect="Where the admin API, `/metrics`, `/status` and `/ready` are served. Anybody who reaches it may read;"
        " see `admin-token` for changes.",
        example="127.0.0.1:9901",
    ),
    Option(
        kind="lbproxy",
        name="admin-token",
        form=TOKENS,
        is_secret=True,
        default_text="none",
        effect="Files with tokens, one a line. Who changes something by the admin API has to send one of them"
        " (`lbproxy` commands take it from `-c FILE` or `--token-file`). Without, changes are allowed at a loopback"
        " address or a UNIX socket only.",
        example="file:admin.token",
    ),
    Option(
        kind="lbproxy",
        name="access-log",
        form=as_written("path, stdout or off"),
        default="off",
        effect="Where each request leaves its line. The file is reopened on SIGUSR1.",
        example="logs/access.log",
    ),
    Option(
        kind="lbproxy",
        name="access-log-format",
        form=one_of("json", "combined", "alb"),
        default="json",
        effect="How a line looks: JSON, Apache's combined format, or that of an Application Load Balancer.",
        example="alb",
    ),
    Option(
        kind="lbproxy",
        name="drain-timeout",
        form=duration_from("0s", "1d"),
        default="30s",
        effect="How long requests and connections in flight may finish when a worker stops.",
        example="5m",
    ),
    Option(
        kind="lbproxy",
        name="state-directory",
        form=as_written("path"),
        default="state",
        effect="What lbproxy keeps from one start to the next: the self-signed certificate, which workers run, which"
        " targets were discovered. Under systemd the service's own (`$STATE_DIRECTORY`) unless given here.",
        example="/var/lib/lbproxy",
    ),
    Option(
        kind="lbproxy",
        name="zone",
        form=ZONE,
        default_text="none",
        effect="Where this lbproxy stands, for target groups with `cross-zone = spill` or `off`.",
        example="eu-central-1a",
    ),
    Option(
        kind="lbproxy",
        name="resolver",
        form=list_of(Form("", _name_server), "list of addresses, perhaps with port"),
        default_text="as the system: `/etc/hosts`, `/etc/resolv.conf`",
        effect="The name servers to ask for the names of targets.",
        example="10.0.0.53, 127.0.0.1:5353",
    ),
    # Listeners
    Option(
        kind="listener",
        name="protocol",
        form=_protocol((p.value for p in ListenerProtocol), ("UDP", "TCP_UDP", "GENEVE", "QUIC", "TCP_QUIC")),
        required=True,
        effect="What clients speak. HTTPS and TLS are decrypted here.",
        example="HTTPS",
    ),
    Option(
        kind="listener",
        name="bind",
        form=list_of(Form("", bind), "list of addresses with port"),
        required=True,
        effect="Local addresses to accept connections at; port 0 lets the system pick one. `[::]` is IPv6 only.",
        example="0.0.0.0:443, [::]:443",
    ),
    Option(
        kind="listener",
        name="default-action",
        form=ACTION,
        required=True,
        effect="What happens when no rule matches; `forward` only on TCP and TLS listeners. See [Actions](#actions).",
        example="forward app",
    ),
    Option(
        kind="listener",
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
        kind="listener",
        name="tls-policy",
        form=one_of(*TLS_POLICIES),
        protocols=ENCRYPTED,
        default=DEFAULT_TLS_POLICY,
        effect="TLS versions and cipher suites, by AWS's names.",
        example="ELBSecurityPolicy-TLS13-1-3-2021-06",
    ),
    Option(
        kind="listener",
        name="request-header-timeout",
        form=duration_from("100ms", "5m"),
        default="10s",
        effect="From the first byte of a request to the end of its header; also for a TLS handshake and a PROXY"
        " header.",
        example="5s",
    ),
    Option(
        kind="listener",
        name="idle-timeout",
        form=duration_from("100ms", "4000s"),
        protocols=HTTP,
        default="60s",
        effect="A connection on which nothing moves for this long is closed.",
        example="2m",
    ),
    Option(
        kind="listener",
        name="idle-timeout",
        form=duration_from("100ms", "6000s"),
        protocols=TCP,
        default="350s",
        effect="A connection on which nothing moves for this long, in either direction, is closed.",
        example="1h",
    ),
    Option(
        kind="listener",
        name="client-keep-alive",
        form=duration_from("1s", "7d"),
        protocols=HTTP,
        default="3600s",
        effect="A client's connection is closed after the answer in progress once it is this old.",
        example="10m",
    ),
    Option(
        kind="listener",
        name="min-request-rate",
        form=_BYTES_A_SECOND,
        protocols=HTTP,
        default="240",
        effect="A request whose body comes slower than this while lbproxy waits for it is ended with 408, averaged over"
        " `slow-client-grace`; 0 lets it take any time. One whose answer has begun is a conversation and is let be.",
        example="1k",
    ),
    Option(
        kind="listener",
        name="min-response-rate",
        form=_BYTES_A_SECOND,
        protocols=HTTP,
        default="240",
        effect="A client that takes its answer slower than this while lbproxy waits for it is cut off; 0 lets it"
        " take any time. Also in WebSockets.",
        example="1k",
    ),
    Option(
        kind="listener",
        name="slow-client-grace",
        form=duration_from("1s", "1h"),
        protocols=HTTP,
        default="60s",
        effect="What `min-request-rate` and `min-response-rate` are averaged over, again and again.",
        example="15s",
    ),
    Option(
        kind="listener",
        name="max-requests-per-connection",
        form=integer_from(0, 1_000_000_000),
        protocols=HTTP,
        default="0",
        effect="A client's connection is closed after so many requests; 0 for any number.",
        example="10000",
    ),
    Option(
        kind="listener",
        name="http2",
        form=BOOLEAN,
        protocols=("HTTPS",),
        default="on",
        effect="Offer HTTP/2 to clients, by ALPN; they are free to go on with HTTP/1.1.",
        example="off",
    ),
    Option(
        kind="listener",
        name="http2",
        form=BOOLEAN,
        protocols=("HTTP",),
        default="off",
        effect="Speak HTTP/2 with clients that begin with it (prior knowledge); the others get HTTP/1.1 as before."
        " `Upgrade: h2c` has no effect.",
        example="on",
    ),
    Option(
        kind="listener",
        name="http2-max-concurrent-streams",
        form=integer_from(1, 1000),
        protocols=HTTP,
        default="128",
        effect="How many requests a client may have in flight on one connection of HTTP/2.",
        example="100",
    ),
    Option(
        kind="listener",
        name="security-groups",
        form=Form("list of security groups", lambda text: tuple(dict.fromkeys(items(text)))),
        default_text="none: everybody may connect",
        effect="Who may connect: what a rule of any of these groups lets in. A change counts for new connections; those"
        " that were let in go on.",
        example="office, partners",
    ),
    Option(
        kind="listener",
        name="max-connections",
        form=integer_from(0, 1_000_000_000),
        default="0",
        effect="Clients' connections at a time, in all workers together; what comes beyond is closed before anything is"
        " read from it. 0 for any number.",
        example="20000",
    ),
    Option(
        kind="listener",
        name="max-connections-per-client",
        form=integer_from(0, 1_000_000_000),
        default="0",
        effect="The same for each client's address (the one in a trusted PROXY header, if there is one); an IPv6 /64"
        " is one client. Remember that many people may share an address. 0 for any number.",
        example="100",
    ),
    Option(
        kind="listener",
        name="xff-mode",
        form=one_of(*(mode.value for mode in XffMode)),
        protocols=HTTP,
        default="append",
        effect="What becomes of `X-Forwarded-For`: the client's address is added, the field is left alone, or it is"
        " removed.",
        example="preserve",
    ),
    Option(
        kind="listener",
        name="xff-client-port",
        form=BOOLEAN,
        protocols=HTTP,
        default="off",
        effect="Add the client's port to `X-Forwarded-For` (`append` only).",
        example="on",
    ),
    Option(
        kind="listener",
        name="desync-mitigation-mode",
        form=one_of(*(mode.value for mode in DesyncMitigationMode)),
        protocols=HTTP,
        default="defensive",
        effect="What becomes of requests that another reader might take differently: `monitor` only tells, `defensive`"
        " uses the connections of an ambiguous one for nothing else, `strictest` refuses all that is not compliant."
        " [protocols.md](protocols.md) has the classes.",
        example="strictest",
    ),
    Option(
        kind="listener",
        name="path-normalization",
        form=one_of(*(mode.value for mode in PathNormalization)),
        protocols=HTTP,
        default="safe",
        effect="What becomes of a path before the rules and the target see it: `safe` decodes encoded letters, resolves"
        " `.` and `..`, and refuses hidden ones; `strict` also refuses `//`, `\\`, `%2f`, `%5c` and `%00`; `off` leaves"
        " it as it came.",
        example="strict",
    ),
    Option(
        kind="listener",
        name="drop-invalid-header-fields",
        form=BOOLEAN,
        protocols=HTTP,
        default="off",
        effect="Remove from requests the fields whose name has anything but letters, digits and hyphens.",
        example="on",
    ),
    *_change_rows("listener"),
    Option(
        kind="listener",
        name="server-header",
        form=BOOLEAN,
        protocols=HTTP,
        default="on",
        effect="`off` removes `Server` from every answer.",
        example="off",
    ),
    *(_response_attribute(name, *_RESPONSE_ATTRIBUTE_FORMS[name]) for name in RESPONSE_ATTRIBUTES),
    Option(
        kind="listener",
        name="cors-preflight",
        form=BOOLEAN,
        protocols=HTTP,
        default="off",
        effect="Answer the `OPTIONS` requests by which browsers ask ahead (CORS) with a 204 and the `access-control-*`"
        " fields above, without asking a target.",
        example="on",
    ),
    Option(
        kind="listener",
        name="error-page.STATUS",
        form=Form('type, then "body" or file:PATH', error_page),
        protocols=HTTP,
        default_text="a line of text",
        effect="What stands in an answer that lbproxy itself gives with this status (`503`, or `5xx` for all such)"
        " because something failed. `#{status}`, `#{reason}` and `#{trace-id}` are filled in.",
        example="text/html file:sorry.html",
    ),
    Option(
        kind="listener",
        name="proxy-protocol",
        form=BOOLEAN,
        default="off",
        effect="Expect a PROXY protocol header, version 1 or 2, from the addresses in `proxy-protocol-trusted`.",
        example="on",
    ),
    Option(
        kind="listener",
        name="proxy-protocol-trusted",
        form=NETWORKS,
        default_text="nobody",
        effect="Who may send a PROXY header. Connections from elsewhere are served as they are, without one.",
        example="10.0.0.0/8, 192.168.7.2",
    ),
    # Rules
    Option(
        kind="rule",
        name="listener",
        form=as_written("name"),
        required=True,
        effect="The listener that the rule belongs to.",
        example="web",
    ),
    Option(
        kind="rule",
        name="priority",
        form=integer_from(1, 50000),
        required=True,
        effect="Lowest first; each number once in a listener.",
        example="10",
    ),
    Option(
        kind="rule",
        name="host",
        form=patterns(Form("", host_pattern), _PATTERN_LIST),
        effect="The request's host without its port, letter case ignored.",
        example="www.example.com, *.example.org",
    ),
    Option(
        kind="rule",
        name="path",
        form=patterns(Form("", path_pattern), _PATTERN_LIST),
        effect="The path as the client sent it, without the query, letter case kept.",
        example="/api/*, regex:^/v[0-9]+/",
    ),
    Option(
        kind="rule",
        name="method",
        form=list_of(Form("", method), "list of methods"),
        effect="The request method.",
        example="GET, HEAD",
    ),
    Option(
        kind="rule",
        name="header.NAME",
        form=patterns(Form("", value_pattern), _PATTERN_LIST),
        effect="A header field's value, letter case ignored. Quote a pattern with a comma.",
        example="acme*, globex",
    ),
    Option(
        kind="rule",
        name="query.KEY",
        form=patterns(Form("", query_pattern), _PATTERN_LIST),
        effect="The value of `KEY=value` in the query, letter case ignored; `KEY` may hold wildcards. `\\` takes the"
        " next character as it is. No regular expressions.",
        example="2",
    ),
    Option(
        kind="rule",
        name="query",
        form=patterns(Form("", query_pattern), _PATTERN_LIST),
        effect="The value of any key in the query.",
        example="*debug*",
    ),
    Option(
        kind="rule",
        name="source-ip",
        form=NETWORKS,
        effect="The client's address (or the one in a trusted PROXY header), never `X-Forwarded-For`.",
        example="10.0.0.0/8, 2001:db8::/32",
    ),
    *_change_rows("rule"),
    Option(
        kind="rule",
        name="url-rewrite",
        form=Form("regular expression, then replacement", rewrite),
        default_text="none",
        effect="Replace in path and query of what is forwarded the first that the expression (RE2) finds; `$1` to `$9`"
        " are its groups. What is no path any more gets a 500"
        " `TransformFailed`. The rules have seen the path as it came.",
        example="^/api/(.*)$ /$1",
    ),
    Option(
        kind="rule",
        name="host-rewrite",
        form=Form("regular expression, then replacement", rewrite),
        default_text="none",
        effect="The same for the host (in lower case, without its port) in the Host field.",
        example=r"^(.*)\.example\.com$ $1.internal",
    ),
    Option(
        kind="rule",
        name="queue-priority",
        form=integer_from(0, 9),
        default=str(DEFAULT_QUEUE_PRIORITY),
        effect="Which requests go first where some wait because of `max-concurrent-requests`: the highest. In a full"
        " queue they take the place of lower ones.",
        example="9",
    ),
    *_rule_retry_rows(),
    Option(
        kind="rule",
        name="action",
        form=ACTION,
        required=True,
        effect="What happens to the request. See [Actions](#actions).",
        example="forward app weight=90, canary weight=10",
    ),
    # Target groups
    Option(
        kind="target-group",
        name="protocol",
        form=_protocol((p.value for p in TargetProtocol), ("UDP", "TCP_UDP", "GENEVE", "QUIC", "TCP_QUIC")),
        required=True,
        effect="What is spoken to the targets. HTTP and HTTPS listeners need an HTTP or HTTPS group, TCP and TLS"
        " listeners a TCP or TLS group.",
        example="HTTP",
    ),
    Option(
        kind="target-group",
        name="protocol-version",
        form=one_of(*(version.value for version in ProtocolVersion)),
        protocols=HTTP,
        default="HTTP1",
        effect="Which HTTP the targets speak. HTTP2 and GRPC need targets that take HTTP/2 without asking first (by"
        " prior knowledge; for HTTPS groups by ALPN `h2`). GRPC has errors, deadlines and health checks as gRPC has"
        " them. WebSocket goes to HTTP1 groups only.",
        example="GRPC",
    ),
    Option(
        kind="target-group",
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
        kind="target-group",
        name="discovery",
        form=SOURCES,
        default_text="none",
        effect="Where more targets are found, and followed as they come and go. See [discovery.md](discovery.md).",
        example="dns:app.internal:8080, file:targets.yaml",
    ),
    Option(
        kind="target-group",
        name="discovery-protect",
        form=PROTECT,
        default="1",
        effect="The fewest targets that discovery may leave in the group, or which part of those that are in it. An"
        " answer that would leave fewer is held back: the targets of before stay.",
        example="50%",
    ),
    Option(
        kind="target-group",
        name="registration-token",
        form=TOKENS,
        is_secret=True,
        default_text="none: no registration",
        effect="Files with tokens, one a line, with which targets may register themselves at the admin API; see"
        " [discovery.md](discovery.md).",
        example="file:app.token",
    ),
    Option(
        kind="target-group",
        name="etcd-user",
        form=as_written("name"),
        default_text="none: etcd is asked without",
        effect="The user of etcd that lbproxy logs in as, for an etcd with authentication; it needs to read the keys of"
        " the `etcd:` sources of the group.",
        example="lbproxy",
    ),
    Option(
        kind="target-group",
        name="etcd-password",
        form=PASSWORD,
        is_secret=True,
        default_text="none",
        effect="The file with the password of `etcd-user`, in one line.",
        example="file:etcd.password",
    ),
    Option(
        kind="target-group",
        name="etcd-ca",
        form=as_written("path"),
        default_text="the system's authorities",
        effect="The authorities (PEM) that may have signed the certificate of an etcd at an `https://` URL.",
        example="etcd-ca.pem",
    ),
    Option(
        kind="target-group",
        name="algorithm",
        form=Form(either(ALGORITHMS), _algorithm),
        default="round_robin",
        effect="How a target is chosen; see [balancing.md](balancing.md).",
        example="least_outstanding_requests",
    ),
    Option(
        kind="target-group",
        name="hash-key",
        form=Form(either(_HASH_KEYS), _hash_key),
        default="source",
        effect="What `maglev` and `rendezvous` hash, so that requests with the same value go to the same target; only"
        " `source`, the client's address, in TCP and TLS groups. A request without the value takes its turn.",
        example="cookie.session",
    ),
    Option(
        kind="target-group",
        name="hash-balance-factor",
        form=Form("0, or per cent from 101 to 1000", _balance_factor),
        default="0",
        effect="How much of its fair share of what is in flight a target may have before `maglev` and `rendezvous` go"
        " on to the key's next target; 0 is no bound.",
        example="150",
    ),
    Option(
        kind="target-group",
        name="stickiness",
        form=BOOLEAN,
        default="off",
        effect="A client comes back to the target that served it before, as long as it can.",
        example="on",
    ),
    Option(
        kind="target-group",
        name="stickiness-type",
        form=one_of(StickinessType.LB_COOKIE.value, StickinessType.APP_COOKIE.value),
        protocols=HTTP,
        default=StickinessType.LB_COOKIE.value,
        effect="`lb_cookie`: by the cookie `AWSALB` of each answer. `app_cookie`: by `AWSALBAPP-0`, which goes with the"
        " application's own cookie.",
        example="app_cookie",
    ),
    Option(
        kind="target-group",
        name="stickiness-type",
        form=one_of(StickinessType.SOURCE_IP.value),
        protocols=TCP,
        default=StickinessType.SOURCE_IP.value,
        effect="By the client's address, in place of `algorithm`.",
        example="source_ip",
    ),
    Option(
        kind="target-group",
        name="stickiness-lb-cookie-duration",
        form=duration_from("1s", "7d"),
        protocols=HTTP,
        default="1d",
        effect="How long the cookie of the last answer binds.",
        example="1h",
    ),
    Option(
        kind="target-group",
        name="stickiness-app-cookie-name",
        form=Form("name", _cookie_name),
        protocols=HTTP,
        default_text="none",
        effect="The application's own cookie, which it sets itself.",
        example="JSESSIONID",
    ),
    Option(
        kind="target-group",
        name="stickiness-app-cookie-duration",
        form=duration_from("1s", "7d"),
        protocols=HTTP,
        default="1d",
        effect="How long a client is bound from when the application set its cookie.",
        example="1h",
    ),
    Option(
        kind="target-group",
        name="anomaly-mitigation",
        form=BOOLEAN,
        protocols=HTTP,
        default="off",
        effect="Give a target whose requests fail more often than its peers' less and less, until that is over; with"
        " `algorithm = weighted_random` and three healthy targets at least.",
        example="on",
    ),
    Option(
        kind="target-group",
        name="outlier-detection",
        form=BOOLEAN,
        default="off",
        effect="Take a target out for a while when its requests fail or take long, whatever its health checks say. See"
        " [balancing.md](balancing.md#outliers).",
        example="on",
    ),
    Option(
        kind="target-group",
        name="outlier-consecutive-failures",
        form=integer_from(0, 1000),
        protocols=HTTP,
        default="5",
        effect="So many requests in a row that fail or are answered with 500 or more, as one worker sees them; 0 for"
        " never.",
        example="3",
    ),
    Option(
        kind="target-group",
        name="outlier-latency-factor",
        form=integer_from(0, 1000),
        protocols=HTTP,
        default="5",
        effect="So many times the response time of the other targets (their median) is too slow; 0 for never.",
        example="10",
    ),
    Option(
        kind="target-group",
        name="outlier-interval",
        form=duration_from("1s", "5m"),
        default="10s",
        effect="How often the targets are compared.",
        example="5s",
    ),
    Option(
        kind="target-group",
        name="outlier-base-ejection-time",
        form=duration_from("1s", "1h"),
        default="30s",
        effect="How long a target is out the first time; twice as long each time after.",
        example="10s",
    ),
    Option(
        kind="target-group",
        name="outlier-max-ejection-time",
        form=duration_from("1s", "1d"),
        default="5m",
        effect="The longest that it is out at a time.",
        example="10m",
    ),
    Option(
        kind="target-group",
        name="outlier-max-ejected-percentage",
        form=integer_from(1, 100),
        default="33",
        effect="Which part of the healthy targets may be out at a time; one always may, the last one never.",
        example="50",
    ),
    Option(
        kind="target-group",
        name="max-concurrent-requests",
        form=integer_from(0, 1000000),
        protocols=HTTP,
        default="0",
        effect="How many requests a target is given at a time, by all workers together; further ones wait. 0 is no"
        " limit.",
        example="100",
    ),
    Option(
        kind="target-group",
        name="queue-length",
        form=integer_from(0, 100000),
        protocols=HTTP,
        default="1024",
        effect="How many requests wait, at all workers together, when all targets have `max-concurrent-requests`; one"
        " more is answered with 503.",
        example="0",
    ),
    Option(
        kind="target-group",
        name="queue-timeout",
        form=duration_from("10ms", "10m"),
        protocols=HTTP,
        default="5s",
        effect="How long one waits, then it is answered with 503.",
        example="500ms",
    ),
    Option(
        kind="target-group",
        name="circuit-breaker-max-requests",
        form=integer_from(0, 1000000),
        protocols=HTTP,
        default="0",
        effect="How many requests may be in flight to all targets of the group at a time, by all workers together; one"
        " more is answered with 503 at once. 0 is no limit.",
        example="1024",
    ),
    Option(
        kind="target-group",
        name="circuit-breaker-max-retries",
        form=integer_from(0, 1000000),
        protocols=HTTP,
        default="0",
        effect="How many requests of the group may be in a retry at a time, by all workers together; further ones are"
        " not retried. 0 is no limit but `retry-budget`.",
        example="16",
    ),
    Option(
        kind="target-group",
        name="slow-start",
        form=Form("0s, or duration from 30s to 900s", _slow_start),
        default="0s",
        effect="A target that becomes healthy beside others that are in full service gets its share little by little"
        " over this time. Not with `least_outstanding_requests`, `weighted_random` or `first`.",
        example="60s",
    ),
    Option(
        kind="target-group",
        name="cross-zone",
        form=one_of(*(value.value for value in CrossZone)),
        default="on",
        effect="`on`: targets of all zones are alike. `spill`: those of other zones than `zone` in `[lbproxy]` take"
        " only what healthy targets in it cannot. `off`: they take nothing. A target without a zone is in all zones.",
        example="spill",
    ),
    Option(
        kind="target-group",
        name="unhealthy-state-routing-minimum-count",
        form=integer_from(1, 1000),
        default="1",
        effect="With fewer healthy targets than this, all of them get traffic, unhealthy ones too"
        " (`target_group_health.unhealthy_state_routing.minimum_healthy_targets.count`).",
        example="3",
    ),
    Option(
        kind="target-group",
        name="unhealthy-state-routing-minimum-percentage",
        form=_PERCENTAGE_OR_OFF,
        default="off",
        effect="The same as a share of the targets.",
        example="50",
    ),
    Option(
        kind="target-group",
        name="backup",
        form=as_written("name"),
        default_text="none",
        effect="A target group that takes this one's traffic while too few of its targets are healthy.",
        example="other-site",
    ),
    Option(
        kind="target-group",
        name="backup-percentage",
        form=integer_from(1, 100),
        default="1",
        effect="The backup takes over while less than this share of the targets is healthy; 1 is when none is.",
        example="50",
    ),
    Option(
        kind="target-group",
        name="health-check",
        form=BOOLEAN,
        default="on",
        effect="Probe the targets. When off, all of them get traffic.",
        example="off",
    ),
    Option(
        kind="target-group",
        name="health-check-protocol",
        form=one_of(*(p.value for p in HealthCheckProtocol)),
        protocols=("HTTP",),
        default="HTTP",
        effect="What a probe speaks.",
        example="TCP",
    ),
    Option(
        kind="target-group",
        name="health-check-protocol",
        form=one_of(*(p.value for p in HealthCheckProtocol)),
        protocols=("HTTPS",),
        default="HTTPS",
        effect="What a probe speaks.",
        example="TCP",
    ),
    Option(
        kind="target-group",
        name="health-check-protocol",
        form=one_of(*(p.value for p in HealthCheckProtocol)),
        protocols=TCP,
        default="TCP",
        effect="What a probe speaks. `TCP` only connects.",
        example="HTTP",
    ),
    Option(
        kind="target-group",
        name="health-check-port",
        form=Form("traffic-port or number, 1 to 65535", _probe_port),
        default="traffic-port",
        effect="The port to probe; `traffic-port` is the target's own.",
        example="8081",
    ),
    Option(
        kind="target-group",
        name="health-check-path",
        form=Form("path", request_path),
        default="/",
        effect="What an HTTP or HTTPS probe asks for. In a GRPC group it is a method, by default"
        " `/AWS.ALB/healthcheck`; of `/grpc.health.v1.Health/Check` the answer must be SERVING.",
        example="/healthz",
    ),
    Option(
        kind="target-group",
        name="health-check-host",
        form=Form("host, perhaps with port", host_field),
        default_text="the target's `host:port`",
        effect="The Host field of an HTTP or HTTPS probe.",
        example="app.example.com",
    ),
    Option(
        kind="target-group",
        name="health-check-interval",
        form=duration_from("100ms", "300s"),
        default="30s",
        effect="From the start of one probe to the start of the next.",
        example="5s",
    ),
    Option(
        kind="target-group",
        name="health-check-timeout",
        form=duration_from("100ms", "120s"),
        protocols=HTTP,
        default="5s",
        effect="For the whole probe, connecting included; not longer than the interval. The default shrinks to the"
        " interval.",
        example="2s",
    ),
    Option(
        kind="target-group",
        name="health-check-timeout",
        form=duration_from("100ms", "120s"),
        protocols=TCP,
        default="10s",
        effect="As above; 6s by default where `health-check-protocol` is HTTP.",
        example="2s",
    ),
    Option(
        kind="target-group",
        name="healthy-threshold",
        form=_HEALTH_THRESHOLD,
        default="5",
        effect="Successes in a row that bring an unhealthy target back. A new target needs only one.",
        example="2",
    ),
    Option(
        kind="target-group",
        name="unhealthy-threshold",
        form=_HEALTH_THRESHOLD,
        default="2",
        effect="Failures in a row that take a target out.",
        example="3",
    ),
    Option(
        kind="target-group",
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
        kind="target-group",
        name="matcher",
        form=ranges(200, 599),
        protocols=TCP,
        default="200-399",
        effect="Status codes by which an HTTP or HTTPS probe succeeds.",
        example="200-299",
    ),
    Option(
        kind="target-group",
        name="deregistration-delay",
        form=duration_from("0s", "3600s"),
        default="300s",
        effect="How long a target that was removed from the file may finish what it has in flight.",
        example="30s",
    ),
    Option(
        kind="target-group",
        name="connect-timeout",
        form=duration_from("10ms", "120s"),
        default="10s",
        effect="For connecting to a target, the TLS handshake included; then the next target is tried.",
        example="2s",
    ),
    Option(
        kind="target-group",
        name="response-timeout",
        form=duration_from("100ms", "1d"),
        protocols=HTTP,
        default="60s",
        effect="From the end of the request to the first byte of the answer.",
        example="5m",
    ),
    Option(
        kind="target-group",
        name="request-timeout",
        form=duration_from("10ms", "1d"),
        protocols=HTTP,
        default_text="none",
        effect="For everything: from the choice of the first target, over all tries, to the end of the answer."
        " Then the client gets 504, or what it has of the answer is cut. A WebSocket counts until it is open.",
        example="10s",
    ),
    Option(
        kind="target-group",
        name="retry-on",
        form=RETRY_ON,
        protocols=HTTP,
        default="connect-failure",
        effect="What sends a request to another target: none could be connected to (nothing was sent, so this holds for"
        " every method and costs no attempt), the target closed or `reset` the connection before its answer, or"
        " it answered with one of these status codes. Never once a byte of an answer has gone to the client, nor"
        " when more than 64 KiB of a body have been sent.",
        example="connect-failure, reset, 502-504",
    ),
    Option(
        kind="target-group",
        name="retry-attempts",
        form=integer_from(0, 10),
        protocols=HTTP,
        default="2",
        effect="How often a request that was sent may be sent again, each time to another target.",
        example="1",
    ),
    Option(
        kind="target-group",
        name="retry-methods",
        form=METHODS,
        protocols=HTTP,
        default=", ".join(IDEMPOTENT_METHODS),
        effect="Requests with other methods are not sent again once a byte of them was sent: the target may have acted"
        " on it. Add `POST` only where the targets recognise a request that they have seen.",
        example="GET, HEAD",
    ),
    Option(
        kind="target-group",
        name="retry-budget",
        form=integer_from(0, 100),
        protocols=HTTP,
        default="20",
        effect="Requests that were sent are sent again, all in all, up to this percentage of the group's requests of"
        " the last seconds; three a second are always allowed, unless it is 0.",
        example="10",
    ),
    Option(
        kind="target-group",
        name="try-timeout",
        form=duration_from("10ms", "1d"),
        protocols=HTTP,
        default_text="none",
        effect="How long the start of an answer is awaited, connecting included, before another target is tried. Where"
        " no retry is left, `response-timeout` counts.",
        example="2s",
    ),
    Option(
        kind="target-group",
        name="hedge-delay",
        form=duration_from("1ms", "1d"),
        protocols=HTTP,
        default_text="none",
        effect="When an answer has not begun after this time, the request goes to a second target as well; the first"
        " answer counts and the other try is cancelled. Only for `retry-methods`, and within the budget.",
        example="200ms",
    ),
    Option(
        kind="target-group",
        name="keep-alive-timeout",
        form=duration_from("0s", "4000s"),
        protocols=HTTP,
        default="55s",
        effect="How long an unused connection to a target is kept. Choose less than the targets' own limit.",
        example="4s",
    ),
    Option(
        kind="target-group",
        name="max-idle-connections",
        form=integer_from(0, 65535),
        protocols=HTTP,
        default="256",
        effect="Unused connections that each worker keeps for each target.",
        example="32",
    ),
    Option(
        kind="target-group",
        name="proxy-protocol",
        form=one_of(*(version.value for version in ProxyProtocolVersion)),
        protocols=TCP,
        default="off",
        effect="Tell the targets the client's address in a PROXY protocol header ahead of the first byte.",
        example="v2",
    ),
    Option(
        kind="target-group",
        name="tls-verify",
        form=BOOLEAN,
        protocols=ENCRYPTED,
        default="on",
        effect="Refuse a target whose certificate is not trusted or does not name it.",
        example="off",
    ),
    Option(
        kind="target-group",
        name="tls-server-name",
        form=Form("host name", host_name),
        protocols=ENCRYPTED,
        default_text="the target's host",
        effect="The name for SNI and verification.",
        example="app.internal",
    ),
    Option(
        kind="target-group",
        name="tls-ca",
        form=as_written("path"),
        protocols=ENCRYPTED,
        default_text="what the system trusts",
        effect="A PEM file with the certificates to trust instead.",
        example="tls/internal-ca.pem",
    ),
    # Rate limits
    Option(
        kind="rate-limit",
        name="listener",
        form=as_written("name"),
        required=True,
        effect="The listener whose requests are limited.",
        example="web",
    ),
    Option(
        kind="rate-limit",
        name="rule",
        form=as_written("name"),
        default_text="all of the listener's requests",
        effect="Only requests that this rule matched; `default` for those that the default action gets.",
        example="api",
    ),
    Option(
        kind="rate-limit",
        name="key",
        form=Form("client, all or header.NAME", _limit_key),
        default="client",
        effect="What has a limit of its own: each client address (an IPv6 /64 is one client), each value of a header"
        " field (requests without it are not limited by this), or all requests together.",
        example="header.X-Api-Key",
    ),
    Option(
        kind="rate-limit",
        name="rate",
        form=Form("N/s, N/m or N/h", request_rate),
        required=True,
        effect="Requests a second, minute or hour in the long run.",
        example="100/s",
    ),
    Option(
        kind="rate-limit",
        name="burst",
        form=integer_from(1, 1_000_000_000),
        default_text="the number in `rate`",
        effect="Requests at once after a pause.",
        example="200",
    ),
    Option(
        kind="rate-limit",
        name="dry-run",
        form=BOOLEAN,
        default="off",
        effect="Count and log what would be refused, and serve it.",
        example="on",
    ),
    # Security groups
    Option(
        kind="security-group",
        name="ingress",
        form=list_of(Form("", ingress_rule), "list of rules: PROTOCOL PORTS SOURCE ..."),
        default_text="none: nobody is let in",
        effect="Who is let in where: `tcp` or `all`; a port of the listener, a range or `all`; and, separated by"
        " spaces, CIDR blocks and `group:NAME` for the members of a group. The client's address counts, or the one in"
        " a trusted PROXY header.",
        example="tcp 443 10.0.0.0/8 2001:db8::/32, tcp 8000-8999 group:admins",
    ),
    Option(
        kind="security-group",
        name="members",
        form=NETWORKS,
        default_text="nobody",
        effect="Addresses that belong to the group: what `group:NAME` in a rule stands for.",
        example="198.51.100.0/28",
    ),
)


def _rows_by_name() -> Mapping[tuple[str, str], tuple[Option, ...]]:
    rows: dict[tuple[str, str], list[Option]] = {}
    for option in OPTIONS:
        rows.setdefault((option.kind, option.prefix or option.name), []).append(option)
    return {key: tuple(options) for key, options in rows.items()}


_ROWS = _rows_by_name()


def rows(kind: str, name: str) -> tuple[Option, ...]:
    """The rows of an option as it is written (``header.X-Tenant`` finds ``header.NAME``); empty if there is none."""
    prefix, dot, rest = name.partition(".")
    if dot:
        return _ROWS.get((kind, prefix.lower() + dot), ()) if rest else ()
    return _ROWS.get((kind, name), ())


def of_kind(kind: str, protocol: str | None) -> Iterable[Option]:
    """The rows that a section of this kind and protocol has."""
    return (option for option in OPTIONS if option.kind == kind and option.applies_to(protocol))


def is_secret(kind: str, name: str) -> bool:
    """Tell whether an option's value is not to be shown."""
    return any(row.is_secret for row in rows(kind, name))


def default_of(kind: str, name: str, protocol: str | None) -> Any:
    """The default as a value; None where the table has none or the protocol does not know the option."""
    found = rows(kind, name)
    if not found:
        raise LookupError(f"[{kind}] {name} is not in the table")
    row = next((option for option in found if option.applies_to(protocol)), None)
    return None if row is None or row.default is None else row.form.parse(row.default)


def names_of(kind: str) -> tuple[str, ...]:
    """Names for suggestions and messages, each once."""
    return tuple(dict.fromkeys(option.name for option in OPTIONS if option.kind == kind))


def header_of(option: str) -> str:
    """The field name of ``header.NAME``; raises ValueError where it cannot be a condition."""
    name = field_name(option.partition(".")[2])
    if name == "host":
        raise ValueError("Host is not matched as a header; write host = ...")
    return name


def query_key_of(option: str) -> Pattern:
    """The key of ``query.KEY``, which may hold wildcards."""
    return query_pattern(option.partition(".")[2])


def _rest(option: str) -> str:
    return option.partition(".")[2]


NAME_CHECKS: Mapping[str, Callable[[str], Any]] = {
    "header.": header_of,
    "query.": query_key_of,
    "error-page.": lambda option: error_statuses(_rest(option)),
    **{
        f"{verb}-{message}-header.": lambda option, message=message: changed_field(  # type: ignore[misc]
            _rest(option), request=message == "request"
        )
        for verb in ("set", "add")
        for message in ("request", "response")
    },
}
"""By prefix: raises ValueError for an option whose part after the dot is not right."""
