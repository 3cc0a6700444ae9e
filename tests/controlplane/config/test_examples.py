"""The files that ship with lbproxy are right."""

from __future__ import annotations

from pathlib import Path

import pytest

from lbproxy.controlplane.config.load import load
from lbproxy.model.listener import ListenerProtocol

CONF = Path(__file__).parents[3] / "conf"


@pytest.mark.parametrize("path", sorted(CONF.rglob("*.ini")), ids=lambda path: path.name)
def test_shipped_file_is_right(path: Path) -> None:
    loaded = load(path)
    assert loaded.configuration.listeners
    assert loaded.warnings == ()


def test_there_are_examples() -> None:
    assert len(list((CONF / "examples").glob("*.ini"))) >= 4


def test_demo_shows_all_three_kinds_of_listener_in_front_of_demo_targets() -> None:
    loaded = load(CONF / "lb.ini")
    listeners = loaded.configuration.listeners
    assert [(listener.protocol, listener.binds[0].port) for listener in listeners] == [
        (ListenerProtocol.HTTP, 8080),
        (ListenerProtocol.HTTPS, 8443),
        (ListenerProtocol.TCP, 9000),
    ]
    assert loaded.demo.keys() == {group.name for group in loaded.configuration.target_groups}
