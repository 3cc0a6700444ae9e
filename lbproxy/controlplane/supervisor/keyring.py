"""The keys of stickiness cookies: a new one each day, kept for as long as a cookie made with it may be good.

They are kept in the state directory, so that clients find their targets again after a restart.  Who reads them can
forge cookies that choose a target, and nothing more.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import attrs
from twisted.logger import Logger

_log = Logger()

FILE_NAME = "stickiness-keys.json"

KEY_SECONDS = 86400.0
"""How long a key is used for new cookies."""

KEPT_KEYS = 9
"""The one in use and those that cookies of the longest duration, a week, may still be made with."""

KEY_BYTES = 40
"""A name of 8 bytes and a key of 32 for AES-256 (`lbproxy.dataplane.balancer.seal`)."""


@attrs.frozen
class _Key:
    made_at: float
    key: bytes = attrs.field(repr=False)


class KeyRing:
    """The keys, newest first.  Without a path, or where it cannot be written, they are in memory only."""

    def __init__(self, path: str | os.PathLike[str] | None = None, now: Callable[[], float] = time.time) -> None:
        self._path = None if path is None else Path(path)
        self._now = now
        self._keys = self._read()
        self.renew()

    @property
    def keys(self) -> tuple[bytes, ...]:
        """The first is for new cookies, all are for old ones."""
        return tuple(each.key for each in self._keys)

    def renew(self) -> bool:
        """Make a new key if it is time for that; tell whether it was."""
        now = self._now()
        # a key from the future: the clock was set back, and only a new one is sure to be renewed in time
        if self._keys and 0 <= now - self._keys[0].made_at < KEY_SECONDS:
            return False
        self._keys = [_Key(now, os.urandom(KEY_BYTES)), *self._keys][:KEPT_KEYS]
        self._write()
        return True

    def _read(self) -> list[_Key]:
        if self._path is None:
            return []
        try:
            record = json.loads(self._path.read_text())
            keys = [_Key(float(each["made_at"]), bytes.fromhex(each["key"])) for each in record["keys"]]
        except FileNotFoundError:
            return []
        except (OSError, ValueError, KeyError, TypeError) as error:
            _log.warn("{path} cannot be used, clients lose their targets: {error}", path=str(self._path), error=error)
            return []
        return [each for each in keys if len(each.key) == KEY_BYTES]

    def _write(self) -> None:
        if self._path is None:
            return
        record = {"keys": [{"made_at": each.made_at, "key": each.key.hex()} for each in self._keys]}
        temporary = self._path.with_suffix(".new")
        try:
            temporary.unlink(missing_ok=True)
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "w") as file:
                json.dump(record, file)
            temporary.replace(self._path)
        except OSError as error:
            _log.warn("cannot write {path}: {error}", path=str(self._path), error=error)
