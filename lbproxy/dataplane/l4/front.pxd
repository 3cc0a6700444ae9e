cdef class TcpFront

from lbproxy.dataplane.router.table cimport Table as CTable
from lbproxy.native._clock cimport Clock as CClock
from lbproxy.telemetry.accesslog cimport AccessLog as CAccessLog
from lbproxy.telemetry.counters cimport ListenerCounters as CListenerCounters


cdef CClock _WALL


cdef class TcpRuntime:
    cdef readonly object listener, deadlines, connector, cells
    cdef readonly CListenerCounters counters
    cdef readonly int slot
    cdef readonly set connections
    cdef CTable _table
    cdef dict _by_cell
    cdef TcpFront _front
    cdef object _groups, _worker_counters
    cdef CAccessLog _access_log


cdef class TcpFront:
    cdef readonly set connections
    cdef readonly object admission
    cdef public bint draining
    cdef public object runtime
