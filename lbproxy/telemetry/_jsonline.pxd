# cython: language_level=3


cdef class Lines:
    cdef char* text
    cdef Py_ssize_t capacity
    cdef readonly Py_ssize_t size, count

    cdef int reserve(self, Py_ssize_t size) except -1
    cpdef append(self, str line)
    cpdef append_http_json(self, record)
    cpdef append_tcp_json(self, record)
    cpdef bytes take(self)
