cimport cython

cdef int _CLOSE


cdef class FrameTracker:
    cdef readonly bint closed
    cdef bytes _head
    cdef long long _left

    @cython.locals(at="long long", size="long long", start="long long", length="long long", second=int)
    cpdef receive_data(self, bytes data)
