"""What the compiled modules of the hot path must not do."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import lbproxy

PACKAGE = Path(lbproxy.__file__).parent
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path.with_suffix(".pxd").exists())


def of_self(node: ast.AST) -> str | None:
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self":
        return node.attr
    return None


def released(tree: ast.AST) -> set[str]:
    """Attributes that are set to None somewhere."""
    found: set[str | None] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                    pairs = list(zip(target.elts, node.value.elts, strict=True))
                else:
                    pairs = [(target, node.value)]
                found |= {of_self(t) for t, v in pairs if isinstance(v, ast.Constant) and v.value is None}
    return {name for name in found if name is not None}


def ordinary(pxd: str) -> set[str]:
    """Attributes that are any Python objects: calling one of their methods takes a reference first."""
    found: set[str] = set()
    for names in re.findall(r"^    cdef (?:public |readonly )?object ([\w, ]+)$", pxd, re.MULTILINE):
        found |= set(names.split(", "))
    return found


def careless_calls(tree: ast.AST, spared: set[str]) -> list[str]:
    names = released(tree) - spared
    return [
        ast.unparse(node.func)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and of_self(node.func.value) in names
    ]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_what_may_be_let_go_is_called_through_a_local_variable(path: Path) -> None:
    """A call in C holds no reference: what it runs could be freed under it when the attribute is cleared meanwhile."""
    assert careless_calls(ast.parse(path.read_text()), ordinary(path.with_suffix(".pxd").read_text())) == []


def test_the_check_sees_a_careless_call() -> None:
    source = "class A:\n def f(self):\n  self.x.go()\n def g(self):\n  y, self.x = self.x, None\n"
    assert careless_calls(ast.parse(source), ordinary("cdef class A:\n    cdef B x\n    cdef object y\n")) == [
        "self.x.go"
    ]
    assert careless_calls(ast.parse(source), ordinary("cdef class A:\n    cdef public object w, x\n")) == []
    assert {path.stem for path in MODULES} > {"exchange", "pool"}
