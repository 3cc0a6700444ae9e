cdef class Connecting:
    cdef public double deadline
    cdef public long long armed
    cdef readonly bint _over
    cdef object _deadlines, _protocol, _tls_creator, _handshake, _transport, _stream
    cdef bytes _header

    cdef _drop(self)
    cdef _end(self)
    cdef _hand_over(self, transport)
