"""A name server in a thread, with records that the test changes while it runs."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from typing import Any

from twisted.names import dns

from tests.integration.harness import HOST

Record = Any


class NameServer:
    """Answers over UDP and TCP on one port; names that it does not have get NXDOMAIN.

    ``rcode`` other than 0 is the answer to everything; ``silent`` makes it not answer at all, ``truncated`` only over
    TCP.
    """

    def __init__(self) -> None:
        self.records: dict[str, list[Record]] = {}
        self.ttl = 1
        self.rcode = dns.OK
        self.silent = False
        self.truncated = False
        self.noise: list[bytes] = []
        """Sent ahead of each answer."""
        self.questions: list[tuple[str, int]] = []
        self.port = 0
        while not self.port:
            self._tcp = socket.create_server((HOST, 0))
            self._udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            with contextlib.suppress(OSError):  # UDP may have that port in use
                self._udp.bind(self._tcp.getsockname())
                self.port = self._tcp.getsockname()[1]
        for serve in (self._serve_udp, self._serve_tcp):
            threading.Thread(target=serve, daemon=True).start()

    def a(self, name: str, *addresses: str) -> None:
        """Give a name these IPv4 addresses, and no other records."""
        self.records[name] = [dns.Record_A(address) for address in addresses]

    def _serve_udp(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                data, peer = self._udp.recvfrom(4096)
                if not data:
                    return  # closed
                for noise in self.noise:
                    self._udp.sendto(noise, peer)
                if not self.silent:
                    self._udp.sendto(self._answer(data, self.truncated), peer)

    def _serve_tcp(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._tcp.accept()
                with connection, contextlib.suppress(OSError, struct.error):
                    connection.settimeout(5)
                    (length,) = struct.unpack("!H", connection.recv(2, socket.MSG_WAITALL))
                    answer = self._answer(connection.recv(length, socket.MSG_WAITALL), False)
                    connection.sendall(struct.pack("!H", len(answer)) + answer)

    def _answer(self, data: bytes, truncated: bool) -> bytes:
        question = dns.Message()
        question.fromStr(data)
        name, kind = question.queries[0].name.name.decode(), question.queries[0].type
        self.questions.append((name, kind))
        answer = dns.Message(id=question.id, answer=True, rCode=self.rcode)
        answer.queries = question.queries
        answer.trunc = truncated
        answer.maxSize = 0  # Twisted would cut it
        if self.rcode == dns.OK and name not in self.records:
            answer.rCode = dns.ENAME
        elif self.rcode == dns.OK and not truncated:
            answer.answers = [
                dns.RRHeader(name, record.TYPE, dns.IN, self.ttl, record)
                for record in self.records[name]
                if kind == record.TYPE
            ]
        return bytes(answer.toStr())

    def close(self) -> None:
        for each in (self._udp, self._tcp):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
