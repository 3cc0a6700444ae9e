cdef class ClientStream

from lbproxy.dataplane.listener.http2 cimport Http2Connection
from lbproxy.dataplane.proxy.ends cimport Downstream
from lbproxy.dataplane.proxy.exchange cimport Exchange
from lbproxy.native._clock cimport Clock as CClock
from lbproxy.native._http1 cimport RequestHead as CRequestHead
from lbproxy.wire.http2.connection cimport Connection
from lbproxy.wire.http2.events cimport Event
from lbproxy.wire.http2.stream cimport Stream

cdef double NEVER
cdef CClock _WALL
cdef int CLOSED, HALF_CLOSED_LOCAL


cdef class ClientStream(Downstream):
    cdef public long long seen_sent
    cdef public bint paused, tunnel
    cdef public Exchange exchange
    cdef readonly Stream stream
    cdef Http2Connection _connection
    cdef Connection _codec
    cdef bytes _key
    cdef list _early

    cpdef ask_for_tunnel(self, CRequestHead head)
    cpdef received(self, Event event)
    cpdef was_reset(self, bint faulty)
    cpdef writable(self)
    cpdef timed_out(self)
    cpdef await_end(self)
    cdef _send(self, bytes data, bint ended)
    cdef _reset(self, int code)
