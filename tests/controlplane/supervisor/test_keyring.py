"""The keys of stickiness cookies are renewed, and outlive a restart."""

from __future__ import annotations

from pathlib import Path

import pytest

from lbproxy.controlplane.supervisor.keyring import FILE_NAME, KEPT_KEYS, KEY_BYTES, KEY_SECONDS, KeyRing


class Time:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def test_there_is_a_key_from_the_beginning() -> None:
    ring = KeyRing()
    assert [len(key) for key in ring.keys] == [KEY_BYTES]
    assert KeyRing().keys != ring.keys


def test_a_new_key_each_day_in_front_of_the_old_ones() -> None:
    time = Time()
    ring = KeyRing(now=time)
    first = ring.keys
    time.now += KEY_SECONDS - 1
    assert not ring.renew()
    time.now += 1
    assert ring.renew()
    assert ring.keys[1:] == first


def test_keys_are_kept_for_as_long_as_a_cookie_may_bind() -> None:
    time = Time()
    ring = KeyRing(now=time)
    first = ring.keys[0]
    for _ in range(8):
        time.now += KEY_SECONDS
        ring.renew()
    assert first in ring.keys, "made into a cookie on its last second, it binds for seven days more"
    time.now += KEY_SECONDS
    ring.renew()
    assert first not in ring.keys
    assert len(ring.keys) == KEPT_KEYS


def test_keys_outlive_a_restart(tmp_path: Path) -> None:
    time = Time()
    path = tmp_path / FILE_NAME
    ring = KeyRing(path, time)
    assert path.stat().st_mode & 0o777 == 0o600
    assert KeyRing(path, time).keys == ring.keys
    time.now += 2 * KEY_SECONDS
    assert KeyRing(path, time).keys[1:] == ring.keys
    assert [each.name for each in tmp_path.iterdir()] == [FILE_NAME]


def test_a_clock_that_was_set_back_makes_a_new_key(tmp_path: Path) -> None:
    time = Time()
    ring = KeyRing(tmp_path / FILE_NAME, time)
    time.now -= 10 * KEY_SECONDS
    assert KeyRing(tmp_path / FILE_NAME, time).keys[1:] == ring.keys


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"keys": [{"made_at": 1, "key": "zz"}]}', '{"keys": [{"made_at": 1}]}']
)
def test_a_damaged_file_is_replaced(tmp_path: Path, text: str) -> None:
    path = tmp_path / FILE_NAME
    path.write_text(text)
    ring = KeyRing(path, Time())
    assert len(ring.keys) == 1
    assert KeyRing(path, Time()).keys == ring.keys


def test_where_nothing_can_be_written_keys_are_in_memory(tmp_path: Path) -> None:
    assert len(KeyRing(tmp_path / "missing" / FILE_NAME, Time()).keys) == 1
