"""What twistd and the ``lbproxy`` command make of their arguments."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from twisted.application.service import IServiceMaker
from twisted.plugin import IPlugin
from twisted.python.usage import UsageError
from zope.interface.verify import verifyObject

from lbproxy import __main__ as command
from lbproxy import __version__, tap

ROOT = Path(__file__).resolve().parent.parent


def test_the_configuration_file_is_asked_for() -> None:
    with pytest.raises(UsageError, match="which configuration file"):
        tap.Options().parseOptions([])


@pytest.mark.parametrize("option", ["-c", "--config"])
def test_the_configuration_file_is_taken(option: str) -> None:
    options = tap.Options()
    options.parseOptions([option, "conf/lb.ini"])

    assert options["config"] == "conf/lb.ini"


def test_mistakes_are_lines_on_stderr_and_status_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "lb.ini"
    path.write_text("[listener:web]\nprotocol = HTPP\n[rule:x]\nlistener = nowhere\n")
    options = tap.Options()
    options.parseOptions(["-c", str(path)])

    with pytest.raises(SystemExit) as exit_:
        tap.makeService(options)

    errors = capsys.readouterr().err
    assert exit_.value.code == 1
    assert f"{path}:2: [listener:web] protocol = HTPP" in errors
    assert len(errors.splitlines()) > 1
    assert "Traceback" not in errors


def test_a_state_directory_that_cannot_be_made_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    path = tmp_path / "lb.ini"
    path.write_text(
        f"[lbproxy]\nadmin = off\nstate-directory = {tmp_path}/file/state\n"
        "[listener:web]\nprotocol = HTTP\nbind = 127.0.0.1:0\ndefault-action = fixed-response 404\n"
    )
    options = tap.Options()
    options.parseOptions(["-c", str(path)])

    with pytest.raises(SystemExit):
        tap.makeService(options)

    assert "state-directory" in capsys.readouterr().err


def test_twistd_finds_the_plugin() -> None:
    assert not (ROOT / "twisted" / "__init__.py").exists()
    assert not (ROOT / "twisted" / "plugins" / "__init__.py").exists()
    probe = "from twisted.plugins.lbproxy_plugin import lbproxy; print(lbproxy.options().getUsage())"
    output = subprocess.run(
        [sys.executable, "-c", probe], env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, check=True
    ).stdout

    assert b"conf/lb.ini" in output


def test_the_plugin_is_a_service_maker() -> None:
    from twisted.application.service import ServiceMaker

    maker = ServiceMaker("lbproxy", "lbproxy.tap", "x", "lbproxy")
    verifyObject(IServiceMaker, maker)
    verifyObject(IPlugin, maker)
    assert maker.makeService is tap.makeService


def test_every_command_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        command.main(["--help"])

    text = capsys.readouterr().out
    assert exit_.value.code == 0
    for name in (*command.COMMANDS, "run"):
        assert name in text
    assert "demo-target" not in text


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.main(["--version"])

    assert capsys.readouterr().out == f"lbproxy {__version__}\n"


def test_a_command_gives_its_status() -> None:
    assert command.main(["check", str(ROOT / "conf" / "no-such-file.ini")]) == 1
