cimport cython

cdef bytes _FOLLOWING, _OCTETS, _FLAGS, _FINAL
cdef tuple _LENGTHS
cdef list _CODES


@cython.locals(
    node=cython.int, size=Py_ssize_t, decoded=bytearray, at=Py_ssize_t, octet=cython.int, step=cython.int, flags=cython.int
)
cpdef bytes decode(bytes data)

@cython.locals(
    coded=bytearray, held=cython.ulonglong, bits=cython.int, at=Py_ssize_t, octet=cython.int, length=cython.int
)
cpdef bytes encode(bytes data)
