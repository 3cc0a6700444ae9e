"""The rules on fields and framing that HTTP/1 and HTTP/2 share (RFC 9110)."""
