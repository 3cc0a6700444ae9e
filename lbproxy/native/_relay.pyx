# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""What a relay in `lbproxy.native._stream` needs besides sockets: an account of each direction, and pipes to splice through.

A pipe is borrowed for as long as something is in it: for one read and write where the reader keeps up, else until it has
taken the rest.  So the connections that move something now, not those that are open, say how many pipes there are.
"""

from libc.errno cimport errno
from posix.fcntl cimport O_CLOEXEC, O_NONBLOCK
from posix.unistd cimport close

from lbproxy.native._clock cimport Clock

cdef extern from *:
    """
    #define _GNU_SOURCE 1
    #include <fcntl.h>
    #include <unistd.h>
    """
    int pipe2(int* descriptors, int flags) nogil
    int fcntl(int fd, int command, ...) nogil
    enum:
        F_SETPIPE_SZ

cdef enum:
    PIPE_BYTES = 1048576  # asked for, the most that the kernel gives by default
    LEAST_BYTES = 65536  # smaller ones are no gain: where a user has too many pipes the kernel gives two pages
    MOST_PIPES = 32  # altogether: half of what the kernel gives an unprivileged user (pipe(7))
    IDLE_PIPES = 16  # kept for the next borrower

cdef list idle = []
cdef int pipes = 0


cdef class Flow:
    """What one direction of a relay has moved.

    ``moved`` is how many bytes its source has sent, ``last`` when, by the clock.  After ``limit`` bytes, if that is not
    negative, the relay is over.
    """

    def __init__(self, Clock clock not None, long long limit=-1):
        self.clock = clock
        self.limit = limit
        self.last = clock.now()

    cdef int count(self, Py_ssize_t size) except -1:
        self.moved += size
        self.last = self.clock.now()
        return 0

    cdef Py_ssize_t most(self, Py_ssize_t size) noexcept:
        """How much of a read of this size may be moved."""
        return size if self.limit < 0 or self.limit - self.moved > size else <Py_ssize_t>(self.limit - self.moved)

    def settle(self):
        """Give how many bytes have moved since this was asked before."""
        cdef long long more = self.moved - self.settled
        self.settled = self.moved
        return more


cdef class Pipe:
    """A pipe, closed when it is let go."""

    def __cinit__(self):
        self.reading = self.writing = -1

    def __dealloc__(self):
        global pipes
        if self.reading >= 0:
            close(self.reading)
            close(self.writing)
            pipes -= 1


cdef Pipe borrow_pipe():
    """An empty pipe, or None if there are too many or the system has none to give."""
    global pipes
    cdef Pipe pipe
    cdef int descriptors[2]
    if idle:
        return <Pipe>idle.pop()
    if pipes >= MOST_PIPES or pipe2(descriptors, O_CLOEXEC | O_NONBLOCK) < 0:
        return None
    pipe = Pipe.__new__(Pipe)
    pipe.reading, pipe.writing = descriptors[0], descriptors[1]
    pipes += 1
    if fcntl(pipe.writing, F_SETPIPE_SZ, <int>PIPE_BYTES) < LEAST_BYTES:
        return None
    return pipe


cdef int give_back(Pipe pipe) except -1:
    """Nothing is in it any more."""
    if len(idle) < IDLE_PIPES:
        idle.append(pipe)
    return 0


def pipes_open():
    """How many pipes there are, in use or kept for use."""
    return pipes
