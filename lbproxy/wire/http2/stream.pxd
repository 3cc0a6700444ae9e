from lbproxy.wire.http2.events cimport Event

cdef bytes _NEXT
cdef int _STEPS

cpdef int next_state(int state, int step) except -1


cdef class Stream:
    cdef readonly long long id
    cdef public int state
    cdef public object owner
    cdef public long long send_window, receive_window, uncredited, owed, awaited, queued, sent
    cdef public bint held, is_head, end_queued
    cdef public list queue
    cdef public bytes trailers
    cdef public Event event
