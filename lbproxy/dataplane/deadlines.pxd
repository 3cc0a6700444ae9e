cimport cython

from lbproxy.native._clock cimport Clock as CClock


cdef double _NEVER, _TICK
cdef long long _HORIZON


cdef class Deadlines:
    cdef readonly object now
    cdef readonly CClock clock
    cdef readonly object call_later
    cdef object _call
    cdef dict _buckets
    cdef double _call_tick

    @cython.locals(tick=cython.longlong, armed=cython.longlong, latest=cython.longlong)
    cpdef set(self, item, double at)
    cpdef clear(self, item)
    cdef _disarm(self, item)
    @cython.locals(bucket=dict)
    cdef _arm(self, item, long long tick)
    cdef _schedule(self, long long tick)
    cdef _look_at(self, item, double now, long long present)
