cimport cython

from lbproxy.native._clock cimport Clock as CClock
from lbproxy.native._ids cimport Identifiers as CIdentifiers


cdef class ForwardedStyle:
    cdef readonly object listener, mode
    cdef readonly bint appends, with_port
    cdef readonly bytes origin


cdef class ForwardedFields:
    cdef bytes _client, _origin, _plain
    cdef object _mode

    cpdef bytes fields(self, bytes received)


cpdef bint too_many_addresses(bytes received) except -1


cdef class TraceIds:
    cdef CIdentifiers _ids
    cdef CClock _wall
    cdef long long _second
    cdef bytes _prefix

    @cython.locals(second="long long")
    cpdef bytes value(self, bytes received)
