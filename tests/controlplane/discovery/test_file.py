"""Targets from a file: what it may look like, and when it is read."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.testing import MemoryReactorClock

from lbproxy.controlplane.discovery.file import LOOK_INTERVAL_SECONDS, FileTargets, parse
from lbproxy.model.discovery import FileSource
from tests.controlplane.discovery.fakes import FakeSink, context, target


@pytest.mark.parametrize(
    ("text", "is_json", "found"),
    [
        ("- 10.0.0.1:80\n- 10.0.0.2:80 weight=3\n", False, ["10.0.0.1:80", "10.0.0.2:80 weight=3"]),
        ("targets:\n  - {host: app.internal, port: 80, weight: 0}\n", False, ["app.internal:80 weight=0"]),
        ('["[::1]:80", {"host": "::2", "port": 81}]', True, ["[::1]:80", "[::2]:81"]),
        ('{"targets": ["10.0.0.1:80"], "made": "by hand"}', True, ["10.0.0.1:80"]),
        ("[]", False, []),
    ],
)
def test_lists(text: str, is_json: bool, found: list[str]) -> None:
    assert parse(text.encode(), is_json, target) == tuple(map(target, found))


@pytest.mark.parametrize(
    ("text", "is_json", "mistake"),
    [
        ("", False, "has no list of targets; write for example [10.0.0.1:8080, 10.0.0.2:8080]"),
        ("{}", True, "has no list of targets; write for example [10.0.0.1:8080, 10.0.0.2:8080]"),
        ("[", True, "is no JSON: Expecting value: line 1 column 2 (char 1)"),
        ("- a: [", False, "is no YAML: "),
        ("- !!python/object/apply:os.system [ls]", False, "is no YAML: could not determine a constructor"),
        ("- 10.0.0.1:80\n- 10.0.0.2\n", False, "target 2: needs an address and a port"),
        ("- {host: 10.0.0.1}\n", False, "target 1: {'host': '10.0.0.1'} is no target"),
        ("- {host: 10.0.0.1, port: 80, colour: red}\n", False, "target 1: 'colour=red' is not understood"),
        ("- 7\n", False, "target 1: 7 is no target; write host:port, or an object with host and port"),
        ("[" * 10000, True, "is no JSON: "),
    ],
)
def test_mistakes(text: str, is_json: bool, mistake: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse(text.encode(), is_json, target)
    assert str(caught.value).startswith(mistake)
    assert "\n" not in str(caught.value)


class Bench:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.reactor = MemoryReactorClock()
        self.sink = FakeSink()
        self.source = FileTargets(
            FileSource(path=str(path), text="file:app.yaml"), context(self.reactor), self.sink, "app", self.in_thread
        )

    def in_thread(self, call: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        done: Deferred[Any] = Deferred()
        done.callback(call(*arguments))
        return done

    def write(self, text: str) -> None:
        self.path.write_text(text)
        status = self.path.stat()
        os.utime(self.path, ns=(status.st_atime_ns, status.st_mtime_ns + 1_000_000_000))  # in the same tick otherwise

    def look(self) -> list[Any]:
        self.reactor.advance(LOOK_INTERVAL_SECONDS)
        return self.sink.told


@pytest.fixture
def bench(tmp_path: Path) -> Any:
    bench = Bench(tmp_path / "app.yaml")
    yield bench
    bench.source.stop()
    assert not bench.reactor.getDelayedCalls()


def test_a_file_is_read_at_once_and_after_each_change_only(bench: Bench) -> None:
    bench.write("- 10.0.0.1:80\n")
    bench.source.start()
    assert bench.sink.told == [["10.0.0.1:80"]]
    assert bench.look() == [["10.0.0.1:80"]]
    bench.write("- 10.0.0.2:80\n- 10.0.0.1:80\n")
    assert bench.look()[1:] == [["10.0.0.2:80", "10.0.0.1:80"]]


def test_a_mistake_is_told_once_and_the_file_read_again_when_it_changes(bench: Bench) -> None:
    bench.write("- 10.0.0.1\n")
    bench.source.start()
    bench.look()
    assert bench.look() == [
        f"{bench.path}: target 1: needs an address and a port; write for example 127.0.0.1:8080 or [::1]:8080"
    ]
    bench.write("- 10.0.0.1:80\n")
    assert bench.look()[1:] == [["10.0.0.1:80"]]


def test_a_missing_file_is_told_once_and_read_when_it_comes(bench: Bench) -> None:
    bench.source.start()
    assert bench.look() == [f"{bench.path} cannot be read: No such file or directory"]
    bench.write("- 10.0.0.1:80\n")
    assert bench.look()[1:] == [["10.0.0.1:80"]]
    bench.path.unlink()
    assert len(bench.look()) == 3


def test_after_the_stop_nothing_is_told(bench: Bench) -> None:
    waiting: list[Deferred[Any]] = []
    bench.source._in_thread = lambda call, *arguments: waiting.append(Deferred()) or waiting[-1]  # type: ignore
    bench.source.start()
    bench.source.stop()
    waiting[0].callback(((1, 2, 3), ()))
    assert bench.sink.told == []
