"""What a connection of HTTP/2 writes, and the windows of both directions (RFC 9113 sections 5.2, 6.9 and 8.1)."""

from __future__ import annotations

from lbproxy.wire.errors import LocalProtocolError
from lbproxy.wire.http2 import events as kinds
from lbproxy.wire.http2.abuse import Score
from lbproxy.wire.http2.errors import NO_ERROR
from lbproxy.wire.http2.events import Event
from lbproxy.wire.http2.frames import (
    DEFAULT_WINDOW,
    FRAME_HEAD_BYTES,
    MAX_STREAM_ID,
    PING,
    RST_STREAM,
    WINDOW_UPDATE,
    FrameWriter,
)
from lbproxy.wire.http2.stream import (
    CLOSED,
    HEAD_AWAITED,
    NOT_ALLOWED,
    RECEIVE_END,
    SEND_END,
    SEND_HEADERS,
    Stream,
    next_state,
)

STREAM_WINDOW = 262144
CONNECTION_WINDOW = 1048576
"""What a peer may send ahead of who takes it: in one stream, and in all."""

_MAX_RESET = 1000
_UPDATES_AHEAD = 100
_MAX_UPDATES_AHEAD = 2000
_UPDATES_FOR_DATA = 3
"""WINDOW_UPDATE and PING frames that a peer may send at the beginning, save up, and for each stream and each DATA
frame: an update is for the stream, one for the connection, and with a PING gRPC measures how much is on its way."""
_SMALL_DATA = 1024
"""A DATA frame below this gives no right to them if it is a part only: a window opened by the octet makes many."""

_STATUS_CODES = {200: b"\x88", 204: b"\x89", 206: b"\x8a", 304: b"\x8b", 400: b"\x8c", 404: b"\x8d", 500: b"\x8e"}
"""RFC 7541 appendix A."""
_METHOD_CODES = {b"GET": b"\x82", b"POST": b"\x83"}
_SCHEME_CODES = {b"http": b"\x86", b"https": b"\x87"}


