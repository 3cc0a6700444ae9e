"""The HTTP/1.1 codec (RFC 9112): heads in `head`, chunked bodies in `body`."""
