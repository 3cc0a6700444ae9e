cdef class HttpRecord:
    cdef public str kind, listener, client_host, scheme, target_group, target, rule, action, redirect_url, error_reason
    cdef public str classification, classification_reason
    cdef public str retry_reason, rate_limit
    cdef public str server_name, tls_version, tls_cipher
    cdef public bytes method, authority, request_target, version, user_agent, referer, trace_id
    cdef public bytes transformed_host, transformed_uri
    cdef public double started, request_time, target_time, response_time, duration
    cdef public int client_port, status, target_status, priority
    cdef public long long received_bytes, sent_bytes
    cdef public tuple targets_tried

    cpdef begin_record(self)


cdef class RequestLog:
    cpdef log(self, record)


cdef class TcpRecord:
    cdef public str listener, client_address, target_group, target, tls_version, tls_cipher, server_name, error_reason
    cdef public double started, duration, connect_time
    cdef public int client_port
    cdef public long long received_bytes, sent_bytes
