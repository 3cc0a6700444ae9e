cdef class FieldLine:
    cdef readonly bytes name, value, line
    cdef readonly int meaning
    cdef readonly Py_ssize_t size
