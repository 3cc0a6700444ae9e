"""What is wrong with a configuration, in words for the person who wrote it."""

from __future__ import annotations

import os

import attrs

_LONGEST_VALUE = 80


@attrs.frozen(kw_only=True)
class Problem:
    """One mistake (or warning), always told in one line."""

    file: str
    """The configuration file as it was named to us."""
    line: int | None = None
    """From 1; None where no line is to blame."""
    section: str | None = None
    """``listener:web``, without brackets."""
    option: str | None = None
    value: str | None = None
    """As written in the file, before ``${...}`` was replaced, so that no secret shows."""
    message: str
    """What is wrong, and what would be right."""

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        what = "" if self.section is None else f" [{self.section}]"
        if self.option is not None:
            what += f" {self.option}"
            if self.value is not None:
                what += f" = {_one_line(self.value)}"
        line = f"{place}:{what}{':' if what else ''} {self.message}"
        return line.replace("\n", " ")  # a message may quote what has lines


class ConfigurationError(Exception):
    """The configuration cannot be used; ``problems`` has every mistake that was found, by line."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems


def reason_of(error: OSError) -> str:
    """Say why a file operation failed, without the path and the number."""
    return error.strerror or os.strerror(error.errno or 0)


def _one_line(value: str) -> str:
    line = ", ".join(part.rstrip(",") for part in value.split("\n"))
    return line if len(line) <= _LONGEST_VALUE else line[: _LONGEST_VALUE - 3] + "..."
