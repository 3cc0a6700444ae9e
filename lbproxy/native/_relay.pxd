# cython: language_level=3
from lbproxy.native._clock cimport Clock


cdef class Flow:
    cdef readonly long long moved
    cdef readonly double last
    cdef Clock clock
    cdef long long settled
    cdef bint copying
    cdef long long limit

    cdef int count(self, Py_ssize_t size) except -1
    cdef Py_ssize_t most(self, Py_ssize_t size) noexcept


cdef class Pipe:
    cdef int reading, writing


cdef Pipe borrow_pipe()
cdef int give_back(Pipe pipe) except -1
