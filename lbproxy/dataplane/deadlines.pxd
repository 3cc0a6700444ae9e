cimport cython

from lbproxy.native._clock cimport Clock as CClock
from lbproxy.native.protocol cimport Expiring


cdef double _NEVER, _TICK
cdef long long _HORIZON


cdef class Deadlines:
    cdef readonly object now
    cdef readonly CClock clock
    cdef readonly object call_later
    cdef object _call
    cdef dict _buckets, _bucket
    cdef long long _bucket_tick
    cdef double _call_tick

    @cython.locals(tick=cython.longlong, armed=cython.longlong, latest=cython.longlong)
    cpdef set(self, Expiring item, double at)
    cpdef clear(self, Expiring item)
    @cython.locals(bucket=dict, armed=cython.longlong)
    cdef _disarm(self, Expiring item)
    @cython.locals(bucket=dict)
    cdef _arm(self, Expiring item, long long tick)
    cdef _schedule(self, long long tick)
    cdef _look_at(self, Expiring item, double now, long long present)
