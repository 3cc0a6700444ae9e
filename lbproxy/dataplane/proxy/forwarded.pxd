from lbproxy.native._clock cimport Clock as CClock


cdef class ForwardedFields:
    cdef bytes _client, _origin, _plain
    cdef object _mode

    cpdef bytes fields(self, bytes received)


cpdef bint too_many_addresses(bytes received) except -1


cdef Py_ssize_t _ID_DIGITS, _IDS


cdef class TraceIds:
    cdef object _getrandbits
    cdef CClock _wall
    cdef long long _second
    cdef bytes _prefix, _digits
    cdef Py_ssize_t _next

    cpdef bytes value(self, bytes received)
