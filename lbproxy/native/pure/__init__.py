"""Stand-ins for the compiled modules, in pure Python on Twisted's own classes."""
