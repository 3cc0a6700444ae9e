# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""Internet addresses: from the kernel, from a host's literal, and as Twisted has them."""

from twisted.internet.address import IPv4Address, IPv6Address

from libc.errno cimport EINVAL
from libc.stdint cimport uint16_t, uint32_t
from libc.string cimport memset

cdef extern from "Python.h":
    str PyUnicode_FromStringAndSize(const char* text, Py_ssize_t size)

cdef extern from *:
    """
    #include <arpa/inet.h>
    #include <net/if.h>
    #include <netinet/in.h>
    """
    enum:
        AF_INET, AF_INET6
    struct in_addr:
        pass
    struct in6_addr:
        pass
    struct sockaddr_in:
        unsigned short sin_family
        uint16_t sin_port
        in_addr sin_addr
    struct sockaddr_in6:
        unsigned short sin6_family
        uint16_t sin6_port
        uint32_t sin6_flowinfo
        in6_addr sin6_addr
        uint32_t sin6_scope_id
    const char* inet_ntop(int family, const void* source, char* text, socklen_t size) nogil
    int inet_pton(int family, const char* text, void* address) nogil
    unsigned int if_nametoindex(const char* name) nogil
    uint16_t htons(uint16_t value) nogil
    uint16_t ntohs(uint16_t value) nogil
    uint32_t ntohl(uint32_t value) nogil


def stream_address(sockaddr):
    """Turn what the socket module calls an address into Twisted's."""
    if len(sockaddr) == 2:
        return IPv4Address("TCP", sockaddr[0], sockaddr[1])
    return IPv6Address("TCP", *sockaddr)


cdef class Address:
    """The other end of an accepted connection; Twisted's kind of address is made of it when somebody asks."""

    cdef object twisted(self):
        if ":" in self.host:
            return IPv6Address("TCP", self.host, self.port, self.flow, self.scope)
        return IPv4Address("TCP", self.host, self.port)


cdef Address address_of(sockaddr_storage* storage):
    """Turn what the kernel calls an address into ours."""
    cdef char text[64]
    cdef Py_ssize_t size
    cdef sockaddr_in6* six
    cdef Address address = Address.__new__(Address)
    if storage.ss_family == AF_INET:
        size = write_four(text, <unsigned char*>&(<sockaddr_in*>storage).sin_addr)
        address.host = PyUnicode_FromStringAndSize(text, size)
        address.port = ntohs((<sockaddr_in*>storage).sin_port)
        return address
    if storage.ss_family == AF_INET6:
        six = <sockaddr_in6*>storage
        inet_ntop(AF_INET6, &six.sin6_addr, text, sizeof(text))
        address.host = text.decode("ascii")
        address.port = ntohs(six.sin6_port)
        address.flow = ntohl(six.sin6_flowinfo)
        address.scope = six.sin6_scope_id
        return address
    raise ValueError(f"not an internet address: family {storage.ss_family}")


cdef Py_ssize_t write_four(char* text, const unsigned char* octets) noexcept:
    """Write an IPv4 address; give its length.  `inet_ntop` prints by format, at twenty times the cost."""
    cdef char* out = text
    cdef int index, value
    for index in range(4):
        value = octets[index]
        if value >= 100:
            out[0] = <char>(48 + value // 100)
            out += 1
        if value >= 10:
            out[0] = <char>(48 + value // 10 % 10)
            out += 1
        out[0] = <char>(48 + value % 10)
        out[1] = 46  # a point
        out += 2
    return out - 1 - text


cdef int literal(str host, int port, sockaddr_storage* storage, socklen_t* size) except -1:
    """Fill in an address; give an error number if it is none."""
    cdef sockaddr_in* four = <sockaddr_in*>storage
    cdef sockaddr_in6* six = <sockaddr_in6*>storage
    memset(storage, 0, sizeof(sockaddr_storage))
    if not 0 <= port <= 65535:
        return EINVAL
    if ":" not in host:
        text = host.encode("ascii", "replace")
        four.sin_family = AF_INET
        four.sin_port = htons(port)
        size[0] = sizeof(sockaddr_in)
        return 0 if inet_pton(AF_INET, <bytes>text, &four.sin_addr) == 1 else EINVAL
    address, _, scope = host.partition("%")
    text = address.encode("ascii", "replace")
    six.sin6_family = AF_INET6
    six.sin6_port = htons(port)
    size[0] = sizeof(sockaddr_in6)
    if scope:
        name = scope.encode("ascii", "replace")
        six.sin6_scope_id = int(scope) if scope.isdecimal() else if_nametoindex(<bytes>name)
    return 0 if inet_pton(AF_INET6, <bytes>text, &six.sin6_addr) == 1 else EINVAL


cdef bint is_loopback(sockaddr_storage* storage) noexcept:
    """127.0.0.0/8; others may be on this machine too, but need not be."""
    cdef unsigned char* octets
    if storage.ss_family != AF_INET:
        return False
    octets = <unsigned char*>&(<sockaddr_in*>storage).sin_addr
    return octets[0] == 127
