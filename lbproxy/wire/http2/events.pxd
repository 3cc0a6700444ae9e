cimport cython

cdef class Event:
    cdef public int kind
    cdef public object stream, head, error
    cdef public bytes data, trailers
    cdef public list pieces
    cdef public tuple content_types
    cdef public bint ended
    cdef public long long code, last_id, head_bytes
