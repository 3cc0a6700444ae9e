cimport cython

cdef class HttpFront
cdef class ClientConnection

from lbproxy.dataplane.deadlines cimport Deadlines as CDeadlines
from lbproxy.dataplane.proxy.ends cimport Downstream
from lbproxy.dataplane.proxy.exchange cimport Exchange
from lbproxy.dataplane.proxy.forwarded cimport ForwardedFields, ForwardedStyle
from lbproxy.dataplane.proxy.runtime cimport HttpRuntime
from lbproxy.native._clock cimport Clock as CClock
from lbproxy.native._http1 cimport Codec as CCodec, RequestHead as CRequestHead
from lbproxy.native._stream cimport StreamTransport as CStreamTransport


cdef double NEVER, TICK_SECONDS
cdef long long _RELAY_FROM
cdef CClock _WALL
cdef CCodec _CODEC
cdef int CHUNKED, CONNECTION_CLOSE, CONNECTION_KEEP_ALIVE, CONNECTION_UNSAID, NO_BODY
cdef int _HEAD, _LENGTH, _CHUNKS, _NOTHING, _TUNNEL, _CLOSING, _LINGERING


cpdef classify(Exchange exchange, int desync)


cdef class HttpFront:
    cdef public HttpRuntime runtime
    cdef readonly int port
    cdef readonly CDeadlines deadlines
    cdef public bint draining
    cdef readonly set connections
    cdef readonly object admission
    cdef readonly str drain_cause
    cdef public object describe_tls
    cdef readonly object http2
    cdef public object certificates
    cdef ForwardedStyle _forwarded_style

    @cython.locals(style=ForwardedStyle)
    cpdef ForwardedStyle forwarded_style(self, listener)


cdef class ClientConnection(Downstream):
    cdef public bint secure
    cdef HttpFront _front
    cdef HttpRuntime _runtime
    cdef object _transport, _chunks, _forwarded_for, _tls, _giving, _taking
    cdef CStreamTransport _stream
    cdef ForwardedFields _forwarded
    cdef bytes _buffer
    cdef double _began, _age_limit
    cdef int _reading
    cdef long long _remaining, _untaken, _requests_left
    cdef Exchange _exchange
    cdef bint _starting, _keep, _chunked_out, _half_closed, _write_paused, _reading_paused, _unlooked, _may_switch

    @cython.locals(framing="long long", connection=int, minor=int, exchange=Exchange, message=bytes)
    cpdef send_response(
        self, int status, bytes reason, bytes fields, long long content_length, bint has_body, bytes data, bint ended
    )
    cdef double _first_patience(self) except? -1
    @cython.locals(stream=CStreamTransport)
    cdef _write(self, bytes data)
    cdef _read_buffered(self)
    @cython.locals(start=Py_ssize_t, size=Py_ssize_t, head=CRequestHead, runtime=HttpRuntime)
    cdef _read_requests(self, bytes data)
    @cython.locals(
        end=Py_ssize_t, following=Py_ssize_t, length="long long", body=bytes, trailers=bytes, ended=bint, exchange=Exchange
    )
    cdef Py_ssize_t _start_exchange(
        self, HttpRuntime runtime, CRequestHead head, bytes data, Py_ssize_t start, Py_ssize_t size
    ) except -1
    cdef _switch_to_http2(self, bytes data)
    cdef _describe_tls(self, Exchange exchange)
    cdef _await_head(self, bytes part, HttpRuntime runtime)
    @cython.locals(patience=double)
    cdef _await_request(self)
    cdef _read_length(self, bytes data)
    cdef _read_chunks(self, bytes data)
    cdef _refuse(self, int status, reason, CRequestHead head)
    cdef _set_deadline(self, double at)
    cdef bint _is_taking(self) except -1
    cdef _watch_giving(self)
    cdef _watch_taking(self)
    cdef _await_taken(self)
    cdef _look_who_takes(self, double now)
    cdef _close(self)
    cdef _linger(self)
    cdef _finish(self)
    cdef _lose_write(self)
    cdef _abort(self)


cdef class SecureClientConnection(ClientConnection):
    cdef double _first_patience(self) except? -1
    cdef _finish(self)
    cdef _lose_write(self)
    cdef _abort(self)
