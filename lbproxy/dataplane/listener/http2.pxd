cimport cython

cdef class Http2Connection

from lbproxy.dataplane.listener.http1 cimport HttpFront
from lbproxy.dataplane.listener.http2stream cimport ClientStream
from lbproxy.dataplane.proxy.exchange cimport Exchange
from lbproxy.dataplane.proxy.forwarded cimport ForwardedFields
from lbproxy.dataplane.proxy.runtime cimport HttpRuntime
from lbproxy.native._clock cimport Clock as CClock, Turns as CTurns
from lbproxy.native._http1 cimport RequestHead as CRequestHead
from lbproxy.native.protocol cimport StreamProtocol
from lbproxy.wire.http2.connection cimport Connection
from lbproxy.wire.http2.events cimport Event
from lbproxy.wire.http2.stream cimport Stream

cdef double NEVER, TICK_SECONDS
cdef CClock _WALL
cdef CTurns _TURNS
cdef CRequestHead _UNREADABLE
cdef int _SERVING, _LEAVING, _LEFT, _CLOSING
cdef int CLOSED


cdef class Http2Connection(StreamProtocol):
    cdef readonly bint secure
    cdef readonly str host, scheme
    cdef readonly int port, listener_port
    cdef readonly CClock clock
    cdef readonly Connection codec
    cdef HttpFront _front
    cdef HttpRuntime _runtime
    cdef object _transport, _forwarded_for, _tls, _certificates, _give_pace, _take_pace
    cdef ForwardedFields _forwarded
    cdef bytes _known_host
    cdef set _givers, _takers
    cdef double _age_limit, _leave_at, _head_by, _idle_by, _settings_by
    cdef int _life
    cdef bint _due, _half_closed, _unread
    cdef long long _requests_left, _untaken, _received

    @cython.locals(
        now=cython.double, busy=cython.bint, codec=Connection, events=list, event=Event, last_id=cython.longlong
    )
    cpdef dataReceived(self, bytes data)
    @cython.locals(kind=cython.int, stream=Stream, client=ClientStream)
    cdef _handle(self, Event event, double now)
    cdef _lose_streams(self)
    cpdef send_soon(self)
    @cython.locals(client=ClientStream, codec=Connection, data=bytes)
    cpdef turn_ended(self)
    cdef _give_up_stalled(self)
    @cython.locals(
        stream=Stream,
        head=CRequestHead,
        runtime=HttpRuntime,
        client=ClientStream,
        exchange=Exchange,
        ended=cython.bint,
        data=bytes,
        desync=cython.int,
    )
    cdef _start(self, Event event, double now)
    cdef _describe_tls(self, Exchange exchange)
    cdef bint _is_misdirected(self, bytes host) except -1
    @cython.locals(body=bytes, client=ClientStream, fields=bytes, length=cython.longlong, refused=Exchange)
    cdef _refuse(self, Stream stream, error, CRequestHead head, double now, bint is_call)
    cdef _note_malformed(self, Stream stream, error, double now)
    @cython.locals(noted=Exchange)
    cdef Exchange _note(self, Stream stream, error, CRequestHead head, double now)
    cpdef request_done(self)
    cpdef local_address(self)
    cpdef bytes forwarded_fields(self, bytes received)
    cpdef double idle_timeout(self) except? -1
    cpdef look_by(self, double at)
    cdef _be_idle(self)
    cdef list _clients(self)
    cdef _look_at(self, ClientStream client, double now)
    cdef bint _is_taking(self) except -1
    cpdef giving(self, ClientStream client)
    cpdef no_longer_giving(self, ClientStream client)
    cpdef taking(self, ClientStream client)
    cpdef no_longer_taking(self, ClientStream client)
    cdef _leave_at_once(self)
    cdef _fail(self, error)
    cdef _say_goodbye(self)
    cdef _flush(self)
    cdef _close(self)
    cdef _abort(self)
