# cython: language_level=3
"""The compiled twin of `lbproxy.native.pure.clock`: `time.monotonic` and `time.time` are read by the system's call."""

import time

from twisted.logger import Logger

cdef extern from "<time.h>" nogil:
    ctypedef int clockid_t
    struct timespec:
        long tv_sec
        long tv_nsec
    int clock_gettime(clockid_t clock, timespec* now)
    enum:
        CLOCK_MONOTONIC
        CLOCK_REALTIME


cdef object _log = Logger("lbproxy.native.clock")


cdef class Turns:
    """See `lbproxy.native.pure.clock.Turns`.

    While a connection's bytes are with its protocol (`hold` to `let_go`) the clocks stand still: what is done then is done at
    one moment, and to ask the system for it a dozen times costs more than a system call.
    """

    def __cinit__(self):
        self.ending = []

    cpdef begin(self):
        self.current += 1
        self.serving = True

    cpdef finish(self):
        cdef list ending
        self.serving = False
        if self.ending:
            ending = self.ending
            self.ending = []
            for item in ending:
                try:
                    item.turn_ended()
                except Exception:
                    _log.failure("unhandled error at the end of a turn")

    cdef void hold(self) noexcept:
        self.moments += 1
        self.moment = self.moments

    cdef void let_go(self) noexcept:
        self.moment = 0

    cpdef at_end(self, item):
        if self.serving:
            self.ending.append(item)
        else:
            item.turn_ended()


turns = Turns()
cdef Turns TURNS = turns


cdef class Clock:
    """Tells the time, in seconds, by a function such as `time.monotonic`."""

    def __init__(self, now):
        self.seconds = now
        self.kind = -1
        if now is time.monotonic:
            self.kind = CLOCK_MONOTONIC
        elif now is time.time:
            self.kind = CLOCK_REALTIME

    cpdef double now(self) except? -1:
        cdef timespec now
        if self.kind < 0:
            return self.seconds()
        if self.read_at == TURNS.moment and self.read_at:
            return self.read
        if clock_gettime(self.kind, &now) != 0:
            return self.seconds()
        self.read_at = TURNS.moment
        self.read = now.tv_sec + now.tv_nsec * 1e-9
        return self.read
