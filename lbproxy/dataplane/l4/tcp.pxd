cimport cython

cdef class TcpTargetSide
cdef class TcpClientSide

from lbproxy.dataplane.deadlines cimport Deadlines
from lbproxy.dataplane.proxy.runtime cimport GroupRuntime
from lbproxy.native._clock cimport Clock as CClock
from lbproxy.native._relay cimport Flow as CFlow
from lbproxy.native._stream cimport StreamTransport as CStreamTransport
from lbproxy.native.protocol cimport StreamProtocol
from lbproxy.telemetry.counters cimport ListenerCounters, TargetCounters
from lbproxy.telemetry.records cimport TcpRecord


cdef double NEVER


cdef class TcpContext:
    cdef readonly object connector
    cdef readonly str name
    cdef readonly bint encrypted
    cdef readonly double handshake_seconds, idle_seconds
    cdef readonly Deadlines deadlines
    cdef readonly long long[::1] cells
    cdef readonly Py_ssize_t slot
    cdef readonly ListenerCounters counters
    cdef readonly set connections

    cpdef entered(self, str host)
    cpdef left(self, str host)
    cpdef GroupRuntime choose(self)
    cpdef TargetCounters target_counters(self, GroupRuntime group, registered)
    cpdef double unix_time(self) except? -1
    cpdef log(self, TcpRecord record)


cdef class _Side(StreamProtocol):
    cdef readonly object transport
    cdef CStreamTransport stream
    cdef readonly bint encrypted, finished, lost
    cdef bint _fed

    cpdef connectionMade(self)
    @cython.locals(stream=CStreamTransport)
    cdef feed_from(self, _Side source)
    @cython.locals(stream=CStreamTransport)
    cdef end_of_feed(self)
    @cython.locals(stream=CStreamTransport)
    cdef close_writing(self)
    @cython.locals(stream=CStreamTransport)
    cdef close(self)


cdef class TcpClientSide(_Side):
    cdef readonly TcpContext context
    cdef readonly GroupRuntime group
    cdef readonly object registered
    cdef readonly str host
    cdef readonly int port
    cdef readonly TcpRecord _record
    cdef readonly bint _relaying
    cdef object _others, _connecting, _failure, _fault
    cdef ListenerCounters _counters
    cdef CClock _clock
    cdef double _accepted, _began_connecting, _idle_seconds
    cdef list _early
    cdef TcpTargetSide _target
    cdef CFlow _up, _down
    cdef long long _held_cell
    cdef bint _concluded, _ready

    cpdef begin(self, TcpContext context, addr)
    @cython.locals(up=CFlow, down=CFlow, side=TcpTargetSide, size="long long")
    cpdef settle(self)
    @cython.locals(group=GroupRuntime)
    cdef _choose(self)
    @cython.locals(group=GroupRuntime, counters=TargetCounters, side=TcpTargetSide, header=bytes)
    cdef _try(self, registered)
    cdef _next(self)
    cdef bytes _proxy_header(self, group)
    cdef connect_failed(self, TcpTargetSide side, fault, str detail)
    cdef _give_up(self)
    @cython.locals(now=double)
    cdef target_connected(self, TcpTargetSide side)
    cdef target_sent(self, bytes data)
    cdef target_finished(self, TcpTargetSide side)
    cdef _carry_end(self, _Side source, _Side sink)
    cdef target_lost(self, TcpTargetSide side, reason)
    cdef _carry_loss(self, _Side source, _Side sink, reason)
    cdef _idle_since(self, double now)
    cdef _note(self, fault)
    cdef _hold(self, long long cell)
    cdef _release(self)
    cdef _forget_target(self)
    cdef _stop_connecting(self)
    @cython.locals(context=TcpContext, record=TcpRecord)
    cdef _conclude(self)


cdef class TcpTargetSide(_Side):
    cdef readonly TargetCounters counters
    cdef TcpClientSide _client

    cpdef begin(self, TcpClientSide client, TargetCounters counters, bint encrypted)
