cimport cython

from lbproxy.native._http1 cimport RequestHead as CRequestHead, ResponseHead as CResponseHead
from lbproxy.wire.http2.control cimport Control
from lbproxy.wire.http2.events cimport Event
from lbproxy.wire.http2.heads cimport request_head, response_head, trailer_lines
from lbproxy.wire.http2.hpack cimport Decoder
from lbproxy.wire.http2.stream cimport Stream, next_state

cdef int ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, FRAME_HEAD_BYTES, GOAWAY, HEADERS, MAX_FRAME_BYTES, PADDED, PING
cdef int PRIORITY, PUSH_PROMISE, RST_STREAM, SETTINGS, WINDOW_UPDATE, WITH_PRIORITY
cdef int CLOSED, HEAD_AWAITED, NOT_ALLOWED, RECEIVE_END, RECEIVE_HEADERS
cdef int _MAX_BLOCK_BYTES, _MAX_CONTINUATIONS
cdef int _REQUEST, _RESPONSE, _CONTENT


cdef class Connection(Control):
    cdef Decoder _decoder
    cdef list _block
    cdef bytes _input
    cdef readonly bint begins_head
    cdef readonly list untold
    cdef bint _skipped
    cdef long long _max_streams, _block_bytes, _block_stream
    cdef int _preface_left, _block_flags, _block_frames

    @cython.locals(at=Py_ssize_t, begun=cython.longlong, ended=list, event=Event, ready=cython.bint, stream=Stream)
    cpdef list receive_data(self, bytes data, double now)
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
    cdef _refuse(self, Stream stream, error, list fields)
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


@cython.locals(pad=Py_ssize_t)
cdef Py_ssize_t _unpadded(bytes data, Py_ssize_t start, Py_ssize_t end) except -1
