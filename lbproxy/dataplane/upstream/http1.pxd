cimport cython

cdef class TargetConnection

from lbproxy.dataplane.proxy.ends cimport Upstream
from lbproxy.dataplane.proxy.exchange cimport Exchange
from lbproxy.dataplane.upstream.pool cimport TargetPool
from lbproxy.native._clock cimport Turns as CTurns
from lbproxy.native._http1 cimport Codec as CCodec, ResponseHead as CResponseHead
from lbproxy.native._stream cimport StreamTransport as CStreamTransport


cdef double NEVER
cdef CCodec _CODEC
cdef CTurns _TURNS
cdef int CHUNKED
cdef int _FULL_READ
cdef long long _RELAY_FROM
cdef int _HEAD, _LENGTH, _CHUNKS, _CLOSE, _TUNNEL, _CLOSING


cdef class TargetConnection(Upstream):
    cdef TargetPool _pool
    cdef readonly Exchange waiting
    cdef readonly object _transport
    cdef CStreamTransport _stream
    cdef object _chunks
    cdef bytes _buffer, _method
    cdef bint _full, _in_pieces, _keep, _paused, _request_chunked, _request_ended, _seen
    cdef int _reading, _informational
    cdef long long _remaining, _untaken, _last_read, _sent_in

    @cython.locals(stream=CStreamTransport)
    cdef _write(self, bytes data)
    cpdef bint is_quiet(self) except -1
    cdef _lowest_transport(self)
    @cython.locals(head=CResponseHead, start=Py_ssize_t, length="long long", size=Py_ssize_t, status=int, body=bytes)
    cdef _read_head(self, Exchange exchange, bytes data)
    @cython.locals(remaining="long long")
    cdef _read_length(self, Exchange exchange, bytes data)
    cdef _read_chunks(self, Exchange exchange, bytes data)
    cdef _end_chunks(self, Exchange exchange)
    cdef _switch(self, Exchange exchange, CResponseHead head, bytes rest)
    cdef _release(self, bint surplus)
    cdef _fail(self, fault, bint reused)
