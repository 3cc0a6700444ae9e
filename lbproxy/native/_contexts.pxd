# cython: language_level=3


cdef class ServerContexts:
    cdef void* default
    cdef dict by_name
    cdef bytes protocols
    cdef object context  # the default one, as pyOpenSSL has it
    cdef tuple kept

    cdef void* begin(self) except NULL
    cdef size_t context_for(self, bytes name) except? 0
