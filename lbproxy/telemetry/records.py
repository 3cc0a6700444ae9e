"""What the access log says of a request, and of a TCP or TLS connection."""

from __future__ import annotations

from collections.abc import Sequence


class HttpRecord:
    """An HTTP request that ended; the data plane's exchange is one.

    Bytes are as they were received, an absent text is empty, times are in seconds.
    """

    __slots__ = (
        "action",
        "authority",
        "classification",
        "classification_reason",
        "client_host",
        "client_port",
        "duration",
        "error_reason",
        "kind",
        "listener",
        "method",
        "priority",
        "rate_limit",
        "received_bytes",
        "redirect_url",
        "referer",
        "request_target",
        "request_time",
        "response_time",
        "retry_reason",
        "rule",
        "scheme",
        "sent_bytes",
        "server_name",
        "started",
        "status",
        "target",
        "target_group",
        "target_status",
        "target_time",
        "targets_tried",
        "tls_cipher",
        "tls_version",
        "trace_id",
        "transformed_host",
        "transformed_uri",
        "user_agent",
        "version",
    )

    kind: str
    """``http``, ``https``, ``ws`` or ``wss``."""
    started: float
    """Unix time of the request's first byte."""
    listener: str
    client_host: str
    """IP literal of the client, without brackets."""
    client_port: int
    scheme: str
    method: bytes
    authority: bytes
    """The Host field or the target's authority, as received."""
    request_target: bytes
    version: bytes
    """For example ``HTTP/1.1``."""
    user_agent: bytes
    referer: bytes

    def __init__(self) -> None:
        self.begin_record()

    def begin_record(self) -> None:
        """Set everything to what is so before anything has happened."""
        self.target_group = ""
        """Empty when the request was not forwarded."""
        self.target = ""
        """``host:port``, empty when no target was chosen."""
        self.targets_tried: Sequence[tuple[str, int]] = ()
        """(``host:port``, status or 0) for each attempt, in order."""
        self.retry_reason = ""
        """Why each attempt after the first was made, in order, separated by commas: a fault, a status or ``Hedge``."""
        self.status = 0
        """What the client got, or would have got had it waited (460)."""
        self.target_status = 0
        """0 if no answer came."""
        self.request_time = -1.0
        """From the first byte to the dispatch to a target, -1 if not dispatched."""
        self.target_time = -1.0
        """From the dispatch to the first byte of the answer, -1 if none came."""
        self.response_time = -1.0
        """From the first byte of the answer to the end, -1 if none came."""
        self.duration = 0.0
        """Altogether."""
        self.received_bytes = 0
        """From the client, head included."""
        self.sent_bytes = 0
        """To the client, head included."""
        self.trace_id = b""
        self.rule = ""
        """The matched rule's name, ``default`` for the default action."""
        self.priority = 0
        """The matched rule's; 0 for the default action, -1 when no rule could be evaluated."""
        self.action = ""
        """``forward``, ``redirect``, ``fixed-response`` or empty."""
        self.redirect_url = ""
        self.error_reason = ""
        self.transformed_host = b""
        """As it was sent on where the rule rewrote it, else empty; so are the path and query."""
        self.transformed_uri = b""
        self.rate_limit = ""
        """The rate limit that it was over; with `` dry-run`` behind it where it was served all the same."""
        self.classification = ""
        """``Acceptable``, ``Ambiguous`` or ``Severe`` of a request that is not compliant (AWS, desync mitigation)."""
        self.classification_reason = ""
        self.server_name = ""
        """What the client asked for by SNI."""
        self.tls_version = ""
        """As OpenSSL names it, ``TLSv1.3``; empty without TLS."""
        self.tls_cipher = ""


class RequestLog:
    """What is told of requests that ended; a base, so that the compiled build calls it directly."""

    __slots__ = ()

    def log(self, record: HttpRecord) -> None:
        raise NotImplementedError  # interface


class TcpRecord:
    """A TCP or TLS connection that ended; times are in seconds."""

    __slots__ = (
        "client_address",
        "client_port",
        "connect_time",
        "duration",
        "error_reason",
        "listener",
        "received_bytes",
        "sent_bytes",
        "server_name",
        "started",
        "target",
        "target_group",
        "tls_cipher",
        "tls_version",
    )

    def __init__(self, listener: str, client_address: str, client_port: int, started: float) -> None:
        self.listener = listener
        self.client_address = client_address
        """IP literal of the client, without brackets."""
        self.client_port = client_port
        self.started = started
        """Unix time of the accept."""
        self.duration = 0.0
        """Seconds from the accept to the end of both connections."""
        self.target_group = ""
        self.target = ""
        """``host:port`` of the last target tried, empty if none was."""
        self.connect_time = -1.0
        """Seconds that it took to connect to a target, failed attempts included; -1 if none was connected."""
        self.received_bytes = 0
        """From the client."""
        self.sent_bytes = 0
        """To the client."""
        self.tls_version = ""
        """As OpenSSL names it; empty without TLS."""
        self.tls_cipher = ""
        self.server_name = ""
        self.error_reason = ""
        """`Fault.reason`, empty after an orderly end."""
