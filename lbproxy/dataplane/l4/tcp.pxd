cdef class TcpTargetSide

from lbproxy.native._clock cimport Clock as CClock
from lbproxy.native._relay cimport Flow as CFlow
from lbproxy.telemetry.counters cimport ListenerCounters, TargetCounters
from lbproxy.telemetry.records cimport TcpRecord


cdef class _Side:
    cdef readonly object transport
    cdef readonly bint encrypted, finished, lost
    cdef bint _fed

    cdef feed_from(self, _Side source)
    cdef end_of_feed(self)
    cdef close_writing(self)
    cdef close(self)


cdef class TcpClientSide(_Side):
    cdef public double deadline
    cdef public long long armed
    cdef readonly object context, group, registered
    cdef readonly str host
    cdef readonly TcpRecord _record
    cdef readonly bint _relaying
    cdef object _addr, _candidates, _connecting, _failure, _fault
    cdef ListenerCounters _counters
    cdef CClock _clock
    cdef double _accepted, _began_connecting, _idle_seconds
    cdef list _early
    cdef TcpTargetSide _target
    cdef CFlow _up, _down
    cdef long long _held_cell
    cdef bint _concluded, _ready

    cpdef dataReceived(self, bytes data)
    cpdef settle(self)
    cdef _choose(self)
    cdef _try_next(self)
    cdef bytes _proxy_header(self, group)
    cdef connect_failed(self, TcpTargetSide side, fault, str detail)
    cdef _give_up(self)
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
    cdef _conclude(self)


cdef class TcpTargetSide(_Side):
    cdef readonly TargetCounters counters
    cdef TcpClientSide _client

    cpdef dataReceived(self, bytes data)
