"""Both ends of a WebSocket connection, by hand, so that each octet of either counts (RFC 6455).

`EchoServer` is strict and notes what it has taken; the clients write what they are told to and note what comes back,
over a socket of HTTP/1.1 or on a stream of HTTP/2 (RFC 8441).
"""

from __future__ import annotations

import base64
import codecs
import contextlib
import hashlib
import select
import socket
import ssl
import struct
import time
from typing import NamedTuple, NoReturn

import h2.config
import h2.connection
import h2.events
import h2.settings

from tests.integration.harness import HOST, RawTarget, read_head, trusting, wait_until
from tests.integration.websocket_cases import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT

PATIENCE = 30.0
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_CODES = {1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, *range(3000, 5000)}


class Seen(NamedTuple):
    """What came to one end: how much, its digest, its beginning for messages, and how it ended."""

    size: int
    digest: str
    beginning: bytes
    end: str


def seen(data: bytes, end: str) -> Seen:
    return Seen(len(data), hashlib.sha256(data).hexdigest(), data[:80], end)


def server_frame(opcode: int, payload: bytes) -> bytes:
    size = len(payload)
    if size < 126:
        return struct.pack("!BB", 0x80 | opcode, size) + payload
    if size < 65536:
        return struct.pack("!BBH", 0x80 | opcode, 126, size) + payload
    return struct.pack("!BBQ", 0x80 | opcode, 127, size) + payload


class Closed(Exception):
    """The connection is over: for its code, if it has one."""


