"""What a request and its answer look like on the other side, however they were cut in transit.

An `Outcome` is what both ends see; `outcomes` has it for every split of what either end sends.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from tests.dataplane.doubles import FakeTransport, World, undated

_OURS = re.compile(rb"(?:X-Forwarded-(?:For|Proto|Port)|X-Amzn-Trace-Id): [^\r]*\r\n")
_CHUNK = re.compile(rb"([0-9a-f]+)\r\n")
_PAGE = re.compile(rb"(\r\nServer: lbproxy\r\n.*?\r\n\r\n).*", re.DOTALL)


LONG = 400
SOME = 40


class Outcome(NamedTuple):
    """What came of an exchange."""

    target: bytes
    """What the target got, without the fields that tell about the client, each body in one chunk."""
    client: bytes
    """What the client got, without Date, each body in one chunk; of our own answers only the head."""
    client_ended: str
    """As `FakeTransport.ended`; ``closed`` also while it lingers."""
    target_ended: str


def message(first: str, *fields: str, body: bytes = b"") -> bytes:
    return "\r\n".join([first, *fields, "", ""]).encode("latin-1") + body


def whole_chunks(stream: bytes) -> bytes:
    """The same messages with one chunk for each chunked body, for how it is cut means nothing."""
    done = b""
    while True:
        head, end, stream = stream.partition(b"\r\n\r\n")
        done += head + end
        if b"\r\ntransfer-encoding: chunked" not in head.lower():
            length = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
            size = int(length[1]) if length else len(stream)
            done += stream[:size]
            stream = stream[size:]
        else:
            content = b""
            while (chunk := _CHUNK.match(stream)) and int(chunk[1], 16):
                size = int(chunk[1], 16)
                content += stream[chunk.end() : chunk.end() + size]
                stream = stream[chunk.end() + size + 2 :]
            done += b"%x\r\n%b\r\n" % (len(content), content) if content else b""
            if chunk is not None:
                last, end, stream = stream.partition(b"\r\n\r\n")
                done += last + end
        if not stream:
            return done


class Walk:
    """One client and the connection to one target, fed piece by piece."""

    def __init__(self, options: dict[str, Any]) -> None:
        self.world = World(**{"rules": (), **options})  # rules would cost more than all the rest
        self.client = self.world.client()

    @property
    def target(self) -> FakeTransport | None:
        """The connection to the target, made as soon as it is asked for."""
        for attempt in self.world.connector.attempts[:1]:
            return attempt.transport or attempt.succeed()
        return None

    def run(self, asked: list[bytes], answered: list[bytes], target_ends: bool) -> Outcome:
        for piece in asked:
            self.client.deliver(piece)
            self.world.turn()
            _ = self.target
        target = self.target
        for piece in answered if target else []:
            assert target is not None
            target.deliver(piece)
            self.world.turn()
        if target_ends and target:
            target.deliver_eof()
        self.world.turn()
        got = _OURS.sub(b"", target.sent) if target else b""
        sent = _PAGE.sub(rb"\1", undated(self.client.sent))
        ended = target.ended if target else ""
        client_ended = "closed" if self.client.write_closed else self.client.ended
        return Outcome(whole_chunks(got), whole_chunks(sent), client_ended, ended)


def cuts(data: bytes, start: int = 0) -> Iterator[list[bytes]]:
    """Every split of what is short from ``start`` on, of other data some."""
    size = len(data) - start
    step = 1 if size <= LONG else size // SOME
    yield [data]
    for cut in range(start or 1, len(data), step):
        yield [data[:cut], data[cut:]]
    yield [data[at : at + 1] for at in range(len(data))]


def outcomes(
    asked: bytes, answered: bytes, target_ends: bool = False, start: tuple[int, int] = (0, 0), **options: Any
) -> Iterator[tuple[Outcome, list[bytes]]]:
    """What becomes of every split of the request, and of every split of the answer; with the pieces, for messages.

    ``start`` says where in them what is of interest begins.
    """
    for pieces in cuts(asked, start[0]):
        yield Walk(options).run(pieces, [answered], target_ends), pieces
    for pieces in cuts(answered, start[1]):
        yield Walk(options).run([asked], pieces, target_ends), pieces
