"""What can go wrong in an exchange, and what the client is told.

One table turns a fault into a status, the reason in the access log and the name of a
counter (status codes: AWS, "Troubleshoot your Application Load Balancers").
"""

from __future__ import annotations

import enum


class Side(enum.Enum):
    """Whose fault it was."""

    CLIENT = "client"
    TARGET = "target"
    OURS = "ours"


class Retry(enum.Enum):
    """Whether another target (or a fresh connection) may be tried."""

    NO = "no"
    YES = "yes"
    """Nothing of the request was sent."""
    IF_REUSED = "if-reused"
    """Sent on a kept connection that the target closed before it answered: for idempotent requests."""
    UNPROCESSED = "unprocessed"
    """Sent, but the target says that it has not looked at it (RFC 9113 section 8.7): for requests still at hand."""


class Fault(enum.Enum):
    """A failure of an exchange or a TCP connection: (name, side, status, retry)."""

    # status 0: nobody is there to be told, the number is for the log only
    BAD_REQUEST = ("BadRequest", Side.CLIENT, 400, Retry.NO)
    BAD_PATH = ("BadPath", Side.CLIENT, 400, Retry.NO)
    CLIENT_CLOSED = ("ClientClosed", Side.CLIENT, 460, Retry.NO)
    CLIENT_TIMEOUT = ("ClientTimeout", Side.CLIENT, 408, Retry.NO)
    CLIENT_TOO_SLOW = ("ClientTooSlow", Side.CLIENT, 408, Retry.NO)
    CLIENT_TLS_FAILED = ("ClientTlsFailed", Side.CLIENT, 0, Retry.NO)
    RATE_LIMITED = ("RateLimited", Side.CLIENT, 429, Retry.NO)
    SECURITY_GROUP = ("SecurityGroupDenied", Side.CLIENT, 0, Retry.NO)
    CONNECTION_LIMIT = ("ConnectionLimit", Side.CLIENT, 0, Retry.NO)
    CLIENT_CONNECTION_LIMIT = ("ClientConnectionLimit", Side.CLIENT, 0, Retry.NO)
    IDLE_TIMEOUT = ("IdleTimeout", Side.CLIENT, 0, Retry.NO)
    TOO_MANY_FORWARDED = ("TooManyForwardedAddresses", Side.CLIENT, 463, Retry.NO)
    TOO_LARGE_FOR_TARGET = ("HeadersTooLargeForTarget", Side.CLIENT, 431, Retry.NO)
    MISDIRECTED = ("MisdirectedRequest", Side.CLIENT, 421, Retry.NO)
    METHOD_NOT_ALLOWED = ("MethodNotAllowed", Side.CLIENT, 405, Retry.NO)
    INCOMPATIBLE_TARGET_GROUP = ("IncompatibleTargetGroup", Side.OURS, 500, Retry.NO)
    TRANSFORM_FAILED = ("TransformFailed", Side.OURS, 500, Retry.NO)
    INTERNAL = ("InternalError", Side.OURS, 500, Retry.NO)
    DRAIN_DEADLINE = ("DrainDeadline", Side.OURS, 503, Retry.NO)
    NO_TARGETS = ("NoTargets", Side.TARGET, 503, Retry.NO)
    CIRCUIT_OPEN = ("CircuitOpen", Side.TARGET, 503, Retry.NO)
    QUEUE_FULL = ("QueueFull", Side.TARGET, 503, Retry.NO)
    QUEUE_TIMEOUT = ("QueueTimeout", Side.TARGET, 503, Retry.NO)
    CONNECT_REFUSED = ("ConnectRefused", Side.TARGET, 502, Retry.YES)
    CONNECT_TIMEOUT = ("ConnectTimeout", Side.TARGET, 504, Retry.YES)
    TLS_FAILED = ("TargetTlsFailed", Side.TARGET, 502, Retry.YES)
    TARGET_REFUSED = ("TargetRefused", Side.TARGET, 503, Retry.UNPROCESSED)
    TARGET_CLOSED = ("TargetClosed", Side.TARGET, 502, Retry.IF_REUSED)
    TARGET_RESET = ("TargetReset", Side.TARGET, 502, Retry.IF_REUSED)
    BAD_RESPONSE = ("BadResponse", Side.TARGET, 502, Retry.NO)
    UNASKED_RESPONSE = ("UnaskedResponse", Side.TARGET, 502, Retry.IF_REUSED)
    RESPONSE_TIMEOUT = ("ResponseTimeout", Side.TARGET, 504, Retry.NO)
    REQUEST_TIMEOUT = ("RequestTimeout", Side.TARGET, 504, Retry.NO)
    TARGET_STALLED = ("TargetStalled", Side.TARGET, 504, Retry.NO)
    TARGET_DEREGISTERED = ("TargetDeregistered", Side.TARGET, 502, Retry.NO)

    reason: str
    side: Side
    status: int
    retry: Retry

    def __init__(self, reason: str, side: Side, status: int, retry: Retry) -> None:
        self.reason = reason
        self.side = side
        self.status = status
        self.retry = retry
