# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""The heads that nearly everybody sends, read in one pass; the compiled twin of `lbproxy.wire.http1.head`.

Only a whole head in which nothing is odd is read here: a usual request or status line, lines ``Name: value`` without
other white space, each field that means something at most once and in its usual form. All else (what is not whole,
what must be refused, a protocol upgrade, an expectation, an IPv6 host) goes to the scanner that `fall_back_to` was told,
so what is refused, and why, is decided in one place.

Every loop runs over a class of octets that holds no NUL. A `bytes` object ends with one, at the index ``len(data)``, and
so no loop passes its end; an octet is looked at only where all before it are known to be none.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.string cimport memcmp, memcpy

cdef enum:
    MAX_LINE = 16384  # a request line, without its CRLF
    MAX_FIELDS_BYTES = 16384  # the pure scanner looks closer at more than the longest single field
    MAX_FIELDS = 200
    MAX_RESPONSE_HEAD = 32768
    MAX_RESPONSE_FIELDS = 1000
    MAX_DROPPED = 24  # fields that are not sent on
    MAX_KEPT = 4096  # of what was received a head keeps so much at most besides its fields

cdef enum:
    TOKEN = 1
    NAME = 2  # letters, digits and "-": other signs may stand for "-" at some targets
    VALUE = 4
    PATH = 8
    QUERY = 16
    HOST = 32  # the octets of most hosts
    DIGIT = 64
    PLAIN_VALUE = 128  # VALUE, but only ASCII

cdef enum:
    # numbers of lbproxy.wire.http.desync
    GET_HEAD_ZERO_CONTENT_LENGTH = 1
    NON_COMPLIANT_VERSION = 2
    UNDEFINED_CONTENT_LENGTH_SEMANTICS = 8
    UNDEFINED_TRANSFER_ENCODING_SEMANTICS = 9

cdef enum:
    OPTION_CLOSE = 1
    OPTION_KEEP_ALIVE = 2
    OPTION_OTHER = 4

ctypedef const unsigned char* octets

cdef extern from *:
    """
    #ifdef __SSE2__
    #include <emmintrin.h>
    #endif

    /* Past the visible octets, spaces and tabs of ASCII, by whole sixteens before the limit, and up to the first other. */
    static inline const unsigned char* skip_plain(const unsigned char* p, const unsigned char* limit) {
    #ifdef __SSE2__
        while (limit - p >= 16) {
            __m128i v = _mm_loadu_si128((const __m128i*)p);
            __m128i low = _mm_cmplt_epi8(v, _mm_set1_epi8(0x20)); /* signed: from 0x80 on, too */
            __m128i odd = _mm_or_si128(
                _mm_andnot_si128(_mm_cmpeq_epi8(v, _mm_set1_epi8(0x09)), low),
                _mm_cmpeq_epi8(v, _mm_set1_epi8(0x7F)));
            int found = _mm_movemask_epi8(odd);
            if (found)
                return p + __builtin_ctz((unsigned)found);
            p += 16;
        }
    #endif
        return p;
    }
    """
    octets skip_plain(octets p, octets limit) noexcept nogil

cdef unsigned char CLASS[256]


cdef int fill_classes() except -1:
    cdef int octet
    for octet in range(256):
        CLASS[octet] = 0
        if octet == 0x09 or 0x20 <= octet <= 0x7E or octet >= 0x80:
            CLASS[octet] |= VALUE if octet >= 0x80 else VALUE | PLAIN_VALUE
        if 0x21 <= octet <= 0x7E and octet != 0x23:  # "#"
            CLASS[octet] |= QUERY
            if octet != 0x3F:  # "?"
                CLASS[octet] |= PATH
    for octet in b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz":
        CLASS[octet] |= TOKEN
    for octet in b"-0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz":
        CLASS[octet] |= NAME
    for octet in b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-._~":
        CLASS[octet] |= HOST
    for octet in b"0123456789":
        CLASS[octet] |= DIGIT
    return 0


fill_classes()

cdef object pure_request = None
cdef object pure_response = None


