"""TCP transports that send at once: the compiled ones, or their pure Python stand-ins.

Twisted's own transports put every write into a buffer and ask the reactor to be told when the socket is writable: two
``epoll_ctl`` calls and another trip through the loop for each write.  A proxy's socket is nearly always writable, so
`StreamTransport.write` sends first and keeps only what the kernel did not take.

`Acceptor` and `connect` make such transports from a listening socket and to an address, without the log lines, name
resolution and per-connection timers that a proxy does not want.

`relay` has what comes from one transport written to another without a detour through their protocols, where both are
compiled.

Both kinds run under any Twisted reactor; `lbproxy.native.reactor` serves them without detours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lbproxy.native.choice import available

if TYPE_CHECKING or not available:
    from lbproxy.native.pure.transport import (
        Acceptor,
        Address,
        Factory,
        Flow,
        StreamTransport,
        connect,
        relay,
        stream_address,
    )
else:
    from lbproxy.native._accept import Acceptor
    from lbproxy.native._address import stream_address
    from lbproxy.native._stream import StreamTransport, connect, relay
    from lbproxy.native.pure.transport import Address, Factory, Flow

__all__ = ["Acceptor", "Address", "Factory", "Flow", "StreamTransport", "connect", "relay", "stream_address"]
