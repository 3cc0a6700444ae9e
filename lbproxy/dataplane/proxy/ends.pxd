# The modules of the hot path need each other's classes: each first says which it has.
cdef class Downstream
cdef class Upstream

from lbproxy.dataplane.proxy.exchange cimport Exchange
from lbproxy.native._clock cimport Clock as CClock
from lbproxy.native._stream cimport StreamTransport as CStreamTransport
from lbproxy.native.protocol cimport StreamProtocol


cdef class Downstream(StreamProtocol):
    cdef public str host, scheme
    cdef public int port, listener_port
    cdef public CClock clock

    cpdef double wall_time(self) except? -1
    cpdef local_address(self)
    cpdef bytes forwarded_fields(self, bytes received)
    cpdef expect_progress(self, double seconds)
    cpdef pause_request(self)
    cpdef resume_request(self)
    cpdef send_informational(self, int status, bytes reason, bytes fields)
    cpdef send_response(
        self, int status, bytes reason, bytes fields, long long content_length, bint has_body, bytes data, bint ended
    )
    cpdef send_data(self, bytes data)
    cpdef send_end(self, bytes trailers)
    cpdef cut(self)
    cpdef CStreamTransport relay_sink(self)
    cpdef start_tunnel(self, bytes reason, bytes fields, bytes protocol)
    cpdef end_tunnel(self)
    cpdef leave_tunnel(self, bytes data)
    cpdef exchange_done(self)


cdef class Upstream(StreamProtocol):
    cdef public bint may_refuse, reused
    cdef public Exchange exchange

    cpdef send_request(self, bytes block, bytes method, long long framing, bytes data, bint ended)
    cpdef send_data(self, bytes data)
    cpdef send_end(self, bytes trailers)
    cpdef pause_response(self)
    cpdef resume_response(self)
    cpdef CStreamTransport relay_sink(self)
    cpdef bint is_taking(self) except -1
    cpdef abort(self)
    cpdef close(self)
