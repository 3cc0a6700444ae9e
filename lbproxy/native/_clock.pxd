cdef class Turns:
    cdef public long long current


cdef class Clock:
    cdef object seconds
    cdef int kind

    cpdef double now(self) except? -1
