cimport cython

cdef class Pool
cdef class GroupRuntime
cdef class HttpRuntime

from lbproxy.dataplane.proxy.ends cimport Upstream
from lbproxy.dataplane.proxy.exchange cimport Exchange
from lbproxy.dataplane.proxy.forwarded cimport TraceIds
from lbproxy.native._http1 cimport RequestHead as CRequestHead
from lbproxy.dataplane.router.table cimport Table
from lbproxy.telemetry.counters cimport ListenerCounters, TargetCounters
from lbproxy.telemetry.records cimport RequestLog


cdef class Pool:
    cdef public str key
    cdef public bytes authority
    cdef public TargetCounters counters
    cdef public object gate, observation

    cpdef begin(self)
    cpdef end(self)
    cpdef Upstream take(self, bint idempotent)
    cpdef connect(self, Exchange exchange)
    cpdef cancel(self, Exchange exchange)


cdef class GroupRuntime:
    cdef readonly str name
    cdef readonly object group, balancer, gate, retrying, stickiness
    cdef readonly dict pools
    cdef readonly double response_timeout
    cdef readonly bint encrypted, sends_header
    cdef list _order
    cdef object _retrying
    cdef long long[::1] _cells
    cdef Py_ssize_t _position_cell

    @cython.locals(order=list, cells="long long[::1]", cell=Py_ssize_t, position="long long")
    cpdef pick(self, CRequestHead request, str source)


cdef class HttpRuntime:
    cdef readonly str name
    cdef readonly object listener, group_stickiness, rate_limits
    cdef readonly RequestLog access_log
    cdef readonly Table table
    cdef readonly dict groups
    cdef readonly ListenerCounters counters
    cdef readonly TraceIds trace_ids
    cdef readonly double idle_timeout, header_timeout, client_keep_alive
    cdef readonly int desync_refuses, desync_closes
    cdef readonly object transform, error_pages
    cdef readonly bint drop_odd_names, normalizes_paths, strict_paths, preflight
    cdef readonly double min_request_rate, min_response_rate, slow_client_grace
    cdef readonly long long max_requests
    cdef readonly bint http2
    cdef readonly set relaying

    cpdef finished(self, Exchange exchange)
