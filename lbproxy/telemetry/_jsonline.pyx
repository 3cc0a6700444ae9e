# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""The access log's ``json`` line of a request or a connection, written in one pass; the compiled twin of `lbproxy.telemetry.formats`.

A record with anything that needs an escape, or that is very long, goes to the formatter that `fall_back_to` was told.
"""

import time

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.math cimport floor
from libc.stdio cimport snprintf
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy

from lbproxy.telemetry.records cimport HttpRecord, TcpRecord

cdef extern from "Python.h":
    object PyUnicode_New(Py_ssize_t size, Py_UCS4 maxchar)
    bint PyUnicode_IS_COMPACT_ASCII(object text)
    unsigned char* PyUnicode_1BYTE_DATA(object text)
    Py_ssize_t PyUnicode_GET_LENGTH(object text)

cdef enum:
    ROOM = 8192

cdef bint PLAIN[256]
"""What needs no escape."""

cdef object pure_http_json = None
cdef object pure_tcp_json = None


cdef int fill_plain() except -1:
    cdef int octet
    for octet in range(256):
        PLAIN[octet] = 0x20 <= octet < 0x7F and octet != 0x22 and octet != 0x5C
    return 0


fill_plain()


def fall_back_to(http, tcp):
    """Tell what formats the records that are not plain."""
    global pure_http_json, pure_tcp_json
    pure_http_json, pure_tcp_json = http, tcp


cdef struct Line:
    Py_ssize_t size
    char* text  # there is room for ROOM


# Each returns whether it could: there was room, and nothing to escape.

cdef inline bint put(Line* line, const char* text, Py_ssize_t size) noexcept nogil:
    if size > ROOM - line.size:
        return False
    memcpy(line.text + line.size, text, size)
    line.size += size
    return True


cdef inline bint put_plain(Line* line, const unsigned char* text, Py_ssize_t size) noexcept nogil:
    cdef Py_ssize_t i
    cdef char* out = line.text + line.size
    if size > ROOM - line.size:
        return False
    for i in range(size):
        if not PLAIN[text[i]]:
            return False
        out[i] = <char>text[i]
    line.size += size
    return True


cdef inline bint put_bytes(Line* line, bytes value) noexcept:
    return value is not None and put_plain(
        line, <const unsigned char*>PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value)
    )


cdef inline bint put_text(Line* line, str value) noexcept:
    return (
        value is not None
        and PyUnicode_IS_COMPACT_ASCII(value)
        and put_plain(line, PyUnicode_1BYTE_DATA(value), PyUnicode_GET_LENGTH(value))
    )


cdef bint put_number(Line* line, long long value) noexcept nogil:
    cdef char digits[24]
    cdef int at = 24
    cdef unsigned long long left = <unsigned long long>value
    if value < 0:
        left = 0 - left
    while True:
        at -= 1
        digits[at] = <char>(48 + left % 10)
        left //= 10
        if left == 0:
            break
    if value < 0:
        at -= 1
        digits[at] = 45
    return put(line, digits + at, 24 - at)


cdef bint put_seconds(Line* line, double value) noexcept nogil:
    """As the format ``.6f`` has it: the nearest to what the double is exactly."""
    cdef double scaled, whole, rest
    cdef long long millionths
    cdef char text[32]
    cdef int size, i
    if value == -1.0:
        return put(line, b"-1.000000", 9)
    if 0.0 <= value < 1e6:
        scaled = value * 1e6
        whole = floor(scaled)
        rest = scaled - whole
        # The product is at most 0.0001 off, so farther than that from the middle it is clear which is nearer.
        if rest < 0.499 or rest > 0.501:
            millionths = <long long>whole + (rest > 0.5)
            if not put_number(line, millionths // 1000000) or 7 > ROOM - line.size:
                return False
            millionths %= 1000000
            line.text[line.size] = 46
            for i in range(6, 0, -1):
                line.text[line.size + i] = <char>(48 + millionths % 10)
                millionths //= 10
            line.size += 7
            return True
    if not -1e15 < value < 1e15:
        return False
    size = snprintf(text, sizeof(text), b"%.6f", value)
    return 0 < size < 32 and put(line, text, size)


cdef long long cached_second = -1
cdef char cached_text[19]


cdef bint put_time(Line* line, double started) except -1:
    """ISO 8601 with milliseconds, cut."""
    global cached_second
    cdef long long milliseconds, second
    cdef bytes text
    cdef char end[6]
    if not 0.0 <= started < 2e11:
        return False
    milliseconds = <long long>(started * 1000)
    second = milliseconds // 1000
    if second != cached_second:
        text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second)).encode("ascii")
        if PyBytes_GET_SIZE(text) != 19:
            return False
        memcpy(cached_text, PyBytes_AS_STRING(text), 19)
        cached_second = second
    milliseconds %= 1000
    end[0] = 46
    end[1] = <char>(48 + milliseconds // 100)
    end[2] = <char>(48 + milliseconds // 10 % 10)
    end[3] = <char>(48 + milliseconds % 10)
    end[4] = 90
    return put(line, cached_text, 19) and put(line, end, 5)


cdef bint put_tried(Line* line, tuple tried) except -1:
    cdef bint first = True
    if tried is None:
        return False
    for target, status in tried:
        if type(target) is not str:
            return False
        if not put(line, b'{"target":"' if first else b',{"target":"', 11 if first else 12):
            return False
        if not (put_text(line, target) and put(line, b'","status":', 11) and put_number(line, status)):
            return False
        if not put(line, b"}", 1):
            return False
        first = False
    return True


def http_json(record):
    """See `lbproxy.telemetry.formats.http_json`."""
    cdef Line line
    cdef char room[ROOM]
    line.text = room
    if isinstance(record, HttpRecord) and write(&line, <HttpRecord>record):
        return text_of(&line)
    return pure_http_json(record)


def tcp_json(record):
    """See `lbproxy.telemetry.formats.tcp_json`."""
    cdef Line line
    cdef char room[ROOM]
    line.text = room
    if isinstance(record, TcpRecord) and write_tcp(&line, <TcpRecord>record):
        return text_of(&line)
    return pure_tcp_json(record)


cdef str text_of(Line* line):
    cdef str text = PyUnicode_New(line.size, 127)
    memcpy(PyUnicode_1BYTE_DATA(text), line.text, line.size)
    return text


cdef class Lines:
    """See `lbproxy.telemetry.lines.Lines`; the lines stand in memory as they will stand in the file."""

    def __dealloc__(self):
        free(self.text)

    cdef int reserve(self, Py_ssize_t size) except -1:
        """Make room for so many bytes more."""
        cdef Py_ssize_t capacity
        cdef char* text
        if self.size + size > self.capacity:
            capacity = max(self.size + size, self.capacity * 2)
            text = <char*>realloc(self.text, capacity)
            if text == NULL:
                raise MemoryError
            self.text = text
            self.capacity = capacity
        return 0

    cpdef append(self, str line):
        cdef bytes text = line.encode("ascii")
        self.reserve(PyBytes_GET_SIZE(text))
        memcpy(self.text + self.size, PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text))
        self.size += PyBytes_GET_SIZE(text)
        self.count += 1

    cpdef append_http_json(self, record):
        cdef Line line
        self.reserve(ROOM)
        line.text = self.text + self.size
        if isinstance(record, HttpRecord) and write(&line, <HttpRecord>record):
            self.size += line.size
            self.count += 1
        else:
            self.append(pure_http_json(record))

    cpdef append_tcp_json(self, record):
        cdef Line line
        self.reserve(ROOM)
        line.text = self.text + self.size
        if isinstance(record, TcpRecord) and write_tcp(&line, <TcpRecord>record):
            self.size += line.size
            self.count += 1
        else:
            self.append(pure_tcp_json(record))

    cpdef bytes take(self):
        cdef bytes taken = PyBytes_FromStringAndSize(self.text, self.size)
        self.size = self.count = 0
        return taken


cdef bint write(Line* line, HttpRecord r) except -1:
    line.size = 0
    return (
        not r.classification  # rare, and has more to say
        and put(line, b'{"time":"', 9)
        and put_time(line, r.started)
        and put(line, b'","kind":"', 10)
        and put_text(line, r.kind)
        and put(line, b'","listener":"', 14)
        and put_text(line, r.listener)
        and put(line, b'","client_address":"', 20)
        and put_text(line, r.client_host)
        and put(line, b'","client_port":', 16)
        and put_number(line, r.client_port)
        and put(line, b',"method":"', 11)
        and put_bytes(line, r.method)
        and put(line, b'","scheme":"', 12)
        and put_text(line, r.scheme)
        and put(line, b'","host":"', 10)
        and put_bytes(line, r.authority)
        and put(line, b'","request_target":"', 20)
        and put_bytes(line, r.request_target)
        and put(line, b'","version":"', 13)
        and put_bytes(line, r.version)
        and put(line, b'","status":', 11)
        and put_number(line, r.status)
        and put(line, b',"received_bytes":', 18)
        and put_number(line, r.received_bytes)
        and put(line, b',"sent_bytes":', 14)
        and put_number(line, r.sent_bytes)
        and put(line, b',"duration":', 12)
        and put_seconds(line, r.duration)
        and put(line, b',"request_time":', 16)
        and put_seconds(line, r.request_time)
        and put(line, b',"target_time":', 15)
        and put_seconds(line, r.target_time)
        and put(line, b',"response_time":', 17)
        and put_seconds(line, r.response_time)
        and put(line, b',"target_group":"', 17)
        and put_text(line, r.target_group)
        and put(line, b'","target":"', 12)
        and put_text(line, r.target)
        and put(line, b'","target_status":', 18)
        and put_number(line, r.target_status)
        and put(line, b',"targets_tried":[', 18)
        and put_tried(line, r.targets_tried)
        and put(line, b'],"retry_reason":"', 18)
        and put_text(line, r.retry_reason)
        and put(line, b'","rule":"', 10)
        and put_text(line, r.rule)
        and put(line, b'","priority":', 13)
        and put_number(line, r.priority)
        and put(line, b',"action":"', 11)
        and put_text(line, r.action)
        and put(line, b'","redirect_url":"', 18)
        and put_text(line, r.redirect_url)
        and put(line, b'","error_reason":"', 18)
        and put_text(line, r.error_reason)
        and put(line, b'","user_agent":"', 16)
        and put_bytes(line, r.user_agent)
        and put(line, b'","referer":"', 13)
        and put_bytes(line, r.referer)
        and put(line, b'","tls_version":"', 17)
        and put_text(line, r.tls_version)
        and put(line, b'","tls_cipher":"', 16)
        and put_text(line, r.tls_cipher)
        and put(line, b'","server_name":"', 17)
        and put_text(line, r.server_name)
        and put(line, b'","trace_id":"', 14)
        and put_bytes(line, r.trace_id)
        and put(line, b'"}\n', 3)
    )


cdef bint write_tcp(Line* line, TcpRecord r) except -1:
    line.size = 0
    return (
        put(line, b'{"time":"', 9)
        and put_time(line, r.started)
        and put(line, b'","kind":"', 10)
        and put(line, b"tls" if r.tls_version else b"tcp", 3)
        and put(line, b'","listener":"', 14)
        and put_text(line, r.listener)
        and put(line, b'","client_address":"', 20)
        and put_text(line, r.client_address)
        and put(line, b'","client_port":', 16)
        and put_number(line, r.client_port)
        and put(line, b',"target_group":"', 17)
        and put_text(line, r.target_group)
        and put(line, b'","target":"', 12)
        and put_text(line, r.target)
        and put(line, b'","duration":', 13)
        and put_seconds(line, r.duration)
        and put(line, b',"connect_time":', 16)
        and put_seconds(line, r.connect_time)
        and put(line, b',"received_bytes":', 18)
        and put_number(line, r.received_bytes)
        and put(line, b',"sent_bytes":', 14)
        and put_number(line, r.sent_bytes)
        and put(line, b',"tls_version":"', 16)
        and put_text(line, r.tls_version)
        and put(line, b'","tls_cipher":"', 16)
        and put_text(line, r.tls_cipher)
        and put(line, b'","server_name":"', 17)
        and put_text(line, r.server_name)
        and put(line, b'","error_reason":"', 18)
        and put_text(line, r.error_reason)
        and put(line, b'"}\n', 3)
    )