def fall_back_to(request, response):
    """Tell which scanners read what is not usual."""
    global pure_request, pure_response
    pure_request = request
    pure_response = response


@cython.no_gc
@cython.freelist(64)
cdef class RequestHead:
    """See `lbproxy.wire.http1.head.RequestHead`."""

    @property
    def has_body(self):
        return self.chunked or self.content_length > 0

    def field_values(self, bytes name not None):
        if self._fields is not None:
            return self._fields.values(name)
        return values(self.data[self.block : self.block_end], name)


@cython.no_gc
@cython.freelist(64)
cdef class ResponseHead:
    """See `lbproxy.wire.http1.head.ResponseHead`."""

    def field_values(self, bytes name not None):
        if self._fields is not None:
            return self._fields.values(name)
        return values(self.data[self.block : self.block_end], name)


cdef list values(bytes block, bytes name):
    """The values of all fields of this name (lower case) in a block of usual lines."""
    cdef list found = []
    for line in block.split(b"\r\n"):
        received, _, value = line.partition(b": ")
        if received and received.lower() == name:
            found.append(value)
    return found


cdef inline octets skip(octets p, unsigned char kind) noexcept nogil:
    while CLASS[p[0]] & kind:
        p += 1
    return p


cdef inline octets skip_value(octets p, octets limit, unsigned char kind) noexcept nogil:
    """As `skip`, for values, which are long: sixteen octets at a time as far as ``limit``."""
    p = skip_plain(p, limit)
    return skip(p, kind)


cdef inline bint same(octets p, const char* name, Py_ssize_t size) noexcept nogil:
    """Whether these token octets are ``name`` (lower case) when their letters are made small.

    No other octet of a token becomes a letter or "-" by setting bit 5.
    """
    cdef Py_ssize_t i
    for i in range(size):
        if (p[i] | 0x20) != <unsigned char>name[i]:
            return False
    return True


cdef inline bytes take(octets begin, octets end):
    return PyBytes_FromStringAndSize(<const char*>begin, end - begin)


cdef bytes GET = b"GET"
cdef bytes POST = b"POST"
cdef bytes HTTP_1_1 = b"HTTP/1.1"
cdef bytes OK = b"OK"
cdef bytes EMPTY = b""
cdef bytes ROOT = b"/"


cdef inline int option(octets value, Py_ssize_t size) noexcept nogil:
    """What a Connection field says, in one of the usual spellings; 0 for any other."""
    if size == 10 and (memcmp(value, b"keep-alive", 10) == 0 or memcmp(value, b"Keep-Alive", 10) == 0):
        return OPTION_KEEP_ALIVE
    if size == 5 and (memcmp(value, b"close", 5) == 0 or memcmp(value, b"Close", 5) == 0):
        return OPTION_CLOSE
    if size == 7 and (memcmp(value, b"upgrade", 7) == 0 or memcmp(value, b"Upgrade", 7) == 0):
        return OPTION_OTHER
    return 0


cdef inline long long length(octets value, octets end) noexcept nogil:
    """A content length of at most 18 digits; -1 for anything else."""
    cdef long long number = 0
    if end - value > 18:
        return -1
    while value < end:
        if not CLASS[value[0]] & DIGIT:
            return -1
        number = number * 10 + (value[0] - 48)
        value += 1
    return number


cdef struct Kept:
    # The field lines that are sent on: the block without what was dropped.
    octets begin[MAX_DROPPED + 1]
    octets end[MAX_DROPPED + 1]
    int runs


cdef inline bint drop(Kept* kept, octets line, octets following) noexcept nogil:
    """Leave out a line."""
    if kept.begin[kept.runs] == line:
        kept.begin[kept.runs] = following
        return True
    if kept.runs == MAX_DROPPED:
        return False
    kept.end[kept.runs] = line
    kept.runs += 1
    kept.begin[kept.runs] = following
    return True


