"""The way to the targets: connecting, TLS, the connection pool, HTTP."""