class _Session:
    """One connection of the server."""

    def __init__(self, skt: socket.socket, data: bytes) -> None:
        self._socket = skt
        self._data = bytearray(data)
        self._at = 0
        self.taken = bytearray()
        """All whole frames."""
        self._opcode = CONTINUATION
        self._message: list[bytes] = []
        self._decoder = codecs.getincrementaldecoder("utf-8")()

    def _need(self, count: int) -> bytes:
        """The next octets, which stay until the frame is whole."""
        while len(self._data) < self._at + count:
            more = self._socket.recv(1 << 20)
            if not more:
                raise Closed("end within a frame" if self._data else "end")
            self._data += more
        part = bytes(self._data[self._at : self._at + count])
        self._at += count
        return part

    def fail(self, code: int) -> NoReturn:
        self._leave(struct.pack("!H", code))
        raise Closed(f"failed {code}")

    def _leave(self, payload: bytes) -> None:
        """The last frame; the client may still be sending, and would not see it if that met a closed socket."""
        self._socket.sendall(server_frame(CLOSE, payload))
        self._socket.shutdown(socket.SHUT_WR)

    def frame(self) -> None:
        """Take one frame and answer it."""
        self._at = 0
        first, second = self._need(2)
        final, opcode, size = first & 0x80, first & 0x0F, second & 0x7F
        control = opcode >= CLOSE
        if first & 0x70 or opcode not in (CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG) or not second & 0x80:
            self.fail(1002)
        if control and (not final or size > 125):
            self.fail(1002)
        if not control and (opcode == CONTINUATION) != bool(self._opcode):
            self.fail(1002)
        if size == 126:
            [size] = struct.unpack("!H", self._need(2))
        elif size == 127:
            [size] = struct.unpack("!Q", self._need(8))
        mask = self._need(4)
        payload = self._need(size)
        key = (mask * (size // 4 + 1))[:size]
        payload = (int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")).to_bytes(size, "big")
        self.taken += self._data[: self._at]
        del self._data[: self._at]
        if opcode == CLOSE:
            self._close(payload)
        elif opcode == PING:
            self._socket.sendall(server_frame(PONG, payload))
        elif opcode != PONG:
            self._part(opcode, payload, bool(final))

    def _close(self, payload: bytes) -> None:
        code = struct.unpack("!H", payload[:2])[0] if len(payload) >= 2 else 0
        if len(payload) == 1 or (payload and code not in _CODES):
            self.fail(1002)
        with contextlib.suppress(UnicodeDecodeError):
            payload[2:].decode()
            self._leave(payload)
            raise Closed(f"close {code}")
        self.fail(1007)

    def _part(self, opcode: int, payload: bytes, final: bool) -> None:
        self._opcode = self._opcode or opcode
        self._message.append(payload)
        if self._opcode == TEXT:
            with contextlib.suppress(UnicodeDecodeError):
                self._decoder.decode(payload, final)
                payload = b""
            if payload:
                self.fail(1007)
        if final:
            self._socket.sendall(server_frame(self._opcode, b"".join(self._message)))
            self._opcode = CONTINUATION
            self._message = []
            self._decoder.reset()


class EchoServer(RawTarget):
    """Sends every message back in one frame; notes by the path of the request what came."""

    def __init__(self) -> None:
        super().__init__(self._echo)
        self._seen: dict[bytes, Seen] = {}

    def seen(self, path: str) -> Seen:
        """What came to the connection of this path; waits for its end."""
        wait_until(lambda: path.encode() in self._seen, PATIENCE, f"the server's end of {path}")
        return self._seen.pop(path.encode())

    def _echo(self, skt: socket.socket) -> None:
        skt.settimeout(PATIENCE)
        skt.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        head, _, rest = read_head(skt).partition(b"\r\n\r\n")
        path = head.split(b" ")[1]
        key = next(line[19:] for line in head.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key: "))
        accept = base64.b64encode(hashlib.sha1(key + _GUID).digest())
        skt.sendall(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: %b\r\n\r\n" % accept
        )
        session = _Session(skt, rest)
        end = "reset"
        try:
            while True:
                session.frame()
        except Closed as closed:
            end = str(closed)
        except OSError:
            pass
        self._seen[path] = seen(bytes(session.taken), end)
        with contextlib.suppress(OSError):
            while skt.recv(1 << 20):
                pass


def over_http1(port: int, path: str, writes: list[bytes], secure: bool = False) -> Seen:
    """Write these as a client, after the handshake; what came until the connection ended."""
    with contextlib.ExitStack() as stack:
        skt = stack.enter_context(socket.create_connection((HOST, port), timeout=PATIENCE))
        skt.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if secure:
            skt = stack.enter_context(trusting().wrap_socket(skt))
        skt.sendall(
            b"GET %b HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n" % path.encode()
        )
        head, _, rest = read_head(skt).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 "), head
        assert b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in head
        return _exchange(skt, writes, rest)


def _exchange(skt: socket.socket, writes: list[bytes], rest: bytes) -> Seen:
    """Write and read at a time, for either side may wait for the other."""
    received = bytearray(rest)
    pending = list(reversed(writes))
    skt.setblocking(False)
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        can_read, can_write, _ = select.select([skt], [skt] if pending else [], [], 1.0)
        with contextlib.suppress(BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            if can_write:
                try:
                    sent = skt.send(pending[-1])
                except (BrokenPipeError, ConnectionResetError):
                    pending.clear()  # what is there to read still counts
                else:
                    pending[-1] = pending[-1][sent:]
                    if not pending[-1]:
                        pending.pop()
        with contextlib.suppress(BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            while can_read:
                try:
                    more = skt.recv(1 << 20)
                except (ConnectionResetError, ssl.SSLEOFError):
                    return seen(bytes(received), "reset")
                if not more:
                    return seen(bytes(received), "end")
                received += more
    return seen(bytes(received), "no end")


def over_http2(port: int, path: str, writes: list[bytes]) -> Seen:
    """The same on a stream of a connection of HTTP/2."""
    with socket.create_connection((HOST, port), timeout=PATIENCE) as skt:
        skt.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return _Http2Client(skt).run(path, writes)


class _Http2Client:
    def __init__(self, skt: socket.socket) -> None:
        self._socket = skt
        self._connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
        self._connection.initiate_connection()
        self._connection.increment_flow_control_window(1 << 24)
        self._received = bytearray()
        self._status = b""
        self._end = ""
        self._may_connect = False

    def run(self, path: str, writes: list[bytes]) -> Seen:
        while not self._may_connect:
            assert not self._end, self._end
            self._move()
        fields = [(":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "http"), (":authority", "x")]
        self._connection.send_headers(1, [*fields, (":path", path), ("sec-websocket-version", "13")])
        while not self._status:
            assert not self._end, self._end
            self._move()
        assert self._status == b"200"
        pending = [write for write in reversed(writes) if write]
        while not self._end:
            while pending and not self._end:
                room = min(self._connection.local_flow_control_window(1), 16384)
                if room <= 0:
                    break
                self._connection.send_data(1, pending[-1][:room])
                pending[-1] = pending[-1][room:]
                if not pending[-1]:
                    pending.pop()
                self._move(0)
            if not self._end:
                self._move()
        return seen(bytes(self._received), self._end)

    def _move(self, seconds: float = PATIENCE) -> None:
        """Send what is to be sent; take what comes within that time."""
        self._socket.sendall(self._connection.data_to_send())
        if not select.select([self._socket], [], [], seconds)[0]:
            assert not seconds, "nothing comes"
            return
        data = self._socket.recv(1 << 20)
        if not data:
            self._end = self._end or "reset"
        for event in self._connection.receive_data(data) if data else ():
            if isinstance(event, h2.events.RemoteSettingsChanged):
                code = h2.settings.SettingCodes.ENABLE_CONNECT_PROTOCOL
                self._may_connect = self._may_connect or code in event.changed_settings
            elif isinstance(event, h2.events.ResponseReceived):
                self._status = dict(event.headers)[b":status"]
            elif isinstance(event, h2.events.DataReceived):
                self._received += event.data
                self._connection.acknowledge_received_data(event.flow_controlled_length, 1)
            elif isinstance(event, h2.events.StreamEnded):
                self._end = "end"
            elif isinstance(event, h2.events.StreamReset | h2.events.ConnectionTerminated):
                self._end = self._end or "reset"
        self._socket.sendall(self._connection.data_to_send())
