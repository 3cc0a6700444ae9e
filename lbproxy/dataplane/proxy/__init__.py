"""One exchange: a request with its response, between any client and any target.

No sockets and no Twisted: the two ends are objects that `lbproxy.dataplane.listener` and
`lbproxy.dataplane.upstream` provide.
"""
