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

from lbproxy.wire.errors import RemoteProtocolError
from lbproxy.wire.http.fields import MAX_FIELDS, MAX_FIELDS_BYTES
from lbproxy.wire.http2 import events as kinds
from lbproxy.wire.http2.abuse import CONTINUATION_FLOOD, EMPTY_FRAMES, HEADER_BOMB, REFUSED_STREAMS, STRAY_FRAMES
from lbproxy.wire.http2.control import Control
from lbproxy.wire.http2.errors import (
    ENHANCE_YOUR_CALM,
    FLOW_CONTROL_ERROR,
    FRAME_SIZE_ERROR,
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
    HEADERS,
    INITIAL_WINDOW_SIZE,
    MAX_CONCURRENT_STREAMS,
    MAX_FRAME_BYTES,
    MAX_HEADER_LIST_SIZE,
    PADDED,
    PING,
    PREFACE,
    PRIORITY,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    WITH_PRIORITY,
)
from lbproxy.wire.http2.heads import request_head, response_head, trailer_lines
from lbproxy.wire.http2.hpack import Decoder
from lbproxy.wire.http2.sending import CONNECTION_WINDOW, STREAM_WINDOW
from lbproxy.wire.http2.stream import (
    CLOSED,
    HEAD_AWAITED,
    NOT_ALLOWED,
    RECEIVE_END,
    RECEIVE_HEADERS,
    Stream,
    next_state,
)

MAX_STREAMS = 128
"""At once (ALB has 128)."""

_MAX_BLOCK_BYTES = MAX_FIELDS_BYTES + 16384
"""Of a header block as it comes: what it stands for is bounded too, but Huffman's code can make text longer."""
_MAX_CONTINUATIONS = 32

# compiled, numbers in C
_REQUEST = kinds.REQUEST
_RESPONSE = kinds.RESPONSE
_CONTENT = kinds.DATA


class Connection(Control):
    """One end of a connection."""

    __slots__ = (
        "_block",
        "_block_bytes",
        "_block_flags",
        "_block_frames",
        "_block_stream",
        "_decoder",
        "_input",
        "_max_streams",
        "_preface_left",
        "_skipped",
        "begins_head",
        "untold",
    )

    def __init__(self, client: bool, max_streams: int = MAX_STREAMS) -> None:
        """Write the preface; ``client`` tells which end this is."""
        super().__init__(client)
        self._max_streams = max_streams
        self._decoder = Decoder()
        self._input = b""
        self.begins_head = False
        """Whether what `is_reading_head` tells of began to come with the last data only."""
        self.untold: list[Stream] = []
        """Streams that ended with the data that broke the connection, of which no event tells."""
        self._preface_left = 0 if client else len(PREFACE)
        self._skipped = False
        """Whether the client has left out numbers of streams, which are closed then."""
        self._block: list[bytes] = []
        self._block_bytes = 0
        self._block_flags = 0
        self._block_frames = 0
        self._block_stream = 0
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

    def receive_data(self, data: bytes, now: float) -> list[Event]:
        """Take bytes as they arrived, in any split; ``now`` is in seconds, by any clock that goes forward.

        Raises `RemoteProtocolError` when the connection cannot go on: GOAWAY is written and says that none of the
        requests in these bytes were looked at; what has been handed on before is for the caller to end: `streams` and
        `untold`.
        """
        events = self._events
        if self._failed:
            return events
        self._now = now
        if self._input:
            data = self._input + data
            self._input = b""
        begun = self._block_stream
        ready = self._peer_ready
        try:
            at = self._read_preface(data) if self._preface_left else 0
            at = self._read_frames(data, at)
        except ConnectionFault as fault:
            self._failed = True
            ended = [event.stream for event in self._events if event.kind == kinds.RESET]
            self.untold = [stream for stream in ended if stream is not None]
            self._events = []
            self._write_goaway(self._handed_id, fault.code)
            raise
        if at < len(data):
            self._input = data[at:] if at else data
        self.begins_head = ready and at > 0 and (self._block_stream != begun or not begun)
        self._handed_id = self._last_id
        return self._take_events()

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

    # Header blocks

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
            if self._client and stream.awaited == HEAD_AWAITED:
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
        self._allow_updates()
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
            self._refuse(stream, _too_large(), fields)
            return
        try:
            head = request_head(fields, ended)
        except StreamFault:
            raise
        except RemoteProtocolError as error:
            self._refuse(stream, error, fields)
            return
        stream.awaited = head.content_length
        event = self._event(_REQUEST, stream)
        event.head = head
        event.head_bytes = size
        event.ended = ended

    def _refuse(self, stream: Stream, error: RemoteProtocolError, fields: list[FieldLine]) -> None:
        event = self._event(kinds.REFUSED, stream)
        event.error = error
        event.content_types = tuple([field.value for field in fields if field.name == b"content-type"])

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
        stream.awaited = 0 if bodiless else head.content_length  # section 8.1.1: it has none, whatever it says
        event = self._event(_RESPONSE, stream)
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

    # Content

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
        elif stream.awaited == HEAD_AWAITED:
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
            event = self._event(_CONTENT, stream)
        return event


def _too_large() -> RemoteProtocolError:
    return RemoteProtocolError(
        f"more than {MAX_FIELDS} fields or {MAX_FIELDS_BYTES} bytes of them", reason="HeadersTooLarge"
    )


def _unpadded(data: bytes, start: int, end: int) -> int:
    """Where the payload of a padded frame ends (section 6.1)."""
    if start >= end or start + 1 + data[start] > end:
        raise ConnectionFault("more padding than payload", PROTOCOL_ERROR, "BadFrame")
    return end - data[start]
