# cython: language_level=3
from libc.stdint cimport uint32_t


cdef class Descriptor:
    cdef int fd
    cdef uint32_t wanted
    cdef uint32_t registered
    cdef bint dirty
    cdef bint due
    cdef bint unsent
    cdef Loop loop
    cdef readonly object reactor
    cdef object __weakref__

    cdef int attach(self, object reactor) except -1
    cdef int on_events(self, uint32_t events) except -1
    cdef int on_turn(self) except -1
    cdef int on_unsent(self) except -1
    cdef int on_refused(self, int number) except -1

    cdef int start_reading(self) except -1
    cdef int stop_reading(self) except -1
    cdef int start_writing(self) except -1
    cdef int stop_writing(self) except -1
    cdef int later(self) except -1
    cdef int detach(self, bint shared) except -1


cdef class Loop:
    cdef int epfd
    cdef int size
    cdef uint32_t* generations
    cdef list items
    cdef list dirty
    cdef list due
    cdef list unsent
    cdef bint serving
    cdef object dispatch

    cdef int grow(self, int fd) except -1
    cdef int control(self, int operation, int fd, uint32_t events) noexcept
    cdef int want(self, Descriptor descriptor, uint32_t wanted) except -1
    cdef int release(self, Descriptor descriptor, bint shared) except -1
    cdef int flush(self) except -1
    cdef int settle(self, Descriptor descriptor) except -1
    cdef int serve(self, int milliseconds) except -1
    cdef int send_unsent(self) except -1
    cdef int run_due(self) except -1
