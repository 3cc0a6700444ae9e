from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import attrs
import pytest
from twisted.internet.task import Clock
from twisted.logger import LogEvent, globalLogPublisher

from lbproxy.model.snapshot import AccessLogSettings
from lbproxy.telemetry import accesslog
from lbproxy.telemetry.accesslog import FLUSH_SECONDS, AccessLog
from tests.telemetry.test_formats import Http, Tcp


def open_log(path: Path, clock: Clock | None = None, form: str = "json") -> AccessLog:
    return AccessLog(AccessLogSettings(destination=str(path), format=form), clock or Clock())


def wait_written(log: AccessLog) -> None:
    """Until the writer has dealt with all the bytes that it was given."""
    pause = threading.Event()
    for _ in range(1000):
        if log._writer.taken == log._handed:
            return
        pause.wait(0.01)
    raise AssertionError("the writer does not get on")


def test_lines_are_in_the_file_after_close(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "access.log"
    log = open_log(path)
    log.log(Http())
    log.log_tcp(Tcp())
    log.close()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["kind"] for line in lines] == ["https", "tls"]
    assert path.stat().st_mode & 0o137 == 0, oct(path.stat().st_mode)


def test_off_writes_nothing() -> None:
    log = AccessLog(AccessLogSettings(), Clock())
    log.log(Http())
    log.log_tcp(Tcp())
    log.reopen()
    log.close()
    assert not log.enabled


def test_the_format_is_the_settings(tmp_path: Path) -> None:
    log = open_log(tmp_path / "a.log", form="combined")
    log.log(Http())
    log.close()
    assert (tmp_path / "a.log").read_text().startswith("192.0.2.7 - - [")


def test_lines_are_flushed_after_a_while(tmp_path: Path) -> None:
    clock = Clock()
    log = open_log(tmp_path / "a.log", clock)
    log.log(Http())
    assert log._handed == 0
    clock.advance(FLUSH_SECONDS)
    wait_written(log)
    assert (tmp_path / "a.log").read_text().count("\n") == 1
    log.close()


def test_lines_are_flushed_by_size(tmp_path: Path) -> None:
    log = open_log(tmp_path / "a.log")
    for _ in range(3):
        log.log(Http(user_agent=b"x" * 100_000))
    wait_written(log)
    assert (tmp_path / "a.log").read_text().count("\n") == 3
    log.close()


def test_reopen_follows_logrotate(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    log = open_log(path)
    log.log(Http(listener="before"))
    log.flush()
    wait_written(log)
    path.rename(tmp_path / "a.log.1")
    log.reopen()
    log.log(Http(listener="after"))
    log.close()
    assert '"before"' in (tmp_path / "a.log.1").read_text()
    assert '"after"' in path.read_text()


def test_several_logs_append_to_one_file(tmp_path: Path) -> None:
    logs = [open_log(tmp_path / "a.log") for _ in range(3)]
    for n in range(300):
        logs[n % 3].log(Http(priority=n, user_agent=b"x" * 1000))
    for log in logs:
        log.close()
    lines = [json.loads(line) for line in (tmp_path / "a.log").read_text().splitlines()]
    assert sorted(line["priority"] for line in lines) == list(range(300))


def test_trouble_is_told_once_and_so_is_its_end(tmp_path: Path) -> None:
    told: list[LogEvent] = []

    def observe(event: LogEvent) -> None:
        if event.get("log_namespace") == accesslog.__name__:
            told.append(event)

    globalLogPublisher.addObserver(observe)
    try:
        blocker = tmp_path / "logs"
        blocker.write_text("a file where a folder should be")
        log = open_log(blocker / "a.log")
        for _ in range(3):
            log.log(Http())
            log.flush()
            wait_written(log)
        log.flush()
        assert [event["log_level"].name for event in told] == ["error"]
        assert log.dropped == 3
        blocker.unlink()
        log.log(Http())
        log.flush()
        wait_written(log)
        log.flush()
        assert [event["log_level"].name for event in told] == ["error", "info"]
        assert log.dropped == 3
        log.close()
    finally:
        globalLogPublisher.removeObserver(observe)
    assert (blocker / "a.log").read_text().count("\n") == 1


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_costs_lines_only() -> None:
    log = open_log(Path("/dev/full"))
    log.log(Http())
    log.flush()
    wait_written(log)
    assert log.dropped == 1
    assert "No space left" in log._writer.problem
    log._problem = log._writer.problem  # told already, as far as this test goes
    log.close()


def test_a_writer_that_hangs_costs_bounded_memory(tmp_path: Path) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)  # nobody reads it, so that opening it hangs
    log = open_log(path)
    line_bytes = 1024 * 1024
    for _ in range(20):
        log.log(Http(user_agent=b"x" * line_bytes))
    assert log.dropped == 5, "15 lines of a little over 1 MiB fit into 16 MiB"
    log.close(timeout_seconds=0.05)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # let the thread end
    os.close(reader)


def test_stdout_takes_whole_lines() -> None:
    """Also into a pipe, where long writes would be mixed with those of other workers."""
    script = (
        "from twisted.internet.task import Clock\n"
        "from lbproxy.model.snapshot import AccessLogSettings\n"
        "from lbproxy.telemetry.accesslog import AccessLog\n"
        "from tests.telemetry.test_formats import Http\n"
        "log = AccessLog(AccessLogSettings(destination='stdout'), Clock())\n"
        "for n in range(100): log.log(Http(priority=n))\n"
        "log.close()\n"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        check=True,
        timeout=60,
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    assert [json.loads(line)["priority"] for line in done.stdout.splitlines()] == list(range(100))


def test_pieces_are_whole_lines() -> None:
    lines = [b"x" * n + b"\n" for n in (10, 4000, 90, 5000, 4095, 1, 1)]
    pieces = list(accesslog._pieces(b"".join(lines)))
    assert b"".join(pieces) == b"".join(lines)
    assert all(piece.endswith(b"\n") for piece in pieces)
    assert all(len(piece) <= 4096 or piece.count(b"\n") == 1 for piece in pieces)


def test_records_need_not_be_of_a_class() -> None:
    """The formatters read attributes; whatever has them will do."""
    slotted = attrs.make_class("Slotted", [a.name for a in attrs.fields(Http)], slots=True)
    record = slotted(**attrs.asdict(Http(), recurse=False))
    assert accesslog.FORMATS["json"].http(record) == accesslog.FORMATS["json"].http(Http())
