# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""Connections are accepted in batches; the compiled twin of `lbproxy.native.pure.transport.Acceptor`."""

import os

from twisted.internet import interfaces
from twisted.logger import Logger
from zope.interface import classImplements

from libc.errno cimport EAGAIN, ECONNABORTED, EINTR, EPERM, errno
from libc.stdint cimport uint32_t

from lbproxy.native._address cimport address_of, sockaddr, sockaddr_storage, socklen_t
from lbproxy.native._loop cimport Descriptor
from lbproxy.native._stream cimport StreamTransport, option

cdef extern from *:
    """
    #include <netinet/in.h>
    #include <netinet/tcp.h>
    #include <sys/socket.h>
    """
    enum:
        SOCK_NONBLOCK, SOCK_CLOEXEC
        IPPROTO_TCP, TCP_NODELAY
    int accept4(int fd, sockaddr* address, socklen_t* size, int flags) nogil

cdef enum:
    ACCEPT_BATCH = 64  # connections taken in a turn, so that a flood of them does not starve the others

cdef double ACCEPT_PAUSE_SECONDS = 0.5  # rest after running out of descriptors or memory

cdef object _log = Logger("lbproxy.native.transport")


cdef class Acceptor(Descriptor):
    """Accept connections from a listening socket, which it owns.

    ``factory`` gives a protocol for each, or None to refuse it.
    """

    def __init__(self, reactor, skt, factory):
        skt.setblocking(False)
        self.attach(reactor)
        self.socket = skt
        self.fd = skt.fileno()
        self.factory = factory
        # Inherited by what is accepted.
        self.no_delay = option(self.fd, IPPROTO_TCP, TCP_NODELAY) != 0

    def logPrefix(self):
        """For log lines that an ordinary reactor writes."""
        return "accept"

    def start(self):
        """Begin to accept."""
        self.start_reading()

    def doRead(self):
        """Accept what is queued, within limits."""
        self.accept(ACCEPT_BATCH)

    def connectionLost(self, reason):
        """For an ordinary reactor."""
        self.close()

    def close(self):
        """Stop accepting and close the socket; the kernel resets what is queued on it."""
        if self.resume is not None:
            self.resume.cancel()
            self.resume = None
        if self.fd >= 0:
            # Another process may hold the same socket: the kernel would go on to watch it.
            self.detach(True)
            self.fd = -1
            self.socket.close()

    def finish(self):
        """Accept all that is queued, then close."""
        while self.fd >= 0 and self.accept(ACCEPT_BATCH):
            pass
        self.close()

    def set_factory(self, factory):
        """Connections accepted from now on get their protocol from here."""
        self.factory = factory

    cdef int on_events(self, uint32_t events) except -1:
        self.accept(ACCEPT_BATCH)
        return 0

    cdef int on_refused(self, int number) except -1:
        _log.error("cannot watch a listening socket: {error}", error=os.strerror(number))
        self.close()
        return 0

    cdef bint accept(self, int limit) except -1:
        """Accept up to this many connections; tell whether there may be more."""
        cdef sockaddr_storage storage
        cdef socklen_t size
        cdef int count, fd
        for count in range(limit):
            if self.fd < 0:
                return False
            size = sizeof(storage)
            fd = accept4(self.fd, <sockaddr*>&storage, &size, SOCK_NONBLOCK | SOCK_CLOEXEC)
            if fd < 0:
                if errno == EAGAIN:
                    return False
                return self.accept_failed(errno)
            try:
                self.accepted(fd, address_of(&storage))
            except BaseException:
                _log.failure("an accepted connection could not be begun")
        return True

    cdef int accepted(self, int fd, object address) except -1:
        """Give a connection to its protocol.  Owns ``fd`` from the start."""
        cdef StreamTransport transport = StreamTransport.__new__(StreamTransport)
        transport.fd = fd  # closed with the transport, whatever happens from here on
        protocol = self.factory.buildProtocol(address)
        if protocol is None:
            return 0
        transport.reactor = self.reactor
        transport.loop = self.loop
        transport.protocol = protocol
        transport.peer = address
        transport.no_delay = self.no_delay
        return transport.begin(True)

    cdef bint accept_failed(self, int number) except -1:
        if number in (ECONNABORTED, EPERM, EINTR):
            return True
        if self.resume is not None:
            return False
        _log.error(
            "cannot accept connections: {error}; trying again in {seconds} s",
            error=os.strerror(number),
            seconds=ACCEPT_PAUSE_SECONDS,
        )
        self.stop_reading()
        self.resume = self.reactor.callLater(ACCEPT_PAUSE_SECONDS, self._try_again)
        return False

    def _try_again(self):
        self.resume = None
        self.start_reading()


classImplements(Acceptor, interfaces.IReadDescriptor)
