cimport cython

from lbproxy.wire.http2.events cimport Event
from lbproxy.wire.http2.sending cimport Sending
from lbproxy.wire.http2.stream cimport Stream

cdef int ACK, MAX_FRAME_BYTES, PING, RST_STREAM, SETTINGS
cdef int HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE
cdef int ENABLE_CONNECT_PROTOCOL, MAX_DATA_BYTES, MAX_HEADER_LIST_SIZE
cdef long long MAX_WINDOW, MAX_STREAM_ID


cdef class Control(Sending):
    cdef double _now
    cdef long long _last_id
    cdef bint _peer_ready
    cdef readonly bint settings_acknowledged

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
    cdef _count_answer(self, str cause)
    cdef _read_priority(self, bytes data, Py_ssize_t start, Py_ssize_t length, long long number)
    cdef _check_dependency(self, bytes data, Py_ssize_t start, long long number)
    @cython.locals(event=Event, stream=Stream)
    cdef _read_goaway(self, bytes data, Py_ssize_t start, Py_ssize_t length, long long number)
    cdef bint _is_idle(self, long long number) except -1
    @cython.locals(event=Event)
    cdef _end_faulty(self, Stream stream, fault)
    @cython.locals(event=Event)
    cdef Event _end_event(self, Stream stream)
    @cython.locals(event=Event)
    cdef Event _event(self, int kind, Stream stream)


@cython.locals(high=cython.longlong)
cdef long long _word_at(bytes data, Py_ssize_t at) except -1
