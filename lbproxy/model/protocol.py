"""What the protocols on either side have in common."""

from __future__ import annotations

import enum


class PeerProtocol(enum.Enum):
    """What is spoken with clients or with targets; for enumerations of either."""

    @property
    def is_http(self) -> bool:
        return self._value_ in ("HTTP", "HTTPS")

    @property
    def is_encrypted(self) -> bool:
        return self._value_ in ("HTTPS", "TLS")  # a tenth of the price of looking up members
