"""The documents speak of what there is: files, options, causes of failure, commands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lbproxy.__main__ import COMMANDS
from lbproxy.controlplane.config.options.table import KINDS
from lbproxy.dataplane.proxy.faults import Fault

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
_MADE_WHEN_RUNNING = {"conf/state"}


def text_of(name: str) -> str:
    return (ROOT / name).read_text()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text())
    assert [link for link in links if not (document.parent / link).exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_files_that_are_named_exist(document: Path) -> None:
    named = re.findall(r"(?:lbproxy|conf|tests|docs|bench)/[\w./-]*\w", document.read_text())
    here = [name for name in named if f"/{name}" not in document.read_text()]  # not /etc/lbproxy/...
    assert [name for name in here if not (ROOT / name).exists() and name not in _MADE_WHEN_RUNNING] == []


def test_every_cause_of_a_failure_is_in_the_life_of_a_request() -> None:
    life = text_of("docs/life-of-a-request.md")
    faults = set(Fault) - {Fault.INCOMPATIBLE_TARGET_GROUP}  # a configuration with one is refused
    assert [fault.reason for fault in faults if f"`{fault.reason}`" not in life] == []


def test_the_deadlines_of_the_phases_are_options_with_these_defaults() -> None:
    rows = re.findall(r"`([a-z-]+)` \(([0-9.]+) s\)", text_of("docs/life-of-a-request.md"))
    assert {name for name, _ in rows} >= {
        "request-header-timeout",
        "idle-timeout",
        "connect-timeout",
        "response-timeout",
    }
    options = [option for kind in KINDS.values() for option in kind.options]
    for name, seconds in rows:
        assert f"{seconds}s" in {option.default for option in options if option.name == name}, name


def test_metrics_that_are_named_are_in_the_table() -> None:
    table = set(re.findall(r"^\| `(lbproxy_\w+)`", text_of("docs/operations.md"), re.MULTILINE))
    for document in DOCUMENTS:
        named = set(re.findall(r"\b(lbproxy_[a-z_]+)\b", document.read_text())) - {"lbproxy_plugin"}
        assert named - table == set(), document.name


def test_the_readme_is_short_and_names_every_command() -> None:
    readme = text_of("README.md")
    assert len(readme.splitlines()) <= 60
    assert [name for name in COMMANDS if f"lbproxy {name}" not in readme and f"`{name}`" not in readme] == []


def test_the_readmes_file_is_right(tmp_path: Path) -> None:
    from lbproxy.cli.check import check

    blocks = re.findall(r"(?:^    .*\n|^\n)+", text_of("README.md"), re.MULTILINE)
    (example,) = [block for block in blocks if "[listener:web]" in block]
    file = tmp_path / "lb.ini"
    file.write_text("\n".join(line[4:] for line in example.splitlines()))
    with (tmp_path / "out").open("w") as out:
        assert check(str(file), False, out) == 0
