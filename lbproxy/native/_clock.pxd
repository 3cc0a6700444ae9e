cdef class Clock:
    cdef object seconds
    cdef int kind

    cpdef double now(self) except? -1
