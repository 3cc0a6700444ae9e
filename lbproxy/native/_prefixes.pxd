# cython: language_level=3


cdef class Prefixes:
    cdef readonly list texts, parents

    cpdef Py_ssize_t longest(self, bytes text) except -2
