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

    typedef struct {
        Py_ssize_t size;
        char* text; /* there is room for ROOM */
    } Line;

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

    /* A fixed part. FIXED has room for all of them, and their sizes are known, so that this is a few moves. */
    static inline __attribute__((always_inline)) int put(Line* line, const char* text, Py_ssize_t size) {
        memcpy(line->text + line->size, text, size);
        line->size += size;
        return 1;
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

    /* Whether there is room, and nothing to escape.  Sixteen octets at a time, or what is less from both its ends. */
    static int put_plain(Line* line, const unsigned char* text, Py_ssize_t size) {
        char* out = line->text + line->size;
        Sixteen v, found = {0};
        uint64_t eights[2];
        uint32_t fours[4];
        Py_ssize_t at;
        int odd_octets = 0;
        if (size > ROOM - FIXED - line->size)
            return 0;
        line->size += size;
        if (size >= 16) {
            for (at = 0; at < size - 16; at += 16) {
                memcpy(&v, text + at, 16);
                memcpy(out + at, &v, 16);
                found |= odd(v);
            }
            memcpy(&v, text + size - 16, 16);
            memcpy(out + size - 16, &v, 16);
            return none(found | odd(v));
        }
        if (size >= 8) {
            memcpy(eights, text, 8);
            memcpy(eights + 1, text + size - 8, 8);
            memcpy(out, eights, 8);
            memcpy(out + size - 8, eights + 1, 8);
            memcpy(&v, eights, 16);
            return none(odd(v));
        }
        if (size >= 4) {
            memcpy(fours, text, 4);
            memcpy(fours + 1, text + size - 4, 4);
            memcpy(out, fours, 4);
            memcpy(out + size - 4, fours + 1, 4);
            memcpy(fours + 2, fours, 8);
            memcpy(&v, fours, 16);
            return none(odd(v));
        }
        for (at = 0; at < size; at++) {
            odd_octets |= NEEDS_ESCAPE[text[at]];
            out[at] = (char)text[at];
        }
        return odd_octets == 0;
    }

    static int put_digits(Line* line, uint64_t left) {
        char* out = line->text + line->size;
        uint64_t bound = 10;
        int digits = 1;
        while (digits < 20 && left >= bound) {
            digits++;
            if (digits == 20)
                break; /* the bound would not fit */
            bound *= 10;
        }
        line->size += digits;
        while (digits > 2) {
            digits -= 2;
            memcpy(out + digits, PAIRS + 2 * (left % 100), 2);
            left /= 100;
        }
        if (digits == 2)
            memcpy(out, PAIRS + 2 * left, 2);
        else
            *out = (char)('0' + left);
        return 1;
    }

    static inline int put_number(Line* line, int64_t value) {
        if (value >= 0)
            return put_digits(line, (uint64_t)value);
        put(line, "-", 1);
        return put_digits(line, 0 - (uint64_t)value);
    }

    static inline int put_millionths(Line* line, uint64_t value) {
        uint32_t rest = (uint32_t)(value % 1000000);
        char* out;
        put_digits(line, value / 1000000);
        out = line->text + line->size;
        *out = '.';
        memcpy(out + 1, PAIRS + 2 * (rest / 10000), 2);
        memcpy(out + 3, PAIRS + 2 * (rest / 100 % 100), 2);
        memcpy(out + 5, PAIRS + 2 * (rest % 100), 2);
        line->size += 7;
        return 1;
    }
    """
    enum:
        ROOM, FIXED
    ctypedef struct Line:
        Py_ssize_t size
        char* text
    void fill_tables() noexcept nogil
    # Each tells whether it could; only `put_plain` may be unable.
    bint put(Line* line, const char* text, Py_ssize_t size) noexcept nogil
    bint put_plain(Line* line, const unsigned char* text, Py_ssize_t size) noexcept nogil
    bint put_number(Line* line, long long value) noexcept nogil
    bint put_millionths(Line* line, unsigned long long value) noexcept nogil

fill_tables()

cdef object pure_http_json = None
cdef object pure_tcp_json = None


def fall_back_to(http, tcp):
    """Tell what formats the records that are not plain."""
    global pure_http_json, pure_tcp_json
    pure_http_json, pure_tcp_json = http, tcp


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


cdef bint put_seconds(Line* line, double value) noexcept nogil:
    """As the format ``.6f`` has it: the nearest to what the double is exactly."""
    cdef double scaled, rest
    cdef long long millionths
    cdef char text[32]
    cdef int size
    if value == -1.0:
        return put(line, b"-1.000000", 9)
    if 0.0 <= value < 1e6:
        scaled = value * 1e6
        millionths = <long long>scaled
        rest = scaled - millionths
        # The product is at most 0.0001 off, so farther than that from the middle it is clear which is nearer.
        if rest < 0.499 or rest > 0.501:
            return put_millionths(line, millionths + (rest > 0.5))
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
        # these parts are as many as there were tries
        if type(target) is not str or line.size > ROOM - FIXED:
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


cdef bint write(Line* line, HttpRecord r) except -1:
    line.size = 0
    return (
        not r.classification and not r.rate_limit  # rare, and these have more to say
        and not r.transformed_uri
        and not r.transformed_host
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
