"""A target that reads as strictly as RFC 9112 allows and keeps what it read."""

from __future__ import annotations

import re
import socket
import threading

from tests.integration.harness import RawTarget

_FIELD = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+: [\t\x20-\x7e\x80-\xff]*").fullmatch
_FRAMING = re.compile(rb"(?i)[^:]*(?:content|transfer)[^:a-z]*(?:length|encoding)").match


class RecordingTarget(RawTarget):
    """Keeps (request line, fields, body) of each request, and complains of what is ambiguous."""

    def __init__(self) -> None:
        self._requests: list[tuple[bytes, list[bytes], bytes]] = []
        self._complaints: list[bytes] = []
        self._lock = threading.Lock()
        super().__init__(self._answer)

    def seen(self) -> list[tuple[bytes, list[bytes], bytes]]:
        """What it saw since the last time, of which nothing may have been ambiguous."""
        assert self._complaints == []
        seen, self._requests = self._requests, []
        return seen

    def _answer(self, skt: socket.socket) -> None:
        reader = skt.makefile("rb")
        while line := reader.readline():
            fields = []
            while (field := reader.readline()) not in (b"\r\n", b""):
                fields.append(field)
            body = self._read_body(reader, line, fields)
            with self._lock:
                self._requests.append((line.strip(), [field.strip() for field in fields], body))
            path = line.split(b" ")[1]
            content = b"" if line.startswith(b"HEAD ") else path
            skt.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(path), content))

    def _read_body(self, reader: object, line: bytes, fields: list[bytes]) -> bytes:
        if not re.fullmatch(rb"[!-~]+ [!-~]+ HTTP/1\.1\r\n", line):
            self._complaints.append(line)
        self._complaints += [field for field in fields if not (field.endswith(b"\r\n") and _FIELD(field[:-2]))]
        framing = [field[:-2] for field in fields if _FRAMING(field)]
        if len([field for field in fields if field.lower().startswith(b"host")]) != 1:
            self._complaints.append(b"".join(fields))
        if not framing:
            return b""
        if framing == [b"Transfer-Encoding: chunked"]:
            return self._read_chunks(reader)
        length = re.fullmatch(rb"Content-Length: ([0-9]+)", framing[0])
        if length is None or len(framing) > 1:
            self._complaints += framing
            return b""
        return reader.read(int(length[1]))  # type: ignore[attr-defined,no-any-return]

    def _read_chunks(self, reader: object) -> bytes:
        body = b""
        while line := reader.readline():  # type: ignore[attr-defined]
            if not re.fullmatch(rb"[0-9a-f]+\r\n", line):
                self._complaints.append(line)
                return body
            size = int(line, 16)
            if not size:
                while reader.readline() not in (b"\r\n", b""):  # type: ignore[attr-defined]
                    pass
                return body
            body += reader.read(size)  # type: ignore[attr-defined]
            reader.readline()  # type: ignore[attr-defined]
        return body
