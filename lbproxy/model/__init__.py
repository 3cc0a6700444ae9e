"""The vocabulary: frozen values that every part of lbproxy shares.

Nothing here does I/O or knows Twisted.  Configuration builds these values,
the supervisor sends them to the workers, and the data plane decides by them.
"""
