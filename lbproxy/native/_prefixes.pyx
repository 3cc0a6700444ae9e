# cython: language_level=3, boundscheck=False, wraparound=False
"""The compiled twin of `lbproxy.native.pure.prefixes`: the bisection compares memory, without a call for each step."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.string cimport memcmp

from lbproxy.native.pure.prefixes import Prefixes as Pure


cdef class Prefixes:
    """See `lbproxy.native.pure.prefixes.Prefixes`."""

    def __init__(self, texts):
        pure = Pure(texts)
        for text in pure.texts:
            if type(text) is not bytes:
                raise TypeError("not bytes")
        self.texts = pure.texts
        self.parents = pure.parents

    cpdef Py_ssize_t longest(self, bytes text) except -2:
        cdef Py_ssize_t low = 0, high = len(self.texts), middle, size, length, index
        cdef const char* octets
        cdef int order
        cdef bytes entry
        if text is None:
            raise TypeError("not bytes")
        octets = PyBytes_AS_STRING(text)
        size = PyBytes_GET_SIZE(text)
        # the first entry that is greater than the text
        while low < high:
            middle = (low + high) >> 1
            entry = <bytes>self.texts[middle]
            length = PyBytes_GET_SIZE(entry)
            order = memcmp(octets, PyBytes_AS_STRING(entry), min(size, length))
            if order < 0 or (order == 0 and size < length):
                high = middle
            else:
                low = middle + 1
        index = low - 1
        while index >= 0:
            entry = <bytes>self.texts[index]
            length = PyBytes_GET_SIZE(entry)
            if length <= size and memcmp(octets, PyBytes_AS_STRING(entry), length) == 0:
                break
            index = self.parents[index]
        return index
