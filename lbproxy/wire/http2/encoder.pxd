cimport cython

cdef class Encoder:
    cdef long long _max_table_bytes, _smallest, _inserted, _size
    cdef bint _table_changed
    cdef dict _fields, _blocks
    cdef object _entries

    cpdef set_max_table_bytes(self, long long size)
    cpdef bytes begin(self)
    @cython.locals(coded=bytes)
    cpdef bytes lines(self, bytes lines)
    @cython.locals(before=cython.longlong, coded=bytearray, line=bytes, name=bytes, value=bytes, block=bytes)
    cdef bytes _encode_lines(self, bytes lines)
    @cython.locals(number=cython.longlong, index=cython.int, size=cython.longlong, coded=bytes)
    cpdef bytes field(self, bytes name, bytes value)
    cdef _insert(self, tuple key, long long size)
    cdef _evict(self, long long size)
