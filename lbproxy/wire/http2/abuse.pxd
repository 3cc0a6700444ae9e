cimport cython



cdef class Score:
    cdef readonly double points
    cdef double _at

    @cython.locals(points=cython.double)
    cpdef charge(self, str cause, double now)
    cpdef redeem(self)
