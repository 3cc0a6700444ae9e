cimport cython

cdef class TargetPool

from lbproxy.dataplane.deadlines cimport Deadlines
from lbproxy.dataplane.proxy.ends cimport Upstream
from lbproxy.dataplane.proxy.exchange cimport Exchange
from lbproxy.dataplane.proxy.runtime cimport Pool
from lbproxy.dataplane.upstream.http1 cimport TargetConnection
from lbproxy.native._clock cimport Clock as CClock


cdef double TICK_SECONDS


cdef class TargetPool(Pool):
    cdef readonly object group, target
    cdef readonly list idle
    cdef readonly set connections
    cdef readonly bint retired
    cdef object _connector
    cdef Deadlines _deadlines
    cdef long long[::1] _cells
    cdef long long _cell
    cdef dict _waiting
    cdef CClock _clock
    cdef double _keep_seconds
    cdef Py_ssize_t _max_idle

    @cython.locals(connection=TargetConnection)
    cpdef Upstream take(self, bint repeatable)
    cpdef connected(self, TargetConnection connection, Exchange exchange)
    cpdef connect_failed(self, fault, Exchange exchange)
    cpdef bint put(self, TargetConnection connection) except -1
    cpdef closing(self, TargetConnection connection)
    cpdef lost(self, TargetConnection connection)