cdef bytes join(Kept* kept, octets end):
    cdef Py_ssize_t total = 0
    cdef int run
    cdef bytes joined
    cdef char* out
    kept.end[kept.runs] = end
    for run in range(kept.runs + 1):
        total += kept.end[run] - kept.begin[run]
    if total == 0:
        return EMPTY
    joined = PyBytes_FromStringAndSize(NULL, total)
    out = PyBytes_AS_STRING(joined)
    for run in range(kept.runs + 1):
        memcpy(out, kept.begin[run], kept.end[run] - kept.begin[run])
        out += kept.end[run] - kept.begin[run]
    return joined


cdef inline bint odd_path(octets path, octets end) noexcept nogil:
    """Whether something in a path could be normalised; the octet at ``end`` is no "/" and no "."."""
    while path < end:
        if path[0] == 0x25 or path[0] == 0x5C:  # "%", backslash
            return True
        if path[0] == 0x2F and (path[1] == 0x2F or path[1] == 0x2E):  # "//", "/."
            return True
        path += 1
    return False


cpdef RequestHead scan_request(bytes data, Py_ssize_t start=0):
    """See `lbproxy.wire.http1.head.scan_request`."""
    cdef RequestHead head = None
    if data is not None and 0 <= start < PyBytes_GET_SIZE(data):
        head = usual_request(data, start)
    if head is None:
        return pure_request(data, start)
    return head


