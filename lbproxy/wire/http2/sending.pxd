cimport cython

from lbproxy.wire.http2.abuse cimport Score
from lbproxy.wire.http2.encoder cimport Encoder
from lbproxy.wire.http2.events cimport Event
from lbproxy.wire.http2.frames cimport FrameWriter
from lbproxy.wire.http2.stream cimport Stream, next_state
from lbproxy.native._http1 cimport RequestHead as CRequestHead

cdef int FRAME_HEAD_BYTES, PING, RST_STREAM, WINDOW_UPDATE
cdef int CLOSED, HEAD_AWAITED, NOT_ALLOWED, RECEIVE_END, SEND_END, SEND_HEADERS
cdef int _MAX_RESET, _UPDATES_AHEAD, _MAX_UPDATES_AHEAD, _UPDATES_FOR_DATA, _SMALL_DATA
cdef long long MAX_STREAM_ID
cdef dict _STATUS_CODES, _METHOD_CODES, _SCHEME_CODES


cdef class Sending(FrameWriter):
    cdef readonly dict streams
    cdef public bint blocked
    cdef readonly bint peer_connect_protocol, goaway_received
    cdef readonly long long peer_max_header_list, peer_max_streams, sent_bytes
    cdef Score _score
    cdef list _events
    cdef dict _reset, _waiting
    cdef bint _client, _failed
    cdef long long _next_id, _handed_id, _goaway_id, _initial_send_window, _send_window, _receive_window
    cdef long long _uncredited, _held_bytes
    cdef int _updates_ahead

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
    @cython.locals(encoder=Encoder, block=list, joined=bytes)
    cpdef Py_ssize_t send_response(self, Stream stream, int status, bytes lines, long long content_length, bint ended) except -1
    cdef _check_sending(self, Stream stream)
    cdef _sent_end(self, Stream stream)
    cdef _send_trailers(self, Stream stream, bytes trailers)
    @cython.locals(size=Py_ssize_t)
    cpdef bint send_data(self, Stream stream, bytes data, bint ended) except -1
    cpdef send_end(self, Stream stream, bytes trailers)
    @cython.locals(size=Py_ssize_t)
    cdef _send_content(self, Stream stream, bytes data, bint ended)
    cdef _allow_updates(self)
    @cython.locals(moved=cython.bint, stream=Stream, room=cython.longlong)
    cdef _send_waiting(self)
    @cython.locals(queue=list, data=bytes, ended=cython.bint)
    cdef _send_some(self, Stream stream, Py_ssize_t room)
    cpdef list unblock(self)
    @cython.locals(events=list, event=Event, stream=Stream, head=CRequestHead)
    cdef list _take_events(self)
    cpdef hold(self, Stream stream)
    cpdef release(self, Stream stream)
    @cython.locals(owed=cython.longlong)
    cdef _unhold(self, Stream stream)
    cdef _credit(self, long long size)
    cdef _credit_stream(self, Stream stream)
    cpdef reset(self, Stream stream, long long code)
    cdef _forget(self, long long number)
    cdef _close(self, Stream stream)
    cpdef send_ping(self, bytes data)
    cpdef send_goaway(self, long long code=*, bint final=*)
