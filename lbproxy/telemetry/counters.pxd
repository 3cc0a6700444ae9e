from lbproxy.telemetry.histograms cimport Histogram


cdef class ListenerCounters:
    cdef public str name
    cdef public long long connections, active, received_bytes, sent_bytes, tls_handshakes, tls_failures, tls_resumed
    cdef public object requests_by_status, faults, desync
    cdef public Histogram duration

    cpdef finished(self, int status, double seconds, long long received_bytes, long long sent_bytes)


cdef class TargetCounters:
    cdef public str group, key
    cdef public long long requests, connects, connect_failures, reused, sent_bytes, received_bytes
    cdef public list responses
    cdef public object faults
    cdef public Histogram response_time

    cpdef responded(self, int status, double seconds)
