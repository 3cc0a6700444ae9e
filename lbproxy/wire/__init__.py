"""Codecs without I/O: bytes in, events or values out, and back."""
