"""The layer that moves bytes: a reactor and transports made for a proxy.

Nothing here knows lbproxy; everything stands in for an ordinary Twisted interface.  Each piece exists twice, compiled
(Cython) and in pure Python with the same behaviour; `available` says which one is in use and `reason` why.
"""

from lbproxy.native.choice import available, describe, reason

__all__ = ["available", "describe", "reason"]
