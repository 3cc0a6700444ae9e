"""``lbproxy check``."""

from __future__ import annotations

import argparse
import io
import json
from pathlib import Path

import pytest

from lbproxy.cli.check import add_arguments, check, run

GOOD = """[lbproxy]
admin = 0.0.0.0:9901
[listener:web]
protocol = HTTP
bind = 127.0.0.1:80
default-action = forward app
[target-group:app]
protocol = HTTP
targets = demo:3
"""
BAD = GOOD.replace("demo:3", "demo:99") + "algorithm = magic\n"


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "lb.ini")


def checked(path: str, text: str, *, as_json: bool = False) -> tuple[int, str]:
    Path(path).write_text(text)
    out = io.StringIO()
    return check(path, as_json, out), out.getvalue()


def test_good_file_is_summed_up(path: str) -> None:
    status, out = checked(path, GOOD)
    assert status == 0
    assert out.splitlines() == [
        f"warning: {path}:2: [lbproxy] admin = 0.0.0.0:9901: "
        "anyone who reaches this address may read status and metrics, and changes are refused without admin-token",
        "OK: 1 listener, 0 rules, 1 target group, 3 targets",
    ]


def test_bad_file_gets_a_line_for_each_mistake(path: str) -> None:
    status, out = checked(path, BAD)
    assert status == 1
    assert [line.split(" = ")[0] for line in out.splitlines()] == [
        f"{path}:9: [target-group:app] targets",
        f"{path}:10: [target-group:app] algorithm",
    ]


def test_json_of_a_good_file(path: str) -> None:
    status, out = checked(path, GOOD, as_json=True)
    result = json.loads(out)
    assert (status, result["ok"], result["problems"]) == (0, True, [])
    assert [warning["option"] for warning in result["warnings"]] == ["admin"]


def test_json_of_a_bad_file(path: str) -> None:
    status, out = checked(path, BAD, as_json=True)
    result = json.loads(out)
    assert (status, result["ok"]) == (1, False)
    assert result["problems"][0] == {
        "file": path,
        "line": 9,
        "section": "target-group:app",
        "option": "targets",
        "value": "demo:99",
        "message": "out of range; 1 to 16 is allowed; write for example demo:3, alone",
    }


def test_missing_file(path: str) -> None:
    out = io.StringIO()
    assert check(path, False, out) == 1
    assert out.getvalue() == f"{path}: cannot be read: No such file or directory\n"


def test_command_line(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path(path).write_text(GOOD)
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    assert run(parser.parse_args([path, "--json"])) == 0
    assert json.loads(capsys.readouterr().out)["ok"] is True


def test_the_file_may_be_named_like_for_the_other_commands(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path(path).write_text(GOOD)
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    assert run(parser.parse_args(["-c", path])) == 0
    assert run(parser.parse_args([path, "-c", path])) == 2
    assert capsys.readouterr().err == "lbproxy: name one configuration file\n"
