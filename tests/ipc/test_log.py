"""A worker's log lines arrive with their level."""

from __future__ import annotations

import io

from twisted.logger import ILogObserver, LogEvent, Logger, LogLevel, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from lbproxy.ipc.log import LineObserver, LogRelay


def lines_of(*emit: tuple[LogLevel, str]) -> str:
    stream = io.StringIO()
    logger = Logger(observer=LineObserver(stream))  # type: ignore[arg-type]
    for level, text in emit:
        logger.emit(level, "{text}", text=text)
    return stream.getvalue()


def test_lines_carry_their_level_and_debug_is_left_out() -> None:
    assert lines_of((LogLevel.info, "a"), (LogLevel.debug, "b"), (LogLevel.error, "c")) == "info: a\nerror: c\n"


def test_a_failure_brings_its_traceback() -> None:
    stream = io.StringIO()
    observer = LineObserver(stream)
    verifyObject(ILogObserver, observer)
    try:
        raise ValueError("a bug")
    except ValueError:
        Logger(observer=observer).failure("it failed")

    assert stream.getvalue().startswith("critical: it failed\n")
    assert "ValueError: a bug" in stream.getvalue()


class RelayTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.events: list[LogEvent] = []
        globalLogPublisher.addObserver(self.events.append)
        self.addCleanup(globalLogPublisher.removeObserver, self.events.append)
        self.relay = LogRelay("worker 3")

    def relayed(self) -> list[tuple[str, str]]:
        return [(event["log_level"].name, event["line"]) for event in self.events if event.get("name") == "worker 3"]

    def test_lines_keep_their_level_in_any_split_and_what_follows_has_it_too(self) -> None:
        for byte in b"info: started\nerror: it broke\n  File x\nwarn: slow\n":
            self.relay.receive_data(bytes([byte]))

        self.assertEqual(
            self.relayed(), [("info", "started"), ("error", "it broke"), ("error", "  File x"), ("warn", "slow")]
        )

    def test_an_unfinished_line_is_told_at_the_end(self) -> None:
        self.relay.receive_data(b"Fatal Python error\xff")
        self.relay.receive_eof()
        self.relay.receive_eof()

        self.assertEqual(self.relayed(), [("warn", "Fatal Python error\\xff")])

    def test_a_line_without_end_is_cut(self) -> None:
        self.relay.receive_data(b"x" * 10_000)

        self.assertEqual(len(self.relayed()), 1)
