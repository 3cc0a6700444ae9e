"""A target in a process of its own: answers each request with its path, in the manner that a file says.

``python server.py HOST PORT FILE SECONDS``: FILE may hold ``slow``, ``fail`` or ``cut``; an answer takes SECONDS.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
import sys

host, port, mode_file, seconds = sys.argv[1], int(sys.argv[2]), sys.argv[3], float(sys.argv[4])


def mode() -> str:
    with contextlib.suppress(FileNotFoundError), open(mode_file) as file:
        return file.read()
    return ""


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            path = head.split(b" ")[1]
            present = "" if path == b"/health" else mode()
            await asyncio.sleep(seconds * 10 if present == "slow" else seconds)
            status = b"500 Oh" if present == "fail" else b"200 OK"
            head = f"X-Target: {host}:{port}\r\nContent-Length: {len(path)}".encode()
            answer = b"HTTP/1.1 %b\r\n%b\r\n\r\n%b" % (status, head, path)
            if present == "cut":
                with open(mode_file + ".cuts", "ab") as file:
                    file.write(b".")
                writer.write(answer[:-1])
                await writer.drain()
                await asyncio.sleep(0.02)
                skt = writer.get_extra_info("socket")
                skt.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                writer.transport.abort()
                return
            writer.write(answer)
            await writer.drain()
    writer.close()


async def main() -> None:
    server = await asyncio.start_server(serve, host, port, backlog=512)
    os.write(1, b"ready\n")
    async with server:
        await server.serve_forever()


asyncio.run(main())
