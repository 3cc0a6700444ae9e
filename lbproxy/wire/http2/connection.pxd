cimport cython

from lbproxy.native._http1 cimport RequestHead as CRequestHead, ResponseHead as CResponseHead
from lbproxy.wire.http2.abuse cimport Score
from lbproxy.wire.http2.encoder cimport Encoder
from lbproxy.wire.http2.events cimport Event
from lbproxy.wire.http2.frames cimport FrameWriter
from lbproxy.wire.http2.hpack cimport Decoder
from lbproxy.wire.http2.stream cimport Stream

cdef int ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, FRAME_HEAD_BYTES, GOAWAY, HEADERS, MAX_FRAME_BYTES, PADDED, PING
cdef int PRIORITY, PUSH_PROMISE, RST_STREAM, SETTINGS, WINDOW_UPDATE, WITH_PRIORITY
cdef int HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE
cdef int ENABLE_CONNECT_PROTOCOL
cdef int CLOSED, NOT_ALLOWED, RECEIVE_END, RECEIVE_HEADERS, SEND_END, SEND_HEADERS
cdef int _MAX_BLOCK_BYTES, _MAX_CONTINUATIONS, _MAX_RESET, _MAX_UPDATES_AHEAD, _UPDATES_FOR_DATA, _SMALL_DATA
cdef int _HEAD_AWAITED
cdef long long MAX_WINDOW, MAX_STREAM_ID
cdef dict _STATUS_CODES, _METHOD_CODES, _SCHEME_CODES


