# cython: language_level=3


cdef class Identifiers:
    cdef unsigned long long one, two

    cdef unsigned long long step(self) noexcept
    cpdef bytes next(self, bytes prefix)
