# cython: language_level=3
from cpython.object cimport PyObject


cdef class Lines:
    cdef PyObject* taking  # the bytes object that `take` will give, with room to spare
    cdef char* text  # where it begins
    cdef Py_ssize_t capacity, usual
    cdef readonly Py_ssize_t size, count

    cdef int reserve(self, Py_ssize_t size) except -1
    cpdef append(self, str line)
    cpdef append_http_json(self, record)
    cpdef append_tcp_json(self, record)
    cpdef bytes take(self)
