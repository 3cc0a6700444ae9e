from lbproxy.telemetry._jsonline cimport Lines as CLines
from lbproxy.telemetry.records cimport RequestLog


cdef Py_ssize_t BATCH_BYTES


cdef class AccessLog(RequestLog):
    cdef public bint enabled
    cdef bint _is_json
    cdef object _format_http, _format_tcp, _flushing
    cdef public object _problem
    cdef readonly object _writer
    cdef CLines _lines
    cdef readonly long long _handed
    cdef long long _dropped

    cpdef log(self, record)
    cpdef log_tcp(self, record)
    cpdef flush(self)
