# cython: language_level=3


cdef class RequestHead:
    cdef public Py_ssize_t end
    cdef public bytes method, target, path, query, version
    cdef public int minor
    cdef public bytes authority, host
    cdef public long long content_length
    cdef public int desync
    cdef public bint chunked, keep_alive, expect_continue, te_trailers, odd_names, odd_path
    cdef public bytes upgrade, forwarded, x_forwarded_for, trace_id, user_agent, referer
    cdef public object _fields
    cdef bytes data  # what the fields stand in
    cdef Py_ssize_t block, block_end


cdef class ResponseHead:
    cdef public Py_ssize_t end
    cdef public int status
    cdef public bytes reason
    cdef public int minor
    cdef public long long content_length
    cdef public bint chunked, keep_alive, has_date
    cdef public bytes upgrade, forwarded
    cdef public object _fields
    cdef bytes data  # what the fields stand in
    cdef Py_ssize_t block, block_end


cpdef RequestHead scan_request(bytes data, Py_ssize_t start=*)
cpdef ResponseHead scan_response(bytes data, Py_ssize_t start=*)


cdef class Codec:
    cpdef RequestHead scan_request(self, bytes data, Py_ssize_t start=*)
    cpdef ResponseHead scan_response(self, bytes data, Py_ssize_t start=*)
    cpdef bytes piece(self, bytes data, Py_ssize_t start, Py_ssize_t end)
    cpdef bytes request_block(
        self, bytes method, bytes target, bytes authority, bytes forwarded, bytes origin, bytes trace_id, bytes more
    )
    cpdef bytes request(self, bytes block, long long framing, bytes data)
    cpdef bytes response(
        self, int status, bytes reason, bytes fields, long long framing, int connection, bytes data
    )
