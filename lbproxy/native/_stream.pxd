# cython: language_level=3
from lbproxy.native._loop cimport Descriptor
from lbproxy.native._relay cimport Flow, Pipe


cdef class StreamTransport(Descriptor):
    cdef public object protocol
    cdef readonly bint connected
    cdef readonly bint disconnecting
    cdef readonly bint disconnected
    cdef readonly object producer
    cdef readonly bint streamingProducer
    cdef readonly bint producerPaused
    cdef object peer  # an address of ours or of Twisted's, or (host, port) of one still to be made
    cdef object handle
    cdef object failed
    cdef object reason
    cdef list queue
    cdef bytes kept  # the only piece that waits, until this turn's end; or None
    cdef Py_ssize_t first, offset, queued
    cdef Py_ssize_t read_size
    cdef int full_reads
    cdef int number
    cdef Flow flow  # set while what comes is relayed: the account of it,
    cdef StreamTransport sink  # where it goes,
    cdef Pipe pipe  # and at the sink, what holds its first `piped` bytes of the queue
    cdef Py_ssize_t piped
    cdef bint connecting, made_at_once, aborting, write_closing, write_closed, no_delay

    cdef int begin(self, bint accepted) except -1
    cdef int settle_connect(self) except -1
    cdef int fail(self, int number) except -1
    cpdef write(self, data)
    cpdef pauseProducing(self)
    cpdef resumeProducing(self)
    cpdef registerProducer(self, producer, bint streaming)
    cpdef unregisterProducer(self)
    cpdef loseConnection(self, _connDone=*)
    cpdef loseWriteConnection(self)
    cpdef abortConnection(self)
    cdef int give(self, bytes data) except -1
    cdef int receive(self, bint hung_up) except -1
    cdef int read_ended(self) except -1
    cdef void read_more(self, Py_ssize_t size) noexcept
    cdef int relay_received(self, bint hung_up) except -1
    cdef Py_ssize_t splice_to(self, StreamTransport sink, Py_ssize_t most) except? -1
    cdef int take(self, const char* data, Py_ssize_t size) except -1
    cdef int send_bytes(self, bytes data) except -1
    cdef bint keeps(self, bytes data) except -1
    cdef int append(self, bytes data) except -1
    cdef int enqueue(self, bytes data) except -1
    cdef int slow_producer(self) except -1
    cdef int flush(self) except -1
    cdef int flush_pipe(self) except -1
    cdef int consumed(self, Py_ssize_t size) except -1
    cdef int flushed(self) except -1
    cdef int close_writing(self) except -1
    cdef int lose(self, object reason) except -1
    cdef int close_socket(self, bint orderly) except -1
    cdef int log_failure(self, object failure) except -1


cdef object half_closer(object protocol)
cdef int option(int fd, int level, int name) noexcept
