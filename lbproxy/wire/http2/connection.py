"""A connection of HTTP/2, either end (RFC 9113).

`Connection.receive_data` turns bytes into `Event`s; the ``send_`` methods write frames, which gather until
`FrameWriter.data_to_send` fetches them.  Time comes in as an argument.  What may be held is bounded:

* of input: one frame (16 KiB), and one header block (80 KiB, 32 frames);
* of one call's events: what the bytes given to it hold, and one header list (64 KiB, 200 fields) for each open stream;
* of output: frames that answer frames (acknowledgements, resets) cost points (`lbproxy.wire.http2.abuse`), and
  whoever writes looks at `FrameWriter.pending_bytes` and stops reading while the peer takes nothing;
* of content that the peer's windows hold back: what `Connection.send_data` was given, which says when to stop giving;
* of streams: ``max_streams``; of numbers of streams that we reset, so that what was on its way may pass: `_MAX_RESET`.
"""

from __future__ import annotations

from lbproxy.wire.errors import LocalProtocolError, RemoteProtocolError
from lbproxy.wire.http.fields import MAX_FIELDS, MAX_FIELDS_BYTES
from lbproxy.wire.http2 import events as kinds
from lbproxy.wire.http2.abuse import (
    CONTINUATION_FLOOD,
    EMPTY_FRAMES,
    HEADER_BOMB,
    MADE_RESET,
    PING_FLOOD,
    PRIORITY_FLOOD,
    RAPID_RESET,
    REFUSED_STREAMS,
    SETTINGS_FLOOD,
    STRAY_FRAMES,
    WINDOW_FLOOD,
    Score,
)
from lbproxy.wire.http2.errors import (
    ENHANCE_YOUR_CALM,
    FLOW_CONTROL_ERROR,
    FRAME_SIZE_ERROR,
    NO_ERROR,
    PROTOCOL_ERROR,
    REFUSED_STREAM,
    STREAM_CLOSED,
    ConnectionFault,
    StreamFault,
)
from lbproxy.wire.http2.events import Event
from lbproxy.wire.http2.fieldline import FieldLine
from lbproxy.wire.http2.frames import (
    ACK,
    CONTINUATION,
    DATA,
    DEFAULT_WINDOW,
    ENABLE_CONNECT_PROTOCOL,
    ENABLE_PUSH,
    END_HEADERS,
    END_STREAM,
    FRAME_HEAD_BYTES,
    GOAWAY,
    HEADER_TABLE_SIZE,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    MAX_CONCURRENT_STREAMS,
    MAX_FRAME_BYTES,
    MAX_FRAME_SIZE,
    MAX_HEADER_LIST_SIZE,
    MAX_STREAM_ID,
    MAX_WINDOW,
    PADDED,
    PING,
    PREFACE,
    PRIORITY,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    WITH_PRIORITY,
    FrameWriter,
)
from lbproxy.wire.http2.heads import request_head, response_head, trailer_lines
from lbproxy.wire.http2.hpack import Decoder
from lbproxy.wire.http2.stream import (
    CLOSED,
    NOT_ALLOWED,
    RECEIVE_END,
    RECEIVE_HEADERS,
    SEND_END,
    SEND_HEADERS,
    Stream,
    next_state,
)

MAX_STREAMS = 128
"""At once (ALB has 128)."""
STREAM_WINDOW = 262144
CONNECTION_WINDOW = 1048576
"""What a client may send ahead of the target: in one stream, and in all."""

_MAX_BLOCK_BYTES = MAX_FIELDS_BYTES + 16384
"""Of a header block as it comes: what it stands for is bounded too, but Huffman's code can make text longer."""
_MAX_CONTINUATIONS = 32
_MAX_RESET = 1000
_UPDATES_AHEAD = 100
_MAX_UPDATES_AHEAD = 2000
_UPDATES_FOR_DATA = 3
"""WINDOW_UPDATE frames that a client may send at the beginning, save up, and for each DATA frame it gets: one is for
the stream, one for the connection."""
_SMALL_DATA = 1024
"""A DATA frame below this gives no right to updates: a window that is opened by the octet makes many of them."""
_SETTINGS_AT_ONCE = 32
"""In one frame; more count as several frames."""

