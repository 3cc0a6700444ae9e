cimport cython

cdef class MultiplexPool

from lbproxy.dataplane.proxy.ends cimport Upstream
from lbproxy.dataplane.proxy.exchange cimport Exchange
from lbproxy.dataplane.proxy.runtime cimport Pool
from lbproxy.dataplane.upstream.http2 cimport Http2Connection, TargetStream


cdef class MultiplexPool(Pool):
    cdef readonly object group, target, deadlines, now, keep_seconds
    cdef readonly dict connections, _waiting
    cdef readonly bint retired, is_grpc
    cdef readonly bytes scheme
    cdef object _connector
    cdef long long[::1] _cells
    cdef long long _cell
    cdef set _attempts

    cdef _start(self)
    @cython.locals(exchange=Exchange)
    cpdef connected(self, Http2Connection connection)
    @cython.locals(waiting=dict, exchange=Exchange)
    cpdef connect_failed(self, Http2Connection connection, fault, str detail)
    cpdef lost(self, Http2Connection connection)
    cpdef closing(self, Http2Connection connection)
