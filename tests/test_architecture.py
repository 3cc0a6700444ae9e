"""Who may import whom: the table of docs/architecture.md, checked against every import in the package."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

PACKAGE = Path(__file__).parent.parent / "lbproxy"

_TWISTED = ("twisted", "zope", "constantly", "incremental", "automat")
_TLS = ("OpenSSL", "cryptography", "service_identity", "cffi")
_ANY = ("",)


@attrs.frozen
class Row:
    """What a package may import: of ours, and of others (besides the standard library and attrs)."""

    ours: tuple[str, ...] = ()
    others: tuple[str, ...] = ()


_PURE = ("model", "wire", "telemetry", "dataplane.router", "dataplane.balancer", "ipc.cells")
_EDGE = (
    *_PURE,
    "dataplane.proxy",
    "dataplane.listener",
    "dataplane.upstream",
    "dataplane.l4",
    "dataplane.deadlines",
    "native",
)
_CONTROL = ("model", "wire", "telemetry", "ipc", "explain", "controlplane.state")

TABLE = {
    "model": Row(),
    "wire": Row(),
    "wire.http1": Row(ours=("wire", "native")),
    "wire.http2": Row(ours=("wire",)),
    "telemetry": Row(ours=("model",)),
    "telemetry.formats": Row(ours=("model", "telemetry", "native")),
    "telemetry.lines": Row(ours=("model", "telemetry", "native")),
    "telemetry.accesslog": Row(ours=("model", "telemetry"), others=_TWISTED),
    "dataplane": Row(),
    "dataplane.deadlines": Row(ours=("native",), others=_TWISTED),
    "dataplane.router": Row(ours=("model", "wire"), others=("re2",)),
    "dataplane.router.table": Row(ours=("model", "wire", "dataplane.router", "native")),
    "dataplane.balancer": Row(ours=("model", "wire", "ipc.cells", "dataplane.router")),
    "dataplane.balancer.seal": Row(ours=("model",), others=("cryptography",)),
    "dataplane.proxy": Row(ours=(*_PURE, "native")),
    "dataplane.listener": Row(ours=_EDGE, others=(*_TWISTED, *_TLS)),
    "dataplane.upstream": Row(ours=_EDGE, others=(*_TWISTED, *_TLS)),
    "dataplane.l4": Row(ours=_EDGE, others=(*_TWISTED, *_TLS)),
    "dataplane.groups": Row(ours=_EDGE),
    "dataplane.serving": Row(ours=(*_EDGE, "dataplane"), others=(*_TWISTED, *_TLS)),
    "dataplane.worker": Row(ours=(*_EDGE, "dataplane", "ipc"), others=(*_TWISTED, *_TLS)),
    "native": Row(others=(*_TWISTED, *_TLS)),
    "ipc": Row(ours=("model", "telemetry"), others=("cattrs",)),
    "ipc.channel": Row(ours=("model", "telemetry", "ipc"), others=_TWISTED),
    "ipc.orphan": Row(ours=("model", "telemetry", "ipc"), others=_TWISTED),
    "ipc.log": Row(others=_TWISTED),
    "explain": Row(ours=("model", "wire", "dataplane.router", "dataplane.balancer")),
    "controlplane": Row(ours=_CONTROL, others=_ANY),
    "cli": Row(ours=(*_CONTROL, "controlplane"), others=_ANY),
    "testing": Row(ours=(*_EDGE, *_CONTROL, "dataplane", "controlplane", "cli"), others=_ANY),
    "tap": Row(ours=_ANY, others=_ANY),
    "_sources": Row(),
    "__main__": Row(ours=_ANY, others=_ANY),
}
"""The longest name that a module's begins with is its row.  What is under a row's own name it may always import."""

COMPOSERS = ("controlplane.supervisor",)
"""Put the parts of the control plane together, so they may import each of them."""


def _modules() -> list[str]:
    names = []
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        names.append(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return [name for name in names if name]


def _tree(module: str) -> ast.Module:
    path = PACKAGE.joinpath(*module.split("."))
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return ast.parse(file.read_text(), str(file))


def _imports(nodes: Iterator[ast.AST] | list[ast.stmt]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _under(name: str, packages: tuple[str, ...]) -> bool:
    return any(not package or name == package or name.startswith(package + ".") for package in packages)


def _row(module: str) -> str:
    fitting = [name for name in TABLE if _under(module, (name,))]
    assert fitting, f"lbproxy.{module} has no row in the table"
    return max(fitting, key=len)


def _own(module: str, row: str) -> str:
    """Where a module is at home: its row, but in the control plane its part (controlplane.health)."""
    return ".".join(module.split(".")[:2]) if row == "controlplane" else row


@pytest.mark.parametrize("module", _modules())
def test_imports_follow_the_table(module: str) -> None:
    name = _row(module)
    row = TABLE[name]
    ours = (*row.ours, _own(module, name), *(("controlplane",) if _under(module, COMPOSERS) else ()))
    wrong = []
    for imported in _imports(ast.walk(_tree(module))):
        top, _, rest = imported.partition(".")
        if top == "lbproxy":
            if rest != "__version__" and not _under(rest, ours):
                wrong.append(imported)
        elif top not in sys.stdlib_module_names and top not in ("attr", "attrs") and not _under(top, row.others):
            wrong.append(imported)
    assert not wrong, f"lbproxy.{module} must not import {', '.join(wrong)}"


@pytest.mark.parametrize("module", [name for name in _modules() if name not in ("tap", "__main__")])
def test_the_planes_are_apart_and_nothing_imports_the_entry_points(module: str) -> None:
    """Said twice, for these hold whatever becomes of the table."""
    apart = {"dataplane": "controlplane", "controlplane": "dataplane"}.get(module.split(".")[0], "tap")
    for imported in _imports(ast.walk(_tree(module))):
        assert not _under(imported, ("lbproxy." + apart, "lbproxy.tap", "lbproxy.__main__")), imported


@pytest.mark.parametrize("module", [name for name in _modules() if name not in ("tap", "__main__")])
def test_no_module_imports_the_global_reactor(module: str) -> None:
    """Importing it installs it, and then no other can be chosen."""
    for imported in _imports(_statements_at_import(_tree(module).body)):
        assert not _under(imported, ("twisted.internet.reactor",)), f"lbproxy.{module}"


def _statements_at_import(body: list[ast.stmt]) -> Iterator[ast.AST]:
    """What runs when the module is imported: everything but the bodies of functions."""
    for node in body:
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node
            for field in ("body", "orelse", "finalbody"):
                yield from _statements_at_import(getattr(node, field, []))
            for handler in getattr(node, "handlers", []):
                yield from _statements_at_import(handler.body)


def test_the_check_sees_a_forbidden_import() -> None:
    tree = ast.parse("try:\n  from twisted.internet import reactor\nexcept ImportError:\n  pass\n")
    assert "twisted.internet.reactor" in set(_imports(_statements_at_import(tree.body)))
    assert not _under("controlplane.state.desired", TABLE["dataplane.proxy"].ours)
    assert _row("controlplane.health.checker") == "controlplane"
    assert _row("wire.http1.head") == "wire.http1"
