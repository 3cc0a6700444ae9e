"""From sections as text to sections as values, by the table of options."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import attrs

from lbproxy.controlplane.config.errors import Problem
from lbproxy.controlplane.config.ini import Entry, Section
from lbproxy.controlplane.config.options import table
from lbproxy.controlplane.config.options.option import Option
from lbproxy.controlplane.config.options.table import KINDS
from lbproxy.controlplane.config.values import either, suggest

_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,62}[A-Za-z0-9])?$")


@attrs.define(eq=False)
class Report:
    """Collects what is wrong with one file."""

    file: str
    problems: list[Problem] = attrs.Factory(list)
    warnings: list[Problem] = attrs.Factory(list)

    def fail(self, line: int | None, message: str, *, section: str | None = None) -> None:
        self.problems.append(Problem(file=self.file, line=line, section=section, message=message))


@attrs.define(eq=False)
class ReadSection:
    """A section with its values."""

    kind: str
    name: str
    """Empty where the kind has no names."""
    line: int
    title: str
    protocol: str | None
    """Of a listener or target group; None while unknown because it is missing or wrong."""
    report: Report
    entries: dict[str, Entry] = attrs.Factory(dict)
    """By option as in the table, header names and query keys as written."""
    values: dict[str, Any] = attrs.Factory(dict)
    """Only the options that are given and right."""

    def __getitem__(self, option: str) -> Any:
        """The value, or the default; None where there is neither (or the value is wrong)."""
        if option in self.values:
            return self.values[option]
        return None if option in self.entries else table.default_of(self.kind, option, self.protocol)

    def __contains__(self, option: str) -> bool:
        """Tell whether the file gives this option."""
        return option in self.entries

    def starting_with(self, prefix: str) -> Iterable[tuple[str, Any]]:
        """``header.NAME`` or ``query.KEY`` options with their values, as written and in order."""
        return ((option, value) for option, value in self.values.items() if option.startswith(prefix))

    def fail(self, message: str, option: str | None = None) -> None:
        self.report.problems.append(self._problem(message, option))

    def warn(self, message: str, option: str | None = None) -> None:
        self.report.warnings.append(self._problem(message, option))

    def _problem(self, message: str, option: str | None) -> Problem:
        entry = None if option is None else self.entries.get(option)
        value = None if entry is None else entry.raw
        if value is not None and option and table.is_secret(self.kind, option) and not value.startswith("file:"):
            value = "(hidden)"
        return Problem(
            file=self.report.file,
            line=self.line if entry is None else entry.line,
            section=self.title,
            option=option,
            value=value,
            message=message,
        )


def read_sections(sections: Iterable[Section], report: Report) -> list[ReadSection]:
    """Read each section of a known kind, reporting what is wrong in it by itself."""
    return [read for section in sections if section.kind and (read := _read(section, report)) is not None]


def _read(section: Section, report: Report) -> ReadSection | None:
    kind = KINDS.get(section.kind)
    if kind is None:
        known = ", ".join(f"[{name}{':NAME' if kind.named else ''}]" for name, kind in KINDS.items())
        hint = suggest(section.kind, KINDS) or f"; there are {known}"
        report.fail(section.line, f"no such kind of section{hint}", section=section.title)
        return None
    read = ReadSection(
        kind=section.kind,
        name=section.name or "",
        line=section.line,
        title=section.title,
        protocol=_protocol_of(section),
        report=report,
    )
    if kind.named and not section.name:
        read.fail(f"needs a name; write for example [{section.kind}:web]")
    elif not kind.named and section.name is not None:
        read.fail(f"takes no name; write [{section.kind}]")
    elif section.name and not _NAME.match(section.name):
        read.fail("not a name; it has up to 64 letters, digits, hyphens, dots and underscores")
    for entry in section.entries:
        _read_entry(read, entry)
    for option in table.of_kind(section.kind, read.protocol):
        knows = read.protocol is not None or not option.protocols
        if option.required and knows and option.name not in read.entries:
            read.fail(f"has no {option.name}; write for example {option.name} = {option.example}")
    return read


def _protocol_of(section: Section) -> str | None:
    entry = next((entry for entry in section.entries if entry.option == "protocol"), None)
    rows = table.rows(section.kind, "protocol")
    if entry is None or not rows:
        return None
    try:
        protocol: str = rows[0].form.parse(entry.value)
    except ValueError:
        return None  # reported when the entry is read
    return protocol


def _read_entry(section: ReadSection, entry: Entry) -> None:
    rows = table.rows(section.kind, entry.option)
    key = entry.option
    if rows and (prefix := rows[0].prefix):
        key = prefix + entry.option[len(prefix) :]
    section.entries[key] = entry
    if not rows:
        section.fail(_unknown(section.kind, entry.option), key)
        return
    row = next((row for row in rows if row.applies_to(section.protocol)), None)
    if row is None:
        protocols = either(dict.fromkeys(protocol for row in rows for protocol in row.protocols))
        section.fail(f"is for {protocols}; this {_words(section.kind)} is {section.protocol}: remove the line", key)
        return
    try:
        if not entry.is_broken:
            section.values[key] = _value(row, key, entry.value)
    except ValueError as error:
        # a list of one item is quoted already, as the option's value
        section.fail(str(error).removeprefix(f"{entry.raw!r}: "), key)


def _value(row: Option, key: str, text: str) -> Any:
    if row.check_name is not None:
        row.check_name(key)
    if not text:
        raise ValueError(f"has no value; write for example {key} = {row.example}")
    return row.form.parse(text)


def _unknown(kind: str, option: str) -> str:
    elsewhere = [k for k in KINDS if k != kind and table.rows(k, option)]
    close = suggest(option, table.names_of(kind))
    if elsewhere and not close:
        return f"no such option here; it belongs into a section {either(f'[{k}]' for k in elsewhere)}"
    return f"no such option{close or '; the options of a ' + _words(kind) + ' are in docs/configuration.md'}"


def _words(kind: str) -> str:
    return kind.replace("-", " ")
