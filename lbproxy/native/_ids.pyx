# cython: language_level=3
"""The compiled twin of `lbproxy.native.pure.ids`: seeded once, then xorshift128+ (S. Vigna, 2017)."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.string cimport memcpy

cdef char PAIRS[512]
cdef int octet
for octet in range(256):
    PAIRS[2 * octet] = b"0123456789abcdef"[octet >> 4]
    PAIRS[2 * octet + 1] = b"0123456789abcdef"[octet & 15]


cdef class Identifiers:
    """See `lbproxy.native.pure.ids.Identifiers`."""

    def __init__(self, bits):
        self.one = bits(64) | 1  # not both zero
        self.two = bits(64)

    cdef unsigned long long step(self) noexcept:
        cdef unsigned long long x = self.one
        cdef unsigned long long y = self.two
        self.one = y
        x ^= x << 23
        self.two = x ^ y ^ (x >> 17) ^ (y >> 26)
        return self.two + y

    cpdef bytes next(self, bytes prefix):
        cdef bytes made
        cdef char* out
        cdef unsigned long long value
        cdef int digit
        if prefix is None:
            raise TypeError("not bytes")
        made = PyBytes_FromStringAndSize(NULL, PyBytes_GET_SIZE(prefix) + 24)
        out = PyBytes_AS_STRING(made)
        memcpy(out, PyBytes_AS_STRING(prefix), PyBytes_GET_SIZE(prefix))
        out += PyBytes_GET_SIZE(prefix)
        value = self.step()
        for digit in range(8):
            memcpy(out + 2 * digit, PAIRS + 2 * (value & 255), 2)
            value >>= 8
        value = self.step() >> 32
        for digit in range(8, 12):
            memcpy(out + 2 * digit, PAIRS + 2 * (value & 255), 2)
            value >>= 8
        return made
