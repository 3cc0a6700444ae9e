cimport cython

from lbproxy.telemetry.histograms cimport Histogram


cdef Py_ssize_t _STATUSES


cdef class ListenerCounters:
    cdef public str name
    cdef public long long connections, active, received_bytes, sent_bytes, tls_handshakes, tls_failures, tls_resumed
    cdef public object faults, closed, desync, rate_limited
    cdef long long[::1] _statuses
    cdef public Histogram duration

    cpdef finished(self, int status, double seconds, long long received_bytes, long long sent_bytes)


cdef class TargetCounters:
    cdef public str group, key
    cdef public long long requests, connects, connect_failures, reused, retries_over_budget, sent_bytes, received_bytes
    cdef long long[::1] _classes
    cdef public object faults, retries
    cdef public Histogram response_time

    @cython.locals(klass=Py_ssize_t)
    cpdef responded(self, int status, double seconds)