cdef RequestHead usual_request(bytes data, Py_ssize_t start):
    """The head, or None if it is not whole or not usual."""
    cdef octets base = <octets>PyBytes_AS_STRING(data)
    cdef octets limit = base + PyBytes_GET_SIZE(data)
    cdef octets begin = base + start
    cdef octets p
    cdef octets path
    cdef octets path_end
    cdef octets target_end
    cdef octets method_end
    cdef octets block
    cdef octets line
    cdef octets colon
    cdef octets value
    cdef octets end  # of the value
    cdef octets mark
    cdef octets host = NULL
    cdef octets host_end = NULL
    cdef octets authority_end = NULL
    cdef octets xff = NULL
    cdef octets xff_end = NULL
    cdef octets trace = NULL
    cdef octets trace_end = NULL
    cdef octets agent = NULL
    cdef octets agent_end = NULL
    cdef octets referer = NULL
    cdef octets referer_end = NULL
    cdef long long content_length = -1
    cdef bint chunked = False
    cdef bint capitals = False
    cdef int options = 0
    cdef int fields = 0
    cdef int minor
    cdef Py_ssize_t size, i, port
    cdef Kept kept
    cdef RequestHead head
    cdef bytes lowered
    cdef char* out

    # 1. the request line: method, target in origin-form, version
    p = skip(begin, TOKEN)
    size = p - begin
    if size == 0 or p[0] != 0x20:
        return None
    if size == 7 and memcmp(begin, b"CONNECT", 7) == 0 or size == 5 and memcmp(begin, b"TRACE", 5) == 0:
        return None
    method_end = p
    path = p + 1
    if path[0] != 0x2F:  # "/"
        return None
    path_end = target_end = p = skip(path, PATH)
    if p[0] == 0x3F:  # "?"
        target_end = p = skip(p + 1, QUERY)
    if p[0] != 0x20:
        return None
    p += 1
    mark = p
    for i in range(7):
        if p[i] != <unsigned char>(<const char*>b"HTTP/1.")[i]:
            return None
    if not CLASS[p[7]] & DIGIT or p[8] != 0x0D or p[9] != 0x0A:
        return None
    minor = 0 if p[7] == 0x30 else 1
    p += 8
    if p - begin > MAX_LINE:
        return None
    p += 2

    # 2. the field lines
    block = p
    kept.runs = 0
    kept.begin[0] = block
    while True:
        line = p
        p = colon = skip(line, NAME)
        size = colon - line
        if size == 0:
            break
        if colon[0] != 0x3A or colon[1] != 0x20:
            return None
        value = colon + 2
        p = end = skip_value(value, limit, PLAIN_VALUE)
        if p[0] != 0x0D or p[1] != 0x0A:
            return None
        if end == value or value[0] == 0x20 or value[0] == 0x09 or (end - 1)[0] == 0x20 or (end - 1)[0] == 0x09:
            return None
        p += 2
        fields += 1
        if size == 4:
            if same(line, b"host", 4):
                if host != NULL or not drop(&kept, line, p):
                    return None
                host = value
                host_end = mark = skip(value, HOST)
                if host_end == host:
                    return None
                if mark[0] == 0x3A and mark != end:
                    mark += 1
                    if end - mark > 5:
                        return None
                    port = 0
                    while mark < end:
                        if not CLASS[mark[0]] & DIGIT:
                            return None
                        port = port * 10 + (mark[0] - 48)
                        mark += 1
                    if port > 65535:
                        return None
                if mark != end:
                    return None
                authority_end = end
                for i in range(host_end - host):
                    if 0x41 <= host[i] <= 0x5A:
                        capitals = True
        elif size == 2:
            if same(line, b"te", 2):
                return None
        elif size == 6:
            if same(line, b"expect", 6):
                return None
        elif size == 7:
            if same(line, b"upgrade", 7):
                return None
            if referer == NULL and same(line, b"referer", 7):
                referer = value
                referer_end = end
        elif size == 10:
            if same(line, b"user-agent", 10):
                if agent == NULL:
                    agent = value
                    agent_end = end
            elif same(line, b"connection", 10):
                if options:
                    return None
                options = option(value, end - value)
                if not options or not drop(&kept, line, p):
                    return None
            elif same(line, b"keep-alive", 10):
                if not drop(&kept, line, p):
                    return None
        elif size == 14:
            if same(line, b"content-length", 14):
                if content_length >= 0:
                    return None
                content_length = length(value, end)
                if content_length < 0 or not drop(&kept, line, p):
                    return None
            elif same(line, b"http2-settings", 14):
                return None
        elif size == 15:
            if same(line, b"x-forwarded-for", 15):
                if xff != NULL or not drop(&kept, line, p):
                    return None
                xff = value
                xff_end = end
            elif same(line, b"x-amzn-trace-id", 15):
                if trace != NULL or not drop(&kept, line, p):
                    return None
                trace = value
                trace_end = end
        elif size == 16:
            if same(line, b"x-forwarded-port", 16) or same(line, b"proxy-connection", 16):
                if not drop(&kept, line, p):
                    return None
        elif size == 17:
            if same(line, b"x-forwarded-proto", 17):
                if not drop(&kept, line, p):
                    return None
            elif same(line, b"transfer-encoding", 17):
                if chunked or end - value != 7 or not same(value, b"chunked", 7) or not drop(&kept, line, p):
                    return None
                chunked = True
        elif size == 19:
            if same(line, b"proxy-authorization", 19):
                if not drop(&kept, line, p):
                    return None
    if p[0] != 0x0D or p[1] != 0x0A:
        return None
    if fields == 0 or fields > MAX_FIELDS or p - block > MAX_FIELDS_BYTES:
        return None
    if chunked and (content_length >= 0 or minor == 0):
        return None
    if minor == 1 and host == NULL:
        return None

    # 3. the head
    head = RequestHead.__new__(RequestHead)
    head.end = p + 2 - base
    head.minor = minor
    size = method_end - begin
    if size == 3 and memcmp(begin, b"GET", 3) == 0:
        head.method = GET
    elif size == 4 and memcmp(begin, b"POST", 4) == 0:
        head.method = POST
    else:
        head.method = take(begin, method_end)
    if path_end - path == 1:
        head.path = ROOT
    else:
        head.path = take(path, path_end)
    if target_end == path_end:
        head.target = head.path
        head.query = EMPTY
    else:
        head.target = take(path, target_end)
        head.query = take(path_end + 1, target_end)
    head.version = HTTP_1_1 if target_end[8] == 0x31 else take(target_end + 1, target_end + 9)
    if host == NULL:
        head.authority = head.host = EMPTY
    else:
        head.authority = take(host, authority_end)
        if capitals:
            lowered = PyBytes_FromStringAndSize(NULL, host_end - host)
            out = PyBytes_AS_STRING(lowered)
            for i in range(host_end - host):
                out[i] = host[i] | 0x20 if 0x41 <= host[i] <= 0x5A else host[i]
            head.host = lowered
        elif host_end == authority_end:
            head.host = head.authority
        else:
            head.host = take(host, host_end)
    head.content_length = content_length
    head.chunked = chunked
    head.expect_continue = False
    head.te_trailers = False
    head.upgrade = EMPTY
    if minor == 1:
        head.keep_alive = options != OPTION_CLOSE
    else:
        head.keep_alive = options == OPTION_KEEP_ALIVE
    head.odd_names = False
    head.odd_path = odd_path(path, path_end)
    head.desync = 0
    if head.method is GET or size == 4 and memcmp(begin, b"HEAD", 4) == 0:
        if chunked:
            head.desync = UNDEFINED_TRANSFER_ENCODING_SEMANTICS
        elif content_length > 0:
            head.desync = UNDEFINED_CONTENT_LENGTH_SEMANTICS
        elif content_length == 0:
            head.desync = GET_HEAD_ZERO_CONTENT_LENGTH
    if target_end[8] > 0x31 and head.desync < NON_COMPLIANT_VERSION:
        head.desync = NON_COMPLIANT_VERSION
    head.forwarded = join(&kept, p)
    head.x_forwarded_for = None if xff == NULL else take(xff, xff_end)
    head.trace_id = None if trace == NULL else take(trace, trace_end)
    head.user_agent = EMPTY if agent == NULL else take(agent, agent_end)
    head.referer = EMPTY if referer == NULL else take(referer, referer_end)
    if PyBytes_GET_SIZE(data) <= MAX_KEPT:
        head.data = data
        head.block = block - base
    else:
        head.data = take(block, p)
        head.block = 0
    head.block_end = head.block + (p - block)
    return head


