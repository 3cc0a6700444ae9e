cimport cython


cdef double[::1] _BOUNDS
cdef Py_ssize_t _LAST


cdef class Histogram:
    cdef long long[::1] _counts
    cdef public double sum

    @cython.locals(index=Py_ssize_t)
    cpdef observe(self, double seconds)
