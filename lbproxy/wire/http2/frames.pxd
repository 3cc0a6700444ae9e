cimport cython

from lbproxy.wire.http2.encoder cimport Encoder


cdef bytes _NO_HEAD


cdef class FrameWriter:
    cdef bytearray _out
    cdef Encoder _encoder
    cdef Py_ssize_t _max_data

    cpdef Py_ssize_t pending_bytes(self) except -1
    cpdef bytes data_to_send(self)
    @cython.locals(out=bytearray, at=Py_ssize_t)
    cdef _frame(self, long long length, int kind, int flags, long long number)
    @cython.locals(out=bytearray)
    cdef _word(self, long long value)
    cdef _write_settings(self, dict settings)
    @cython.locals(size=Py_ssize_t, flags=cython.int, at=Py_ssize_t, piece=bytes)
    cdef _write_block(self, long long number, bytes block, bint ended)
    @cython.locals(size=Py_ssize_t, at=Py_ssize_t, most=Py_ssize_t)
    cdef _write_data(self, long long number, bytes data, bint ended)
    cdef _write_word_frame(self, int kind, long long number, long long value)
    cdef _write_goaway(self, long long last_id, long long code)