cpdef ResponseHead scan_response(bytes data, Py_ssize_t start=0):
    """See `lbproxy.wire.http1.head.scan_response`."""
    cdef ResponseHead head = None
    if data is not None and 0 <= start < PyBytes_GET_SIZE(data):
        head = usual_response(data, start)
    if head is None:
        return pure_response(data, start)
    return head


cdef ResponseHead usual_response(bytes data, Py_ssize_t start):
    """The head, or None if it is not whole or not usual; 1xx and 204, which have no body, are not."""
    cdef octets base = <octets>PyBytes_AS_STRING(data)
    cdef octets limit = base + PyBytes_GET_SIZE(data)
    cdef octets begin = base + start
    cdef octets p = begin
    cdef octets reason
    cdef octets reason_end
    cdef octets block
    cdef octets line
    cdef octets colon
    cdef octets value
    cdef octets end
    cdef long long content_length = -1
    cdef bint chunked = False
    cdef bint has_date = False
    cdef int options = 0
    cdef int fields = 0
    cdef int minor, status
    cdef Py_ssize_t size, i
    cdef Kept kept
    cdef ResponseHead head

    # 1. the status line
    for i in range(7):
        if p[i] != <unsigned char>(<const char*>b"HTTP/1.")[i]:
            return None
    if not CLASS[p[7]] & DIGIT or p[8] != 0x20:
        return None
    minor = 0 if p[7] == 0x30 else 1
    if not 0x32 <= p[9] <= 0x35 or not CLASS[p[10]] & DIGIT or not CLASS[p[11]] & DIGIT or p[12] != 0x20:
        return None
    status = (p[9] - 48) * 100 + (p[10] - 48) * 10 + (p[11] - 48)
    if status == 204:
        return None
    reason = p + 13
    p = reason_end = skip(reason, VALUE)
    if p[0] != 0x0D or p[1] != 0x0A:
        return None
    p += 2

    # 2. the field lines
    block = p
    kept.runs = 0
    kept.begin[0] = block
    while True:
        line = p
        p = colon = skip(line, TOKEN)
        size = colon - line
        if size == 0:
            break
        if colon[0] != 0x3A or colon[1] != 0x20:
            return None
        value = colon + 2
        p = end = skip_value(value, limit, VALUE)
        if p[0] != 0x0D or p[1] != 0x0A:
            return None
        if end == value or value[0] == 0x20 or value[0] == 0x09 or (end - 1)[0] == 0x20 or (end - 1)[0] == 0x09:
            return None
        p += 2
        fields += 1
        if size == 4:
            if same(line, b"date", 4):
                has_date = True
        elif size == 2:
            if same(line, b"te", 2) and not drop(&kept, line, p):
                return None
        elif size == 7:
            if same(line, b"upgrade", 7):
                return None
        elif size == 10:
            if same(line, b"connection", 10):
                if options:
                    return None
                options = option(value, end - value)
                if not options or not drop(&kept, line, p):
                    return None
            elif same(line, b"keep-alive", 10):
                if not drop(&kept, line, p):
                    return None
        elif size == 14:
            if same(line, b"content-length", 14):
                if content_length >= 0:
                    return None
                content_length = length(value, end)
                if content_length < 0 or not drop(&kept, line, p):
                    return None
            elif same(line, b"http2-settings", 14):
                return None
        elif size == 16:
            if same(line, b"proxy-connection", 16) and not drop(&kept, line, p):
                return None
        elif size == 17:
            if same(line, b"transfer-encoding", 17):
                if chunked or end - value != 7 or not same(value, b"chunked", 7) or not drop(&kept, line, p):
                    return None
                chunked = True
    if p[0] != 0x0D or p[1] != 0x0A:
        return None
    if p + 2 - begin > MAX_RESPONSE_HEAD or fields > MAX_RESPONSE_FIELDS:
        return None
    if chunked and (content_length >= 0 or minor == 0):
        return None

    # 3. the head
    head = ResponseHead.__new__(ResponseHead)
    head.end = p + 2 - base
    head.status = status
    head.reason = OK if reason_end - reason == 2 and memcmp(reason, b"OK", 2) == 0 else take(reason, reason_end)
    head.minor = minor
    head.content_length = content_length
    head.chunked = chunked
    head.upgrade = EMPTY
    if minor == 1:
        head.keep_alive = options != OPTION_CLOSE
    else:
        head.keep_alive = options == OPTION_KEEP_ALIVE
    head.forwarded = join(&kept, p)
    head.has_date = has_date
    if PyBytes_GET_SIZE(data) <= MAX_KEPT:
        head.data = data
        head.block = block - base
    else:
        head.data = take(block, p)
        head.block = 0
    head.block_end = head.block + (p - block)
    return head