_STATUS_CODES = {200: b"\x88", 204: b"\x89", 206: b"\x8a", 304: b"\x8b", 400: b"\x8c", 404: b"\x8d", 500: b"\x8e"}
"""RFC 7541 appendix A."""
_METHOD_CODES = {b"GET": b"\x82", b"POST": b"\x83"}
_SCHEME_CODES = {b"http": b"\x86", b"https": b"\x87"}


class Connection(FrameWriter):
    """One end of a connection."""

    __slots__ = (
        "_block",
        "_block_bytes",
        "_block_flags",
        "_block_frames",
        "_block_stream",
        "_client",
        "_decoder",
        "_events",
        "_failed",
        "_goaway_id",
        "_handed_id",
        "_held_bytes",
        "_initial_send_window",
        "_input",
        "_last_id",
        "_max_streams",
        "_next_id",
        "_now",
        "_peer_ready",
        "_preface_left",
        "_receive_window",
        "_reset",
        "_score",
        "_send_window",
        "_skipped",
        "_uncredited",
        "_updates_ahead",
        "_waiting",
        "blocked",
        "goaway_received",
        "peer_connect_protocol",
        "peer_max_streams",
        "sent_bytes",
        "streams",
    )

    def __init__(self, client: bool, max_streams: int = MAX_STREAMS) -> None:
        """Write the preface; ``client`` tells which end this is."""
        super().__init__()
        self._client = client
        self._max_streams = max_streams
        self.streams: dict[int, Stream] = {}
        """Those that are open or half-closed."""
        self.blocked = False
        """Whether the transport takes nothing for now: DATA waits in the streams; see `unblock`."""
        self.peer_max_streams = 100 if client else 0
        """How many streams the server takes at once; until it says so, what RFC 9113 calls the least it should."""
        self.peer_connect_protocol = False
        """Whether the server knows extended CONNECT (RFC 8441)."""
        self.goaway_received = False
        self.sent_bytes = 0
        """Octets of content that left, of all streams."""
        self._decoder = Decoder()
        self._score = Score()
        self._events: list[Event] = []
        self._input = b""
        self._preface_left = 0 if client else len(PREFACE)
        self._peer_ready = False
        self._failed = False
        self._now = 0.0
        self._next_id = 1
        self._last_id = 0
        self._handed_id = 0
        self._goaway_id = MAX_STREAM_ID
        self._skipped = False
        self._reset: dict[int, bool] = {}
        self._block: list[bytes] = []
        self._block_bytes = 0
        self._block_flags = 0
        self._block_frames = 0
        self._block_stream = 0
        self._initial_send_window = DEFAULT_WINDOW
        self._send_window = DEFAULT_WINDOW
        self._receive_window = CONNECTION_WINDOW
        self._uncredited = 0
        self._held_bytes = 0
        self._updates_ahead = _UPDATES_AHEAD
        self._waiting: dict[int, Stream] = {}
        settings = {INITIAL_WINDOW_SIZE: STREAM_WINDOW, MAX_HEADER_LIST_SIZE: MAX_FIELDS_BYTES}
        if client:
            self._out += PREFACE
            settings[ENABLE_PUSH] = 0
        else:
            settings[MAX_CONCURRENT_STREAMS] = max_streams
            settings[ENABLE_CONNECT_PROTOCOL] = 1
        self._write_settings(settings)
        self._write_word_frame(WINDOW_UPDATE, 0, CONNECTION_WINDOW - DEFAULT_WINDOW)

    @property
    def last_id(self) -> int:
        """The highest stream that was handed on."""
        return self._handed_id

    @property
    def is_reading_head(self) -> bool:
        """Whether the preface, a header block or a frame that is not content is there in part."""
        held = self._input
        return self._block_stream > 0 or not self._peer_ready or (len(held) > 0 and (len(held) < 4 or held[3] != DATA))

    @property
    def can_open(self) -> bool:
        """Whether a client may open one more stream."""
        return (
            len(self.streams) < self.peer_max_streams
            and not self.goaway_received
            and not self._failed
            and self._next_id <= MAX_STREAM_ID
        )

    # Receiving

    def receive_data(self, data: bytes, now: float) -> list[Event]:
        """Take bytes as they arrived, in any split; ``now`` is in seconds, by any clock that goes forward.

        Raises `RemoteProtocolError` when the connection cannot go on: GOAWAY is written and says that none of the
        requests in these bytes were looked at; what has been handed on before is for the caller to end.
        """
        events = self._events
        if self._failed:
            return events
        self._now = now
        if self._input:
            data = self._input + data
            self._input = b""
        try:
            at = self._read_preface(data) if self._preface_left else 0
            at = self._read_frames(data, at)
        except ConnectionFault as fault:
            self._failed = True
            self._events = []
            self._write_goaway(self._handed_id, fault.code)
            raise
        if at < len(data):
            self._input = data[at:] if at else data
        self._handed_id = self._last_id
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

    def _read_preface(self, data: bytes) -> int:
        start = len(PREFACE) - self._preface_left
        piece = data[: self._preface_left]
        if not PREFACE.startswith(piece, start):
            raise ConnectionFault(f"preface {piece!r}", PROTOCOL_ERROR, "BadPreface")
        self._preface_left -= len(piece)
        return len(piece)

    def _read_frames(self, data: bytes, at: int) -> int:
        """Read all whole frames; return the index of what is left."""
        end = len(data)
        while end - at >= FRAME_HEAD_BYTES:
            length = data[at] << 16 | data[at + 1] << 8 | data[at + 2]
            kind = data[at + 3]
            if length > MAX_FRAME_BYTES:
                raise ConnectionFault(f"a frame of {length} bytes", FRAME_SIZE_ERROR, "BadFrame")
            start = at + FRAME_HEAD_BYTES
            following = start + length
            if not self._peer_ready and (kind != SETTINGS or data[at + 4] & ACK):
                # section 3.4
                raise ConnectionFault("the first frame is not SETTINGS", PROTOCOL_ERROR, "BadPreface")
            if following > end:
                break
            flags = data[at + 4]
            number = (data[at + 5] & 0x7F) << 24 | data[at + 6] << 16 | data[at + 7] << 8 | data[at + 8]
            if self._block_stream and kind != CONTINUATION:
                # section 6.10
                raise ConnectionFault("a frame within a header block", PROTOCOL_ERROR, "BadFrame")
            if kind == HEADERS:
                self._read_headers(data, start, following, flags, number)
            elif kind == DATA:
                self._read_data(data, start, following, flags, number)
            elif kind == WINDOW_UPDATE:
                self._read_window_update(data, start, length, number)
            elif kind == RST_STREAM:
                self._read_reset(data, start, length, number)
            elif kind == SETTINGS:
                self._read_settings(data, start, length, flags, number)
            elif kind == PING:
                self._read_ping(data, start, length, flags, number)
            elif kind == CONTINUATION:
                self._read_continuation(data, start, following, flags, number)
            elif kind == PRIORITY:
                self._read_priority(data, start, length, number)
            elif kind == GOAWAY:
                self._read_goaway(data, start, length, number)
            elif kind == PUSH_PROMISE:
                # section 8.4: clients must not, and we as a client have forbidden it
                raise ConnectionFault("PUSH_PROMISE", PROTOCOL_ERROR, "BadFrame")
            else:
                self._score.charge(STRAY_FRAMES, self._now)  # section 5.5: to be ignored
            at = following
        return at

    def _is_idle(self, number: int) -> bool:
        """Whether the stream was never opened."""
        if self._client:
            return number >= self._next_id or not number & 1
        return number > self._last_id or not number & 1

    # Receiving header blocks

    def _read_headers(self, data: bytes, start: int, end: int, flags: int, number: int) -> None:
        """Section 6.2."""
        if not number:
            raise ConnectionFault("HEADERS of no stream", PROTOCOL_ERROR, "BadFrame")
        if flags & PADDED:
            end = _unpadded(data, start, end)
            start += 1
        if flags & WITH_PRIORITY:
            if end - start < 5:
                raise ConnectionFault("HEADERS without their priority", FRAME_SIZE_ERROR, "BadFrame")
            self._check_dependency(data, start, number)
            start += 5
        block = data[start:end]
        if flags & END_HEADERS:
            self._receive_block(number, block, flags & END_STREAM != 0)
            return
        self._block = [block]
        self._block_bytes = len(block)
        self._block_flags = flags
        self._block_frames = 0
        self._block_stream = number

    def _read_continuation(self, data: bytes, start: int, end: int, flags: int, number: int) -> None:
        """Section 6.10."""
        if number != self._block_stream or not number:
            raise ConnectionFault("CONTINUATION of nothing", PROTOCOL_ERROR, "BadFrame")
        self._block_bytes += end - start
        self._block_frames += 1
        if self._block_bytes > _MAX_BLOCK_BYTES or self._block_frames > _MAX_CONTINUATIONS:
            raise ConnectionFault("a header block without end", ENHANCE_YOUR_CALM, CONTINUATION_FLOOD)
        self._block.append(data[start:end])
        if flags & END_HEADERS:
            block = b"".join(self._block)
            self._block = []
            self._block_stream = 0
            self._receive_block(number, block, self._block_flags & END_STREAM != 0)
        else:
            self._score.charge(CONTINUATION_FLOOD, self._now)

    def _receive_block(self, number: int, block: bytes, ended: bool) -> None:
        # before anything else, for the tables of both ends must stay alike
        fields = self._decoder.decode(block)
        too_large = self._decoder.too_large
        if too_large:
            self._score.charge(HEADER_BOMB, self._now)
        stream = self.streams.get(number)
        if stream is None:
            if self._client:
                self._check_late(number)
                return
            stream = self._accept(number)
            if stream is None:
                return
            try:
                self._receive_request(stream, fields, ended, too_large, FRAME_HEAD_BYTES + len(block))
            except StreamFault as fault:
                self._end_faulty(stream, fault)
            return
        try:
            if self._client and stream.awaited == _HEAD_AWAITED:
                self._receive_response(stream, fields, ended, too_large)
            else:
                self._receive_trailers(stream, fields, ended, too_large)
        except StreamFault as fault:
            self._end_faulty(stream, fault)

    def _accept(self, number: int) -> Stream | None:
        """A stream for a new request; None if it is refused or too late."""
        if number <= self._last_id or not number & 1:
            self._check_late(number)
            return None
        if number != self._last_id + 2 and (self._last_id or number != 1):
            self._skipped = True
        self._last_id = number
        if number > self._goaway_id:
            # section 6.8: the client has not read our GOAWAY yet
            self._forget(number)
            return None
        if len(self.streams) >= self._max_streams:
            self._write_word_frame(RST_STREAM, number, REFUSED_STREAM)
            self._forget(number)
            self._score.charge(REFUSED_STREAMS, self._now)
            return None
        stream = Stream(number, self._initial_send_window, STREAM_WINDOW)
        stream.state = next_state(stream.state, RECEIVE_HEADERS)
        self.streams[number] = stream
        self._updates_ahead = min(self._updates_ahead + _UPDATES_FOR_DATA, _MAX_UPDATES_AHEAD)
        return stream

    def _check_late(self, number: int) -> None:
        """HEADERS or DATA of a stream that is not open: let pass what was on its way when we reset it (section 5.1)."""
        if number in self._reset:
            self._score.charge(STRAY_FRAMES, self._now)
        elif self._is_idle(number) or self._skipped:
            raise ConnectionFault(f"stream {number} is not open", PROTOCOL_ERROR, "BadFrame")
        else:
            raise ConnectionFault(f"stream {number} is closed", STREAM_CLOSED, "BadFrame")

    def _receive_request(
        self, stream: Stream, fields: list[FieldLine], ended: bool, too_large: bool, size: int
    ) -> None:
        if ended:
            stream.state = next_state(stream.state, RECEIVE_END)
        if too_large:
            self._refuse(stream, _too_large())
            return
        try:
            head = request_head(fields, ended)
        except StreamFault:
            raise
        except RemoteProtocolError as error:
            self._refuse(stream, error)
            return
        stream.awaited = head.content_length
        event = self._event(kinds.REQUEST, stream)
        event.head = head
        event.head_bytes = size
        event.ended = ended

    def _refuse(self, stream: Stream, error: RemoteProtocolError) -> None:
        event = self._event(kinds.REFUSED, stream)
        event.error = error

    def _receive_response(self, stream: Stream, fields: list[FieldLine], ended: bool, too_large: bool) -> None:
        if too_large:
            raise StreamFault("a response's head is too large", PROTOCOL_ERROR, "HeadersTooLarge")
        try:
            head = response_head(fields)
        except StreamFault:
            raise
        except RemoteProtocolError as error:
            raise StreamFault(str(error), PROTOCOL_ERROR, error.reason) from error
        if head.status < 200:
            if ended:
                raise StreamFault(f"{head.status} ends the stream", PROTOCOL_ERROR, "BadHeader")
            event = self._event(kinds.INFORMATIONAL, stream)
            event.head = head
            stream.event = None
            return
        bodiless = stream.is_head or head.status == 304 or head.status == 204
        stream.awaited = -1 if head.content_length < 0 else 0 if bodiless else head.content_length
        event = self._event(kinds.RESPONSE, stream)
        event.head = head
        if ended:
            self._receive_end(stream, event)

    def _receive_trailers(self, stream: Stream, fields: list[FieldLine], ended: bool, too_large: bool) -> None:
        if next_state(stream.state, RECEIVE_END) == NOT_ALLOWED:
            raise StreamFault("HEADERS after the end", STREAM_CLOSED, "BadFrame")
        if not ended:
            raise StreamFault("trailers that do not end the stream", PROTOCOL_ERROR, "BadHeader")
        if too_large:
            raise StreamFault("too many trailers", PROTOCOL_ERROR, "HeadersTooLarge")
        try:
            trailers = trailer_lines(fields)
        except StreamFault:
            raise
        except RemoteProtocolError as error:
            raise StreamFault(str(error), PROTOCOL_ERROR, error.reason) from error
        event = self._content_event(stream)
        event.trailers = trailers
        self._receive_end(stream, event)

    def _receive_end(self, stream: Stream, event: Event) -> None:
        """The peer's side of the stream is whole."""
        if stream.awaited > 0:
            # section 8.1.1
            raise StreamFault("less content than content-length", PROTOCOL_ERROR, "BadContentLength")
        event.ended = True
        stream.state = next_state(stream.state, RECEIVE_END)
        if stream.state == CLOSED:
            self._close(stream)

    # Receiving content

    def _read_data(self, data: bytes, start: int, end: int, flags: int, number: int) -> None:
        """Section 6.1."""
        if not number:
            raise ConnectionFault("DATA of no stream", PROTOCOL_ERROR, "BadFrame")
        length = end - start
        self._receive_window -= length
        if self._receive_window < 0:
            raise ConnectionFault("more than the connection's window", FLOW_CONTROL_ERROR, "FlowControl")
        if flags & PADDED:
            end = _unpadded(data, start, end)
            start += 1
        ended = flags & END_STREAM != 0
        stream = self.streams.get(number)
        if stream is None:
            self._check_late(number)
            self._credit(length)
            return
        try:
            self._receive_content(stream, data[start:end], length, ended)
        except StreamFault as fault:
            self._credit(length)
            self._end_faulty(stream, fault)

    def _receive_content(self, stream: Stream, data: bytes, length: int, ended: bool) -> None:
        """``length`` is what counts for the windows, with the padding."""
        if next_state(stream.state, RECEIVE_END) == NOT_ALLOWED:
            raise StreamFault("DATA after the end", STREAM_CLOSED, "BadFrame")
        stream.receive_window -= length
        if stream.receive_window < 0:
            raise StreamFault("more than the stream's window", FLOW_CONTROL_ERROR, "FlowControl")
        size = len(data)
        if not size and not ended:
            self._score.charge(EMPTY_FRAMES, self._now)
        if stream.awaited >= 0:
            stream.awaited -= size
            if stream.awaited < 0:
                raise StreamFault("more content than content-length", PROTOCOL_ERROR, "BadContentLength")
        elif stream.awaited == _HEAD_AWAITED:
            raise StreamFault("DATA before the head", PROTOCOL_ERROR, "BadFrame")
        if size or ended:
            event = self._content_event(stream)
            if size:
                if event.data:
                    event.pieces = [event.data, data]
                    event.data = b""
                elif event.pieces is not None:
                    event.pieces.append(data)
                else:
                    event.data = data
            if ended:
                self._receive_end(stream, event)
        if stream.held and self._held_bytes + length > CONNECTION_WINDOW:
            # nobody takes what this connection sends; it may not send on
            stream.owed += length
        else:
            self._credit(length)
        stream.uncredited += length
        if stream.held:
            self._held_bytes += length
        elif not ended:
            self._credit_stream(stream)

    def _content_event(self, stream: Stream) -> Event:
        """The event that takes what comes now: the one before it, if it was not handed on yet."""
        event = stream.event
        if event is None:
            event = self._event(kinds.DATA, stream)
        return event

    def _event(self, kind: int, stream: Stream) -> Event:
        event = Event(kind, stream)
        stream.event = event
        self._events.append(event)
        return event

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

    # Receiving the rest

    def _read_window_update(self, data: bytes, start: int, length: int, number: int) -> None:
        """Section 6.9."""
        if length != 4:
            raise ConnectionFault("WINDOW_UPDATE of a wrong size", FRAME_SIZE_ERROR, "BadFrame")
        if self._updates_ahead > 0:
            self._updates_ahead -= 1
        else:
            self._score.charge(WINDOW_FLOOD, self._now)
        size = _word_at(data, start) & MAX_WINDOW
        if not number:
            self._send_window += size
            if not size:
                raise ConnectionFault("WINDOW_UPDATE by nothing", PROTOCOL_ERROR, "BadFrame")
            if self._send_window > MAX_WINDOW:
                raise ConnectionFault("a window too large", FLOW_CONTROL_ERROR, "FlowControl")
        else:
            stream = self.streams.get(number)
            if stream is None:
                if self._is_idle(number):
                    raise ConnectionFault("WINDOW_UPDATE of an idle stream", PROTOCOL_ERROR, "BadFrame")
                return
            stream.send_window += size
            if not size:
                self._end_faulty(stream, StreamFault("WINDOW_UPDATE by nothing", PROTOCOL_ERROR, "BadFrame"))
            elif stream.send_window > MAX_WINDOW:
                self._end_faulty(stream, StreamFault("a window too large", FLOW_CONTROL_ERROR, "FlowControl"))
        if self._waiting:
            self._send_waiting()

    def _read_reset(self, data: bytes, start: int, length: int, number: int) -> None:
        """Section 6.4."""
        if length != 4:
            raise ConnectionFault("RST_STREAM of a wrong size", FRAME_SIZE_ERROR, "BadFrame")
        stream = self.streams.get(number)
        if stream is None:
            if not number or self._is_idle(number):
                raise ConnectionFault("RST_STREAM of an idle stream", PROTOCOL_ERROR, "BadFrame")
            self._score.charge(STRAY_FRAMES, self._now)
            return
        self._close(stream)
        self._end_event(stream).code = _word_at(data, start)
        if not self._client:
            self._score.charge(RAPID_RESET, self._now)

    def _read_settings(self, data: bytes, start: int, length: int, flags: int, number: int) -> None:
        """Section 6.5."""
        if number:
            raise ConnectionFault("SETTINGS of a stream", PROTOCOL_ERROR, "BadFrame")
        if flags & ACK:
            if length:
                raise ConnectionFault("SETTINGS acknowledged with content", FRAME_SIZE_ERROR, "BadFrame")
            self._score.charge(STRAY_FRAMES, self._now)
            return
        if length % 6:
            raise ConnectionFault("SETTINGS of a wrong size", FRAME_SIZE_ERROR, "BadFrame")
        if self._peer_ready:
            for _ in range(1 + length // 6 // _SETTINGS_AT_ONCE):
                self._score.charge(SETTINGS_FLOOD, self._now)
        self._peer_ready = True
        window = self._initial_send_window
        for at in range(start, start + length, 6):
            name = data[at] << 8 | data[at + 1]
            value = _word_at(data, at + 2)
            if name == HEADER_TABLE_SIZE:
                self._encoder.set_max_table_bytes(value)
            elif name == INITIAL_WINDOW_SIZE:
                if value > MAX_WINDOW:
                    raise ConnectionFault("an initial window too large", FLOW_CONTROL_ERROR, "FlowControl")
                window = value
            elif name == MAX_CONCURRENT_STREAMS:
                self.peer_max_streams = value
            elif name == MAX_FRAME_SIZE:
                if not MAX_FRAME_BYTES <= value < 1 << 24:
                    raise ConnectionFault(f"frames of {value} bytes", PROTOCOL_ERROR, "BadFrame")
            elif name == ENABLE_PUSH:
                if value > (0 if self._client else 1):
                    raise ConnectionFault(f"ENABLE_PUSH {value}", PROTOCOL_ERROR, "BadFrame")
            elif name == ENABLE_CONNECT_PROTOCOL:
                # RFC 8441 section 3
                if value > 1 or (self.peer_connect_protocol and not value):
                    raise ConnectionFault(f"ENABLE_CONNECT_PROTOCOL {value}", PROTOCOL_ERROR, "BadFrame")
                self.peer_connect_protocol = value == 1
        self._frame(0, SETTINGS, ACK, 0)
        if window != self._initial_send_window:
            self._use_initial_window(window)

    def _use_initial_window(self, window: int) -> None:
        """Section 6.9.2: also for the streams that are open, whose windows may become negative."""
        change = window - self._initial_send_window
        self._initial_send_window = window
        for stream in self.streams.values():
            stream.send_window += change
            if stream.send_window > MAX_WINDOW:
                raise ConnectionFault("a window too large", FLOW_CONTROL_ERROR, "FlowControl")
        if self._waiting:
            self._send_waiting()

    def _read_ping(self, data: bytes, start: int, length: int, flags: int, number: int) -> None:
        """Section 6.7."""
        if number:
            raise ConnectionFault("PING of a stream", PROTOCOL_ERROR, "BadFrame")
        if length != 8:
            raise ConnectionFault("PING of a wrong size", FRAME_SIZE_ERROR, "BadFrame")
        self._score.charge(PING_FLOOD, self._now)
        if flags & ACK:
            event = Event(kinds.PONG, None)
            event.data = data[start : start + 8]
            self._events.append(event)
        else:
            self._frame(8, PING, ACK, 0)
            self._out += data[start : start + 8]

    def _read_priority(self, data: bytes, start: int, length: int, number: int) -> None:
        """Section 6.3: checked, counted, and of no effect (section 5.3.2)."""
        if not number:
            raise ConnectionFault("PRIORITY of no stream", PROTOCOL_ERROR, "BadFrame")
        if length != 5:
            raise ConnectionFault("PRIORITY of a wrong size", FRAME_SIZE_ERROR, "BadFrame")
        self._check_dependency(data, start, number)
        self._score.charge(PRIORITY_FLOOD, self._now)

    def _check_dependency(self, data: bytes, start: int, number: int) -> None:
        """RFC 7540 section 5.3.1: who makes a stream depend on itself is not to be trusted with others."""
        if _word_at(data, start) & MAX_STREAM_ID == number:
            raise ConnectionFault("a stream that depends on itself", PROTOCOL_ERROR, "BadFrame")

    def _read_goaway(self, data: bytes, start: int, length: int, number: int) -> None:
        """Section 6.8."""
        if number:
            raise ConnectionFault("GOAWAY of a stream", PROTOCOL_ERROR, "BadFrame")
        if length < 8:
            raise ConnectionFault("GOAWAY of a wrong size", FRAME_SIZE_ERROR, "BadFrame")
        if self.goaway_received:
            self._score.charge(SETTINGS_FLOOD, self._now)
        self.goaway_received = True
        event = Event(kinds.GOAWAY, None)
        event.last_id = _word_at(data, start) & MAX_STREAM_ID
        event.code = _word_at(data, start + 4)
        self._events.append(event)
        if self._client:
            # the server has not looked at these and never will
            for stream in [s for s in self.streams.values() if s.id > event.last_id]:
                self._close(stream)
                self._end_event(stream).code = REFUSED_STREAM

    # The end of a stream

    def _end_faulty(self, stream: Stream, fault: StreamFault) -> None:
        """Reset a stream for what the peer did."""
        self._write_word_frame(RST_STREAM, stream.id, fault.code)
        self._forget(stream.id)
        self._close(stream)
        event = self._end_event(stream)
        event.kind = kinds.RESET
        event.code = fault.code
        event.error = fault
        self._score.charge(MADE_RESET, self._now)

    def _end_event(self, stream: Stream) -> Event:
        """Tell of a stream's end; of a request that was not handed on yet nobody needs to know.

        A response that came whole stays: a server may reset what it does not need any more of the request.
        """
        event = stream.event
        if event is None or (self._client and event.ended):
            event = self._event(kinds.RESET, stream)
        else:
            event.kind = kinds.NOTHING if event.kind == kinds.REQUEST or event.kind == kinds.REFUSED else kinds.RESET
            event.head = None
            event.ended = False
            event.data = b""
            event.pieces = None
        return event

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

    def reset(self, stream: Stream, code: int) -> None:
        """Give a stream up; nothing more is told of it."""
        if stream.state == CLOSED:
            return
        self._write_word_frame(RST_STREAM, stream.id, code)
        self._forget(stream.id)
        self._close(stream)

    # Sending heads

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
        stream.awaited = _HEAD_AWAITED
        stream.is_head = method == b"HEAD"
        self.streams[number] = stream
        self._updates_ahead = min(self._updates_ahead + _UPDATES_FOR_DATA, _MAX_UPDATES_AHEAD)
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
            block.append(encoder.field(b"content-length", b"%d" % content_length))
        self._write_block(number, b"".join(block), ended)
        if ended:
            self._sent_end(stream)
        return stream

    def send_response(self, stream: Stream, status: int, lines: bytes, content_length: int, ended: bool) -> int:
        """Start an answer, a 1xx too; ``lines`` as in `send_request`.  Returns how many bytes the head takes."""
        self._check_sending(stream)
        encoder = self._encoder
        block = encoder.begin()
        block += _STATUS_CODES.get(status) or encoder.field(b":status", b"%d" % status)
        block += encoder.lines(lines)
        if content_length >= 0:
            block += encoder.field(b"content-length", b"%d" % content_length)
        self._write_block(stream.id, block, ended)
        if ended:
            self._sent_end(stream)
        return FRAME_HEAD_BYTES + len(block)

    def _check_sending(self, stream: Stream) -> None:
        if next_state(stream.state, SEND_HEADERS) == NOT_ALLOWED or stream.end_queued:
            raise LocalProtocolError(f"stream {stream.id} does not take any more")

    def _sent_end(self, stream: Stream) -> None:
        """Our side of the stream is whole."""
        stream.state = next_state(stream.state, SEND_END)
        if stream.state == CLOSED:
            self._close(stream)
        elif not self._client:
            # section 8.1: what is still to come of the request is not needed
            self.reset(stream, NO_ERROR)
        if not self._client:
            self._score.redeem()

    # Sending content

    def send_data(self, stream: Stream, data: bytes, ended: bool) -> bool:
        """Send content; tell whether all of it left.

        If not, what is left is kept and a `WRITABLE` event comes when it has gone; give no more until then.
        """
        self._check_sending(stream)
        size = len(data)
        if (
            size <= stream.send_window
            and size <= self._send_window
            and not stream.queued
            and (not self.blocked or not size)
        ):
            if size or ended:
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

    def _send_trailers(self, stream: Stream, trailers: bytes) -> None:
        self._write_block(stream.id, self._encoder.begin() + self._encoder.lines(trailers), True)
        self._sent_end(stream)

    def _send_content(self, stream: Stream, data: bytes, ended: bool) -> None:
        size = len(data)
        stream.send_window -= size
        self._send_window -= size
        stream.sent += size
        self.sent_bytes += size
        if size >= _SMALL_DATA or ended:
            self._updates_ahead = min(self._updates_ahead + _UPDATES_FOR_DATA, _MAX_UPDATES_AHEAD)
        self._write_data(stream.id, data, ended)

    def _send_waiting(self) -> None:
        """Send what waits, as far as the windows go: a frame of each stream in turn."""
        moved = True
        while moved and not self.blocked and self._send_window > 0:
            moved = False
            for stream in list(self._waiting.values()):
                room = min(stream.send_window, self._send_window, MAX_FRAME_BYTES)
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

    # Sending the rest

    def send_ping(self, data: bytes) -> None:
        """Ask the peer for a sign of life; ``data`` are eight octets, which a `PONG` event brings back."""
        self._frame(8, PING, 0, 0)
        self._out += data

    def send_goaway(self, code: int = NO_ERROR, final: bool = True) -> None:
        """Say that no more requests are taken (section 6.8): first without saying which are too late, then finally."""
        if final:
            self._goaway_id = self._handed_id
        self._write_goaway(self._goaway_id, code)


_HEAD_AWAITED = -2
"""In place of a length: the head of a response has not come yet."""


def _too_large() -> RemoteProtocolError:
    return RemoteProtocolError(
        f"more than {MAX_FIELDS} fields or {MAX_FIELDS_BYTES} bytes of them", reason="HeadersTooLarge"
    )


def _unpadded(data: bytes, start: int, end: int) -> int:
    """Where the payload of a padded frame ends (section 6.1)."""
    if start >= end or start + 1 + data[start] > end:
        raise ConnectionFault("more padding than payload", PROTOCOL_ERROR, "BadFrame")
    return end - data[start]


def _word_at(data: bytes, at: int) -> int:
    high = data[at]  # compiled, a number of 64 bits
    return high << 24 | data[at + 1] << 16 | data[at + 2] << 8 | data[at + 3]
