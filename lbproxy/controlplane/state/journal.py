"""Small JSON files in the state directory: what is to be known again after a restart."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from twisted.logger import Logger

_log = Logger()


class Journal:
    """One file.  Without a folder nothing is kept.

    A file that cannot be read counts as empty, and one that cannot be written costs a line in the log: neither stops
    the balancer.
    """

    def __init__(self, folder: Path | None, name: str) -> None:
        self._path = folder / name if folder is not None else None
        self._written = ""

    def read(self) -> Any:
        """Give what was written last, in this run or an earlier one; None if there is nothing."""
        if self._path is None:
            return None
        try:
            return json.loads(self._path.read_text())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            _log.warn("{path} cannot be used: {error}", path=str(self._path), error=error)
            return None

    def write(self, value: Any) -> None:
        """Replace the content, where it is another."""
        text = json.dumps(value, indent=1)
        if self._path is None or text == self._written:
            return
        temporary = self._path.with_name(f"{self._path.name}.new")
        try:
            with open(temporary, "w", opener=_private) as stream:
                stream.write(text + "\n")
            temporary.replace(self._path)
        except OSError as error:
            _log.warn("cannot write {path}: {error}", path=str(self._path), error=error)
        else:
            self._written = text


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