# Writing

cdef inline char* put(char* out, bytes piece) noexcept:
    cdef Py_ssize_t size = PyBytes_GET_SIZE(piece)
    memcpy(out, PyBytes_AS_STRING(piece), size)
    return out + size


cdef inline char* put_text(char* out, const char* text, Py_ssize_t size) noexcept nogil:
    memcpy(out, text, size)
    return out + size


cdef inline char* put_number(char* out, unsigned long long number) noexcept nogil:
    cdef char digits[20]
    cdef int at = 20
    while True:
        at -= 1
        digits[at] = <char>(48 + number % 10)
        number //= 10
        if number == 0:
            break
    memcpy(out, digits + at, 20 - at)
    return out + 20 - at


cdef enum:
    CHUNKED = -2
    NO_BODY = -1
    CONNECTION_CLOSE = 1
    CONNECTION_KEEP_ALIVE = 2


@cython.final
cdef class Codec:
    """See `lbproxy.wire.http1.codec.Codec`."""

    cpdef RequestHead scan_request(self, bytes data, Py_ssize_t start=0):
        return scan_request(data, start)

    cpdef ResponseHead scan_response(self, bytes data, Py_ssize_t start=0):
        return scan_response(data, start)

    cpdef bytes piece(self, bytes data, Py_ssize_t start, Py_ssize_t end):
        if data is None or not 0 <= start <= end <= PyBytes_GET_SIZE(data):
            raise ValueError("not a piece of the data")
        return PyBytes_FromStringAndSize(PyBytes_AS_STRING(data) + start, end - start)

    cpdef bytes request_block(
        self, bytes method, bytes target, bytes authority, bytes forwarded, bytes origin, bytes trace_id, bytes more
    ):
        cdef bytes block
        cdef char* out
        if method is None or target is None or authority is None or forwarded is None:
            raise TypeError("not bytes")
        if origin is None or trace_id is None or more is None:
            raise TypeError("not bytes")
        block = PyBytes_FromStringAndSize(
            NULL,
            PyBytes_GET_SIZE(method) + PyBytes_GET_SIZE(target) + PyBytes_GET_SIZE(authority)
            + PyBytes_GET_SIZE(forwarded) + PyBytes_GET_SIZE(origin) + PyBytes_GET_SIZE(trace_id)
            + PyBytes_GET_SIZE(more) + 1 + 17 + 2 + 17 + 2,
        )
        out = put(PyBytes_AS_STRING(block), method)
        out = put_text(out, b" ", 1)
        out = put(out, target)
        out = put_text(out, b" HTTP/1.1\r\nHost: ", 17)
        out = put(out, authority)
        out = put_text(out, b"\r\n", 2)
        out = put(out, forwarded)
        out = put(out, origin)
        out = put_text(out, b"X-Amzn-Trace-Id: ", 17)
        out = put(out, trace_id)
        out = put_text(out, b"\r\n", 2)
        put(out, more)
        return block

    cpdef bytes request(self, bytes block, long long framing, bytes data):
        cdef bytes message
        cdef char end[64]  # what frames the body and ends the head
        cdef char* after = end
        cdef char* out
        if block is None or data is None:
            raise TypeError("not bytes")
        if framing != NO_BODY:
            if framing < 0:
                raise ValueError("not a content length")
            after = put_number(put_text(after, b"Content-Length: ", 16), framing)
            after = put_text(after, b"\r\n", 2)
        after = put_text(after, b"\r\n", 2)
        message = PyBytes_FromStringAndSize(NULL, PyBytes_GET_SIZE(block) + (after - end) + PyBytes_GET_SIZE(data))
        out = put(PyBytes_AS_STRING(message), block)
        out = put_text(out, end, after - end)
        put(out, data)
        return message

    cpdef bytes response(
        self, int status, bytes reason, bytes fields, long long framing, int connection, bytes data
    ):
        cdef bytes message
        cdef char head[128]  # the status up to the reason; what frames the body and ends the head
        cdef char* begin
        cdef char* end
        cdef char* out
        if reason is None or fields is None or data is None:
            raise TypeError("not bytes")
        if not 0 <= status <= 999:
            raise ValueError("not a status")
        begin = put_number(put_text(head, b"HTTP/1.1 ", 9), status)
        begin = put_text(begin, b" ", 1)
        end = begin
        if framing >= 0:
            end = put_text(end, b"Content-Length: ", 16)
            end = put_number(end, framing)
            end = put_text(end, b"\r\n", 2)
        elif framing == CHUNKED:
            end = put_text(end, b"Transfer-Encoding: chunked\r\n", 28)
        if connection == CONNECTION_CLOSE:
            end = put_text(end, b"Connection: close\r\n", 19)
        elif connection == CONNECTION_KEEP_ALIVE:
            end = put_text(end, b"Connection: keep-alive\r\n", 24)
        end = put_text(end, b"\r\n", 2)
        message = PyBytes_FromStringAndSize(
            NULL, (end - head) + PyBytes_GET_SIZE(reason) + 2 + PyBytes_GET_SIZE(fields) + PyBytes_GET_SIZE(data)
        )
        out = put_text(PyBytes_AS_STRING(message), head, begin - head)
        out = put(out, reason)
        out = put_text(out, b"\r\n", 2)
        out = put(out, fields)
        out = put_text(out, begin, end - begin)
        put(out, data)
        return message
