"""Frames about streams and the connection themselves: all but HEADERS, CONTINUATION and DATA (RFC 9113 section 6)."""

from __future__ import annotations

from lbproxy.wire.http2 import events as kinds
from lbproxy.wire.http2.abuse import (
    MADE_RESET,
    PING_FLOOD,
    PRIORITY_FLOOD,
    RAPID_RESET,
    SETTINGS_FLOOD,
    STRAY_FRAMES,
    WINDOW_FLOOD,
)
from lbproxy.wire.http2.errors import (
    FLOW_CONTROL_ERROR,
    FRAME_SIZE_ERROR,
    PROTOCOL_ERROR,
    REFUSED_STREAM,
    ConnectionFault,
    StreamFault,
)
from lbproxy.wire.http2.events import Event
from lbproxy.wire.http2.frames import (
    ACK,
    ENABLE_CONNECT_PROTOCOL,
    ENABLE_PUSH,
    HEADER_TABLE_SIZE,
    INITIAL_WINDOW_SIZE,
    MAX_CONCURRENT_STREAMS,
    MAX_DATA_BYTES,
    MAX_FRAME_BYTES,
    MAX_FRAME_SIZE,
    MAX_HEADER_LIST_SIZE,
    MAX_STREAM_ID,
    MAX_WINDOW,
    PING,
    RST_STREAM,
    SETTINGS,
)
from lbproxy.wire.http2.sending import Sending
from lbproxy.wire.http2.stream import Stream

_SETTINGS_AT_ONCE = 32
"""In one frame; more count as several frames."""


class Control(Sending):
    """The part of a `Connection` that reads these."""

    __slots__ = ("_last_id", "_now", "_peer_ready", "settings_acknowledged")

    def __init__(self, client: bool) -> None:
        super().__init__(client)
        self._now = 0.0
        self._last_id = 0
        """The highest stream that the client has opened."""
        self._peer_ready = False
        """Whether its first SETTINGS have come."""
        self.settings_acknowledged = False
        """Whether the peer goes by ours."""

    def _read_window_update(self, data: bytes, start: int, length: int, number: int) -> None:
        """Section 6.9."""
        if length != 4:
            raise ConnectionFault("WINDOW_UPDATE of a wrong size", FRAME_SIZE_ERROR, "BadFrame")
        self._count_answer(WINDOW_FLOOD)
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
            if self.settings_acknowledged:
                self._score.charge(STRAY_FRAMES, self._now)
            self.settings_acknowledged = True
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
                self._max_data = min(value, MAX_DATA_BYTES)
            elif name == MAX_HEADER_LIST_SIZE:
                self.peer_max_header_list = value
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
        if flags & ACK:
            self._score.charge(PING_FLOOD, self._now)
            event = Event(kinds.PONG, None)
            event.data = data[start : start + 8]
            self._events.append(event)
        else:
            self._count_answer(PING_FLOOD)
            self._frame(8, PING, ACK, 0)
            self._out += data[start : start + 8]

    def _count_answer(self, cause: str) -> None:
        """What peers send for what we have sent is free."""
        if self._updates_ahead > 0:
            self._updates_ahead -= 1
        else:
            self._score.charge(cause, self._now)

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

    def _is_idle(self, number: int) -> bool:
        """Whether the stream was never opened."""
        if self._client:
            return number >= self._next_id or not number & 1
        return number > self._last_id or not number & 1

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

    def _event(self, kind: int, stream: Stream) -> Event:
        event = Event(kind, stream)
        stream.event = event
        self._events.append(event)
        return event


def _word_at(data: bytes, at: int) -> int:
    high = data[at]  # compiled, a number of 64 bits
    return high << 24 | data[at + 1] << 16 | data[at + 2] << 8 | data[at + 3]
