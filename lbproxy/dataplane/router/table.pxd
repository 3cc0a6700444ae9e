cimport cython

from lbproxy.dataplane.router.groups cimport GroupChoice
from lbproxy.native._prefixes cimport Prefixes as CPrefixes


cdef class Match:
    cdef readonly str rule_name, action_text
    cdef readonly int priority, queue_priority
    cdef readonly object action, transform, retry
    cdef readonly GroupChoice forward
    cdef public tuple checks


cdef class PrefixIndex:
    cdef CPrefixes prefixes
    cdef list candidates, parents


cdef class Table:
    cdef readonly Match default
    cdef list _rules
    cdef tuple _always
    cdef dict _exact_hosts, _exact_paths
    cdef PrefixIndex _host_tails, _path_heads

    @cython.locals(best=Match)
    cpdef Match match(self, request, str source)

    @cython.locals(match=Match)
    cdef Match _better(self, Match best, tuple candidates, request, str source)

    @cython.locals(found=Py_ssize_t)
    cdef Match _better_by_prefix(self, Match best, PrefixIndex index, bytes text, request, str source)
