"""Cookie values that only we can make and read: AES-256-GCM, with keys that the supervisor renews.

A value is, in URL-safe base64, the key's name (8 bytes), a nonce (12) and the sealed text with its tag (16).
"""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_NAME_BYTES = 8
_NONCE_BYTES = 12
_TAG_BYTES = 16

MAX_VALUE_BYTES = 1024
"""Longer than any that we make; a longer one is not looked at."""

_MAX_OPENED = 4096
"""Values kept as they were read, about 1 MB; all are forgotten when one more comes."""

_VALUE = re.compile(rb"[A-Za-z0-9_-]+").fullmatch


class Seal:
    """Seals short texts, and opens what was sealed by any worker that has the same keys.

    A text is sealed for a context, and does not open in another.
    """

    def __init__(self) -> None:
        self._ciphers: dict[bytes, AESGCM] = {}
        self._newest = b""
        self._opened: dict[tuple[bytes, bytes], bytes] = {}
        self.use([os.urandom(40)])

    def use(self, keys: Sequence[bytes]) -> None:
        """Seal with the first of these keys (a name of 8 bytes and 32 of key) and open with all."""
        self._ciphers = {key[:_NAME_BYTES]: AESGCM(key[_NAME_BYTES:]) for key in keys}
        self._newest = keys[0][:_NAME_BYTES]
        self._opened.clear()

    def seal(self, text: bytes, context: bytes) -> bytes:
        """The value for a cookie."""
        name = self._newest
        nonce = os.urandom(_NONCE_BYTES)
        sealed = self._ciphers[name].encrypt(nonce, text, context)
        return base64.urlsafe_b64encode(name + nonce + sealed).rstrip(b"=")

    def open(self, value: bytes, context: bytes) -> bytes | None:
        """The text, or None for what is not ours, was changed, or is sealed for another context or with a lost key.

        Clients repeat themselves, so what was good is remembered.
        """
        known = self._opened.get((value, context))
        if known is not None:
            return known
        text = self._open(value, context)
        if text is not None:
            if len(self._opened) >= _MAX_OPENED:
                self._opened.clear()
            self._opened[value, context] = text
        return text

    def _open(self, value: bytes, context: bytes) -> bytes | None:
        if len(value) > MAX_VALUE_BYTES or not _VALUE(value) or len(value) % 4 == 1:
            return None
        data = base64.urlsafe_b64decode(value + b"=" * (-len(value) % 4))
        cipher = self._ciphers.get(data[:_NAME_BYTES])
        if cipher is None or len(data) < _NAME_BYTES + _NONCE_BYTES + _TAG_BYTES:
            return None
        start = _NAME_BYTES + _NONCE_BYTES
        try:
            return cipher.decrypt(data[_NAME_BYTES:start], data[start:], context)
        except InvalidTag:
            return None
