"""The access log: lines are gathered in the reactor and written by a thread of their own.

A disk that is slow, full or gone costs log lines, counted as ``dropped``, and never a
request.  Several workers append to one file: each write is of whole lines to a
descriptor opened with O_APPEND.
"""

from __future__ import annotations

import os
import select
import stat
import threading
from collections.abc import Iterator
from queue import SimpleQueue

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from lbproxy.model.snapshot import AccessLogSettings
from lbproxy.telemetry.formats import FORMATS
from lbproxy.telemetry.lines import Lines
from lbproxy.telemetry.records import HttpRecord, RequestLog, TcpRecord

BATCH_BYTES = 256 * 1024
"""Gathered lines are handed to the writer at this size, or else every `FLUSH_SECONDS`.

The writer takes the interpreter's lock twice for each hand-over: with 64 KiB that was 3 % of a busy worker's CPU, now
it is a third of that.
"""
FLUSH_SECONDS = 0.5
MAX_QUEUED_BYTES = 16 * 1024 * 1024
"""What may wait for the writer; more is dropped.  Some 40,000 lines, over a second at full load."""
PIPE_BYTES = 4096
"""Writes up to PIPE_BUF to a pipe are not mixed with those of other processes (pipe(7))."""

_log = Logger(__name__)  # compiled, it could not see where it is made


class AccessLog(RequestLog):
    """Write a line for each request to where the settings say.

    ``clock`` times the flushing.  The owner calls `close`; settings are not changed
    in place, a new log is made and the old one closed.
    """

    def __init__(self, settings: AccessLogSettings, clock: IReactorTime) -> None:
        self.enabled = settings.destination != "off"
        """False when `log` does nothing, so that a caller may spare the record."""
        form = FORMATS[settings.format]
        self._is_json = settings.format == "json"
        self._format_http = form.http
        self._format_tcp = form.tcp
        self._lines = Lines()
        self._handed = 0
        self._dropped = 0
        self._problem = ""
        self._writer = _Writer(settings.destination)
        self._flushing = LoopingCall(self.flush)
        self._flushing.clock = clock
        if self.enabled:
            self._writer.thread.start()
            self._flushing.start(FLUSH_SECONDS, now=False)

    @property
    def dropped(self) -> int:
        """Lines that were not written since the start."""
        return self._dropped + self._writer.dropped

    def log(self, record: HttpRecord) -> None:
        """Write down a request that ended."""
        if not self.enabled:
            return
        if self._is_json:
            self._lines.append_http_json(record)
        else:
            self._lines.append(self._format_http(record))
        if self._lines.size >= BATCH_BYTES:
            self.flush()

    def log_tcp(self, record: TcpRecord) -> None:
        """Write down a TCP or TLS connection that ended."""
        if not self.enabled:
            return
        if self._is_json:
            self._lines.append_tcp_json(record)
        else:
            self._lines.append(self._format_tcp(record))
        if self._lines.size >= BATCH_BYTES:
            self.flush()

    def flush(self) -> None:
        """Hand what is gathered to the writer; say so when the log's state has changed."""
        gathered = self._lines.size
        if gathered:
            count = self._lines.count
            lines = self._lines.take()
            if self._handed - self._writer.taken + gathered > MAX_QUEUED_BYTES:
                self._dropped += count
            else:
                self._handed += gathered
                self._writer.queue.put(lines)
        problem = self._writer.problem
        if problem != self._problem:
            self._problem = problem
            if problem:
                _log.error("access log: {problem}; lines are dropped", problem=problem)
            else:
                _log.info("access log: written again, {dropped} lines were dropped", dropped=self.dropped)

    def reopen(self) -> None:
        """Open the file anew under its name (after logrotate moved it away); what came before goes to the old one."""
        if self.enabled:
            self.flush()
            self._writer.queue.put(_REOPEN)

    def close(self, timeout_seconds: float = 2.0) -> None:
        """Write what is left and end; wait for it at most this long.

        With 0 the writer finishes by itself, as long as the process lives.
        """
        if not self.enabled:
            return
        self.enabled = False
        self._flushing.stop()
        self.flush()
        self._writer.queue.put(_CLOSE)
        if timeout_seconds > 0:
            self._writer.thread.join(timeout_seconds)


class _Order:
    """What the writer is told besides bytes."""


_REOPEN = _Order()
_CLOSE = _Order()


class _Writer:
    """The thread's side.  Its public numbers are written by the thread only and may be read from anywhere."""

    def __init__(self, destination: str) -> None:
        self.queue: SimpleQueue[bytes | _Order] = SimpleQueue()
        self.thread = threading.Thread(target=self._run, name="access-log", daemon=True)
        self.taken = 0
        """Bytes that no longer wait: written or dropped."""
        self.dropped = 0
        """Lines that could not be written."""
        self.problem = ""
        """What is wrong with the destination now."""
        self._destination = destination
        self._descriptor = -1
        self._in_pieces = False

    def _run(self) -> None:
        self._open()
        while (item := self.queue.get()) is not _CLOSE:
            if isinstance(item, bytes):
                self._write(item)
                self.taken += len(item)
            else:
                self._open()
        if self._descriptor > 2:
            os.close(self._descriptor)

    def _open(self) -> None:
        """Open the destination; the former descriptor serves on when that fails."""
        if self._destination == "stdout":
            descriptor = 1
        else:
            try:
                os.makedirs(os.path.dirname(self._destination) or ".", exist_ok=True)
                flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
                descriptor = os.open(self._destination, flags, 0o640)
            except OSError as error:
                self.problem = f"cannot open {self._destination}: {error.strerror}"
                return
        if self._descriptor > 2:
            os.close(self._descriptor)
        self._descriptor = descriptor
        try:
            self._in_pieces = not stat.S_ISREG(os.fstat(descriptor).st_mode)
        except OSError:
            self._in_pieces = False  # stdout is closed: writing will say so
        self.problem = ""

    def _write(self, data: bytes) -> None:
        if self._descriptor < 0:
            self._open()
        if self._descriptor < 0:
            self.dropped += data.count(b"\n")
            return
        for piece in _pieces(data) if self._in_pieces else (data,):
            try:
                _write_all(self._descriptor, piece)
            except OSError as error:
                self.dropped += piece.count(b"\n")
                self.problem = f"cannot write to {self._destination}: {error.strerror}"
                return
        self.problem = ""


def _pieces(data: bytes) -> Iterator[bytes]:
    """Cut into whole lines of at most `PIPE_BYTES` together (one longer line goes alone)."""
    start = 0
    while start < len(data):
        end = data.rfind(b"\n", start, start + PIPE_BYTES) + 1
        if not end:
            end = data.find(b"\n", start) + 1 or len(data)
        yield data[start:end]
        start = end


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        try:
            written = os.write(descriptor, data)
        except BlockingIOError:  # stdout may be a pipe that someone made non-blocking
            select.select([], [descriptor], [], 1.0)
            continue
        data = data[written:]
