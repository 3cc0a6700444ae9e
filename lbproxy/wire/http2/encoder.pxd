cimport cython

from lbproxy.wire.http2.hpack cimport encode_integer
from lbproxy.wire.http2.huffman cimport encode as huffman_encode

cdef dict _STATIC_FIELDS, _STATIC_NAMES
cdef frozenset _REMEMBERED
cdef dict _lengths
cdef int _MAX_KNOWN, _MAX_KNOWN_BYTES, _MAX_LENGTHS


cdef class Encoder:
    cdef long long _max_table_bytes, _smallest, _inserted, _size
    cdef bint _table_changed
    cdef dict _fields, _known
    cdef object _entries

    cpdef set_max_table_bytes(self, long long size)
    cpdef bytes begin(self)
    @cython.locals(coded=bytes)
    cpdef bytes lines(self, bytes lines)
    @cython.locals(known=dict, block=list, all_known=cython.bint, line=bytes, coded=bytes, joined=bytes)
    cdef bytes _encode_lines(self, bytes lines)
    @cython.locals(before=cython.longlong, name=bytes, value=bytes, coded=bytes)
    cdef bytes _encode_line(self, bytes line)
    cdef _keep(self, bytes text, bytes coded)
    @cython.locals(number=cython.longlong, index=cython.int, size=cython.longlong, first=bytes)
    cpdef bytes field(self, bytes name, bytes value)
    cpdef bytes content_length(self, long long length)
    cdef _insert(self, tuple key, long long size)
    cdef _evict(self, long long size)


cdef bytes _shortest(bytes text)
cdef bytes _plain(bytes text)
