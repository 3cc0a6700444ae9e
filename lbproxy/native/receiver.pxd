cdef class Receiver:
    cpdef dataReceived(self, bytes data)
