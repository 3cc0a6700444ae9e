cimport cython

from lbproxy.wire.http2.fieldline cimport FieldLine
from lbproxy.wire.http2.huffman cimport decode as huffman_decode

cdef int _MAX_SIZE_UPDATES, _MAX_FIELDS, _MAX_FIELDS_BYTES
cdef tuple _STATIC
cdef int _STATIC_ENTRIES
cdef frozenset _SECRETS
cdef int _MAX_KNOWN, _MAX_KNOWN_BYTES
cdef dict _known
cdef list _OCTETS


cdef class Decoder:
    cdef readonly bint too_large
    cdef readonly long long generation
    cdef bytes _block
    cdef Py_ssize_t _at
    cdef long long _limit, _max_table_bytes, _size
    cdef list _entries

    @cython.locals(
        fields=list,
        end=Py_ssize_t,
        total=cython.longlong,
        count=cython.int,
        updates=cython.int,
        octet=cython.int,
        field=FieldLine,
    )
    cpdef list decode(self, bytes block)
    @cython.locals(block=bytes, at=Py_ssize_t, value=cython.longlong, shift=cython.int, octet=cython.int, end=Py_ssize_t)
    cdef long long _integer(self, int mask) except -1
    @cython.locals(huffman=cython.bint, length=Py_ssize_t, text=bytes)
    cdef bytes _string(self)
    @cython.locals(length=cython.longlong)
    cdef Py_ssize_t _skip_string(self) except -1
    @cython.locals(start=Py_ssize_t, index=cython.longlong, octets=bytes, field=FieldLine)
    cdef FieldLine _literal(self, int mask)
    @cython.locals(index=cython.longlong, name=bytes)
    cdef FieldLine _read_literal(self, int mask)
    @cython.locals(entries=list, back=cython.longlong)
    cdef FieldLine _entry(self, long long index)
    cdef _insert(self, FieldLine field)
    @cython.locals(entries=list, gone=Py_ssize_t, oldest=FieldLine)
    cdef _evict(self, long long size)
    cdef _resize(self, long long size)


cpdef bytes encode_integer(long long value, int mask, int flags)
