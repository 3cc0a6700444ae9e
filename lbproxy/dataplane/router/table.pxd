cimport cython

from lbproxy.dataplane.router.groups cimport GroupChoice
from lbproxy.native._prefixes cimport Prefixes as CPrefixes


cdef class Match:
    cdef readonly str rule_name, action_text
    cdef readonly int priority, queue_priority
    cdef readonly object action, transform, retry
    cdef readonly GroupChoice forward


cdef class PrefixIndex:
    cdef CPrefixes _prefixes
    cdef list _buckets, _parents

    @cython.locals(index=Py_ssize_t)
    cpdef collect(self, bytes text, list buckets)


cdef class Table:
    cdef readonly Match default
    cdef list _rules, _always
    cdef dict _exact_hosts, _exact_paths
    cdef PrefixIndex _host_tails, _path_heads

    @cython.locals(best=Match, match=Match, buckets=list, bucket=list, best_priority=int, priority=int, checks=tuple)
    cpdef Match match(self, request, str source)
