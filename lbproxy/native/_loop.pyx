# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""A poll loop on epoll(7) that calls native descriptors directly.

`Loop` has the methods of `select.epoll` that Twisted's epoll reactor uses for its own descriptors, and serves
`Descriptor` objects itself.  For these

* what they want is noted at once and told to the kernel before the next wait, so that changes which cancel each other
  cost nothing;
* reading that stops is not told to the kernel until an event nobody wants shows that it must be: a connection that
  is paused and resumed between two packets, or closed soon, costs no system call for that.

Each registration has a generation, which comes back with the event: an event for a descriptor that was closed a
moment ago never reaches a new one with the same number.
"""

from cpython.exc cimport PyErr_CheckSignals, PyErr_SetFromErrno
from libc.errno cimport EINTR, errno
from libc.stdint cimport UINT32_MAX, uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memset
from posix.unistd cimport close

from lbproxy.native._clock cimport Turns

from lbproxy.native._clock import turns as process_turns

cdef extern from "<sys/epoll.h>" nogil:
    int EPOLL_CLOEXEC
    int EPOLL_CTL_ADD, EPOLL_CTL_MOD, EPOLL_CTL_DEL
    uint32_t EPOLLIN, EPOLLOUT, EPOLLERR, EPOLLHUP, EPOLLRDHUP
    ctypedef union epoll_data_t:
        uint64_t u64
    struct epoll_event:
        uint32_t events
        epoll_data_t data
    int epoll_create1(int flags)
    int epoll_ctl(int epfd, int op, int fd, epoll_event* event)
    int epoll_wait(int epfd, epoll_event* events, int maxevents, int timeout)

cdef enum:
    BATCH = 512  # events taken at one wait
    LONGEST_WAIT = 0x7FFFFFFF  # milliseconds: what fits into epoll_wait's int

cdef Turns TURNS = process_turns


cdef class Descriptor:
    """Something with a file descriptor that a `Loop` or any Twisted reactor can serve."""

    def __cinit__(self):
        self.fd = -1

    cdef int attach(self, object reactor) except -1:
        self.reactor = reactor
        self.loop = getattr(reactor, "native_loop", None)
        return 0

    # What a subclass does

    cdef int on_events(self, uint32_t events) except -1:
        """Something wanted has happened.  Must not raise: what it raises ends the reactor's whole turn."""
        return 0

    cdef int on_turn(self) except -1:
        """The next turn, asked for by `later`.  Must not raise."""
        return 0

    cdef int on_unsent(self) except -1:
        """All events of this turn are served: send what was kept for this moment.  Must not raise."""
        return 0

    cdef int on_refused(self, int number) except -1:
        """The kernel does not want to watch this descriptor.  Must not raise."""
        return 0

    # What a subclass calls

    cdef int start_reading(self) except -1:
        if self.loop is not None:
            return self.loop.want(self, self.wanted | EPOLLIN)
        self.wanted |= EPOLLIN
        self.reactor.addReader(self)
        return 0

    cdef int stop_reading(self) except -1:
        if self.loop is not None:
            return self.loop.want(self, self.wanted & ~EPOLLIN)
        self.wanted &= ~EPOLLIN
        self.reactor.removeReader(self)
        return 0

    cdef int start_writing(self) except -1:
        if self.loop is not None:
            return self.loop.want(self, self.wanted | EPOLLOUT)
        self.wanted |= EPOLLOUT
        self.reactor.addWriter(self)
        return 0

    cdef int stop_writing(self) except -1:
        if self.loop is not None:
            return self.loop.want(self, self.wanted & ~EPOLLOUT)
        self.wanted &= ~EPOLLOUT
        self.reactor.removeWriter(self)
        return 0

    cdef int later(self) except -1:
        """Have `on_turn` called in the reactor's next turn, once however often this is asked for."""
        if not self.due:
            self.due = True
            if self.loop is not None:
                self.loop.due.append(self)
            else:
                self.reactor.callLater(0, self._turn)
        return 0

    cdef int detach(self, bint shared) except -1:
        """Want nothing more.  Call this before closing; ``shared`` if another descriptor keeps the socket open."""
        if self.loop is not None:
            return self.loop.release(self, shared)
        self.wanted = 0
        self.reactor.removeReader(self)
        self.reactor.removeWriter(self)
        return 0

    def _turn(self):
        self.due = False
        self.on_turn()

    # IReactorFDSet of a reactor with a `Loop` comes here

    def fileno(self):
        """The file descriptor, -1 once it is closed."""
        return self.fd

    def startReading(self):
        """Ask the reactor to be told when there is something to read."""
        if self.fd >= 0:
            self.start_reading()

    def stopReading(self):
        """Do not read for now."""
        self.stop_reading()

    def startWriting(self):
        """Ask the reactor to be told when there is room to write."""
        if self.fd >= 0:
            self.start_writing()

    def stopWriting(self):
        """Do not write for now."""
        self.stop_writing()


