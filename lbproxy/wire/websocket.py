"""As much of WebSocket (RFC 6455) as it takes to end a connection that is relayed byte by byte.

A `FrameTracker` for each direction knows where frames end, for only there a close frame of ours may stand.
"""

from __future__ import annotations

GOING_AWAY = 1001
"""RFC 6455 section 7.4.1: the server, here the balancer or the target, goes down."""

_CLOSE = 0x8
_MAX_LENGTH = (1 << 63) - 1


class FrameTracker:
    """Follow the frames of one direction (RFC 6455 section 5.2); what they hold is not looked at.

    Holds at most 13 bytes, a frame's head but for its last.
    """

    __slots__ = ("_head", "_left", "closed")

    def __init__(self) -> None:
        self._head = b""
        """The beginning of a head that is not whole."""
        self._left = 0
        """How much is still to come of the payload of the present frame."""
        self.closed = False
        """Whether a close frame has come, after which there must be none (RFC 6455 section 5.5.1)."""

    @property
    def between_frames(self) -> bool:
        """Whether all frames that have begun are whole."""
        return not self._left and not self._head

    def receive_data(self, data: bytes) -> None:
        """Take bytes as they pass, in any split."""
        at = self._left
        size = len(data)
        if size < at:
            self._left = at - size
            return
        if self._head:
            data = self._head + data
            size = len(data)
        while size - at >= 2:
            second = data[at + 1]
            length = second & 0x7F
            start = at + 2
            if length == 126:
                start += 2
            elif length == 127:
                start += 8
            if second & 0x80:
                start += 4
            if start > size:
                break
            if length == 126:
                length = (data[at + 2] << 8) | data[at + 3]
            elif length == 127:
                # the highest bit must not be set; who sets it is never again between frames
                length = min(int.from_bytes(data[at + 2 : at + 10], "big"), _MAX_LENGTH)
            if data[at] & 0x0F == _CLOSE:
                self.closed = True
            if length > size - start:
                self._head = b""
                self._left = length - (size - start)
                return
            at = start + length
        self._left = 0
        self._head = data[at:]


def close_frame(code: int, mask: bytes = b"") -> bytes:
    """A close frame without a reason; ``mask``, four random bytes, for one to a server (RFC 6455 section 5.3)."""
    payload = code.to_bytes(2, "big")
    if not mask:
        return b"\x88\x02" + payload
    return b"\x88\x82" + mask + bytes([payload[0] ^ mask[0], payload[1] ^ mask[1]])
