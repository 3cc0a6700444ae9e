cdef class Turns:
    cdef public long long current
    cdef bint serving
    cdef list ending
    cdef long long moments  # so many have been held,
    cdef long long moment  # and this one is; 0 for none

    cdef void hold(self) noexcept
    cdef void let_go(self) noexcept
    cpdef begin(self)
    cpdef finish(self)
    cpdef at_end(self, item)


cdef class Clock:
    cdef object seconds
    cdef int kind
    cdef double read
    cdef long long read_at  # the moment of `read`

    cpdef double now(self) except? -1
