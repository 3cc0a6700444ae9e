"""A stream's states and what it holds (RFC 9113 section 5.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lbproxy.wire.http2.events import Event

# States.  Nobody pushes here, so none is reserved.
IDLE = 0
OPEN = 1
HALF_CLOSED_LOCAL = 2
HALF_CLOSED_REMOTE = 3
CLOSED = 4

# Steps.
SEND_HEADERS = 0
SEND_END = 1
RECEIVE_HEADERS = 2
RECEIVE_END = 3
RESET = 4

NOT_ALLOWED = 255

TRANSITIONS = {
    IDLE: {SEND_HEADERS: OPEN, RECEIVE_HEADERS: OPEN},
    OPEN: {
        SEND_HEADERS: OPEN,
        SEND_END: HALF_CLOSED_LOCAL,
        RECEIVE_HEADERS: OPEN,
        RECEIVE_END: HALF_CLOSED_REMOTE,
        RESET: CLOSED,
    },
    HALF_CLOSED_LOCAL: {RECEIVE_HEADERS: HALF_CLOSED_LOCAL, RECEIVE_END: CLOSED, RESET: CLOSED},
    HALF_CLOSED_REMOTE: {SEND_HEADERS: HALF_CLOSED_REMOTE, SEND_END: CLOSED, RESET: CLOSED},
    CLOSED: {RESET: CLOSED},
}
"""{state: {step: next state}}; what is missing is not allowed."""

_STEPS = 5
_NEXT = bytes(
    TRANSITIONS[state].get(step, NOT_ALLOWED) for state in sorted(TRANSITIONS) for step in range(_STEPS)
)  # fmt: skip


HEAD_AWAITED = -2
"""`Stream.awaited` of a request whose response has not begun."""


def next_state(state: int, step: int) -> int:
    """The state after a step, or `NOT_ALLOWED`."""
    return _NEXT[state * _STEPS + step]


class Stream:
    """One request with its response.

    ``owner`` is free for whoever uses the codec.
    """

    __slots__ = (
        "awaited",
        "end_queued",
        "event",
        "held",
        "id",
        "is_head",
        "owed",
        "owner",
        "queue",
        "queued",
        "receive_window",
        "send_window",
        "sent",
        "state",
        "trailers",
        "uncredited",
    )

    def __init__(self, number: int, send_window: int, receive_window: int) -> None:
        self.id = number
        self.state = IDLE
        self.owner: Any = None
        self.send_window = send_window
        self.receive_window = receive_window
        self.uncredited = 0
        """Octets received that no WINDOW_UPDATE of the stream has given back yet."""
        self.owed = 0
        """The same for the connection's window, while the stream is held."""
        self.held = False
        """Whether its octets are for now not given back, for nobody takes them."""
        self.awaited = -1
        """How much content is still to come by content-length; -1 if it did not say."""
        self.is_head = False
        """Whether it is the answer to a HEAD that comes, which has no content whatever it says."""
        self.queue: list[bytes] = []
        """What waits for a window, or for the transport."""
        self.queued = 0
        """The same in octets."""
        self.sent = 0
        """Octets of content that left, so that progress can be seen."""
        self.end_queued = False
        """Whether the end of the stream waits behind the queue."""
        self.trailers = b""
        """Trailers that wait with it."""
        self.event: Event | None = None
        """The last event of this stream, as long as more may be added to it."""
