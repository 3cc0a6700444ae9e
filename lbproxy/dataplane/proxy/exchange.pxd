cimport cython

# The modules of the hot path need each other's classes: each first says which it has.
cdef class Exchange

from lbproxy.dataplane.proxy.ends cimport Downstream, Upstream
from lbproxy.dataplane.proxy.runtime cimport GroupRuntime, HttpRuntime, Pool
from lbproxy.dataplane.router.groups cimport GroupChoice
from lbproxy.dataplane.router.table cimport Match
from lbproxy.native._clock cimport Clock as CClock
from lbproxy.native._http1 cimport Codec as CCodec, RequestHead as CRequestHead, ResponseHead as CResponseHead
from lbproxy.native._relay cimport Flow as CFlow
from lbproxy.native._stream cimport StreamTransport as CStreamTransport
from lbproxy.telemetry.records cimport HttpRecord
from lbproxy.wire.websocket cimport FrameTracker


cdef CCodec _CODEC
cdef frozenset _IDEMPOTENT
cdef Py_ssize_t _MAX_KEPT_BODY
cdef long long _RELAY_FROM, _RELAY_LEAVES
cdef double _LONG_AGO


cdef class Exchange(HttpRecord):
    cdef public Downstream client
    cdef readonly HttpRuntime runtime
    cdef public CRequestHead head
    cdef readonly double began
    cdef readonly double dispatched, answered
    cdef readonly GroupRuntime group
    cdef public Upstream upstream
    cdef public Pool pool
    cdef readonly bint request_ended, response_started, tunnel, parted, done
    cdef public bint alone
    cdef readonly object tries
    cdef object _others, _chosen, _following, _kept_failed
    cdef object _transform
    cdef CFlow _up, _down
    cdef FrameTracker _from_client, _from_target
    cdef bytes _data, _trailers, _block, _sent_target, _sent_authority
    cdef tuple _earlier_tries
    cdef long long _framing
    cdef str _sticky_group
    cdef bint _sticky
    cdef bint _connecting, _counted, _queued, _paused_request, _paused_response, _refusable, _repeatable

    cpdef begin_exchange(self, Downstream client, HttpRuntime runtime, CRequestHead head, double began)
    @cython.locals(client=Downstream, head=CRequestHead, tried=tuple)
    cpdef complete_record(self)
    @cython.locals(head=CRequestHead, runtime=HttpRuntime, match=Match, group=GroupRuntime)
    cpdef start(self, bytes data, bint ended, bytes trailers=*)
    cpdef request_data(self, bytes data)
    cpdef end_request(self, bytes trailers)
    cpdef client_failed(self, fault)
    cpdef client_lost(self)
    cpdef client_closed_tunnel(self)
    cpdef pause_response(self)
    cpdef resume_response(self)
    @cython.locals(until=double, now=double)
    cpdef timed_out(self)
    cpdef long long relay_request(self, CStreamTransport source, long long remaining) except -1
    cpdef long long relay_response(self, CStreamTransport source, long long remaining) except -1
    cdef long long _relaying(self, CFlow flow, long long remaining) except -1
    @cython.locals(up=CFlow, down=CFlow)
    cdef double _relayed_last(self) except? -1
    @cython.locals(up=CFlow, down=CFlow, size="long long")
    cpdef settle(self)
    cpdef admitted(self, GroupRuntime group, chosen)
    cpdef connected(self, Upstream upstream)
    cpdef pause_request(self)
    cpdef resume_request(self)
    cpdef connect_failed(self, fault)
    cpdef informational(self, CResponseHead head)
    cpdef response(self, CResponseHead head, bint has_body, bytes data, bint ended)
    cpdef response_data(self, bytes data)
    cpdef response_ended(self, bytes trailers)
    cpdef switch_protocols(self, CResponseHead head)
    cpdef upstream_closed_tunnel(self)
    cpdef upstream_failed(self, fault, bint reused)
    cpdef target_gone(self)
    cpdef bint may_try_again(self) except -1
    cpdef bint may_hedge(self) except -1
    cpdef bint has_another(self) except -1
    cpdef take_another(self)
    cpdef try_elsewhere(self, fault)
    cpdef give_up_try(self, fault)
    cpdef send_copy(self, Upstream upstream)
    cpdef note_try(self, str target, int status)
    cpdef note_reason(self, str reason)
    cpdef hedge_failed(self, str target, int status, fault)
    cpdef bint has_better_than(self, int status) except -1
    cpdef take_over(self, Upstream upstream, Pool pool, chosen, double dispatched)
    cpdef fail(self, fault)
    cpdef end(self, fault)

    cpdef bytes value_of(self, bytes name)
    cdef bint _rewrite(self, transform) except -1
    cdef bytes _changed(self, bytes fields)
    cdef bint _is_limited(self, CRequestHead head, str rule) except -1
    cdef bint _normalize_path(self, CRequestHead head, bint strict) except -1
    cdef _answer(self, Match match)
    cdef bint _may_go_on(self, CRequestHead head) except -1
    cdef _pass_gate(self, chosen, int priority)
    cdef str _choose_group(self, GroupChoice forward)
    cdef _bound_target(self)
    cdef bytes _with_cookies(self, CResponseHead head)
    @cython.locals(head=CRequestHead)
    cdef _respond(self, int status, bytes content_type, bytes body, str text, bytes fields=*)
    @cython.locals(pool=Pool, upstream=Upstream)
    cdef _try(self, chosen)
    cdef _part(self, fault)
    cdef _tell(self, fault)
    cdef _try_instead(self, following, str reason, int status)
    cdef bint _ask_another(self, int status, bint ended) except -1
    cdef _await_hedge(self)
    cdef _drop_try(self, fault)
    cdef _keep(self, bytes data)
    cdef _send(self, Upstream upstream)
    @cython.locals(head=CRequestHead, authority=bytes)
    cdef _prepare(self)
    cdef double _patience(self) except? -1
    cdef bint _may_retry(self, fault, bint reused) except -1
    @cython.locals(method=bytes)
    cdef bint _may_repeat(self) except -1
    cdef _peek(self)
    cdef _count_target_fault(self, fault)
    cdef _end_try(self)
    cdef _drop_upstream(self)
    cdef _leave_tunnel(self)
    cdef _finish(self)
