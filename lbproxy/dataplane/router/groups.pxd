cdef class GroupChoice:
    cdef readonly tuple shares
    cdef readonly double stickiness_seconds
    cdef list _names, _bounds
    cdef Py_ssize_t _last
    cdef object _random, _total
    cdef str _single

    cpdef str pick(self)
