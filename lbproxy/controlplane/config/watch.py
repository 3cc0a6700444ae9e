"""Notices when a file changes that the configuration refers to, such as a renewed certificate.

The configuration file itself is not watched: it takes effect on SIGHUP.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.internet.threads import deferToThread
from twisted.logger import Logger

Stamp = tuple[int, int, int]
"""Modification time in nanoseconds, size, inode: a file that was replaced or rewritten has another one."""

Stamps = dict[str, Stamp | None]

_log = Logger()


class FileWatch(Service):
    """Calls back after files (or folders) changed, appeared or vanished.

    Every ``interval`` seconds they are looked at in a thread.  A callback may return a Deferred; until it has fired
    nothing is looked at.  What it raises is logged, and the watch goes on.
    """

    def __init__(
        self,
        clock: IReactorTime,
        callback: Callable[[], Any],
        interval: float = 5.0,
        *,
        in_thread: Callable[[Callable[[], Stamps]], Deferred[Stamps]] = deferToThread,
    ) -> None:
        self._callback = callback
        self._interval = interval
        self._in_thread = in_thread
        self._files: tuple[str, ...] = ()
        self._known: Stamps = {}
        self._loop = LoopingCall(self._look)
        self._loop.clock = clock

    def set_files(self, files: Iterable[str]) -> None:
        """Watch these from now on.

        A file that was watched before is still compared with what it was then, so that nothing is missed in a reload.
        """
        self._files = tuple(files)
        self._known = {path: stamp for path, stamp in self._known.items() if path in self._files}
        if self._loop.running:  # what changes before the next look must be seen
            noted = Deferred.fromCoroutine(self._note_new())
            noted.addErrback(lambda failure: _log.failure("looking at new files failed", failure))

    def startService(self) -> None:
        super().startService()
        self._loop.start(self._interval).addErrback(lambda failure: _log.failure("file watch ended", failure))

    def stopService(self) -> None:
        if self._loop.running:
            self._loop.stop()
        super().stopService()

    async def _compare(self) -> None:
        files = self._files
        stamps = await self._in_thread(lambda: {path: stamp_of(path) for path in files})
        if files is not self._files or not self._loop.running:
            return  # the next look compares
        changed = [path for path, stamp in stamps.items() if self._known.get(path, stamp) != stamp]
        self._known = stamps
        if changed:
            _log.info("changed: {files}", files=", ".join(changed))
            result = self._callback()
            if isinstance(result, Deferred):
                await result

    async def _note_new(self) -> None:
        new = [path for path in self._files if path not in self._known]
        stamps = await self._in_thread(lambda: {path: stamp_of(path) for path in new})
        for path, stamp in stamps.items():
            self._known.setdefault(path, stamp)

    def _look(self) -> Deferred[None]:
        looked: Deferred[None] = Deferred.fromCoroutine(self._compare())
        return looked.addErrback(lambda failure: _log.failure("applying changed files failed", failure))


def stamp_of(path: str) -> Stamp | None:
    """Return what tells a file's versions apart; None if it is not there (or not ours to see)."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
