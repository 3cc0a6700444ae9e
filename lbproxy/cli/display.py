"""How the commands show things in a terminal: tables, colours, numbers with units."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import IO, Any, cast

from rich.console import Console
from rich.table import Table
from rich.text import Text

STATE_STYLES = {
    "healthy": "green",
    "running": "green",
    "initial": "yellow",
    "starting": "yellow",
    "draining": "cyan",
    "unhealthy": "bold red",
    "ok": "green",
    "failing": "bold red",
    "held": "bold red",
    "backing-off": "bold red",
    "unused": "dim",
    "unavailable": "dim",
}
_PLAIN_WIDTH = 500
"""Columns where there is no terminal: nothing is wrapped or cut."""


def make_console() -> Console:
    """A console on standard output; without a terminal it prints plain text of any width."""
    if sys.stdout.isatty():
        return Console(file=sys.stdout, highlight=False)
    return Console(file=cast(IO[str], _Trimmed(sys.stdout)), width=_PLAIN_WIDTH, highlight=False)


class _Trimmed:
    """A stream without the spaces that a table pads its lines with."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        return self._stream.write("\n".join(line.rstrip() for line in text.split("\n")))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def make_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str | Text]]) -> Table:
    """A table without rules.  A column whose name starts with ``>`` is aligned to the right."""
    whole = Text(title, no_wrap=True, overflow="ignore")  # it may be wider than the table
    table = Table(title=whole, title_justify="left", title_style="bold", box=None, header_style="dim", pad_edge=False)
    for column in columns:
        table.add_column(column.lstrip(">"), justify="right" if column.startswith(">") else "left")
    for row in rows:
        table.add_row(*row)
    return table


def show_state(state: str) -> Text:
    return Text(state, style=STATE_STYLES.get(state, ""))


def show_count(count: float) -> str:
    """``1234567`` -> ``1.23M``; below ten thousand as it is."""
    if count < 10_000:
        return f"{count:g}"
    for unit in ("k", "M", "G", "T"):
        count /= 1000
        if count < 999.5:
            return f"{count:.3g}{unit}"
    return f"{count / 1000:.3g}P"


def show_rate(per_second: float) -> str:
    """Two digits where they say something, none for large numbers."""
    return f"{per_second:.1f}" if per_second < 100 else show_count(round(per_second))


def show_duration(seconds: float) -> str:
    """The two largest units: ``3d 4h``, ``5m 7s``, ``8s``."""
    left = int(seconds)
    parts: list[str] = []
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        amount, left = divmod(left, length)
        if amount or (unit == "s" and not parts):
            parts.append(f"{amount}{unit}")
    return " ".join(parts[:2])


def show_latency(seconds: float | None) -> str:
    """Milliseconds with three digits; ``-`` for none."""
    if not seconds:
        return "-"
    return f"{seconds * 1000:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"
