from collections.abc import Callable
from typing import Any

from lbproxy.native.transport import StreamTransport

REQUIRED: tuple[str, ...]

def bind(addresses: dict[str, int], pointer: Callable[[Any], int]) -> None: ...
def secure(plain: StreamTransport, creator: Any, client: bool, protocol: Any) -> TlsTransport: ...

class TlsTransport:
    connected: bool
    disconnecting: bool
    protocol: Any
    wrappedProtocol: Any
    def feed(self, early: bytes) -> None: ...
    def abortConnection(self) -> None: ...
    def loseConnection(self) -> None: ...
