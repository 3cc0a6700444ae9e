cdef class FieldLine:
    cdef readonly bytes name, value, line
    cdef readonly int meaning
    cdef readonly Py_ssize_t size


cdef int _meaning(bytes name, bytes value) except -1
