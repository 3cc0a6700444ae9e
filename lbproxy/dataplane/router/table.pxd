from lbproxy.dataplane.router.groups cimport GroupChoice


cdef class Match:
    cdef readonly str rule_name, action_text
    cdef readonly int priority, queue_priority
    cdef readonly object action, transform, retry
    cdef readonly GroupChoice forward


cdef class PrefixIndex:
    cdef list _prefixes, _buckets, _parents

    cpdef collect(self, bytes text, list buckets)


cdef class Table:
    cdef readonly Match default
    cdef list _rules, _always
    cdef dict _exact_hosts, _exact_paths
    cdef PrefixIndex _host_tails, _path_heads

    cpdef Match match(self, request, str source)
