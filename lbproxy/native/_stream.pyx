# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""TCP transports with system calls of their own: the compiled twin of `lbproxy.native.pure.transport`.

A `StreamTransport` owns its file descriptor and closes it exactly once.  Any call into a protocol, producer or factory
may close, abort or write to this or any other connection, so after each such call the state is looked at again.
"""

import os
import socket as sockets

from twisted.internet import error, interfaces, main
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import classImplements

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.object cimport PyObject
from cpython.ref cimport Py_XDECREF
from libc.errno cimport (
    EAGAIN, EALREADY, ECONNABORTED, EINPROGRESS, EINTR, EINVAL, EISCONN, ENOBUFS, errno
)
from libc.stdint cimport uint32_t
from libc.string cimport memset
from posix.unistd cimport close

from lbproxy.native._address cimport Address, address_of, is_loopback, literal, sockaddr, sockaddr_storage, socklen_t
from lbproxy.native._clock cimport Clock, Turns
from lbproxy.native._loop cimport Descriptor
from lbproxy.native._relay cimport Flow, Pipe, borrow_pipe, give_back
from lbproxy.native.protocol cimport StreamProtocol

from lbproxy.native._address import stream_address
from lbproxy.native._clock import turns as process_turns

cdef extern from "Python.h":
    PyObject* new_bytes "PyBytes_FromStringAndSize"(const char* data, Py_ssize_t size) except NULL
    int resize_bytes "_PyBytes_Resize"(PyObject** data, Py_ssize_t size) except -1

cdef extern from *:
    """
    #define _GNU_SOURCE 1
    #include <fcntl.h>
    #include <netinet/in.h>
    #include <netinet/tcp.h>
    #include <sys/epoll.h>
    #include <sys/ioctl.h>
    #include <sys/socket.h>
    #include <sys/syscall.h>
    #include <sys/uio.h>
    #include <unistd.h>

    /* The C library makes a cancellation point of these two in a process with threads, at two locked instructions each. */
    #if defined(SYS_recvfrom) && defined(SYS_sendto)
    static inline ssize_t receive_some(int fd, void* buffer, size_t size, int flags) {
        return syscall(SYS_recvfrom, fd, buffer, size, flags, NULL, NULL);
    }
    static inline ssize_t send_some(int fd, const void* buffer, size_t size, int flags) {
        return syscall(SYS_sendto, fd, buffer, size, flags, NULL, 0);
    }
    #else
    #define receive_some recv
    #define send_some send
    #endif
    """
    enum:
        EPOLLIN, EPOLLOUT, EPOLLERR, EPOLLHUP, EPOLLRDHUP
        SOCK_STREAM, SOCK_NONBLOCK, SOCK_CLOEXEC
        SOL_SOCKET, SO_ERROR, SO_KEEPALIVE, SO_LINGER
        IPPROTO_TCP, TCP_NODELAY, TIOCOUTQ
        MSG_NOSIGNAL, MSG_PEEK, MSG_DONTWAIT
        SHUT_WR, SHUT_RDWR
        SPLICE_F_MOVE, SPLICE_F_NONBLOCK
    struct linger:
        int l_onoff
        int l_linger
    struct iovec:
        void* iov_base
        size_t iov_len
    struct msghdr:
        iovec* msg_iov
        size_t msg_iovlen
    int c_connect "connect"(int fd, const sockaddr* address, socklen_t size) nogil
    int c_socket "socket"(int family, int kind, int protocol) nogil
    int getsockname(int fd, sockaddr* address, socklen_t* size) nogil
    int getsockopt(int fd, int level, int name, void* value, socklen_t* size) nogil
    int setsockopt(int fd, int level, int name, const void* value, socklen_t size) nogil
    int shutdown(int fd, int how) nogil
    Py_ssize_t receive_some(int fd, void* buffer, size_t size, int flags) nogil
    Py_ssize_t send_some(int fd, const void* buffer, size_t size, int flags) nogil
    Py_ssize_t sendmsg(int fd, const msghdr* message, int flags) nogil
    Py_ssize_t splice(int source, void* none, int sink, void* nothing, size_t size, unsigned int flags) nogil
    int ioctl(int fd, unsigned long request, int* value) nogil

cdef enum:
    SMALL_READ = 16384  # of an ordinary connection: a request or answer with room to spare
    MEDIUM_READ = 65536  # of one that fills what it is given
    LARGE_READ = 262144  # of one that goes on doing so
    MEDIUM_READS = 16  # filled until then: what a reader that never takes its answer costs is known before
    RELAY_READ = 65536  # relayed at once where splice cannot be had
    SPLICED = 1048576  # moved by one splice at most
    FULL_QUEUE = 65536  # bytes queued beyond which a producer is paused, as in Twisted
    PIECES = 64  # of the queue that go into one system call
    KEPT_WRITE = 16384  # what is longer is sent at once
    FLUSH_ROUNDS = 4  # system calls at most for the queue in a turn, so that nobody starves
    READ_ROUNDS = 4  # reads at most in a turn from a connection whose end is already known to have come

# What a peer's end or a failed system call means to the code that met it.
cdef enum:
    FINE = 0
    ENDED = 1
    BROKEN = 2

cdef Turns TURNS = process_turns

cdef char buffer[SMALL_READ]  # filled and copied without letting another thread run
cdef char relay_buffer[RELAY_READ]

cdef object _log = Logger("lbproxy.native.transport")
cdef object DONE = Failure(main.CONNECTION_DONE)
cdef object LOST = Failure(main.CONNECTION_LOST)
cdef object ABORTED = Failure(error.ConnectionAborted())
cdef object IHalfCloseableProtocol = interfaces.IHalfCloseableProtocol
cdef dict half_closing = {}  # whether a class says so; asking zope.interface costs as much as several system calls


cdef object half_closer(object protocol):
    """The protocol if it can go on with half a connection (or what adapts it), else None."""
    kind = type(protocol)
    known = half_closing.get(kind)
    if known is None:
        known = half_closing[kind] = IHalfCloseableProtocol.implementedBy(kind)
    return protocol if known else IHalfCloseableProtocol(protocol, None)


cdef int option(int fd, int level, int name) noexcept:
    cdef int value = 0
    cdef socklen_t size = sizeof(value)
    getsockopt(fd, level, name, &value, &size)
    return value


cdef int set_option(int fd, int level, int name, int value) noexcept:
    return setsockopt(fd, level, name, &value, sizeof(value))


cdef object os_error(int number):
    return OSError(number, os.strerror(number))


cdef class StreamTransport(Descriptor):
    """A TCP connection, accepted or made, that writes at once when nothing is queued."""

    def __cinit__(self):
        self.queue = []
        self.read_size = SMALL_READ

    def __init__(self, skt, protocol, reactor, peer):
        """Take over a connected socket (``skt`` is detached)."""
        skt.setblocking(False)
        self.attach(reactor)
        self.protocol = protocol
        self.peer = stream_address(peer)
        self.fd = skt.detach()

    def __dealloc__(self):
        if self.fd >= 0:
            close(self.fd)

    def made(self):
        """The connection stands: tell the protocol and read."""
        self.begin(True)

    # Beginnings

    cdef int begin(self, bint accepted) except -1:
        """What the protocol raises is logged and ends the connection."""
        protocol = self.protocol
        self.connected = True
        self.start_reading()
        try:
            if isinstance(protocol, StreamProtocol):
                (<StreamProtocol>protocol).makeConnection(self)
            else:
                protocol.makeConnection(self)
            if accepted and self.loop is not None and self.fd >= 0 and self.wanted & EPOLLIN:
                # What the peer said first is often here already.
                self.receive(False)
        except BaseException:
            failure = Failure()
            self.log_failure(failure)
            self.lose(failure)
        return 0

    cdef int settle_connect(self) except -1:
        """The attempt to connect has come to its end."""
        cdef int number = self.number
        if self.fd >= 0 and number == 0 and not self.made_at_once:
            number = option(self.fd, SOL_SOCKET, SO_ERROR)
        if number:
            return self.fail(number)
        self.connecting = False
        self.failed = None
        self.stop_writing()
        return self.begin(False)

    cdef int fail(self, int number) except -1:
        """There will be no connection."""
        failed, self.failed = self.failed, None
        self.connecting = False
        self.disconnected = True
        self.protocol = None
        self.close_socket(True)
        if failed is not None:
            try:
                failed(os_error(number))
            except BaseException:
                self.log_failure(Failure())
        return 0

    def cancel(self):
        """Give up connecting; nobody is told."""
        if self.connecting:
            self.failed = None
            self.fail(ECONNABORTED)

    # A native reactor calls

    cdef int on_events(self, uint32_t events) except -1:
        cdef int outcome = FINE
        if self.connecting:
            return self.settle_connect()
        if self.aborting:
            return 0
        if events & (EPOLLHUP | EPOLLERR) and not events & EPOLLIN:
            if self.wanted & EPOLLIN:
                return self.read_ended()
            return self.lose(LOST)
        try:
            if events & EPOLLIN:
                outcome = self.receive((events & EPOLLRDHUP) != 0)
                if outcome == ENDED:
                    self.read_ended()
                    outcome = FINE
            if outcome == FINE and events & EPOLLOUT and self.wanted & EPOLLOUT:
                outcome = self.flush()
        except BaseException:
            failure = Failure()
            self.log_failure(failure)
            return self.lose(failure)
        if outcome == BROKEN:
            return self.lose(LOST)
        if outcome == ENDED:
            return self.lose(DONE if self.reason is None else self.reason)
        return 0

    cdef int on_turn(self) except -1:
        cdef int outcome = FINE
        if self.connecting:
            return self.settle_connect()
        if self.fd < 0:
            return 0
        if self.aborting:
            return self.lose(ABORTED)
        if self.queued == 0:
            try:
                outcome = self.flushed()
            except BaseException:
                failure = Failure()
                self.log_failure(failure)
                return self.lose(failure)
            if outcome == ENDED:
                return self.lose(DONE if self.reason is None else self.reason)
        return 0

    cdef int on_refused(self, int number) except -1:
        if self.connecting:
            return self.fail(number)
        return self.lose(Failure(os_error(number)))

    # Any other reactor calls

    def logPrefix(self):
        """For log lines that an ordinary reactor writes about this connection."""
        return "tcp"

    def doRead(self):
        """Read once and tell the protocol."""
        cdef int outcome
        if self.fd < 0 or self.aborting:
            return None
        outcome = self.receive(False)
        return None if outcome == FINE else main.CONNECTION_DONE if outcome == ENDED else main.CONNECTION_LOST

    def doWrite(self):
        """Send what is queued; finish what waits for that."""
        cdef int outcome
        if self.connecting:
            self.settle_connect()
            return None
        if self.fd < 0 or self.aborting:
            return None
        outcome = self.flush()
        return None if outcome == FINE else main.CONNECTION_DONE if outcome == ENDED else main.CONNECTION_LOST

    def readConnectionLost(self, reason):
        """The peer sends no more."""
        if self.fd >= 0:
            self.read_ended()

    def writeConnectionLost(self, reason):
        """For an ordinary reactor."""
        self.lose(reason)

    def connectionLost(self, reason):
        """Close and tell the protocol, unless that was done already."""
        if self.connecting:
            # The reactor saw an error event, which on a connecting socket is the failure to connect.
            number = option(self.fd, SOL_SOCKET, SO_ERROR) if self.fd >= 0 else 0
            self.fail(number or ECONNABORTED)
        else:
            self.lose(reason)

    # Reading

    cdef int receive(self, bint hung_up) except -1:
        """Read, and give what came to the protocol.

        Where the end is known to be next (``hung_up``) go on until it is read.
        """
        cdef Py_ssize_t size, count
        cdef int rounds
        cdef bytes data
        if self.flow is not None:
            return self.relay_received(hung_up)
        for rounds in range(READ_ROUNDS):
            size = self.read_size
            if size <= SMALL_READ:
                count = receive_some(self.fd, buffer, SMALL_READ, 0)
                if count < 0:
                    count = -errno
                data = PyBytes_FromStringAndSize(buffer, count) if count > 0 else None
            else:
                data = receive_large(self.fd, size, &count)
            if count < 0:
                return FINE if count == -EAGAIN or count == -EINTR else BROKEN
            if count == 0:
                return ENDED
            if count == size:
                self.read_more(size)
            elif count <= SMALL_READ // 2:
                self.read_size = SMALL_READ
                self.full_reads = 0
            self.give(data)
            if not hung_up or self.fd < 0 or not self.wanted & EPOLLIN:
                return FINE
            if self.flow is not None:  # the protocol has had a relay begin
                return self.relay_received(hung_up)
        return FINE

    cdef void read_more(self, Py_ssize_t size) noexcept:
        """There was more than this."""
        if size < MEDIUM_READ:
            self.read_size = MEDIUM_READ
        elif size < LARGE_READ:
            self.full_reads += 1
            if self.full_reads >= MEDIUM_READS:
                self.read_size = LARGE_READ

    cdef int give(self, bytes data) except -1:
        """Give the protocol what came."""
        protocol = self.protocol
        TURNS.hold()
        try:
            if isinstance(protocol, StreamProtocol):
                (<StreamProtocol>protocol).dataReceived(data)
            else:
                protocol.dataReceived(data)
        finally:
            TURNS.let_go()
        return 0

    cdef int relay_received(self, bint hung_up) except -1:
        """Read, and write what came to the sink.

        A source that fills the ordinary buffer is spliced from, until it sends little again.
        """
        cdef Flow flow = self.flow
        cdef StreamTransport sink = self.sink
        cdef Py_ssize_t count
        cdef int rounds
        cdef bint large
        for rounds in range(READ_ROUNDS):
            large = self.read_size > SMALL_READ
            if large and not flow.copying and sink.queued == 0 and sink.connected and not sink.write_closed:
                count = self.splice_to(sink, flow.most(SPLICED))
                if count == -EINVAL:
                    flow.copying = True
                    continue
            else:
                count = receive_some(self.fd, relay_buffer, flow.most(RELAY_READ if large else SMALL_READ), 0)
                if count < 0:
                    count = -errno
                elif count > 0:
                    sink.take(relay_buffer, count)
            if count < 0:
                return FINE if count == -EAGAIN or count == -EINTR else BROKEN
            if count == 0:
                return ENDED
            flow.count(count)
            if flow.moved == flow.limit:
                self.flow = self.sink = None
                if self.fd < 0 or not self.wanted & EPOLLIN:
                    return FINE
                return self.receive(hung_up)
            if count >= SMALL_READ:
                self.read_size = LARGE_READ
            elif count <= SMALL_READ // 2:
                self.read_size = SMALL_READ
            if not hung_up or self.fd < 0 or self.flow is None or not self.wanted & EPOLLIN:
                return FINE
        return FINE

    cdef Py_ssize_t splice_to(self, StreamTransport sink, Py_ssize_t most) except? -1:
        """Move what has come to a plain sink with an empty queue; give its size, or minus the error number."""
        cdef Pipe pipe = borrow_pipe()
        cdef Py_ssize_t count, sent
        if pipe is None:
            return -EINVAL
        count = splice(self.fd, NULL, pipe.writing, NULL, most, SPLICE_F_MOVE | SPLICE_F_NONBLOCK)
        if count <= 0:
            if count < 0:
                count = -errno
            give_back(pipe)
            return count
        sent = splice(pipe.reading, NULL, sink.fd, NULL, count, SPLICE_F_MOVE | SPLICE_F_NONBLOCK)
        if sent == count:
            give_back(pipe)
            return count
        # The kernel takes no more now, or there is an error that the next flush meets again and reports.
        sink.pipe = pipe
        sink.piped = sink.queued = count - max(sent, <Py_ssize_t>0)
        if not sink.aborting:
            sink.start_writing()
        if sink.producer is not None and sink.streamingProducer:
            sink.producerPaused = True
            sink.producer.pauseProducing()
        return count

    cdef int read_ended(self) except -1:
        """The peer sends no more: end the connection, unless the protocol can go on with half of it."""
        self.stop_reading()
        try:
            half_closeable = half_closer(self.protocol)
            if half_closeable is not None:
                if isinstance(half_closeable, StreamProtocol):
                    (<StreamProtocol>half_closeable).readConnectionLost()
                else:
                    half_closeable.readConnectionLost()
                return 0
        except BaseException:
            failure = Failure()
            self.log_failure(failure)
            return self.lose(failure)
        return self.lose(DONE)

    cpdef pauseProducing(self):
        """Read no more for now."""
        self.stop_reading()

    cpdef resumeProducing(self):
        """Go on reading."""
        if self.connected and not self.disconnecting and not self.aborting:
            self.start_reading()

    def stopProducing(self):
        """Finish writing and close."""
        self.loseConnection()

    # Writing

    cpdef write(self, data):
        """Send now what the kernel takes, queue the rest."""
        if not isinstance(data, bytes):
            raise TypeError("Data must be bytes")
        self.send_bytes(<bytes>data)

    def writeSequence(self, iovec):
        """Send several pieces, as one."""
        self.write(b"".join(iovec))

    cdef int take(self, const char* data, Py_ssize_t size) except -1:
        """Send this now as far as the kernel takes it, queue a copy of the rest."""
        cdef Py_ssize_t sent = 0
        if not self.connected or self.write_closed or self.aborting:
            return 0
        if self.queued == 0:
            sent = send_some(self.fd, data, size, MSG_NOSIGNAL)
            if sent == size:
                return 0
            if sent < 0:
                sent = 0
        self.queued += size - sent
        return self.enqueue(PyBytes_FromStringAndSize(data + sent, size - sent))

    cdef int send_bytes(self, bytes data) except -1:
        cdef Py_ssize_t size = PyBytes_GET_SIZE(data)
        cdef Py_ssize_t sent = 0
        if not self.connected or self.write_closed or self.aborting or size == 0:
            return 0
        if self.queued == 0:
            if self.keeps(data):
                return 0
            sent = send_some(self.fd, PyBytes_AS_STRING(data), size, MSG_NOSIGNAL)
            if sent == size:
                if self.producer is not None and not self.streamingProducer:
                    self.later()  # a pull producer is asked for more when what it gave is sent
                return 0
            if sent < 0:
                # The kernel takes none now, or there is an error that the next flush meets again and reports.
                sent = 0
            self.offset = sent
        self.queued += size - sent
        return self.enqueue(data)

    cdef bint keeps(self, bytes data) except -1:
        """Put a small piece off until all events of this turn are served; tell whether that was done.

        Answers and requests then leave close together, which wakes their receivers once instead of each time.
        For as long as it is the only one it does not stand in the queue, which spares the list's upkeep.
        """
        if self.loop is None or not self.loop.serving or self.disconnecting or self.write_closing:
            return False
        if PyBytes_GET_SIZE(data) > KEPT_WRITE or (self.producer is not None and not self.streamingProducer):
            return False
        self.kept = data
        self.queued = PyBytes_GET_SIZE(data)
        if not self.unsent:
            self.unsent = True
            self.loop.unsent.append(self)
        return True

    cdef int append(self, bytes data) except -1:
        """Put a piece at the queue's end."""
        if self.kept is not None:
            self.queue.append(self.kept)
            self.kept = None
        self.queue.append(data)
        return 0

    cdef int on_unsent(self) except -1:
        cdef int outcome
        if self.fd < 0 or self.aborting or self.queued == 0:
            return 0
        try:
            outcome = self.flush()
        except BaseException:
            failure = Failure()
            self.log_failure(failure)
            return self.lose(failure)
        if outcome == BROKEN:
            return self.lose(LOST)
        if outcome == ENDED:
            return self.lose(DONE if self.reason is None else self.reason)
        if self.queued and self.fd >= 0 and not self.aborting:
            self.start_writing()
        return 0

    cdef int enqueue(self, bytes data) except -1:
        self.append(data)
        if not self.aborting and not self.unsent:
            self.start_writing()
        return self.slow_producer()

    cdef int slow_producer(self) except -1:
        if self.queued > FULL_QUEUE and self.producer is not None and self.streamingProducer:
            self.producerPaused = True
            self.producer.pauseProducing()
        return 0

    cdef int flush(self) except -1:
        """Send what the kernel takes of the queue; once it is empty, do what waits for that."""
        cdef iovec pieces[PIECES]
        cdef msghdr message
        cdef Py_ssize_t count, index, total, sent
        cdef int rounds
        cdef bytes data
        if self.piped:
            count = self.flush_pipe()
            if count != FINE or self.piped:
                return count
        for rounds in range(FLUSH_ROUNDS):
            if self.queued == 0:
                break
            count = 1 if self.kept is not None else min(<Py_ssize_t>len(self.queue) - self.first, <Py_ssize_t>PIECES)
            if count == 1:
                data = self.kept if self.kept is not None else <bytes>self.queue[self.first]
                total = PyBytes_GET_SIZE(data) - self.offset
                sent = send_some(self.fd, PyBytes_AS_STRING(data) + self.offset, total, MSG_NOSIGNAL)
                if sent < 0:
                    if errno == EAGAIN or errno == EINTR or errno == ENOBUFS:
                        return FINE
                    return BROKEN
                self.consumed(sent)
                if sent < total:
                    return FINE
                continue
            total = 0
            for index in range(count):
                data = <bytes>self.queue[self.first + index]
                pieces[index].iov_base = PyBytes_AS_STRING(data)
                pieces[index].iov_len = PyBytes_GET_SIZE(data)
                total += PyBytes_GET_SIZE(data)
            pieces[0].iov_base = <char*>pieces[0].iov_base + self.offset
            pieces[0].iov_len -= self.offset
            total -= self.offset
            memset(&message, 0, sizeof(message))
            message.msg_iov = pieces
            message.msg_iovlen = count
            sent = sendmsg(self.fd, &message, MSG_NOSIGNAL)
            if sent < 0:
                if errno == EAGAIN or errno == EINTR or errno == ENOBUFS:
                    return FINE
                return BROKEN
            self.consumed(sent)
            if sent < total:
                return FINE
        if self.queued:
            return FINE
        self.stop_writing()
        return self.flushed()

    cdef int flush_pipe(self) except -1:
        """Send what the kernel takes of the pipe, which goes before the rest of the queue."""
        cdef Py_ssize_t sent = splice(
            self.pipe.reading, NULL, self.fd, NULL, self.piped, SPLICE_F_MOVE | SPLICE_F_NONBLOCK
        )
        if sent < 0:
            return FINE if errno == EAGAIN or errno == EINTR or errno == ENOBUFS else BROKEN
        self.piped -= sent
        self.queued -= sent
        if self.piped == 0:
            give_back(self.pipe)
            self.pipe = None
        return FINE

    cdef int consumed(self, Py_ssize_t size) except -1:
        """Take what is sent from the queue's head."""
        cdef Py_ssize_t remaining
        self.queued -= size
        if self.kept is not None:
            if self.queued:
                self.queue.append(self.kept)
                self.offset = size
            self.kept = None
            return 0
        while size:
            remaining = PyBytes_GET_SIZE(<bytes>self.queue[self.first]) - self.offset
            if size < remaining:
                self.offset += size
                break
            size -= remaining
            self.queue[self.first] = None
            self.first += 1
            self.offset = 0
        if self.queued == 0 or (self.first >= PIECES and self.first * 2 >= len(self.queue)):
            del self.queue[:self.first]
            self.first = 0
        return 0

    cdef int flushed(self) except -1:
        """All is sent: ask for more, or close what was to be closed after it (Twisted's order)."""
        if self.disconnecting and self.write_closed:
            return ENDED
        if self.producer is not None and (not self.streamingProducer or self.producerPaused):
            self.producerPaused = False
            self.producer.resumeProducing()
        elif self.disconnecting:
            return ENDED
        elif self.write_closing and not self.write_closed:
            self.close_writing()
        return FINE

    cdef int close_writing(self) except -1:
        self.write_closed = True
        shutdown(self.fd, SHUT_WR)
        half_closeable = half_closer(self.protocol)
        if isinstance(half_closeable, StreamProtocol):
            (<StreamProtocol>half_closeable).writeConnectionLost()
        elif half_closeable is not None:
            half_closeable.writeConnectionLost()
        return 0

    cpdef registerProducer(self, producer, bint streaming):
        """Let what is queued slow ``producer`` down."""
        if self.producer is not None:
            raise RuntimeError(
                f"Cannot register producer {producer}, because producer {self.producer} was never unregistered."
            )
        if self.disconnected:
            producer.stopProducing()
            return
        self.producer = producer
        self.streamingProducer = streaming
        self.producerPaused = False
        if not streaming:
            producer.resumeProducing()

    cpdef unregisterProducer(self):
        """The producer has no more."""
        self.producer = None
        if self.connected and self.queued == 0 and (self.disconnecting or self.write_closing):
            self.later()

    def stopConsuming(self):
        """Take no more, and close."""
        self.unregisterProducer()
        self.loseConnection()

    # Closing

    cpdef loseConnection(self, _connDone=None):
        """Close once all that was written is sent; in the reactor's next turn if it is already."""
        if self.connected and not self.disconnecting:
            self.disconnecting = True
            self.reason = _connDone
            self.stop_reading()
            if self.queued == 0:
                self.later()

    cpdef loseWriteConnection(self):
        """Close the write direction once all that was written is sent; go on reading."""
        if self.connected and not self.write_closing:
            self.write_closing = True
            if self.queued == 0:
                self.later()

    cpdef abortConnection(self):
        """Reset the connection in the reactor's next turn; what is queued is dropped."""
        if self.disconnected or self.aborting:
            return
        if self.connecting:
            self.number = ECONNABORTED
        self.aborting = True
        self.stop_reading()
        self.stop_writing()
        self.later()

    cdef int lose(self, object reason) except -1:
        """Close and tell the protocol, once.  Whatever the others raise is logged."""
        if self.fd < 0 or self.disconnected:
            return 0
        self.disconnected = True
        self.connected = False
        producer, self.producer = self.producer, None
        if producer is not None:
            try:
                producer.stopProducing()
            except BaseException:
                self.log_failure(Failure())
        self.close_socket(
            reason is DONE or reason is LOST or reason is not ABORTED and reason.check(error.ConnectionAborted) is None
        )
        protocol, self.protocol = self.protocol, None
        try:
            if isinstance(protocol, StreamProtocol):
                (<StreamProtocol>protocol).connectionLost(reason)
            else:
                protocol.connectionLost(reason)
        except BaseException:
            self.log_failure(Failure())
        return 0

    cdef int close_socket(self, bint orderly) except -1:
        cdef linger reset
        cdef int fd = self.fd
        cdef bint shared = self.handle is not None
        self.queue = []
        self.kept = None
        self.queued = self.first = self.offset = self.piped = 0
        self.flow = self.sink = self.pipe = None
        if fd < 0:
            return 0
        self.detach(shared)
        self.fd = -1
        if not orderly:
            reset.l_onoff = 1
            reset.l_linger = 0
            setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset))
        elif shared:
            shutdown(fd, SHUT_RDWR)
        close(fd)
        if shared:
            self.handle.close()
        return 0

    cdef int log_failure(self, object failure) except -1:
        _log.failure("unhandled error in a connection's protocol", failure=failure)
        return 0

    # About the connection

    def getPeer(self):
        """The other end's address."""
        if type(self.peer) is Address:
            self.peer = (<Address>self.peer).twisted()
        elif type(self.peer) is tuple:
            self.peer = stream_address(self.peer)
        return self.peer

    def getHost(self):
        """This end's address."""
        cdef sockaddr_storage storage
        cdef socklen_t size = sizeof(storage)
        if getsockname(self.fd, <sockaddr*>&storage, &size) < 0:
            raise os_error(errno)
        return address_of(&storage).twisted()

    def getHandle(self):
        """A socket object for this connection, which closes with it."""
        if self.handle is None and self.fd >= 0:
            self.handle = sockets.socket(fileno=os.dup(self.fd))
            self.handle.setblocking(False)
        return self.handle

    def is_quiet(self):
        """Tell whether the connection stands and nothing waits to be read, not even its end."""
        cdef char byte
        if self.fd < 0 or not self.connected:
            return False
        return receive_some(self.fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) < 0 and (errno == EAGAIN)

    def untaken(self):
        """How many of the bytes written the peer has not acknowledged: what is queued here and in the kernel."""
        cdef int sent = 0
        if self.fd < 0 or ioctl(self.fd, TIOCOUTQ, &sent) < 0:
            return 0
        return self.queued + sent

    def getTcpNoDelay(self):
        """Tell whether small writes are sent at once."""
        return bool(option(self.fd, IPPROTO_TCP, TCP_NODELAY))

    def setTcpNoDelay(self, bint enabled):
        """Send small writes at once, or let the kernel gather them."""
        if self.fd >= 0 and enabled != self.no_delay:
            set_option(self.fd, IPPROTO_TCP, TCP_NODELAY, enabled)
            self.no_delay = enabled

    def getTcpKeepAlive(self):
        """Tell whether the kernel probes a silent peer."""
        return bool(option(self.fd, SOL_SOCKET, SO_KEEPALIVE))

    def setTcpKeepAlive(self, bint enabled):
        """Have the kernel probe a silent peer."""
        if self.fd >= 0:
            set_option(self.fd, SOL_SOCKET, SO_KEEPALIVE, enabled)


