"""The syntax of ``lb.ini``."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbproxy.controlplane.config.ini import Section, parse


def read(text: str | bytes, **environ: str) -> tuple[tuple[Section, ...], list[tuple[int | None, str]]]:
    data = text if isinstance(text, bytes) else text.encode()
    sections, problems = parse(data, "lb.ini", environ)
    return sections, [(problem.line, problem.message) for problem in problems]


def value_of(text: str, **environ: str) -> str:
    sections, problems = read(f"[s]\no = {text}\n", **environ)
    assert problems == []
    return sections[0].entries[0].value


def test_sections_and_options_keep_their_lines() -> None:
    sections, problems = read("; top\n[lbproxy]\nworkers = 2\n\n[listener:web]\n# why\nprotocol=HTTP\nbind = a\n")
    assert problems == []
    assert [(s.kind, s.name, s.title, s.line) for s in sections] == [
        ("lbproxy", None, "lbproxy", 2),
        ("listener", "web", "listener:web", 5),
    ]
    assert [(e.option, e.value, e.line) for s in sections for e in s.entries] == [
        ("workers", "2", 3),
        ("protocol", "HTTP", 7),
        ("bind", "a", 8),
    ]


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("a ; comment", "a"),
        ("a\t; comment", "a"),
        ("a;b", "a;b"),
        ("a;b ;c", "a;b"),
        ("#{host}", "#{host}"),
        ("; only a comment", ""),
        ('say "x ; y" ; comment', 'say "x ; y"'),
        ('say "x \\" ; y" ; comment', 'say "x \\" ; y"'),
        ('5" disk ; comment', '5" disk'),
        ('one "a ; b" two "c ; d', 'one "a ; b" two "c'),
        ("a = b", "a = b"),
        ("first,\n  second ; why\n  ; a comment\n\n  third", "first,\nsecond\nthird"),
        ("\n  first\n  second", "first\nsecond"),
    ],
)
def test_value(written: str, value: str) -> None:
    assert value_of(written) == value


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("${A}/x/${B}", "1/x/2"),
        ("$${A}", "${A}"),
        ("^/x$", "^/x$"),
        ("a$1", "a$1"),
        ("${NONE:-dflt}", "dflt"),
        ("${EMPTY:-dflt}", "dflt"),
        ("${EMPTY}", ""),
        ("${NONE:-}", ""),
        ("${A:-dflt}", "1"),
        ("${SEMICOLON}", "a ; b"),
    ],
)
def test_variable(written: str, value: str) -> None:
    assert value_of(written, A="1", B="2", EMPTY="", SEMICOLON="a ; b") == value


def test_raw_value_does_not_show_the_environment() -> None:
    sections, _ = read("[s]\no = ${TOKEN}\n", TOKEN="secret")
    assert sections[0].entries[0].raw == "${TOKEN}"


def test_options_may_be_indented_under_their_section() -> None:
    sections, problems = read("[s]\n  a = 1\n  b = 2\n     3\n")
    assert problems == []
    assert [(e.option, e.value) for e in sections[0].entries] == [("a", "1"), ("b", "2\n3")]


@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_byte_order_mark_and_line_ends(start: bytes, end: bytes) -> None:
    sections, problems = read(start + end.join((b"[s]", b"o = \xc3\xa9", b"")))
    assert problems == []
    assert sections[0].entries[0].value == "é"


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("o = 1\n", 1, "before the first section"),
        ("[s\n", 1, "is not a section"),
        ("[a]b\n", 1, "is not a section"),
        ("[s]\nnonsense\n", 2, "write option = value"),
        ("[s]\n= 1\n", 2, "write option = value"),
        ("[s]\no = 1\np = 2\no = 3\n", 4, "is there already, in line 2"),
        ("[s]\nheader.A = 1\nheader.a = 3\n", 3, "is there already, in line 2"),
        ("[s:a]\n[t]\n[s:a]\n", 3, "is there already, in line 1"),
        ("[s]\no = a\0b\n", 2, "control character U+0000"),
        ("[s]\no = ${NONE}\n", 2, "has no NONE"),
        ("[s]\no = ${NONE\n", 2, "is not a variable"),
        ("[s]\no = ${1}\n", 2, "is not a variable"),
        (b"[s]\n\no = \xff\n", 3, "UTF-8"),
    ],
)
def test_mistake_names_its_line(text: str | bytes, line: int, words: str) -> None:
    _, problems = read(text)
    assert len(problems) == 1
    assert problems[0][0] == line
    assert words in problems[0][1]


def test_all_mistakes_are_found() -> None:
    _, problems = read("x\n[s]\ny\no = ${NONE}\n")
    assert [line for line, _ in problems] == [1, 3, 4]


@given(st.binary() | st.text(alphabet='[]=:;#"\\ \n\t${}-ab,').map(str.encode))
def test_nothing_raises(data: bytes) -> None:
    parse(data, "lb.ini", {})


_WORD = st.text(alphabet="abcXYZ019.-_/*", min_size=1, max_size=8)


@given(st.dictionaries(_WORD, st.dictionaries(_WORD.map(str.lower), _WORD, max_size=4), max_size=4))
def test_what_is_written_is_read(wanted: dict[str, dict[str, str]]) -> None:
    text = "".join(f"[{name}]\n" + "".join(f"{o} = {v}\n" for o, v in opts.items()) for name, opts in wanted.items())
    sections, problems = read(text)
    assert problems == []
    assert {s.title: {e.option: e.value for e in s.entries} for s in sections} == wanted
