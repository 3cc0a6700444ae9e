"""Targets from a file: a JSON or YAML list, read again whenever it changes.

inotify tells of a change at once; a look every few seconds finds what it cannot see (network file systems, links
into other folders).  A file that is missing or wrong changes nothing.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

import yaml
from twisted.internet.defer import Deferred
from twisted.internet.inotify import IN_CLOSE_WRITE, IN_DELETE, IN_MOVED, INotify
from twisted.internet.task import LoopingCall
from twisted.internet.threads import deferToThread
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.filepath import FilePath

from lbproxy.controlplane.discovery.base import Context, Sink
from lbproxy.model.discovery import FileSource
from lbproxy.model.target import Target

_log = Logger()

LOOK_INTERVAL_SECONDS = 2.0

MAX_FILE_BYTES = 8 * 1024 * 1024
"""Some hundred thousand targets: more is a mistake."""

Stamp = tuple[int, int, int]
"""Modification time, size, inode."""

_NEVER_READ: Stamp = (-1, -1, -1)

Reading = tuple[Stamp | None, tuple[Target, ...] | str]
"""The file's stamp, None if it cannot be read; and what is in it: targets, or what is wrong.  The latter is not
looked at, and empty, when the stamp is known already."""


class FileTargets:
    """Follows one file."""

    def __init__(
        self,
        settings: FileSource,
        context: Context,
        sink: Sink,
        group: str,
        in_thread: Callable[..., Deferred[Reading]] = deferToThread,
    ) -> None:
        self._path = settings.path
        self._context = context
        self._sink = sink
        self._in_thread = in_thread
        self._known: Stamp | None = _NEVER_READ
        self._reading = False
        self._again = False
        self._stopped = False
        self._notifier: INotify | None = None
        self._looks = LoopingCall(self._look)
        self._looks.clock = context.reactor

    def start(self) -> None:
        self._watch()
        self._looks.start(LOOK_INTERVAL_SECONDS).addErrback(_log_failure)

    def stop(self) -> None:
        self._stopped = True
        if self._looks.running:
            self._looks.stop()
        self._unwatch()

    def _watch(self) -> None:
        """Have the kernel tell of changes in the file's folder, for the file may be replaced."""
        try:
            self._notifier = INotify(self._context.reactor)
            self._notifier.startReading()
            # not IN_MODIFY: who has the file open for writing has not finished
            self._notifier.watch(
                FilePath(os.path.dirname(self._path)),
                mask=IN_CLOSE_WRITE | IN_MOVED | IN_DELETE,
                callbacks=[lambda *_: self._look()],
            )
        except Exception as error:  # no folder, no more watches, no inotify: then the looks have to do
            _log.debug("no inotify for {path}: {error}", path=self._path, error=error)
            self._unwatch()

    def _unwatch(self) -> None:
        if self._notifier is not None:
            self._notifier.loseConnection()
            self._notifier = None

    def _look(self) -> None:
        if self._reading:
            self._again = True
            return
        self._reading = True
        reading = self._in_thread(read, self._path, self._known, self._context.parse_target)
        reading.addCallback(self._tell).addErrback(_log_failure).addBoth(self._done)

    def _done(self, _: object) -> None:
        self._reading = False
        if self._again and not self._stopped:
            self._again = False
            self._look()

    def _tell(self, reading: Reading) -> None:
        stamp, result = reading
        if self._stopped or stamp == self._known:
            return
        self._known = stamp
        if isinstance(result, str):
            self._sink.failed(result)
        else:
            self._sink.found(result)


def read(path: str, known: Stamp | None, parse_target: Callable[[str], Target]) -> Reading:
    """Read a file's targets, unless its stamp is the known one.  Blocks."""
    try:
        with open(path, "rb") as stream:
            status = os.fstat(stream.fileno())
            stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
            if stamp == known:
                return stamp, ""
            data = stream.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        return None, f"{path} cannot be read: {error.strerror}"
    if len(data) > MAX_FILE_BYTES:
        return stamp, f"{path} is longer than {MAX_FILE_BYTES >> 20} MiB"
    try:
        return stamp, parse(data, path.endswith(".json"), parse_target)
    except ValueError as error:
        return stamp, f"{path}: {error}"


def parse(data: bytes, is_json: bool, parse_target: Callable[[str], Target]) -> tuple[Target, ...]:
    """Read a list of targets: ``host:port``, ``host:port weight=2``, or objects with ``host``, ``port`` and the like.

    The list may stand under ``targets`` in an object.  Raises ValueError that says what is wrong, and where.
    """
    try:
        document = json.loads(data) if is_json else yaml.load(data, _LOADER)
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        raise ValueError(f"is no {'JSON' if is_json else 'YAML'}: {_one_line(error)}") from error
    if isinstance(document, dict) and "targets" in document:
        document = document["targets"]
    if not isinstance(document, list):
        raise ValueError("has no list of targets; write for example [10.0.0.1:8080, 10.0.0.2:8080]")
    targets = []
    for number, item in enumerate(document, 1):
        try:
            targets.append(parse_target(as_text(item)))
        except ValueError as error:
            raise ValueError(f"target {number}: {error}") from error
    return tuple(targets)


_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def as_text(item: Any) -> str:
    """Put a list's item as one writes a target in the configuration."""
    if isinstance(item, str) and item.strip():
        return item
    if not isinstance(item, dict) or not {"host", "port"} <= item.keys():
        raise ValueError(f"{item!r} is no target; write host:port, or an object with host and port")
    host = str(item["host"])
    address = f"[{host}]:{item['port']}" if ":" in host else f"{host}:{item['port']}"
    return " ".join([address, *(f"{key}={value}" for key, value in item.items() if key not in ("host", "port"))])


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _log_failure(failure: Failure) -> None:
    _log.failure("following a file of targets failed", failure)
