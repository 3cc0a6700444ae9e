# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""The access log's ``json`` line of a request or a connection, written in one pass; the compiled twin of `lbproxy.telemetry.formats`.

A record with anything that needs an escape, or that is very long, goes to the formatter that `fall_back_to` was told.
"""

import time

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.object cimport PyObject
from cpython.ref cimport Py_XDECREF
from libc.stdio cimport snprintf
from libc.string cimport memcpy

from lbproxy.telemetry.records cimport HttpRecord, TcpRecord

cdef extern from "Python.h":
    PyObject* new_bytes "PyBytes_FromStringAndSize"(const char* data, Py_ssize_t size) except NULL
    int resize_bytes "_PyBytes_Resize"(PyObject** data, Py_ssize_t size) except -1
    object PyUnicode_New(Py_ssize_t size, Py_UCS4 maxchar)
    bint PyUnicode_IS_COMPACT_ASCII(object text)
    unsigned char* PyUnicode_1BYTE_DATA(object text)
    Py_ssize_t PyUnicode_GET_LENGTH(object text)

cdef extern from *:
    """
    #include <stdint.h>
    #include <string.h>

    enum {
        ROOM = 8192,
        FIXED = 1536 /* more than the fixed parts, numbers and times of a line take */
    };

    static unsigned char NEEDS_ESCAPE[256];
    static char PAIRS[200];

    static void fill_tables(void) {
        for (int c = 0; c < 256; c++)
            NEEDS_ESCAPE[c] = c < 0x20 || c > 0x7E || c == '"' || c == '\\\\';
        for (int n = 0; n < 100; n++) {
            PAIRS[2 * n] = (char)('0' + n / 10);
            PAIRS[2 * n + 1] = (char)('0' + n % 10);
        }
    }

    /* What writes takes the place to write at and gives the one after it: kept in a register, it is not stored and
       loaded for each part, as a field of a struct would be between stores of characters, which may alias it.

       A fixed part. FIXED has room for all of them, and their sizes are known, so that this is a few moves. */
    static inline __attribute__((always_inline)) char* put(char* at, const char* text, Py_ssize_t size) {
        memcpy(at, text, size);
        return at + size;
    }

    typedef signed char Sixteen __attribute__((vector_size(16)));

    /* All ones where an octet needs an escape; those from 0x80 on are below zero. */
    static inline Sixteen odd(Sixteen v) {
        return (Sixteen)((v < 0x20) | (v == 0x7F) | (v == '"') | (v == '\\\\'));
    }

    static inline int none(Sixteen found) {
        uint64_t halves[2];
        memcpy(halves, &found, 16);
        return (halves[0] | halves[1]) == 0;
    }

    /* `odd` is set when there is no room before `end`, or something to escape.  Sixteen octets at a time, or what is
       less from both its ends. */
    static char* put_plain(char* out, const char* end, const unsigned char* text, Py_ssize_t size, int* is_odd) {
        Sixteen v, found = {0};
        uint64_t eights[2];
        uint32_t fours[4];
        Py_ssize_t at;
        if (size > end - out) {
            *is_odd = 1;
            return out;
        }
        if (size >= 16) {
            for (at = 0; at < size - 16; at += 16) {
                memcpy(&v, text + at, 16);
                memcpy(out + at, &v, 16);
                found |= odd(v);
            }
            memcpy(&v, text + size - 16, 16);
            memcpy(out + size - 16, &v, 16);
            found |= odd(v);
        } else if (size >= 8) {
            memcpy(eights, text, 8);
            memcpy(eights + 1, text + size - 8, 8);
            memcpy(out, eights, 8);
            memcpy(out + size - 8, eights + 1, 8);
            memcpy(&v, eights, 16);
            found = odd(v);
        } else if (size >= 4) {
            memcpy(fours, text, 4);
            memcpy(fours + 1, text + size - 4, 4);
            memcpy(out, fours, 4);
            memcpy(out + size - 4, fours + 1, 4);
            memcpy(fours + 2, fours, 8);
            memcpy(&v, fours, 16);
            found = odd(v);
        } else {
            for (at = 0; at < size; at++) {
                *is_odd |= NEEDS_ESCAPE[text[at]];
                out[at] = (char)text[at];
            }
            return out + size;
        }
        *is_odd |= !none(found);
        return out + size;
    }

    static char* put_digits(char* out, uint64_t left) {
        uint64_t bound = 10;
        int digits = 1, at;
        while (digits < 20 && left >= bound) {
            digits++;
            if (digits == 20)
                break; /* the bound would not fit */
            bound *= 10;
        }
        at = digits;
        while (at > 2) {
            at -= 2;
            memcpy(out + at, PAIRS + 2 * (left % 100), 2);
            left /= 100;
        }
        if (at == 2)
            memcpy(out, PAIRS + 2 * left, 2);
        else
            *out = (char)('0' + left);
        return out + digits;
    }

    static inline char* put_number(char* at, int64_t value) {
        if (value >= 0)
            return put_digits(at, (uint64_t)value);
        return put_digits(put(at, "-", 1), 0 - (uint64_t)value);
    }

    static inline char* put_millionths(char* at, uint64_t value) {
        uint32_t rest = (uint32_t)(value % 1000000);
        char* out = put_digits(at, value / 1000000);
        *out = '.';
        memcpy(out + 1, PAIRS + 2 * (rest / 10000), 2);
        memcpy(out + 3, PAIRS + 2 * (rest / 100 % 100), 2);
        memcpy(out + 5, PAIRS + 2 * (rest % 100), 2);
        return out + 7;
    }
    """
    enum:
        ROOM, FIXED
    void fill_tables() noexcept nogil
    char* put(char* at, const char* text, Py_ssize_t size) noexcept nogil
    char* put_plain(char* at, const char* end, const unsigned char* text, Py_ssize_t size, int* odd) noexcept nogil
    char* put_number(char* at, long long value) noexcept nogil
    char* put_millionths(char* at, unsigned long long value) noexcept nogil

fill_tables()

cdef object pure_http_json = None
cdef object pure_tcp_json = None


def fall_back_to(http, tcp):
    """Tell what formats the records that are not plain."""
    global pure_http_json, pure_tcp_json
    pure_http_json, pure_tcp_json = http, tcp


# `end` is where texts must end at the latest, for the fixed parts to have their room.  `odd` is set where a line is not one
# for this module; what is written then does not matter.


cdef inline char* put_bytes(char* at, const char* end, bytes value, int* odd) noexcept:
    if value is None:
        odd[0] = True
        return at
    return put_plain(at, end, <const unsigned char*>PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value), odd)


cdef inline char* put_text(char* at, const char* end, str value, int* odd) noexcept:
    if value is None or not PyUnicode_IS_COMPACT_ASCII(value):
        odd[0] = True
        return at
    return put_plain(at, end, PyUnicode_1BYTE_DATA(value), PyUnicode_GET_LENGTH(value), odd)


cdef char* put_seconds(char* at, double value, int* odd) noexcept nogil:
    """As the format ``.6f`` has it: the nearest to what the double is exactly."""
    cdef double scaled, rest
    cdef long long millionths
    cdef char text[32]
    cdef int size
    if value == -1.0:
        return put(at, b"-1.000000", 9)
    if 0.0 <= value < 1e6:
        scaled = value * 1e6
        millionths = <long long>scaled
        rest = scaled - millionths
        # The product is at most 0.0001 off, so farther than that from the middle it is clear which is nearer.
        if rest < 0.499 or rest > 0.501:
            return put_millionths(at, millionths + (rest > 0.5))
    if -1e15 < value < 1e15:
        size = snprintf(text, sizeof(text), b"%.6f", value)
        if 0 < size < 32:
            return put(at, text, size)
    odd[0] = True
    return at


cdef long long cached_second = -1
cdef char cached_text[19]


cdef char* put_time(char* at, double started, int* odd) except NULL:
    """ISO 8601 with milliseconds, cut."""
    global cached_second
    cdef long long milliseconds, second
    cdef bytes text
    if not 0.0 <= started < 2e11:
        odd[0] = True
        return at
    milliseconds = <long long>(started * 1000)
    second = milliseconds // 1000
    if second != cached_second:
        text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second)).encode("ascii")
        if PyBytes_GET_SIZE(text) != 19:
            odd[0] = True
            return at
        memcpy(cached_text, PyBytes_AS_STRING(text), 19)
        cached_second = second
    milliseconds %= 1000
    at = put(at, cached_text, 19)
    at[0] = 46
    at[1] = <char>(48 + milliseconds // 100)
    at[2] = <char>(48 + milliseconds // 10 % 10)
    at[3] = <char>(48 + milliseconds % 10)
    at[4] = 90
    return at + 5


cdef char* put_tried(char* at, const char* end, tuple tried, int* odd) except NULL:
    cdef bint first = True
    if tried is None:
        odd[0] = True
        return at
    for target, status in tried:
        # these parts are as many as there were tries
        if type(target) is not str or at > end:
            odd[0] = True
            break
        if not first:
            at = put(at, b",", 1)
        at = put_text(put(at, b'{"target":"', 11), end, target, odd)
        at = put(put_number(put(at, b'","status":', 11), status), b"}", 1)
        first = False
    return at


def http_json(record):
    """See `lbproxy.telemetry.formats.http_json`."""
    cdef char room[ROOM]
    cdef Py_ssize_t size = write(room, <HttpRecord>record) if isinstance(record, HttpRecord) else 0
    if size:
        return text_of(room, size)
    return pure_http_json(record)


def tcp_json(record):
    """See `lbproxy.telemetry.formats.tcp_json`."""
    cdef char room[ROOM]
    cdef Py_ssize_t size = write_tcp(room, <TcpRecord>record) if isinstance(record, TcpRecord) else 0
    if size:
        return text_of(room, size)
    return pure_tcp_json(record)


cdef str text_of(const char* line, Py_ssize_t size):
    cdef str text = PyUnicode_New(size, 127)
    memcpy(PyUnicode_1BYTE_DATA(text), line, size)
    return text


cdef class Lines:
    """See `lbproxy.telemetry.lines.Lines`; the lines stand in memory as they will stand in the file."""

    def __dealloc__(self):
        Py_XDECREF(self.taking)

    cdef int reserve(self, Py_ssize_t size) except -1:
        """Make room for so many bytes more."""
        cdef Py_ssize_t capacity
        if self.size + size > self.capacity:
            capacity = max(self.size + size, self.capacity * 2, self.usual)
            if self.taking == NULL:
                self.taking = new_bytes(NULL, capacity)
            else:
                try:
                    resize_bytes(&self.taking, capacity)
                except MemoryError:
                    self.size = self.count = self.capacity = 0  # they are gone
                    raise
            self.text = PyBytes_AS_STRING(<object>self.taking)
            self.capacity = capacity
        return 0

    cpdef append(self, str line):
        cdef bytes text = line.encode("ascii")
        self.reserve(PyBytes_GET_SIZE(text))
        memcpy(self.text + self.size, PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text))
        self.size += PyBytes_GET_SIZE(text)
        self.count += 1

    cpdef append_http_json(self, record):
        cdef Py_ssize_t size = 0
        self.reserve(ROOM)
        if isinstance(record, HttpRecord):
            size = write(self.text + self.size, <HttpRecord>record)
        if size:
            self.size += size
            self.count += 1
        else:
            self.append(pure_http_json(record))

    cpdef append_tcp_json(self, record):
        cdef Py_ssize_t size = 0
        self.reserve(ROOM)
        if isinstance(record, TcpRecord):
            size = write_tcp(self.text + self.size, <TcpRecord>record)
        if size:
            self.size += size
            self.count += 1
        else:
            self.append(pure_tcp_json(record))

    cpdef bytes take(self):
        cdef PyObject* taken = self.taking
        cdef Py_ssize_t size = self.size
        if size == 0:
            return b""
        self.taking = NULL
        self.size = self.count = self.capacity = 0
        self.usual = size + ROOM  # most likely so many come again
        resize_bytes(&taken, size)
        lines = <bytes>taken
        Py_XDECREF(taken)
        return lines


cdef Py_ssize_t write(char* line, HttpRecord r) except -1:
    """Write a line; give its size, 0 where it is not one for this module.  There is room for ROOM."""
    cdef char* at = line
    cdef const char* end = line + (ROOM - FIXED)
    cdef int odd = False
    if r.classification or r.rate_limit or r.transformed_uri or r.transformed_host:
        return 0  # rare, and these have more to say
    at = put_time(put(at, b'{"time":"', 9), r.started, &odd)
    at = put_text(put(at, b'","kind":"', 10), end, r.kind, &odd)
    at = put_text(put(at, b'","listener":"', 14), end, r.listener, &odd)
    at = put_text(put(at, b'","client_address":"', 20), end, r.client_host, &odd)
    at = put_number(put(at, b'","client_port":', 16), r.client_port)
    at = put_bytes(put(at, b',"method":"', 11), end, r.method, &odd)
    at = put_text(put(at, b'","scheme":"', 12), end, r.scheme, &odd)
    at = put_bytes(put(at, b'","host":"', 10), end, r.authority, &odd)
    at = put_bytes(put(at, b'","request_target":"', 20), end, r.request_target, &odd)
    at = put_bytes(put(at, b'","version":"', 13), end, r.version, &odd)
    at = put_number(put(at, b'","status":', 11), r.status)
    at = put_number(put(at, b',"received_bytes":', 18), r.received_bytes)
    at = put_number(put(at, b',"sent_bytes":', 14), r.sent_bytes)
    at = put_seconds(put(at, b',"duration":', 12), r.duration, &odd)
    at = put_seconds(put(at, b',"request_time":', 16), r.request_time, &odd)
    at = put_seconds(put(at, b',"target_time":', 15), r.target_time, &odd)
    at = put_seconds(put(at, b',"response_time":', 17), r.response_time, &odd)
    at = put_text(put(at, b',"target_group":"', 17), end, r.target_group, &odd)
    at = put_text(put(at, b'","target":"', 12), end, r.target, &odd)
    at = put_number(put(at, b'","target_status":', 18), r.target_status)
    at = put_tried(put(at, b',"targets_tried":[', 18), end, r.targets_tried, &odd)
    at = put_text(put(at, b'],"retry_reason":"', 18), end, r.retry_reason, &odd)
    at = put_text(put(at, b'","rule":"', 10), end, r.rule, &odd)
    at = put_number(put(at, b'","priority":', 13), r.priority)
    at = put_text(put(at, b',"action":"', 11), end, r.action, &odd)
    at = put_text(put(at, b'","redirect_url":"', 18), end, r.redirect_url, &odd)
    at = put_text(put(at, b'","error_reason":"', 18), end, r.error_reason, &odd)
    at = put_bytes(put(at, b'","user_agent":"', 16), end, r.user_agent, &odd)
    at = put_bytes(put(at, b'","referer":"', 13), end, r.referer, &odd)
    at = put_text(put(at, b'","tls_version":"', 17), end, r.tls_version, &odd)
    at = put_text(put(at, b'","tls_cipher":"', 16), end, r.tls_cipher, &odd)
    at = put_text(put(at, b'","server_name":"', 17), end, r.server_name, &odd)
    at = put_bytes(put(at, b'","trace_id":"', 14), end, r.trace_id, &odd)
    at = put(at, b'"}\n', 3)
    return 0 if odd else at - line


cdef Py_ssize_t write_tcp(char* line, TcpRecord r) except -1:
    """Write a line; give its size, 0 where it is not one for this module.  There is room for ROOM."""
    cdef char* at = line
    cdef const char* end = line + (ROOM - FIXED)
    cdef int odd = False
    at = put_time(put(at, b'{"time":"', 9), r.started, &odd)
    at = put(at, b'","kind":"', 10)
    at = put(at, b"tls" if r.tls_version else b"tcp", 3)
    at = put_text(put(at, b'","listener":"', 14), end, r.listener, &odd)
    at = put_text(put(at, b'","client_address":"', 20), end, r.client_address, &odd)
    at = put_number(put(at, b'","client_port":', 16), r.client_port)
    at = put_text(put(at, b',"target_group":"', 17), end, r.target_group, &odd)
    at = put_text(put(at, b'","target":"', 12), end, r.target, &odd)
    at = put_seconds(put(at, b'","duration":', 13), r.duration, &odd)
    at = put_seconds(put(at, b',"connect_time":', 16), r.connect_time, &odd)
    at = put_number(put(at, b',"received_bytes":', 18), r.received_bytes)
    at = put_number(put(at, b',"sent_bytes":', 14), r.sent_bytes)
    at = put_text(put(at, b',"tls_version":"', 16), end, r.tls_version, &odd)
    at = put_text(put(at, b'","tls_cipher":"', 16), end, r.tls_cipher, &odd)
    at = put_text(put(at, b'","server_name":"', 17), end, r.server_name, &odd)
    at = put_text(put(at, b'","error_reason":"', 18), end, r.error_reason, &odd)
    at = put(at, b'"}\n', 3)
    return 0 if odd else at - line
