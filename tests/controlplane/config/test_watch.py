"""Watching files."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from lbproxy.controlplane.config.watch import FileWatch, Stamps


def at_once(look: Callable[[], Stamps]) -> Deferred[Stamps]:
    return maybeDeferred(look)


class FileWatchTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.folder)
        self.path = self.folder / "a.pem"
        self.path.write_bytes(b"1")
        self.clock = Clock()
        self.calls = 0
        self.answer: object = None
        self.watch = FileWatch(self.clock, self.changed, 5.0, in_thread=at_once)
        self.watch.set_files([str(self.path)])

    def changed(self) -> object:
        self.calls += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def start(self) -> None:
        self.watch.startService()
        self.addCleanup(self.watch.stopService)

    def test_nothing_happens_without_a_change(self) -> None:
        self.start()
        self.clock.pump([5.0] * 3)
        self.assertEqual(self.calls, 0)

    def test_each_change_calls_back_once(self) -> None:
        self.start()
        self.path.write_bytes(b"22")
        self.clock.advance(4.9)
        self.assertEqual(self.calls, 0)
        self.clock.pump([0.1, 5.0, 5.0])
        self.assertEqual(self.calls, 1)
        self.path.write_bytes(b"333")
        self.clock.advance(5.0)
        self.assertEqual(self.calls, 2)

    def test_replacement_of_the_same_size_and_time_is_a_change(self) -> None:
        self.start()
        status = self.path.stat()
        other = self.folder / "b.pem"
        other.write_bytes(b"2")
        os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
        other.replace(self.path)
        self.clock.advance(5.0)
        self.assertEqual(self.calls, 1)

    def test_vanishing_and_coming_back_are_changes(self) -> None:
        self.start()
        self.path.unlink()
        self.clock.advance(5.0)
        self.assertEqual(self.calls, 1)
        self.path.write_bytes(b"1")
        self.clock.advance(5.0)
        self.assertEqual(self.calls, 2)

    def test_new_files_are_compared_with_what_they_are_now(self) -> None:
        self.start()
        other = self.folder / "b.pem"
        other.write_bytes(b"1")
        self.watch.set_files([str(self.path), str(other)])
        other.write_bytes(b"22")
        self.clock.advance(5.0)
        self.assertEqual(self.calls, 1)

    def test_old_files_are_compared_with_what_they_were(self) -> None:
        self.start()
        self.path.write_bytes(b"22")
        self.watch.set_files([str(self.path)])
        self.clock.advance(5.0)
        self.assertEqual(self.calls, 1)

    def test_files_that_left_are_not_looked_at(self) -> None:
        self.start()
        self.watch.set_files([])
        self.path.write_bytes(b"22")
        self.clock.advance(5.0)
        self.assertEqual(self.calls, 0)

    def test_folder_notices_a_new_file(self) -> None:
        self.watch.set_files([str(self.folder)])
        os.utime(self.folder, ns=(1, 1))
        self.start()
        (self.folder / "new.pem").write_bytes(b"")
        self.clock.advance(5.0)
        self.assertEqual(self.calls, 1)

    def test_failing_callback_is_logged_and_the_watch_goes_on(self) -> None:
        self.start()
        self.answer = RuntimeError("no")
        self.path.write_bytes(b"22")
        self.clock.advance(5.0)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.path.write_bytes(b"333")
        self.answer = None
        self.clock.advance(5.0)
        self.assertEqual(self.calls, 2)

    def test_callback_is_waited_for(self) -> None:
        self.start()
        waiting: Deferred[None] = Deferred()
        self.answer = waiting
        self.path.write_bytes(b"22")
        self.clock.advance(5.0)
        self.path.write_bytes(b"333")
        self.clock.pump([5.0] * 3)
        self.assertEqual(self.calls, 1)
        self.answer = None
        waiting.callback(None)
        self.clock.advance(5.0)
        self.assertEqual(self.calls, 2)

    def test_stopping_while_a_thread_looks_calls_nobody(self) -> None:
        thread: list[Deferred[Stamps]] = []

        def later(look: Callable[[], Stamps]) -> Deferred[Stamps]:
            thread.append(Deferred())
            return thread[-1]

        watch = FileWatch(self.clock, self.changed, 5.0, in_thread=later)
        watch.set_files([str(self.path)])
        watch.startService()
        thread.pop().callback({str(self.path): (1, 1, 1)})
        self.clock.advance(5.0)
        watch.stopService()
        thread.pop().callback({str(self.path): (2, 2, 2)})
        self.assertEqual(self.calls, 0)
        self.assertEqual(self.clock.getDelayedCalls(), [])
