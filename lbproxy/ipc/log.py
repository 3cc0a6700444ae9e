"""How a worker's log reaches the supervisor's: lines on its stderr, each with its level in front."""

from __future__ import annotations

from typing import IO

from twisted.logger import ILogObserver, LogEvent, Logger, LogLevel, formatEvent
from zope.interface import implementer

_log = Logger()

_LEVELS = {level.name: level for level in LogLevel.iterconstants()}

_LONGEST_LINE = 8192


@implementer(ILogObserver)
class LineObserver:
    """Write events as ``level: text``, and a traceback as the lines after it; the other side is `LogRelay`.

    Events below ``info`` are left out.
    """

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def __call__(self, event: LogEvent) -> None:
        level = event.get("log_level", LogLevel.info)
        if level < LogLevel.info:
            return
        text = formatEvent(event)
        failure = event.get("log_failure")
        if failure is not None:
            text = f"{text}\n{failure.getTraceback()}".strip()
        if text:
            self._stream.write(f"{level.name}: {text}\n")
            self._stream.flush()


class LogRelay:
    """Repeat a child's stderr, line by line, in our own log.

    A line that begins with a level (``warn: text``, as `lbproxy worker` writes them) is logged at that level;
    what follows it, such as a traceback, too.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._rest = b""
        self._level = LogLevel.warn

    def receive_data(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._emit(line)
        if len(self._rest) > _LONGEST_LINE:
            self.receive_eof()

    def receive_eof(self) -> None:
        if self._rest:
            self._emit(self._rest)
            self._rest = b""

    def _emit(self, raw: bytes) -> None:
        line = raw.decode("utf-8", "backslashreplace")
        word, colon, rest = line.partition(": ")
        if colon and word in _LEVELS:
            self._level, line = _LEVELS[word], rest
        _log.emit(self._level, "{name}: {line}", name=self._name, line=line)
