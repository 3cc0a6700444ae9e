# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""TLS straight on the socket: the compiled stand-in for Twisted's ``TLSMemoryBIOProtocol``.

pyOpenSSL makes contexts and connections; `TlsTransport` gives such a connection its socket and calls the very OpenSSL
that pyOpenSSL has loaded, by the addresses given to `bind`.  Those calls are made with the GIL held, for OpenSSL calls
back into Python from a handshake.

Everything written goes through OpenSSL as soon as the kernel takes it; what it does not take stays in
`StreamTransport`'s queue, in clear, and is what back-pressure counts.
"""

from twisted.internet import interfaces, main
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import classImplements

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.object cimport PyObject
from cpython.ref cimport Py_XDECREF
from libc.errno cimport EAGAIN, EINTR, ENOBUFS, errno
from libc.stdint cimport uint32_t, uintptr_t
from libc.string cimport memcpy, strcmp

from lbproxy.native._contexts cimport ServerContexts
from lbproxy.native._relay cimport Flow
from lbproxy.native._stream cimport StreamTransport, half_closer

cdef extern from "Python.h":
    PyObject* new_bytes "PyBytes_FromStringAndSize"(const char* data, Py_ssize_t size) except NULL
    int resize_bytes "_PyBytes_Resize"(PyObject** data, Py_ssize_t size) except -1

cdef extern from *:
    """
    #define _GNU_SOURCE 1
    #include <netinet/in.h>
    #include <netinet/tcp.h>
    #include <sys/epoll.h>
    #include <sys/socket.h>
    """
    enum:
        EPOLLIN, EPOLLOUT, EPOLLERR, EPOLLHUP, EPOLLRDHUP
        IPPROTO_TCP, TCP_CORK
        MSG_NOSIGNAL, MSG_DONTWAIT, SHUT_WR
    int setsockopt(int fd, int level, int name, const void* value, unsigned int size) nogil
    int shutdown(int fd, int how) nogil
    Py_ssize_t recv(int fd, void* buffer, size_t size, int flags) nogil
    Py_ssize_t send(int fd, const void* buffer, size_t size, int flags) nogil

# OpenSSL's own numbers, part of its binary interface since 1.1
cdef enum:
    SSL_ERROR_SSL = 1
    SSL_ERROR_WANT_READ = 2
    SSL_ERROR_WANT_WRITE = 3
    SSL_ERROR_ZERO_RETURN = 6
    MODE_ENABLE_PARTIAL_WRITE = 1
    MODE_ACCEPT_MOVING_WRITE_BUFFER = 2
    MODE_RELEASE_BUFFERS = 16

cdef enum:
    RECORD = 16384  # the most that one TLS record carries (RFC 8446 section 5.1)
    LARGE_READ = 131072  # gathered for the protocol from a connection that sends whole records
    FLUSH_RECORDS = 16  # written at most of the queue in a turn, so that nobody starves
    RELAY_READ = 65536  # gathered for the other end of a relay
    READ_ROUNDS = 4  # times at most in a turn that the protocol is given something

# What became of a step; the first three are _stream.pyx's.
cdef enum:
    FINE = 0
    ENDED = 1
    BROKEN = 2
    GIVEN = 3  # a read gave something to the protocol

cdef char buffer[RECORD]  # filled and copied, or gathered and encrypted, without letting another thread run
cdef char relay_buffer[RELAY_READ]

cdef object _log = Logger("lbproxy.native.tls")
cdef object DONE = Failure(main.CONNECTION_DONE)
cdef object LOST = Failure(main.CONNECTION_LOST)
cdef object IHandshakeListener = interfaces.IHandshakeListener

ctypedef int (*call_t)(void* ssl) noexcept
ctypedef int (*read_t)(void* ssl, void* data, int size) noexcept
ctypedef int (*write_t)(void* ssl, const void* data, int size) noexcept
ctypedef int (*number_t)(void* ssl, int value) noexcept
ctypedef long (*mode_t)(void* ssl, long value) noexcept
ctypedef void (*clear_t)() noexcept
ctypedef void (*set_number_t)(void* ssl, int value) noexcept
ctypedef void (*free_t)(void* ssl) noexcept
ctypedef const char* (*text_t)(const void* ssl) noexcept
ctypedef const char* (*server_name_t)(const void* ssl, int kind) noexcept
ctypedef const void* (*cipher_t)(const void* ssl) noexcept
ctypedef void (*alpn_t)(const void* ssl, const unsigned char** protocol, unsigned int* size) noexcept

cdef call_t SSL_do_handshake, SSL_shutdown, SSL_pending, SSL_has_pending
cdef read_t SSL_read
cdef write_t SSL_write
cdef number_t SSL_get_error, SSL_set_fd
cdef set_number_t SSL_set_read_ahead
cdef mode_t SSL_set_mode
cdef clear_t ERR_clear_error
cdef free_t SSL_free
cdef text_t SSL_get_version, SSL_CIPHER_get_name
cdef server_name_t SSL_get_servername
cdef cipher_t SSL_get_current_cipher
cdef alpn_t SSL_get0_alpn_selected
cdef call_t SSL_session_reused

REQUIRED = (
    "SSL_do_handshake",
    "SSL_shutdown",
    "SSL_pending",
    "SSL_read",
    "SSL_write",
    "SSL_get_error",
    "SSL_set_fd",
    "SSL_set_mode",
    "ERR_clear_error",
    "SSL_free",
    "SSL_get_version",
    "SSL_CIPHER_get_name",
    "SSL_get_servername",
    "SSL_get_current_cipher",
    "SSL_get0_alpn_selected",
    "SSL_session_reused",
)
"""Functions of OpenSSL that `bind` must be given; pyOpenSSL binds them all."""

cdef object _pointer = None, _wrap = None


def bind(dict addresses, pointer, wrap):
    """Use these functions of OpenSSL, by name.

    ``pointer`` gives the address that a pointer of pyOpenSSL's holds; ``wrap`` makes pyOpenSSL's connection of a context
    and the address of an ``SSL``, which it owns from then on.  Raises `KeyError` if a function is missing.
    """
    global SSL_free, SSL_get_version, SSL_CIPHER_get_name, SSL_get_servername, SSL_get_current_cipher
    global SSL_get0_alpn_selected, SSL_session_reused, _wrap
    global SSL_do_handshake, SSL_shutdown, SSL_pending, SSL_has_pending, SSL_read, SSL_write
    global SSL_get_error, SSL_set_fd, SSL_set_mode, SSL_set_read_ahead, ERR_clear_error, _pointer
    SSL_do_handshake = <call_t><uintptr_t>addresses["SSL_do_handshake"]
    SSL_shutdown = <call_t><uintptr_t>addresses["SSL_shutdown"]
    SSL_pending = <call_t><uintptr_t>addresses["SSL_pending"]
    SSL_read = <read_t><uintptr_t>addresses["SSL_read"]
    SSL_write = <write_t><uintptr_t>addresses["SSL_write"]
    SSL_get_error = <number_t><uintptr_t>addresses["SSL_get_error"]
    SSL_set_fd = <number_t><uintptr_t>addresses["SSL_set_fd"]
    SSL_set_mode = <mode_t><uintptr_t>addresses["SSL_set_mode"]
    ERR_clear_error = <clear_t><uintptr_t>addresses["ERR_clear_error"]
    # With both, a record takes one system call instead of two (its head, then its body).
    SSL_has_pending = <call_t><uintptr_t>addresses.get("SSL_has_pending", 0)
    SSL_set_read_ahead = <set_number_t><uintptr_t>addresses.get("SSL_set_read_ahead", 0)
    SSL_free = <free_t><uintptr_t>addresses["SSL_free"]
    SSL_get_version = <text_t><uintptr_t>addresses["SSL_get_version"]
    SSL_CIPHER_get_name = <text_t><uintptr_t>addresses["SSL_CIPHER_get_name"]
    SSL_get_servername = <server_name_t><uintptr_t>addresses["SSL_get_servername"]
    SSL_get_current_cipher = <cipher_t><uintptr_t>addresses["SSL_get_current_cipher"]
    SSL_get0_alpn_selected = <alpn_t><uintptr_t>addresses["SSL_get0_alpn_selected"]
    SSL_session_reused = <call_t><uintptr_t>addresses["SSL_session_reused"]
    _pointer = pointer
    _wrap = wrap


cdef class TlsTransport(StreamTransport):
    """A TCP connection with TLS in it, from the protocol's side like Twisted's.

    Made by `secure`.  The peer's close_notify ends it, unless the protocol can go on with half a connection
    (`IHalfCloseableProtocol`), as RFC 8446 section 6.1 has it.  After `loseConnection` it stays until the peer has
    ended its side too, and what still comes is given to the protocol; its owner has a deadline.
    """

    cdef void* ssl
    cdef object connection  # pyOpenSSL's, which owns ssl; None while it is our own
    cdef ServerContexts contexts  # where ssl came from, if it is our own
    cdef bint owned  # ssl is ours to free
    cdef object refused  # why a certificate was not accepted
    cdef bytes raw  # to be sent ahead of TLS, as it is
    cdef Py_ssize_t raw_sent
    cdef bint attached  # OpenSSL has the socket
    cdef bint answered  # a step of the handshake has been made
    cdef bint corked  # the kernel keeps what does not fill a segment, for 0.2 s at most
    cdef bint hurried  # the peer's close_notify is not waited for
    cdef bint handshaken
    cdef bint reading  # the protocol wants to be given what comes
    cdef bint peer_ended  # close_notify has come
    cdef bint broken  # nothing may be done with ssl any more
    cdef bint step_wants_write  # the handshake or close_notify waits for room to write
    cdef bint read_wants_write, write_wants_read
    cdef bint read_cut  # the last read ended with something that is to be met again

    # Beginnings

    cdef int start(self, object creator, bint client) except -1:
        """Make the ``SSL``, or have the creator make a connection."""
        if type(creator) is ServerContexts:
            self.contexts = creator
            self.ssl = self.contexts.begin()
            self.owned = True
            return 0
        if client:
            connection = creator.clientConnectionForTLS(self)
            connection.set_connect_state()
        else:
            connection = creator.serverConnectionForTLS(self)
            connection.set_accept_state()
        self.connection = connection
        self.ssl = <void*><uintptr_t>_pointer(connection._ssl)
        SSL_set_mode(
            self.ssl, MODE_ENABLE_PARTIAL_WRITE | MODE_ACCEPT_MOVING_WRITE_BUFFER | MODE_RELEASE_BUFFERS
        )
        if SSL_set_read_ahead != NULL and SSL_has_pending != NULL:
            SSL_set_read_ahead(self.ssl, 1)
        return 0

    cdef int attach_socket(self) except -1:
        """Let OpenSSL read and write the socket instead of the buffers that pyOpenSSL gave it, which it frees."""
        self.attached = True
        if SSL_set_fd(self.ssl, self.fd) != 1:
            raise MemoryError
        if self.connection is not None:
            self.connection._into_ssl = self.connection._from_ssl = None
        return 0

    cdef int run(self, bint client) except -1:
        """Tell the protocol that the connection stands, and begin the handshake."""
        self.connected = True
        self.reading = True
        try:
            self.protocol.makeConnection(self)
        except BaseException:
            failure = Failure()
            self.log_failure(failure)
            return self.lose(failure)
        if client:
            return self.drive(True, True, False)
        return self.arm()

    def feed(self, bytes early not None):
        """Begin the handshake with what was read from the socket ahead of it."""
        if self.fd < 0 or self.aborting or self.attached:
            return
        try:
            if self.owned:
                # pyOpenSSL's connection has the buffers for this.
                made = _wrap(self.contexts.context, 0)
                self.free()
                self.connection = made
                self.ssl = <void*><uintptr_t>_pointer(made._ssl)
            connection = self.connection
            while early:
                early = early[connection.bio_write(early):]
            ERR_clear_error()
            result = SSL_do_handshake(self.ssl)
            problem = SSL_get_error(self.ssl, result)
            if problem != SSL_ERROR_WANT_READ:
                self.failed_with(result, problem)
            self.raw = (self.raw or b"") + pending_output(connection)
        except BaseException:
            self.log_failure(Failure())
        self.drive(False, True, False)

    # The reactor calls

    cdef int on_events(self, uint32_t events) except -1:
        cdef bint ended = (events & (EPOLLHUP | EPOLLERR)) != 0
        if self.aborting:
            return 0
        return self.drive(
            ended or (events & EPOLLIN) != 0, ended or (events & EPOLLOUT) != 0, (events & EPOLLRDHUP) != 0
        )

    cdef int on_turn(self) except -1:
        if self.fd < 0:
            return 0
        if self.aborting:
            return StreamTransport.on_turn(self)
        return self.drive(True, True, False)

    cdef int on_unsent(self) except -1:
        if self.fd < 0 or self.aborting:
            return 0
        return self.drive(False, True, False)

    def doRead(self):
        """Go on with what waited for something to read."""
        if self.fd >= 0 and not self.aborting:
            self.drive(True, False, False)

    def doWrite(self):
        """Go on with what waited for room to write."""
        if self.fd >= 0 and not self.aborting:
            self.drive(False, True, False)

    def readConnectionLost(self, reason):
        """An ordinary reactor saw that the peer has gone, and watches no more."""
        if self.fd >= 0 and not self.aborting:
            self.drive(True, True, True)
            self.lose(reason)

    cdef int drive(self, bint readable, bint writable, bint hung_up) except -1:
        """Do what can be done now, and see to being called for the rest."""
        cdef int outcome = FINE
        try:
            outcome = self.steps(readable, writable, hung_up)
        except BaseException:
            failure = Failure()
            self.log_failure(failure)
            return self.lose(failure)
        if self.fd < 0 or self.aborting:
            return 0
        if outcome == BROKEN:
            return self.lose(LOST if self.reason is None else self.reason)
        if outcome == ENDED:
            return self.lose(DONE if self.reason is None else self.reason)
        return self.arm()

    cdef int steps(self, bint readable, bint writable, bint hung_up) except -1:
        cdef int outcome
        if self.raw is not None and not self.send_raw():
            return FINE
        if self.broken:
            return BROKEN
        if not self.attached:
            self.attach_socket()
        if not self.handshaken:
            outcome = self.shake_hands()
            if outcome != FINE or not self.handshaken or self.fd < 0 or self.aborting:
                return outcome
            # Read ahead, it shows what has come with the last of the handshake.
            readable = SSL_has_pending == NULL or self.has_more()
            writable = True
        if self.reading and not self.peer_ended and (readable or self.read_wants_write):
            outcome = self.receive(hung_up)
            if outcome != FINE or self.fd < 0 or self.aborting:
                return outcome
        if self.broken:
            return BROKEN
        if writable or self.write_wants_read:
            return self.flush()
        return FINE

    cdef int arm(self) except -1:
        """Ask to be called for just what is waited for."""
        cdef bint read, write
        if self.fd < 0 or self.aborting:
            return 0
        if self.raw is not None:
            read, write = False, True
        elif self.broken:
            read = write = False
            self.later()
        elif not self.handshaken:
            read, write = not self.step_wants_write, self.step_wants_write
        else:
            read = self.reading and not self.peer_ended and not self.read_wants_write
            write = self.step_wants_write or self.read_wants_write
            if self.queued:
                if self.write_wants_read:
                    read = True
                else:
                    write = True
        if read != ((self.wanted & EPOLLIN) != 0):
            if read:
                self.start_reading()
            else:
                self.stop_reading()
        if write != ((self.wanted & EPOLLOUT) != 0):
            if write:
                self.start_writing()
            else:
                self.stop_writing()
        return 0

    # The handshake

    cdef bint send_raw(self) except -1:
        """Send what goes ahead of TLS; tell whether it is all sent."""
        cdef Py_ssize_t sent
        while self.raw_sent < PyBytes_GET_SIZE(self.raw):
            sent = send(
                self.fd,
                PyBytes_AS_STRING(self.raw) + self.raw_sent,
                PyBytes_GET_SIZE(self.raw) - self.raw_sent,
                MSG_NOSIGNAL,
            )
            if sent < 0:
                if errno == EAGAIN or errno == EINTR or errno == ENOBUFS:
                    return False
                self.broken = True
                break
            self.raw_sent += sent
        self.raw = None
        return True

    cdef int shake_hands(self) except -1:
        cdef int result, problem
        if self.answered and self.owned:
            # What comes now is most likely the tickets of TLS 1.3, which nobody waits for: they leave with the first
            # answer.
            self.cork(True)
        self.answered = True
        ERR_clear_error()
        result = SSL_do_handshake(self.ssl)
        self.step_wants_write = False
        if self.corked and (result != 1 or strcmp(SSL_get_version(self.ssl), b"TLSv1.3") != 0):
            self.cork(False)
        if self.refused is not None:
            self.reason, self.refused = self.refused, None
            return self.fail_tls()
        if result == 1:
            self.handshaken = True
            if IHandshakeListener.providedBy(self.protocol):
                self.protocol.handshakeCompleted()
            return FINE
        problem = SSL_get_error(self.ssl, result)
        if problem == SSL_ERROR_WANT_READ:
            return FINE
        if problem == SSL_ERROR_WANT_WRITE:
            self.step_wants_write = True
            return FINE
        return self.failed_with(result, problem)

    cdef int failed_with(self, int result, int problem) except -1:
        """A call of OpenSSL has failed for good: keep the reason as pyOpenSSL would raise it."""
        if problem == SSL_ERROR_SSL and self.reason is None:
            from OpenSSL.SSL import SysCallError

            connection = self.getHandle()
            try:
                # What a callback raised, or OpenSSL's queue of errors.
                connection._raise_ssl_error(connection._ssl, result)
            except SysCallError:
                pass  # the peer has gone without close_notify
            except BaseException:
                self.reason = Failure()
                self.reason.cleanFailure()
        return self.fail_tls()

    cdef int fail_tls(self) except -1:
        self.broken = True
        # Unread bytes would turn the close into a reset, which may overtake the alert that says why.
        recv(self.fd, buffer, RECORD, MSG_DONTWAIT)
        return BROKEN

    cdef int cork(self, bint corked) except -1:
        cdef int value = corked
        if setsockopt(self.fd, IPPROTO_TCP, TCP_CORK, &value, sizeof(value)) == 0:
            self.corked = corked
        return 0

    def failVerification(self, reason):
        """The peer's certificate is not accepted; called from within the handshake."""
        self.refused = reason

    # Reading

    cdef bint has_more(self) except -1:
        """Whether OpenSSL holds something that the socket will not tell of."""
        if self.ssl == NULL or not self.handshaken or self.broken:
            return False
        if self.read_cut:
            return True
        if SSL_has_pending != NULL:
            return SSL_has_pending(self.ssl) != 0
        return SSL_pending(self.ssl) > 0

    cdef int receive(self, bint hung_up) except -1:
        """Read and give to the protocol, a bounded number of times."""
        cdef int rounds, outcome
        for rounds in range(READ_ROUNDS):
            outcome = self.receive_once()
            if outcome != GIVEN:
                return outcome
            if self.fd < 0 or self.aborting or self.broken or not self.reading:
                return FINE
            if not self.has_more():
                if not hung_up:
                    return FINE
        if self.has_more():
            self.later()
        return FINE

    cdef int receive_once(self) except -1:
        """Read what is there, up to ``read_size``, and give it to the protocol."""
        cdef PyObject* large
        cdef int count, size = 0
        cdef bytes data
        if self.flow is not None:
            return self.relay_once()
        self.read_wants_write = self.read_cut = False
        ERR_clear_error()
        if self.read_size <= RECORD:
            count = size = SSL_read(self.ssl, buffer, RECORD)
            data = PyBytes_FromStringAndSize(buffer, count) if count > 0 else None
        else:
            large = new_bytes(NULL, LARGE_READ)
            while True:
                count = SSL_read(self.ssl, PyBytes_AS_STRING(<object>large) + size, RECORD)
                if count > 0:
                    size += count
                if count <= 0 or size > LARGE_READ - RECORD:
                    break
            if size == 0:
                Py_XDECREF(large)
                data = None
            else:
                self.read_cut = count <= 0 and SSL_get_error(self.ssl, count) != SSL_ERROR_WANT_READ
                resize_bytes(&large, size)
                data = <bytes>large
                Py_XDECREF(large)
        if size > 0:
            self.read_size = LARGE_READ if size >= RECORD else RECORD
            self.give(data)
            return GIVEN
        return self.read_stopped(count)

    cdef int relay_once(self) except -1:
        """Read what is there, up to ``read_size``, and write it to the relay's sink."""
        cdef Flow flow = self.flow
        cdef StreamTransport sink = self.sink
        cdef int count, size = 0
        self.read_wants_write = self.read_cut = False
        while True:
            ERR_clear_error()
            count = SSL_read(self.ssl, relay_buffer + size, <int>(flow.most(size + RECORD) - size))
            if count > 0:
                size += count
            if count <= 0 or self.read_size <= RECORD or size > RELAY_READ - RECORD:
                break
            if flow.moved + size == flow.limit:
                break
        if size == 0:
            return self.read_stopped(count)
        self.read_cut = count <= 0 and SSL_get_error(self.ssl, count) != SSL_ERROR_WANT_READ
        self.read_size = LARGE_READ if size >= RECORD else RECORD
        flow.count(size)
        if flow.moved == flow.limit:
            self.flow = self.sink = None
        sink.take(relay_buffer, size)
        return GIVEN

    cdef int read_stopped(self, int result) except -1:
        """Nothing can be read: see why."""
        cdef int problem = SSL_get_error(self.ssl, result)
        if problem == SSL_ERROR_WANT_READ:
            return FINE
        if problem == SSL_ERROR_WANT_WRITE:
            self.read_wants_write = True
            return FINE
        if problem == SSL_ERROR_ZERO_RETURN:
            return self.read_closed()
        self.failed_with(result, problem)
        if self.reason is None and self.write_closed and self.disconnecting:
            return ENDED  # it has had our close_notify and owes us no more than its end
        return BROKEN

    cdef int read_closed(self) except -1:
        """close_notify has come."""
        self.peer_ended = True
        if self.disconnecting:
            return ENDED if self.write_closed and not self.step_wants_write else FINE
        half_closeable = half_closer(self.protocol)
        if half_closeable is None:
            ERR_clear_error()
            SSL_shutdown(self.ssl)
            return ENDED
        half_closeable.readConnectionLost()
        if self.fd >= 0 and self.write_closed and not self.step_wants_write:
            return ENDED
        return FINE

    cpdef pauseProducing(self):
        """Give the protocol nothing for now."""
        self.reading = False
        if self.handshaken:
            self.arm()

    cpdef resumeProducing(self):
        """Go on giving the protocol what comes."""
        if not self.connected or self.aborting or self.reading:
            return
        self.reading = True
        if self.handshaken:
            self.arm()
            if self.has_more():
                self.later()

    # Writing

    cdef int send_bytes(self, bytes data) except -1:
        cdef Py_ssize_t size = PyBytes_GET_SIZE(data)
        cdef Py_ssize_t sent = 0
        if not self.connected or self.write_closed or self.broken or size == 0:
            return 0
        if self.disconnecting and self.producer is None:
            return 0
        if self.queued == 0 and self.handshaken and not self.aborting:
            if self.keeps(data):
                return 0
            sent = self.encrypt(PyBytes_AS_STRING(data), size)
            if self.broken:
                self.later()
                return 0
            if sent == size:
                if self.producer is not None and not self.streamingProducer:
                    self.later()  # a pull producer is asked for more when what it gave is sent
                return 0
            self.offset = sent
        self.queued += size - sent
        self.append(data)
        if not self.unsent:
            self.arm()
        return self.slow_producer()

    cdef int take(self, const char* data, Py_ssize_t size) except -1:
        cdef Py_ssize_t sent = 0
        if not self.connected or self.write_closed or self.broken or (self.disconnecting and self.producer is None):
            return 0
        if self.queued == 0 and self.handshaken and not self.aborting:
            sent = self.encrypt(data, size)
            if self.broken:
                self.later()
                return 0
            if sent == size:
                return 0
        self.queued += size - sent
        self.append(PyBytes_FromStringAndSize(data + sent, size - sent))
        self.arm()
        return self.slow_producer()

    cdef Py_ssize_t encrypt(self, const char* data, Py_ssize_t size) except -1:
        """Write as many records as the kernel takes; give how much went into them.

        What is not taken must be offered again first, for OpenSSL may hold a part of its last record.
        """
        cdef Py_ssize_t done = 0
        cdef int result, problem
        self.write_wants_read = False
        while done < size:
            ERR_clear_error()
            result = SSL_write(self.ssl, data + done, <int>min(size - done, <Py_ssize_t>RECORD))
            if result <= 0:
                problem = SSL_get_error(self.ssl, result)
                if problem == SSL_ERROR_WANT_READ:
                    self.write_wants_read = True
                elif problem != SSL_ERROR_WANT_WRITE:
                    self.failed_with(result, problem)
                break
            done += result
        if self.corked and not self.disconnecting:
            self.cork(False)
        return done

    cdef int flush(self) except -1:
        """Write what the kernel takes of the queue; once it is empty, do what waits for that."""
        cdef Py_ssize_t size, sent
        cdef int rounds
        cdef char* start
        if self.disconnecting and self.queued and not self.corked:
            self.cork(True)  # close_notify and the end of the connection go with the last of it
        for rounds in range(FLUSH_RECORDS):
            if self.queued == 0:
                break
            start = self.next_record(&size)
            sent = self.encrypt(start, size)
            if self.broken:
                return BROKEN
            self.consumed(sent)
            if sent < size:
                return FINE
        if self.queued:
            return FINE
        if self.step_wants_write:
            return self.close_notify()
        return self.flushed()

    cdef char* next_record(self, Py_ssize_t* size) except NULL:
        """What goes into the next record: of one piece if that fills it, else gathered from several."""
        cdef Py_ssize_t index = self.first, skip = self.offset, filled = 0, part
        cdef bytes data = self.kept if self.kept is not None else <bytes>self.queue[index]
        part = PyBytes_GET_SIZE(data) - skip
        if part >= RECORD or part == self.queued:
            size[0] = min(part, <Py_ssize_t>RECORD)
            return PyBytes_AS_STRING(data) + skip
        while filled < RECORD and index < len(self.queue):
            data = <bytes>self.queue[index]
            part = min(PyBytes_GET_SIZE(data) - skip, <Py_ssize_t>RECORD - filled)
            memcpy(buffer + filled, PyBytes_AS_STRING(data) + skip, part)
            filled += part
            skip = 0
            index += 1
        size[0] = filled
        return buffer

    cdef int flushed(self) except -1:
        """All is written: ask for more, or close what was to be closed after it."""
        if self.producer is not None:
            if not self.streamingProducer or self.producerPaused:
                self.producerPaused = False
                self.producer.resumeProducing()
            return FINE
        if (self.disconnecting or self.write_closing) and not self.write_closed:
            self.write_closed = True
            return self.close_notify()
        if self.disconnecting and self.write_closed:
            return self.settled()
        return FINE

    cdef int close_notify(self) except -1:
        """Tell the peer that nothing more comes."""
        cdef int result, problem
        self.step_wants_write = False
        ERR_clear_error()
        result = SSL_shutdown(self.ssl)
        if result < 0:
            problem = SSL_get_error(self.ssl, result)
            if problem == SSL_ERROR_WANT_WRITE:
                self.step_wants_write = True
                return FINE
            if problem != SSL_ERROR_WANT_READ:
                return self.failed_with(result, problem)
        if not self.disconnecting:
            half_closeable = half_closer(self.protocol)
            if half_closeable is not None:
                half_closeable.writeConnectionLost()
        return self.settled()

    cdef int settled(self) except -1:
        """Our side is closed: so is the connection, if the peer's is too or nobody reads."""
        if self.peer_ended or (self.disconnecting and (self.hurried or not self.reading)):
            return ENDED
        if self.disconnecting:
            # Some peers answer to this rather than to close_notify.
            shutdown(self.fd, SHUT_WR)
        return FINE

    cpdef unregisterProducer(self):
        """The producer has no more."""
        self.producer = None
        if self.connected and self.handshaken and self.queued == 0 and (self.disconnecting or self.write_closing):
            self.later()

    # Closing

    cpdef loseConnection(self, _connDone=None):
        """Close once all that was written is sent and the peer has closed too; before the handshake, abort."""
        if not self.connected or self.disconnecting:
            return
        if not self.handshaken and self.queued == 0:
            self.abortConnection()
        self.disconnecting = True
        if self.queued == 0:
            self.later()

    def finish(self):
        """Close once all that was written and close_notify are sent; do not wait for the peer's (RFC 8446 section 6.1)."""
        self.hurried = True
        self.loseConnection()

    cpdef loseWriteConnection(self):
        """Send close_notify once all that was written is sent; go on reading."""
        if self.connected and not self.write_closing:
            self.write_closing = True
            if self.queued == 0:
                self.later()

    cdef int lose(self, object reason) except -1:
        if self.fd < 0 or self.disconnected:
            return 0
        self.broken = True
        if self.reason is not None and reason is LOST:
            reason = self.reason
        self.reason = None
        self.free()
        StreamTransport.lose(self, reason)
        # The connection may hold this object.
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.set_app_data(None)
        return 0

    cdef int free(self) except -1:
        if self.owned:
            self.owned = False
            SSL_free(self.ssl)
        self.ssl = NULL
        self.contexts = None
        return 0

    def __dealloc__(self):
        if self.owned:
            SSL_free(self.ssl)

    # About the connection

    def agreed(self):
        """What the handshake agreed on: version, cipher suite, server name, protocol by ALPN, whether it was resumed."""
        cdef const char* name
        cdef const void* cipher
        if self.ssl == NULL:
            raise ValueError("the connection is closed")
        name = SSL_get_servername(self.ssl, 0)
        cipher = SSL_get_current_cipher(self.ssl)
        return (
            SSL_get_version(self.ssl).decode("ascii"),
            "" if cipher == NULL else SSL_CIPHER_get_name(cipher).decode("ascii"),
            b"" if name == NULL else <bytes>name,
            self.alpn(),
            SSL_session_reused(self.ssl) != 0,
        )

    cdef bytes alpn(self):
        cdef const unsigned char* protocol = NULL
        cdef unsigned int size = 0
        SSL_get0_alpn_selected(self.ssl, &protocol, &size)
        return (<const char*>protocol)[:size] if size else b""

    @property
    def wrappedProtocol(self):
        """The protocol inside TLS, as Twisted's wrapper calls it."""
        return self.protocol

    @wrappedProtocol.setter
    def wrappedProtocol(self, protocol):
        self.protocol = protocol

    @property
    def negotiatedProtocol(self):
        """What ALPN agreed on, if anything."""
        return None if self.ssl == NULL else self.alpn() or None

    def getHandle(self):
        """pyOpenSSL's connection, made when somebody asks for it; None once it is closed."""
        if self.owned:
            self.connection = _wrap(self.contexts.context, <uintptr_t>self.ssl)
            self.owned = False
        return self.connection

    def getPeerCertificate(self):
        """The certificate that the peer has shown."""
        connection = self.getHandle()
        return None if connection is None else connection.get_peer_certificate()

    def is_quiet(self):
        """Tell whether the connection stands and nothing waits to be read, not even its end."""
        return self.handshaken and not self.peer_ended and not self.has_more() and StreamTransport.is_quiet(self)


