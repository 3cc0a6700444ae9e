"""lbproxy: an elastic load balancer for HTTP, TLS and TCP on Twisted."""

from lbproxy._sources import use_sources_if_told

__version__ = "0.1.0"

use_sources_if_told()