cdef bytes receive_large(int fd, Py_ssize_t size, Py_ssize_t* count):
    """Read into a bytes object of its own, which spares a copy; ``count`` is its size or minus the error number."""
    cdef PyObject* data = new_bytes(NULL, size)
    count[0] = receive_some(fd, <char*>PyBytes_AS_STRING(<object>data), size, 0)
    if count[0] < 0:
        count[0] = -errno
    if count[0] <= 0:
        Py_XDECREF(data)
        return None
    if count[0] < size:
        resize_bytes(&data, count[0])
    result = <bytes>data
    Py_XDECREF(data)
    return result


classImplements(
    StreamTransport,
    interfaces.ITCPTransport,
    interfaces.ISystemHandle,
    interfaces.IPushProducer,
    interfaces.IConsumer,
    interfaces.IReadWriteDescriptor,
    interfaces.IHalfCloseableDescriptor,
    interfaces.ILoggingContext,
)


def relay(source, sink, clock, long long limit=-1):
    """From now on write what comes from ``source`` to ``sink``, and give the account of it.

    After ``limit`` bytes, if that is not negative, what comes goes to the protocol again.

    Gives None where one of them is no transport of this package: it goes on giving what comes to its protocol.
    A source that relays tells its protocol of the end as ever.  The sink's producer is paused and resumed as
    by `StreamTransport.write`.
    """
    cdef StreamTransport native
    if not isinstance(source, StreamTransport) or not isinstance(sink, StreamTransport):
        return None
    if limit == 0:
        return None
    cdef Flow flow = Flow(clock, limit)
    flow.copying = type(source) is not StreamTransport or type(sink) is not StreamTransport
    native = <StreamTransport>source
    if native.fd >= 0:
        native.flow = flow
        native.sink = <StreamTransport>sink
    return flow