classImplements(TlsTransport, interfaces.ISSLTransport, interfaces.INegotiated)


cdef bytes pending_output(connection):
    """What OpenSSL has written into the buffer that pyOpenSSL gave it."""
    from OpenSSL.SSL import WantReadError

    pieces = []
    try:
        while True:
            pieces.append(connection.bio_read(65536))
    except WantReadError:
        return b"".join(pieces)


def secure(StreamTransport plain not None, creator, bint client, protocol):
    """Take a plain connection over, which is closed for all who knew it, and speak TLS on it for ``protocol``.

    What was written to it and is not sent yet goes ahead.  ``creator`` is Twisted's
    ``IOpenSSLClientConnectionCreator`` or ``IOpenSSLServerConnectionCreator``.  A server waits to be told by the
    reactor that there is something to read, so what was read already can be given to `TlsTransport.feed`.
    """
    cdef TlsTransport transport = TlsTransport.__new__(TlsTransport)
    if plain.fd < 0 or type(plain) is TlsTransport:
        raise ValueError("not a plain connection that stands")
    transport.protocol = protocol
    transport.start(creator, client)
    if plain.queued:
        if plain.kept is not None:
            transport.raw = plain.kept
            plain.kept = None
        else:
            plain.queue[plain.first] = (<bytes>plain.queue[plain.first])[plain.offset:]
            transport.raw = b"".join(plain.queue[plain.first:])
        plain.queue = []
        plain.queued = plain.first = plain.offset = 0
    transport.reactor = plain.reactor
    transport.loop = plain.loop
    transport.peer = plain.peer
    transport.handle, plain.handle = plain.handle, None
    transport.no_delay = plain.no_delay
    # Its registration goes with it: the kernel would not watch the same descriptor for two.
    plain.detach(True)
    transport.fd, plain.fd = plain.fd, -1
    plain.connected = False
    plain.disconnected = True
    plain.protocol = None
    transport.run(client)
    return transport