class Sending(FrameWriter):
    """The part of a `Connection` that writes; it holds the streams."""

    __slots__ = (
        "_client",
        "_events",
        "_failed",
        "_goaway_id",
        "_handed_id",
        "_held_bytes",
        "_initial_send_window",
        "_next_id",
        "_receive_window",
        "_reset",
        "_score",
        "_send_window",
        "_uncredited",
        "_updates_ahead",
        "_waiting",
        "blocked",
        "goaway_received",
        "peer_connect_protocol",
        "peer_max_header_list",
        "peer_max_streams",
        "sent_bytes",
        "streams",
    )

    def __init__(self, client: bool) -> None:
        super().__init__()
        self._client = client
        self.streams: dict[int, Stream] = {}
        """Those that are open or half-closed."""
        self.blocked = False
        """Whether the transport takes nothing for now: DATA waits in the streams; see `unblock`."""
        self.peer_max_streams = 100 if client else 0
        """How many streams the server takes at once; until it says so, what RFC 9113 calls the least it should."""
        self.peer_connect_protocol = False
        """Whether the server knows extended CONNECT (RFC 8441)."""
        self.peer_max_header_list = -1
        """How large a header list the peer wants at most, as HPACK counts it; -1 for any."""
        self.goaway_received = False
        self.sent_bytes = 0
        """Octets of content that left, of all streams."""
        self._score = Score()
        self._events: list[Event] = []
        self._failed = False
        self._next_id = 1
        self._handed_id = 0
        self._goaway_id = MAX_STREAM_ID
        self._reset: dict[int, bool] = {}
        self._initial_send_window = DEFAULT_WINDOW
        self._send_window = DEFAULT_WINDOW
        self._receive_window = CONNECTION_WINDOW
        self._uncredited = 0
        self._held_bytes = 0
        self._updates_ahead = _UPDATES_AHEAD
        self._waiting: dict[int, Stream] = {}

    @property
    def can_open(self) -> bool:
        """Whether a client may open one more stream."""
        return (
            len(self.streams) < self.peer_max_streams
            and not self.goaway_received
            and not self._failed
            and self._next_id <= MAX_STREAM_ID
        )

    # Heads

    def send_request(
        self,
        method: bytes,
        scheme: bytes,
        authority: bytes,
        path: bytes,
        lines: bytes,
        content_length: int,
        ended: bool,
        protocol: bytes = b"",
    ) -> Stream:
        """Open a stream (a client's only); ask `can_open` first.

        ``lines`` are field lines ``Name: value`` with their CRLF, without Host and those that frame; ``content_length``
        is -1 if not known; ``protocol`` makes it an extended CONNECT (RFC 8441).
        """
        if not self._client or not self.can_open:
            raise LocalProtocolError("no stream can be opened")
        number = self._next_id
        self._next_id += 2
        stream = Stream(number, self._initial_send_window, STREAM_WINDOW)
        stream.state = next_state(stream.state, SEND_HEADERS)
        stream.awaited = HEAD_AWAITED
        stream.is_head = method == b"HEAD"
        self.streams[number] = stream
        self._allow_updates()
        encoder = self._encoder
        block = [
            encoder.begin(),
            _METHOD_CODES.get(method) or encoder.field(b":method", method),
            _SCHEME_CODES.get(scheme) or encoder.field(b":scheme", scheme),
            encoder.field(b":authority", authority),
            encoder.field(b":path", path),
        ]
        if protocol:
            block.append(encoder.field(b":protocol", protocol))
        block.append(encoder.lines(lines))
        if content_length >= 0:
            block.append(encoder.content_length(content_length))
        self._write_block(number, b"".join(block), ended)
        if ended:
            self._sent_end(stream)
        return stream

    def send_response(self, stream: Stream, status: int, lines: bytes, content_length: int, ended: bool) -> int:
        """Start an answer, a 1xx too; ``lines`` as in `send_request`.  Returns how many bytes the head takes."""
        self._check_sending(stream)
        encoder = self._encoder
        block = [
            encoder.begin(),
            _STATUS_CODES.get(status) or encoder.field(b":status", b"%d" % status),
            encoder.lines(lines),
        ]
        if content_length >= 0:
            block.append(encoder.content_length(content_length))
        joined = b"".join(block)
        self._write_block(stream.id, joined, ended)
        if ended:
            self._sent_end(stream)
        return FRAME_HEAD_BYTES + len(joined)

    def _check_sending(self, stream: Stream) -> None:
        if next_state(stream.state, SEND_HEADERS) == NOT_ALLOWED or stream.end_queued:
            raise LocalProtocolError(f"stream {stream.id} does not take any more")

    def _sent_end(self, stream: Stream) -> None:
        """Our side of the stream is whole."""
        stream.state = next_state(stream.state, SEND_END)
        if stream.state == CLOSED:
            self._close(stream)
        elif not self._client and stream.awaited:
            # section 8.1: what is still to come of the request is not needed; but where all of its content has come,
            # its end is on the way, and some clients take a reset before that for a failure
            self.reset(stream, NO_ERROR)
        if not self._client:
            self._score.redeem()

    def _send_trailers(self, stream: Stream, trailers: bytes) -> None:
        self._write_block(stream.id, self._encoder.begin() + self._encoder.lines(trailers), True)
        self._sent_end(stream)

    # Content

    def send_data(self, stream: Stream, data: bytes, ended: bool) -> bool:
        """Send content; tell whether all of it left.

        If not, what is left is kept and a `WRITABLE` event comes when it has gone; give no more until then.
        """
        self._check_sending(stream)
        size = len(data)
        if not stream.queued and (
            not size or (size <= stream.send_window and size <= self._send_window and not self.blocked)
        ):  # section 6.9.1: an end without content needs no window, which SETTINGS may have made negative
            if size or ended:
                self._allow_updates()
                self._send_content(stream, data, ended)
                if ended:
                    self._sent_end(stream)
            return True
        if size:
            stream.queue.append(data)
            stream.queued += size
        stream.end_queued = ended
        self._waiting[stream.id] = stream
        self._send_waiting()
        return not stream.queued

    def send_end(self, stream: Stream, trailers: bytes) -> None:
        """The message is whole; ``trailers`` are field lines."""
        if not trailers:
            self.send_data(stream, b"", True)
            return
        self._check_sending(stream)
        if stream.queued:
            stream.end_queued = True
            stream.trailers = trailers
        else:
            self._send_trailers(stream, trailers)

    def _send_content(self, stream: Stream, data: bytes, ended: bool) -> None:
        size = len(data)
        stream.send_window -= size
        self._send_window -= size
        stream.sent += size
        self.sent_bytes += size
        self._write_data(stream.id, data, ended)

    def _allow_updates(self) -> None:
        self._updates_ahead = min(self._updates_ahead + _UPDATES_FOR_DATA, _MAX_UPDATES_AHEAD)

    def _send_waiting(self) -> None:
        """Send what waits, as far as the windows go: a frame of each stream in turn."""
        moved = True
        while moved and not self.blocked and self._send_window > 0:
            moved = False
            for stream in list(self._waiting.values()):
                room = min(stream.send_window, self._send_window, self._max_data)
                if room > 0:
                    moved = True
                    self._send_some(stream, room)

    def _send_some(self, stream: Stream, room: int) -> None:
        """Send the beginning of a stream's queue, and its end if that is all."""
        queue = stream.queue
        data = queue[0]
        if len(data) <= room:
            del queue[0]
        else:
            queue[0] = data[room:]
            data = data[:room]
        stream.queued -= len(data)
        if len(data) >= _SMALL_DATA or not stream.queued:
            self._allow_updates()
        if stream.queued:
            self._send_content(stream, data, False)
            return
        del self._waiting[stream.id]
        ended, stream.end_queued = stream.end_queued, False
        self._send_content(stream, data, ended and not stream.trailers)
        if not ended:
            # not `_event`: nothing is added to this one
            self._events.append(Event(kinds.WRITABLE, stream))
        elif stream.trailers:
            self._send_trailers(stream, stream.trailers)
        else:
            self._sent_end(stream)

    def unblock(self) -> list[Event]:
        """The transport takes more again: send what waits; returns `WRITABLE` events."""
        self.blocked = False
        if self._waiting:
            self._send_waiting()
        return self._take_events()

    def _take_events(self) -> list[Event]:
        events, self._events = self._events, []
        for event in events:
            stream = event.stream
            if stream is not None:
                stream.event = None
            if event.pieces is not None:
                event.data = b"".join(event.pieces)
                event.pieces = None
            if event.kind == kinds.REQUEST and event.ended and event.head.chunked and not event.trailers:
                # all of it is here, so its length is known
                event.head.chunked = False
                event.head.content_length = len(event.data)
        return events

    # What the peer may send

    def hold(self, stream: Stream) -> None:
        """Nobody takes what the peer sends on this stream: do not ask for more than its window."""
        if not stream.held and stream.state != CLOSED:
            stream.held = True
            stream.owed = 0
            self._held_bytes += stream.uncredited

    def release(self, stream: Stream) -> None:
        """Ask for more again."""
        if stream.held:
            self._unhold(stream)
            if next_state(stream.state, RECEIVE_END) != NOT_ALLOWED:
                self._credit_stream(stream)

    def _unhold(self, stream: Stream) -> None:
        stream.held = False
        self._held_bytes -= stream.uncredited
        owed, stream.owed = stream.owed, 0
        if owed:
            self._credit(owed)

    def _credit(self, size: int) -> None:
        """Give back so much of the connection's window, but not by the spoonful."""
        self._uncredited += size
        if self._uncredited >= CONNECTION_WINDOW // 2:
            self._write_word_frame(WINDOW_UPDATE, 0, self._uncredited)
            self._receive_window += self._uncredited
            self._uncredited = 0

    def _credit_stream(self, stream: Stream) -> None:
        if stream.uncredited >= STREAM_WINDOW // 2:
            self._write_word_frame(WINDOW_UPDATE, stream.id, stream.uncredited)
            stream.receive_window += stream.uncredited
            stream.uncredited = 0

    # Ends

    def reset(self, stream: Stream, code: int) -> None:
        """Give a stream up; nothing more is told of it."""
        if stream.state == CLOSED:
            return
        self._write_word_frame(RST_STREAM, stream.id, code)
        self._forget(stream.id)
        self._close(stream)

    def _forget(self, number: int) -> None:
        """Remember that we have reset this stream, so that what was on its way passes; for the last of them."""
        if len(self._reset) >= _MAX_RESET:
            del self._reset[next(iter(self._reset))]
        self._reset[number] = True

    def _close(self, stream: Stream) -> None:
        stream.state = CLOSED
        self.streams.pop(stream.id, None)
        if stream.held:
            self._unhold(stream)
        if stream.queued or stream.end_queued:
            self._waiting.pop(stream.id, None)
            stream.queue = []
            stream.queued = 0
            stream.end_queued = False

    def send_ping(self, data: bytes) -> None:
        """Ask the peer for a sign of life; ``data`` are eight octets, which a `PONG` event brings back."""
        self._frame(8, PING, 0, 0)
        self._out += data

    def send_goaway(self, code: int = NO_ERROR, final: bool = True) -> None:
        """Say that no more requests are taken (section 6.8): first without saying which are too late, then finally."""
        if final:
            self._goaway_id = self._handed_id
        self._write_goaway(self._goaway_id, code)
