"""The layer that moves bytes: transports made for a proxy.

Nothing here knows lbproxy; everything stands in for an ordinary Twisted interface.
"""