def connect(reactor, str host, int port, protocol, failed):
    """Connect to an IP literal.

    Later exactly one of ``protocol.makeConnection`` and ``failed(error)`` is called, unless the
    returned transport's ``cancel()`` comes first.  There is no timeout: cancel.
    """
    cdef StreamTransport transport = StreamTransport.__new__(StreamTransport)
    cdef sockaddr_storage storage
    cdef socklen_t size = 0
    transport.attach(reactor)
    transport.protocol = protocol
    transport.failed = failed
    transport.peer = (host, port) if ":" not in host else (host, port, 0, 0)
    transport.connecting = True
    transport.number = literal(host, port, &storage, &size)
    if transport.number == 0:
        transport.fd = c_socket(storage.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)
        if transport.fd < 0:
            transport.number = errno
    if transport.number == 0:
        set_option(transport.fd, IPPROTO_TCP, TCP_NODELAY, 1)
        transport.no_delay = True
        if c_connect(transport.fd, <sockaddr*>&storage, size) < 0 and errno != EINPROGRESS:
            transport.number = errno
        elif transport.loop is None or not is_loopback(&storage):
            transport.start_writing()
            return transport
        # On this machine the handshake is usually over by now, and asking again is cheaper than to be told.
        elif c_connect(transport.fd, <sockaddr*>&storage, size) < 0 and errno != EISCONN:
            if errno == EALREADY:
                transport.start_writing()
                return transport
            transport.number = errno
        else:
            transport.made_at_once = True
    transport.later()
    return transport
