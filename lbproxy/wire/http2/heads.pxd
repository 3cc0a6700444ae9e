cimport cython

from lbproxy.native._http1 cimport Codec as CCodec, RequestHead as CRequestHead, ResponseHead as CResponseHead
from lbproxy.wire.http2.fieldline cimport FieldLine

cdef int AUTHORITY, COOKIE, HOST, LAST_PSEUDO, METHOD, ORDINARY, PATH, PROTOCOL, SCHEME, STATUS, TE
cdef bytes _VERSION
cdef CCodec _CODEC


@cython.locals(
    method=bytes,
    path=bytes,
    scheme=bytes,
    authority=bytes,
    protocol=bytes,
    host=bytes,
    te=cython.bint,
    cookies=list,
    lines=list,
    regular=cython.bint,
    field=FieldLine,
    meaning=cython.int,
    websocket=cython.bint,
    pieces=list,
    head=CRequestHead,
)
cpdef CRequestHead request_head(list fields, bint ended)

@cython.locals(
    status=bytes,
    lines=list,
    regular=cython.bint,
    field=FieldLine,
    meaning=cython.int,
    pieces=list,
    head=CResponseHead,
)
cpdef CResponseHead response_head(list fields)

@cython.locals(lines=list, size=Py_ssize_t, field=FieldLine)
cpdef bytes trailer_lines(list fields)
