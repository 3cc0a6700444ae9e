cdef class Histogram:
    cdef public list counts
    cdef public double sum

    cpdef observe(self, double seconds)
