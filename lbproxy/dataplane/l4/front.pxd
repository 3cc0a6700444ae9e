cimport cython

cdef class TcpFront

from lbproxy.dataplane.l4.tcp cimport TcpClientSide, TcpContext
from lbproxy.dataplane.proxy.runtime cimport GroupRuntime
from lbproxy.dataplane.router.table cimport Table as CTable
from lbproxy.native._clock cimport Clock as CClock
from lbproxy.telemetry.accesslog cimport AccessLog as CAccessLog
from lbproxy.telemetry.counters cimport TargetCounters as CTargetCounters


cdef CClock _WALL


cdef class TcpRuntime(TcpContext):
    cdef CTable _table
    cdef dict _by_cell, _groups
    cdef TcpFront _front
    cdef object _worker_counters
    cdef CAccessLog _access_log

    @cython.locals(counters=CTargetCounters)
    cpdef CTargetCounters target_counters(self, GroupRuntime group, registered)


cdef class TcpFront:
    cdef readonly set connections
    cdef readonly object admission
    cdef public bint draining
    cdef public TcpRuntime runtime

    @cython.locals(connection=TcpClientSide)
    cpdef buildProtocol(self, addr)
