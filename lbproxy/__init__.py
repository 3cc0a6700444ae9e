"""lbproxy: an elastic load balancer for HTTP, TLS and TCP on Twisted."""

__version__ = "0.1.0"
