# cython: language_level=3
from lbproxy.native._loop cimport Descriptor


cdef class Acceptor(Descriptor):
    cdef object socket
    cdef object factory
    cdef object resume
    cdef bint no_delay

    cdef bint accept(self, int limit) except -1
    cdef int accepted(self, int fd, object address) except -1
    cdef bint accept_failed(self, int number) except -1
