cdef class Turns:
    cdef public long long current
    cdef bint serving
    cdef list ending

    cpdef begin(self)
    cpdef finish(self)
    cpdef at_end(self, item)


cdef class Clock:
    cdef object seconds
    cdef int kind

    cpdef double now(self) except? -1
