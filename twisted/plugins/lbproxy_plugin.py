"""Tells twistd about lbproxy.  This folder gets no __init__.py: it adds to Twisted's own."""

from twisted.application.reactors import Reactor
from twisted.application.service import ServiceMaker

lbproxy = ServiceMaker(
    "lbproxy",
    "lbproxy.tap",
    "An elastic load balancer for HTTP, TLS and TCP",
    "lbproxy",
)

reactor = Reactor("lbproxy", "lbproxy.native.reactor", "The epoll reactor with lbproxy's native transports")
