# cython: language_level=3, boundscheck=False, wraparound=False
"""The compiled twin of `lbproxy.native.pure.prefixes`: the bisection compares memory, without a call for each step."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from libc.stdint cimport UINT32_MAX, uint32_t
from libc.string cimport memcmp

from lbproxy.native.pure.prefixes import Prefixes as Pure


cdef class Prefixes:
    """See `lbproxy.native.pure.prefixes.Prefixes`.

    The texts stand one after the other in ``joined``, so that a step of the bisection touches little memory.
    """

    def __init__(self, texts):
        cdef Py_ssize_t index
        cdef uint32_t start = 0
        pure = Pure(texts)
        for text in pure.texts:
            if type(text) is not bytes:
                raise TypeError("not bytes")
        self.texts = pure.texts
        self.parents = pure.parents
        self.joined = b"".join(self.texts)
        if len(self.joined) > UINT32_MAX:
            raise OverflowError("more than 4 GiB of texts")
        PyMem_Free(self.starts)
        self.starts = <uint32_t*>PyMem_Malloc((len(self.texts) + 1) * sizeof(uint32_t))
        if self.starts == NULL:
            raise MemoryError
        for index in range(len(self.texts)):
            self.starts[index] = start
            start += <uint32_t>PyBytes_GET_SIZE(self.texts[index])
        self.starts[len(self.texts)] = start

    def __dealloc__(self):
        PyMem_Free(self.starts)

    cpdef Py_ssize_t longest(self, bytes text) except -2:
        cdef Py_ssize_t low = 0, high = len(self.texts), middle, size, length, index
        cdef const char* octets
        cdef const char* joined = PyBytes_AS_STRING(self.joined)
        cdef const uint32_t* starts = self.starts
        cdef int order
        if text is None:
            raise TypeError("not bytes")
        octets = PyBytes_AS_STRING(text)
        size = PyBytes_GET_SIZE(text)
        # the first entry that is greater than the text
        while low < high:
            middle = (low + high) >> 1
            length = starts[middle + 1] - starts[middle]
            order = memcmp(octets, joined + starts[middle], min(size, length))
            if order < 0 or (order == 0 and size < length):
                high = middle
            else:
                low = middle + 1
        index = low - 1
        while index >= 0:
            length = starts[index + 1] - starts[index]
            if length <= size and memcmp(octets, joined + starts[index], length) == 0:
                break
            index = self.parents[index]
        return index
