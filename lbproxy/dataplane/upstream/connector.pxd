cimport cython

from lbproxy.dataplane.deadlines cimport Deadlines
from lbproxy.native.protocol cimport StreamProtocol


cdef double NEVER


cdef class Connecting


cdef class Connector:
    cdef object _reactor
    cdef readonly Deadlines _deadlines
    cdef dict _tls, _known

    @cython.locals(known=tuple, attempt=Connecting)
    cpdef connect(self, group, target, protocol, bytes header=*)
    cdef tuple _learn(self, group)
    cdef _client_tls(self, group)


cdef class Connecting(StreamProtocol):
    cdef readonly bint _over
    cdef Deadlines _deadlines
    cdef object _protocol, _tls_creator, _handshake, _transport, _stream
    cdef bytes _header

    cpdef begin(self, reactor, Deadlines deadlines, target, protocol, bytes header, tls_creator)
    cdef _drop(self)
    cdef _end(self)
    cdef _hand_over(self, transport)
