# cython: language_level=3
from libc.stdint cimport uint32_t

cdef extern from "<sys/socket.h>" nogil:
    ctypedef unsigned int socklen_t
    struct sockaddr:
        unsigned short sa_family
    struct sockaddr_storage:
        unsigned short ss_family


cdef class Address:
    cdef readonly str host
    cdef readonly int port
    cdef uint32_t flow, scope

    cdef object twisted(self)


cdef Address address_of(sockaddr_storage* storage)
cdef int literal(str host, int port, sockaddr_storage* storage, socklen_t* size) except -1
cdef bint is_loopback(sockaddr_storage* storage) noexcept
