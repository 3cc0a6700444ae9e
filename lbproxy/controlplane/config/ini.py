"""The syntax of ``lb.ini``: sections and options that remember their lines.

::

    ; a comment, as is a line that starts with #
    [kind:name]
    option = value          ; an inline comment needs white space before its semicolon
    longer = first,
        second              ; a deeper indented line goes on with the value
    secret = ${TOKEN}, ${REGION:-eu}, $$ for a dollar sign

A semicolon inside ``"double quotes"`` starts no comment.  Nothing here knows what an option means.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import attrs

from lbproxy.controlplane.config.errors import Problem

_HEADER = re.compile(r"\[([^\[\]]*)\]$")
_VARIABLE = re.compile(r"\$(?:\$|\{(?P<name>[^}\n]*)(?P<end>\}?))")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*$")
# Anything that is not printable would end up in logs, headers and file names
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\x85\u2028\u2029]")


@attrs.frozen(kw_only=True)
class Entry:
    """One option as written."""

    option: str
    line: int
    raw: str
    """As written; lines of a continued value are joined by a newline."""
    value: str
    """With the variables replaced."""
    is_broken: bool = False
    """A variable could not be replaced, which is reported already."""


@attrs.frozen(kw_only=True)
class Section:
    """``[kind]`` or ``[kind:name]`` with its options in order."""

    kind: str
    name: str | None
    line: int
    entries: tuple[Entry, ...]

    @property
    def title(self) -> str:
        return self.kind if self.name is None else f"{self.kind}:{self.name}"


def parse(data: bytes, file: str, environ: Mapping[str, str]) -> tuple[tuple[Section, ...], tuple[Problem, ...]]:
    """Split a file into sections; also return what is wrong with it.  Never raises.

    ``environ`` gives the values of ``${NAME}``.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        return (), (Problem(file=file, line=line, message="not UTF-8 text; save the file in UTF-8"),)
    parser = _Parser(file, environ)
    for number, line_text in enumerate(text.replace("\r\n", "\n").split("\n"), start=1):
        parser.take(number, line_text)
    return parser.sections(), tuple(parser.problems)


@attrs.define(eq=False)
class _OpenEntry:
    option: str
    line: int
    indent: int
    parts: list[str]


@attrs.define(eq=False)
class _OpenSection:
    kind: str
    name: str | None
    line: int
    entries: dict[str, _OpenEntry] = attrs.Factory(dict)

    @property
    def title(self) -> str:
        return self.kind if self.name is None else f"{self.kind}:{self.name}"


class _Parser:
    """Takes one line after another."""

    def __init__(self, file: str, environ: Mapping[str, str]) -> None:
        self._file = file
        self._environ = environ
        self._open: dict[str, _OpenSection] = {}
        self._section: _OpenSection | None = None
        self._entry: _OpenEntry | None = None
        self.problems: list[Problem] = []

    def take(self, number: int, line: str) -> None:
        stripped = line.strip()
        if not stripped or stripped[0] in ";#":
            return
        if bad := _CONTROL.search(line):
            self._entry = None
            self._fail(number, f"control character U+{ord(bad[0]):04X}; remove it")
            return
        text = _without_comment(stripped)
        indent = len(line) - len(line.lstrip())
        if self._entry is not None and indent > self._entry.indent:
            self._entry.parts.append(text)
        elif text[0] == "[":
            self._start_section(number, text)
        else:
            self._start_entry(number, indent, text)

    def sections(self) -> tuple[Section, ...]:
        """Close everything, replacing the variables."""
        return tuple(
            Section(
                kind=section.kind,
                name=section.name,
                line=section.line,
                entries=tuple(self._close(section, entry) for entry in section.entries.values()),
            )
            for section in self._open.values()
        )

    def _start_section(self, number: int, text: str) -> None:
        self._entry = None
        header = _HEADER.match(text)
        if header is None:
            self._section = _OpenSection("", None, number)  # its options are read, and dropped
            self._fail(number, f"{text!r} is not a section; write [kind] or [kind:name]")
            return
        kind, colon, name = (part.strip() for part in header[1].partition(":"))
        section = _OpenSection(kind, name if colon else None, number)
        earlier = self._open.setdefault(section.title, section)
        if earlier is not section:
            self._fail(number, f"section is there already, in line {earlier.line}", section=section.title)
        self._section = section

    def _start_entry(self, number: int, indent: int, text: str) -> None:
        option, equals, value = (part.strip() for part in text.partition("="))
        section = self._section
        if section is None:
            self._entry = None
            self._fail(number, "an option before the first section; start with a line like [lbproxy]")
            return
        if not equals or not option:
            self._entry = None
            self._fail(number, f"{text!r} is not an option; write option = value", section=section.title or None)
            return
        entry = self._entry = _OpenEntry(option, number, indent, [value] if value else [])
        # Letter case does not tell options apart: header.X-Tenant is header.x-tenant
        earlier = section.entries.setdefault(option.lower(), entry)
        if earlier is not entry:
            message = f"option is there already, in line {earlier.line}; give it once, with a list where it takes one"
            self._fail(number, message, section=section.title or None, option=option)

    def _close(self, section: _OpenSection, entry: _OpenEntry) -> Entry:
        raw = "\n".join(entry.parts)
        mistakes: list[str] = []
        value = raw if "$" not in raw else _expand(raw, self._environ, mistakes.append)
        for mistake in mistakes:
            self._fail(entry.line, mistake, section=section.title, option=entry.option, value=raw)
        return Entry(option=entry.option, line=entry.line, raw=raw, value=value, is_broken=bool(mistakes))

    def _fail(
        self,
        line: int,
        message: str,
        *,
        section: str | None = None,
        option: str | None = None,
        value: str | None = None,
    ) -> None:
        self.problems.append(
            Problem(file=self._file, line=line, section=section, option=option, value=value, message=message)
        )


def _without_comment(text: str) -> str:
    """Cut an inline comment off; quotes protect a semicolon if they are closed on the same line."""
    if ";" not in text:
        return text
    position = 0
    quotes_count = True
    while position < len(text):
        if text[position] == '"' and quotes_count:
            end = _closing_quote(text, position)
            quotes_count = end >= 0
            position = max(position, end)
        elif text[position] == ";" and text[position - 1].isspace():
            return text[:position].rstrip()
        position += 1
    return text


def _closing_quote(text: str, start: int) -> int:
    """Index of the quote that ends the one at ``start``, or -1."""
    position = start + 1
    while position < len(text):
        if text[position] == "\\":
            position += 1
        elif text[position] == '"':
            return position
        position += 1
    return -1


def _expand(raw: str, environ: Mapping[str, str], fail: Callable[[str], None]) -> str:
    """Replace ``${NAME}``, ``${NAME:-default}`` and ``$$``; any other dollar sign stands for itself."""

    def replace(found: re.Match[str]) -> str:
        if found["name"] is None:
            return "$"
        name, has_default, default = found["name"].partition(":-")
        if not found["end"] or not _NAME.match(name):
            fail(f"{found[0]!r} is not a variable; write ${{NAME}} or ${{NAME:-default}}, and $$ for a dollar sign")
            return ""
        value = environ.get(name, "")
        if value or (name in environ and not has_default):
            return value
        if not has_default:
            fail(f"the environment has no {name}; set it, or write ${{{name}:-default}}")
        return default

    return _VARIABLE.sub(replace, raw)
