cimport cython

cdef class TargetStream
cdef class Http2Connection

from lbproxy.dataplane.proxy.ends cimport Upstream
from lbproxy.dataplane.proxy.exchange cimport Exchange
from lbproxy.dataplane.upstream.multiplex cimport MultiplexPool
from lbproxy.native._clock cimport Turns as CTurns
from lbproxy.native._http1 cimport ResponseHead as CResponseHead
from lbproxy.native.protocol cimport StreamProtocol
from lbproxy.wire.http2.connection cimport Connection
from lbproxy.wire.http2.events cimport Event
from lbproxy.wire.http2.stream cimport Stream

cdef double NEVER
cdef CTurns _TURNS
cdef int CLOSED, NO_BODY, CANCEL
cdef int ENTRY_OVERHEAD, _OWN_FIELDS_SIZE
cdef bytes _VERSION, _HOST


cdef class TargetStream(Upstream):
    cdef public Stream stream
    cdef Http2Connection _connection
    cdef bint _full, _seen
    cdef long long _sent

    cpdef written(self, bint all_of_it)
    cpdef writable(self)
    cpdef Exchange let_go(self)
    cpdef fail(self, fault)
    cpdef receive(self, Event event)
    @cython.locals(head=CResponseHead, has_body=cython.bint)
    cdef _receive_response(self, Exchange exchange, Event event)
    @cython.locals(exchange=Exchange)
    cdef _receive_end(self, Event event)


cdef class Http2Connection(StreamProtocol):
    cdef readonly MultiplexPool pool
    cdef readonly Connection codec
    cdef readonly bint served
    cdef readonly dict streams
    cdef object _transport
    cdef int _gathering
    cdef double _heard
    cdef bint _due, _pinged, _closing

    cpdef bint is_quiet(self) except -1
    cpdef retire(self)
    @cython.locals(line=bytes, host=bytes, lines=bytes, end=Py_ssize_t, trailers=cython.bint, bare=cython.bint, stream=Stream)
    cpdef open(self, TargetStream owner, bytes block, bytes method, long long framing, bytes data, bint ended)
    cpdef send(self, TargetStream owner, bytes data, bint ended)
    cpdef send_end(self, TargetStream owner, bytes trailers)
    cpdef finish(self, TargetStream owner)
    @cython.locals(stream=Stream)
    cpdef give_up(self, TargetStream owner)
    cpdef flush(self)
    cpdef turn_ended(self)
    cdef _write(self)
    @cython.locals(now=cython.double, events=list)
    cpdef dataReceived(self, bytes data)
    @cython.locals(event=Event, owner=TargetStream)
    cdef _receive(self, list events)
    cdef _lose(self, TargetStream owner, Event event)
    cdef _rest(self)
    cdef _set_deadline(self, double at)
    cdef _close(self)
    cdef _end(self, fault)
    cdef _abort(self)
    @cython.locals(owner=TargetStream)
    cdef _lost(self, fault)


cdef Py_ssize_t _list_size(bytes line, bytes host, bytes lines) except -1
