cdef class Expiring:
    cdef public double deadline
    cdef public long long armed


cdef class StreamProtocol(Expiring):
    cpdef makeConnection(self, transport)
    cpdef dataReceived(self, bytes data)
    cpdef readConnectionLost(self)
    cpdef writeConnectionLost(self)
    cpdef connectionLost(self, reason)
