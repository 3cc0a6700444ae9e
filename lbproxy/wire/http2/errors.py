"""What ends a stream or a connection of HTTP/2 (RFC 9113 sections 5.4 and 7)."""

from __future__ import annotations

from lbproxy.wire.errors import RemoteProtocolError

NO_ERROR = 0x0
PROTOCOL_ERROR = 0x1
INTERNAL_ERROR = 0x2
FLOW_CONTROL_ERROR = 0x3
SETTINGS_TIMEOUT = 0x4
STREAM_CLOSED = 0x5
FRAME_SIZE_ERROR = 0x6
REFUSED_STREAM = 0x7
CANCEL = 0x8
COMPRESSION_ERROR = 0x9
CONNECT_ERROR = 0xA
ENHANCE_YOUR_CALM = 0xB
INADEQUATE_SECURITY = 0xC
HTTP_1_1_REQUIRED = 0xD


class ConnectionFault(RemoteProtocolError):
    """The peer broke the rules so that the connection must end; ``code`` goes into GOAWAY."""

    def __init__(self, message: str, code: int, reason: str) -> None:
        super().__init__(message, reason=reason)
        self.code = code


class StreamFault(RemoteProtocolError):
    """The peer broke the rules of one stream; ``code`` goes into RST_STREAM."""

    def __init__(self, message: str, code: int, reason: str) -> None:
        super().__init__(message, reason=reason)
        self.code = code
