# cython: language_level=3
from libc.stdint cimport uint32_t


cdef class Prefixes:
    cdef readonly list texts, parents
    cdef bytes joined
    cdef uint32_t* starts

    cpdef Py_ssize_t longest(self, bytes text) except -2