cdef class Connection(FrameWriter):
    cdef readonly dict streams
    cdef public bint blocked
    cdef readonly bint peer_connect_protocol, goaway_received
    cdef readonly long long peer_max_streams, sent_bytes
    cdef Decoder _decoder
    cdef Score _score
    cdef list _events, _block
    cdef bytes _input
    cdef dict _reset, _waiting
    cdef bint _client, _peer_ready, _failed, _skipped
    cdef double _now
    cdef long long _max_streams, _next_id, _last_id, _handed_id, _goaway_id, _block_bytes, _block_stream
    cdef long long _initial_send_window, _send_window, _receive_window, _uncredited, _held_bytes
    cdef int _preface_left, _block_flags, _block_frames, _updates_ahead

    @cython.locals(at=Py_ssize_t)
    cpdef list receive_data(self, bytes data, double now)
    @cython.locals(events=list, event=Event, stream=Stream, head=CRequestHead)
    cdef list _take_events(self)
    @cython.locals(piece=bytes)
    cdef Py_ssize_t _read_preface(self, bytes data) except -1
    @cython.locals(
        end=Py_ssize_t,
        length=cython.longlong,
        kind=cython.int,
        start=Py_ssize_t,
        following=Py_ssize_t,
        flags=cython.int,
        number=cython.longlong,
    )
    cdef Py_ssize_t _read_frames(self, bytes data, Py_ssize_t at) except -1
    cdef bint _is_idle(self, long long number) except -1

    @cython.locals(block=bytes)
    cdef _read_headers(self, bytes data, Py_ssize_t start, Py_ssize_t end, int flags, long long number)
    @cython.locals(block=bytes)
    cdef _read_continuation(self, bytes data, Py_ssize_t start, Py_ssize_t end, int flags, long long number)
    @cython.locals(fields=list, too_large=cython.bint, stream=Stream)
    cdef _receive_block(self, long long number, bytes block, bint ended)
    @cython.locals(stream=Stream)
    cdef Stream _accept(self, long long number)
    cdef _check_late(self, long long number)
    @cython.locals(head=CRequestHead, event=Event)
    cdef _receive_request(self, Stream stream, list fields, bint ended, bint too_large, Py_ssize_t size)
    @cython.locals(event=Event)
    cdef _refuse(self, Stream stream, error)
    @cython.locals(head=CResponseHead, event=Event, bodiless=cython.bint)
    cdef _receive_response(self, Stream stream, list fields, bint ended, bint too_large)
    @cython.locals(event=Event)
    cdef _receive_trailers(self, Stream stream, list fields, bint ended, bint too_large)
    cdef _receive_end(self, Stream stream, Event event)

    @cython.locals(length=Py_ssize_t, ended=cython.bint, stream=Stream)
    cdef _read_data(self, bytes data, Py_ssize_t start, Py_ssize_t end, int flags, long long number)
    @cython.locals(size=Py_ssize_t, event=Event)
    cdef _receive_content(self, Stream stream, bytes data, Py_ssize_t length, bint ended)
    @cython.locals(event=Event)
    cdef Event _content_event(self, Stream stream)
    @cython.locals(event=Event)
    cdef Event _event(self, int kind, Stream stream)
    cdef _credit(self, long long size)
    cdef _credit_stream(self, Stream stream)
    cpdef hold(self, Stream stream)
    cpdef release(self, Stream stream)
    @cython.locals(owed=cython.longlong)
    cdef _unhold(self, Stream stream)

    @cython.locals(size=cython.longlong, stream=Stream)
    cdef _read_window_update(self, bytes data, Py_ssize_t start, Py_ssize_t length, long long number)
    @cython.locals(stream=Stream)
    cdef _read_reset(self, bytes data, Py_ssize_t start, Py_ssize_t length, long long number)
    @cython.locals(at=Py_ssize_t, name=cython.int, value=cython.longlong, window=cython.longlong)
    cdef _read_settings(self, bytes data, Py_ssize_t start, Py_ssize_t length, int flags, long long number)
    @cython.locals(change=cython.longlong, stream=Stream)
    cdef _use_initial_window(self, long long window)
    @cython.locals(event=Event)
    cdef _read_ping(self, bytes data, Py_ssize_t start, Py_ssize_t length, int flags, long long number)
    cdef _read_priority(self, bytes data, Py_ssize_t start, Py_ssize_t length, long long number)
    cdef _check_dependency(self, bytes data, Py_ssize_t start, long long number)
    @cython.locals(event=Event, stream=Stream)
    cdef _read_goaway(self, bytes data, Py_ssize_t start, Py_ssize_t length, long long number)

    @cython.locals(event=Event)
    cdef _end_faulty(self, Stream stream, fault)
    @cython.locals(event=Event)
    cdef Event _end_event(self, Stream stream)
    cdef _forget(self, long long number)
    cdef _close(self, Stream stream)
    cpdef reset(self, Stream stream, long long code)

    @cython.locals(number=cython.longlong, stream=Stream, encoder=Encoder, block=list)
    cpdef Stream send_request(
        self,
        bytes method,
        bytes scheme,
        bytes authority,
        bytes path,
        bytes lines,
        long long content_length,
        bint ended,
        bytes protocol=*,
    )
    @cython.locals(encoder=Encoder, block=bytes)
    cpdef Py_ssize_t send_response(self, Stream stream, int status, bytes lines, long long content_length, bint ended) except -1
    cdef _check_sending(self, Stream stream)
    cdef _sent_end(self, Stream stream)
    @cython.locals(size=Py_ssize_t)
    cpdef bint send_data(self, Stream stream, bytes data, bint ended) except -1
    cpdef send_end(self, Stream stream, bytes trailers)
    cdef _send_trailers(self, Stream stream, bytes trailers)
    @cython.locals(size=Py_ssize_t)
    cdef _send_content(self, Stream stream, bytes data, bint ended)
    @cython.locals(moved=cython.bint, stream=Stream, room=cython.longlong)
    cdef _send_waiting(self)
    @cython.locals(queue=list, data=bytes, ended=cython.bint)
    cdef _send_some(self, Stream stream, Py_ssize_t room)
    cpdef list unblock(self)
    cpdef send_ping(self, bytes data)
    cpdef send_goaway(self, long long code=*, bint final=*)


@cython.locals(pad=Py_ssize_t)
cdef Py_ssize_t _unpadded(bytes data, Py_ssize_t start, Py_ssize_t end) except -1
@cython.locals(high=cython.longlong)
cdef long long _word_at(bytes data, Py_ssize_t at) except -1