cdef class Loop:
    """An epoll instance.

    ``dispatch(fd, events)`` is called for what was registered with `register`.
    """

    def __cinit__(self, dispatch):
        self.epfd = -1
        self.items = []
        self.dirty = []
        self.due = []
        self.unsent = []
        self.dispatch = dispatch
        self.epfd = epoll_create1(EPOLL_CLOEXEC)
        if self.epfd < 0:
            PyErr_SetFromErrno(OSError)

    def __dealloc__(self):
        if self.epfd >= 0:
            close(self.epfd)
        free(self.generations)

    # select.epoll's interface, for ordinary descriptors

    def fileno(self):
        """The epoll instance's own file descriptor."""
        return self.epfd

    def close(self):
        """Close the epoll instance."""
        if self.epfd >= 0:
            close(self.epfd)
            self.epfd = -1

    def register(self, int fd, uint32_t events):
        """Begin to watch a descriptor."""
        if fd < 0:
            raise ValueError(f"file descriptor cannot be a negative integer ({fd})")
        self.grow(fd)
        if self.items[fd] is not None:
            # Its owner has closed it behind our back, or the kernel would not have given out the number again.
            self.forget(<Descriptor>self.items[fd])
        self.generations[fd] += 1
        if self.control(EPOLL_CTL_ADD, fd, events) < 0:
            PyErr_SetFromErrno(OSError)

    def modify(self, int fd, uint32_t events):
        """Watch it for something else."""
        if fd < 0 or fd >= self.size or self.control(EPOLL_CTL_MOD, fd, events) < 0:
            PyErr_SetFromErrno(OSError)

    def unregister(self, int fd):
        """Watch it no more."""
        if 0 <= fd < self.size:
            if self.items[fd] is not None:
                return  # the number has passed to a native descriptor; the one that was meant is closed
            self.generations[fd] += 1
        if self.control(EPOLL_CTL_DEL, fd, 0) < 0:
            PyErr_SetFromErrno(OSError)

    # Native descriptors

    def descriptors(self, uint32_t events):
        """Those that now want any of these events."""
        return [item for item in self.items if item is not None and (<Descriptor>item).wanted & events]

    def remove_all(self):
        """Watch no native descriptor any more; return those that wanted anything."""
        found = self.descriptors(EPOLLIN | EPOLLOUT)
        for item in found:
            self.release(<Descriptor>item, True)
        return found

    def poll(self, double timeout):
        """Wait for events, for so many seconds or (below zero) without limit, and serve them."""
        cdef int milliseconds = -1
        if self.due:
            milliseconds = 0
        elif timeout >= LONGEST_WAIT / 1000.0:
            milliseconds = LONGEST_WAIT
        elif timeout >= 0:
            # Rounded up: to wait too short a time would be to spin until a timed call is due.
            milliseconds = <int>(timeout * 1000.0)
            if milliseconds < timeout * 1000.0:
                milliseconds += 1
        try:
            self.serve(milliseconds)
            if self.due:
                self.run_due()
        finally:
            TURNS.finish()

    def forget(self, Descriptor descriptor):
        """Drop a descriptor whose number is no longer its own."""
        self.items[descriptor.fd] = None
        descriptor.wanted = descriptor.registered = 0

    cdef int grow(self, int fd) except -1:
        """Make room for this file descriptor in the tables."""
        cdef int size = self.size
        cdef uint32_t* generations
        if fd < size:
            return 0
        size = max(64, fd + 1 + fd // 2)
        generations = <uint32_t*>realloc(self.generations, size * sizeof(uint32_t))
        if generations == NULL:
            raise MemoryError
        memset(generations + self.size, 0, (size - self.size) * sizeof(uint32_t))
        self.generations = generations
        self.items.extend([None] * (size - self.size))
        self.size = size
        return 0

    cdef int control(self, int operation, int fd, uint32_t events) noexcept:
        cdef epoll_event event
        event.events = events
        event.data.u64 = <uint64_t>fd
        if 0 <= fd < self.size:
            event.data.u64 |= <uint64_t>self.generations[fd] << 32
        return epoll_ctl(self.epfd, operation, fd, &event)

    cdef int want(self, Descriptor descriptor, uint32_t wanted) except -1:
        """Note what a descriptor wants from now on."""
        if wanted == descriptor.wanted:
            return 0
        cdef int fd = descriptor.fd
        if fd < 0:
            return 0
        if wanted & ~descriptor.wanted:
            self.grow(fd)
            if self.items[fd] is not descriptor:
                self.items[fd] = descriptor
                self.generations[fd] += 1
                descriptor.registered = 0
        descriptor.wanted = wanted
        # A socket is nearly always writable, so EPOLLOUT must go when it is not wanted; EPOLLIN may stay.
        if not descriptor.dirty and (wanted & ~descriptor.registered or descriptor.registered & ~wanted & EPOLLOUT):
            descriptor.dirty = True
            self.dirty.append(descriptor)
        return 0

    cdef int release(self, Descriptor descriptor, bint shared) except -1:
        """Watch a descriptor no more.

        The kernel forgets it by itself when it is closed, unless the socket stays open elsewhere (``shared``).
        """
        cdef int fd = descriptor.fd
        descriptor.wanted = 0
        if 0 <= fd < self.size and self.items[fd] is descriptor:
            if shared and descriptor.registered:
                self.control(EPOLL_CTL_DEL, fd, 0)
            self.items[fd] = None
            self.generations[fd] += 1
        descriptor.registered = 0
        return 0

    cdef int flush(self) except -1:
        """Tell the kernel what is wanted."""
        cdef list dirty = self.dirty
        cdef Descriptor descriptor
        cdef int refused
        cdef Py_ssize_t index
        self.dirty = []
        for index in range(len(dirty)):
            descriptor = <Descriptor>dirty[index]
            descriptor.dirty = False
            if descriptor.fd >= 0:
                refused = self.settle(descriptor)
                if refused:
                    descriptor.on_refused(refused)
        return 0

    cdef int settle(self, Descriptor descriptor) except -1:
        """Make what the kernel watches for exactly what is wanted; give the error number if it refuses."""
        cdef uint32_t wanted = descriptor.wanted
        cdef int operation = EPOLL_CTL_MOD
        if wanted == 0:
            if descriptor.registered:
                descriptor.registered = 0
                self.control(EPOLL_CTL_DEL, descriptor.fd, 0)
            return 0
        if wanted & EPOLLIN:
            wanted |= EPOLLRDHUP
        if descriptor.registered == 0:
            operation = EPOLL_CTL_ADD
        if self.control(operation, descriptor.fd, wanted) < 0:
            return errno
        descriptor.registered = wanted
        return 0

    cdef int serve(self, int milliseconds) except -1:
        """Wait once and call those for whom there is something."""
        cdef epoll_event events[BATCH]
        cdef int count, index, fd
        cdef uint32_t happened, wanted
        cdef Descriptor descriptor
        if self.dirty:
            self.flush()
            if self.due:
                milliseconds = 0
        if milliseconds == 0:
            count = epoll_wait(self.epfd, events, BATCH, 0)
        else:
            with nogil:
                count = epoll_wait(self.epfd, events, BATCH, milliseconds)
        TURNS.begin()
        if count < 0:
            if errno != EINTR:
                PyErr_SetFromErrno(OSError)
            PyErr_CheckSignals()
            return 0
        self.serving = count > 1
        try:
            for index in range(count):
                fd = <int>(events[index].data.u64 & UINT32_MAX)
                if fd < 0 or fd >= self.size or self.generations[fd] != <uint32_t>(events[index].data.u64 >> 32):
                    continue
                happened = events[index].events
                item = self.items[fd]
                if item is None:
                    self.dispatch(fd, happened)
                    continue
                descriptor = <Descriptor>item
                wanted = descriptor.wanted
                if wanted:
                    wanted |= EPOLLERR | EPOLLHUP
                if wanted & EPOLLIN:
                    wanted |= EPOLLRDHUP
                if happened & ~wanted and not descriptor.dirty:
                    descriptor.dirty = True
                    self.dirty.append(descriptor)
                if happened & wanted:
                    descriptor.on_events(happened & wanted)
        finally:
            self.serving = False
            if self.unsent:
                self.send_unsent()
        return 0

    cdef int send_unsent(self) except -1:
        """Have those send that kept something for the end of the turn.

        A peer that waits in another process is woken by the first of these, not once for each.
        """
        cdef list unsent = self.unsent
        cdef Descriptor descriptor
        cdef Py_ssize_t index
        self.unsent = []
        for index in range(len(unsent)):
            descriptor = <Descriptor>unsent[index]
            descriptor.unsent = False
            descriptor.on_unsent()
        return 0

    cdef int run_due(self) except -1:
        """Give a turn to those that asked for one; who asks meanwhile gets the next."""
        cdef list due = self.due
        cdef Descriptor descriptor
        cdef Py_ssize_t index
        self.due = []
        for index in range(len(due)):
            descriptor = <Descriptor>due[index]
            descriptor.due = False
            descriptor.on_turn()
        return 0
