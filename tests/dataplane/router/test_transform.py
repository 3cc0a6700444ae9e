"""Changes of fields, URL and host."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbproxy.dataplane.router.table import Table
from lbproxy.dataplane.router.transform import CompiledTransform, FieldChanges, Rewriter, compile_transform
from lbproxy.model.errors import InvalidModel
from lbproxy.model.transform import PLACEHOLDERS, ChangeKind, FieldChange, Rewrite, Transform
from lbproxy.wire.errors import RemoteProtocolError
from tests.dataplane.router.listeners import listener, rule

SET, ADD, REMOVE = ChangeKind.SET, ChangeKind.ADD, ChangeKind.REMOVE


def value_of(name: bytes) -> bytes:
    return b"<%b>" % name


@pytest.mark.parametrize(
    ("changes", "lines", "expected"),
    [
        ([FieldChange(SET, "A", "1")], b"", b"A: 1\r\n"),
        ([FieldChange(SET, "A", "1")], b"B: 2\r\na: 3\r\nC: 4\r\nA: 5\r\n", b"B: 2\r\nC: 4\r\nA: 1\r\n"),
        ([FieldChange(ADD, "A", "1")], b"a: 3\r\n", b"a: 3\r\nA: 1\r\n"),
        ([FieldChange(REMOVE, "a")], b"A: 1\r\nAA: 2\r\nB: A: 3\r\n", b"AA: 2\r\nB: A: 3\r\n"),
        ([FieldChange(REMOVE, "a.b")], b"aXb: 1\r\na.b: 2\r\n", b"aXb: 1\r\n"),
        ([FieldChange(REMOVE, "a")], b"a: \xe9\t,\r\n", b""),
        # in order: what comes later knows what came before
        ([FieldChange(SET, "A", "1"), FieldChange(ADD, "a", "2")], b"A: 0\r\n", b"A: 1\r\na: 2\r\n"),
        ([FieldChange(ADD, "A", "1"), FieldChange(SET, "a", "2")], b"A: 0\r\n", b"a: 2\r\n"),
        ([FieldChange(SET, "A", "1"), FieldChange(REMOVE, "a")], b"A: 0\r\nB: 1\r\n", b"B: 1\r\n"),
        ([FieldChange(SET, "A", "#{client-ip}/#{path}#{no}")], b"", b"A: <client-ip>/<path>#{no}\r\n"),
    ],
)
def test_fields(changes: list[FieldChange], lines: bytes, expected: bytes) -> None:
    assert FieldChanges(changes).apply(lines, value_of) == expected


def test_every_placeholder_is_asked_for() -> None:
    asked: list[bytes] = []
    text = "".join(f"#{{{name}}}" for name in PLACEHOLDERS)
    FieldChanges([FieldChange(SET, "A", text)]).apply(b"", lambda name: asked.append(name) or b"")  # type: ignore[func-returns-value]
    assert [name.decode() for name in asked] == list(PLACEHOLDERS)


def test_what_a_placeholder_stands_for_is_not_looked_at_again() -> None:
    changes = FieldChanges([FieldChange(SET, "A", "#{path}")])
    assert changes.apply(b"", lambda _: b"#{query}\\1") == b"A: #{query}\\1\r\n"


@pytest.mark.parametrize(
    ("pattern", "replacement", "text", "expected"),
    [
        ("^/api/(.*)$", "/$1", b"/api/a?b", b"/a?b"),
        ("^/api/(.*)$", "/$1", b"/apia", b"/apia"),
        ("a", "b", b"/aaa", b"/baa"),
        ("(x)?y", "[$1]", b"/y", b"/[]"),
        ("b(.)", "$0$0$$$1", b"/abc", b"/abcbc$c"),
        ("(?i)/A", "/b", b"/a", b"/b"),
    ],
)
def test_rewriting(pattern: str, replacement: str, text: bytes, expected: bytes) -> None:
    assert Rewriter(Rewrite(pattern, replacement)).rewrite(text) == expected


@pytest.mark.parametrize("rewrite", [Rewrite("(", "a"), Rewrite("a", "$1"), Rewrite(r"(a)\1", "a")])
def test_what_cannot_be_compiled_is_no_model(rewrite: Rewrite) -> None:
    with pytest.raises(InvalidModel):
        Rewriter(rewrite)


def test_a_pattern_takes_linear_time() -> None:
    assert Rewriter(Rewrite("^(/.*)*$x", "b")).rewrite(b"/" * 16000) == b"/" * 16000


@pytest.mark.parametrize("replacement", ["", "a", "$1#", "http://x/", "/\u00e9"])
def test_what_is_no_target_any_more_fails(replacement: str) -> None:
    transform = CompiledTransform(Transform(url=Rewrite("^/(.*)$", replacement)))
    with pytest.raises(RemoteProtocolError) as caught:
        transform.rewrite_target(b"/x")
    assert (caught.value.reason, caught.value.status) == ("TransformFailed", 500)


def test_a_target_that_becomes_too_long_fails() -> None:
    transform = CompiledTransform(Transform(url=Rewrite("^.*$", "$0$0")))
    assert transform.rewrite_target(b"/" * 8192)
    with pytest.raises(RemoteProtocolError):
        transform.rewrite_target(b"/" * 8193)


def test_the_asterisk_is_no_path() -> None:
    assert CompiledTransform(Transform(url=Rewrite(".", "/"))).rewrite_target(b"*") == b"*"


@pytest.mark.parametrize(
    ("authority", "expected"),
    [
        (b"Api.Example.com", b"x.internal"),
        (b"api.example.com:8080", b"x.internal:8080"),
        (b"other", b"other"),
        (b"Other:80", b"Other:80"),
        (b"", b""),
    ],
)
def test_the_host_keeps_its_port(authority: bytes, expected: bytes) -> None:
    transform = CompiledTransform(Transform(host=Rewrite(r"^api\.(.*)$", "x.internal")))
    assert transform.rewrite_authority(authority) == expected


def test_a_new_port_replaces_the_old_one() -> None:
    transform = CompiledTransform(Transform(host=Rewrite("^a$", "b:1")))
    assert transform.rewrite_authority(b"a:80") == b"b:1"


@pytest.mark.parametrize("replacement", ["", "a/b", "u@a", "a:b", "a,b", "a\\b"])
def test_what_is_no_host_any_more_fails(replacement: str) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        CompiledTransform(Transform(host=Rewrite("^a$", replacement))).rewrite_authority(b"a")
    assert caught.value.status == 500


@given(st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=20), st.binary(max_size=30))
def test_no_line_break_comes_out(replacement: str, path: bytes) -> None:
    try:
        transform = CompiledTransform(Transform(url=Rewrite("(?s)(.*)", replacement)))
        assert not set(transform.rewrite_target(b"/" + path)) & set(range(0x21))
    except (InvalidModel, RemoteProtocolError):
        pass


def test_nothing_to_change_costs_nothing() -> None:
    assert compile_transform(Transform()) is None
    table = Table.compile(listener(rule(1)))
    assert table.default.transform is None


def test_a_rule_changes_after_its_listener() -> None:
    first = Transform(response=(FieldChange(SET, "A", "1"), FieldChange(SET, "B", "1")), url=Rewrite("a", "b"))
    second = Transform(response=(FieldChange(REMOVE, "a"), FieldChange(SET, "C", "1")), host=Rewrite("c", "d"))
    both = compile_transform(first.followed_by(second))
    assert both is not None
    assert both.response is not None
    assert both.response.apply(b"a: 0\r\n", value_of) == b"B: 1\r\nC: 1\r\n"
    assert both.rewrite_target(b"/a") == b"/b"
    assert both.rewrite_authority(b"c") == b"d"
    assert both.response.describe() == ("set A: 1", "set B: 1", "remove a", "set C: 1")
