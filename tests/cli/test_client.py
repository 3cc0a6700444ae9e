"""Finding and asking the admin API, and what is said when that fails."""

from __future__ import annotations

import argparse
import socket
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import pytest

from lbproxy.cli import status as status_command
from lbproxy.cli.client import AdminClient, AdminError, add_admin_arguments, find_address
from tests.cli.stub import AdminStub, make_status, run_cli, serve


@pytest.fixture
def stub() -> Iterator[AdminStub]:
    with serve() as served:
        yield served


@pytest.fixture(autouse=True)
def no_address_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LBPROXY_ADMIN", raising=False)


def parse(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_admin_arguments(parser)
    return parser.parse_args(arguments)


def test_get_gives_the_json(stub: AdminStub) -> None:
    assert AdminClient(stub.address).get("/status") == make_status()


def test_post_gives_status_and_json(stub: AdminStub) -> None:
    stub.answers["/reload"] = lambda: (422, {"ok": False})
    assert AdminClient(stub.address).post("/reload") == (422, {"ok": False})
    assert stub.requests == ["POST /reload"]


def test_a_unix_socket(tmp_path: Path) -> None:
    with serve(str(tmp_path / "admin.sock")) as stub:
        assert AdminClient(stub.address).get("/status")["version"] == "0.1.0"


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    with pytest.raises(AdminError) as error:
        AdminClient(f"127.0.0.1:{port}").get("/status")
    assert str(error.value) == (
        f"cannot reach the admin API at 127.0.0.1:{port}: connection refused; "
        "is lbproxy running? give its address with --admin"
    )


def test_no_such_socket(tmp_path: Path) -> None:
    with pytest.raises(AdminError, match="no such file or directory; is lbproxy running"):
        AdminClient(f"unix:{tmp_path}/none.sock").get("/status")


def test_nobody_answers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening, pytest.raises(AdminError, match="no answer in time"):
        AdminClient(f"127.0.0.1:{listening.getsockname()[1]}", timeout_seconds=0.05).get("/status")


@pytest.mark.parametrize("answer", [(404, {"error": "no"}), (200, b"<html>hello</html>")])
def test_something_else_answers(stub: AdminStub, answer: tuple[int, object]) -> None:
    stub.answers["/status"] = lambda: answer
    with pytest.raises(AdminError, match="is that lbproxy's admin API"):
        AdminClient(stub.address).get("/status")


@pytest.mark.parametrize("address", ["", "localhost", "localhost:", ":9901", "localhost:http", "localhost:99999"])
def test_what_is_no_address(address: str) -> None:
    with pytest.raises(AdminError, match="is no address"):
        AdminClient(address).get("/status")


def test_an_ipv6_address_stands_in_brackets() -> None:
    assert AdminClient("[::1]:9901")._connection().host == "::1"


def test_where_the_address_comes_from(monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_address(parse()) == "127.0.0.1:9901"
    monkeypatch.setenv("LBPROXY_ADMIN", "unix:/run/admin.sock")
    assert find_address(parse()) == "unix:/run/admin.sock"
    assert find_address(parse("--admin", "10.0.0.1:1")) == "10.0.0.1:1"


class FakeConfigurationError(Exception):
    pass


@pytest.fixture
def configured_admin(monkeypatch: pytest.MonkeyPatch) -> types.SimpleNamespace:
    """Stands in for the configuration loader; its ``admin`` is what every file says."""
    settings = types.SimpleNamespace(admin=None)
    package, errors, load = (
        types.ModuleType(f"lbproxy.controlplane.config{name}") for name in ("", ".errors", ".load")
    )
    load.load = lambda path: types.SimpleNamespace(settings=settings)  # type: ignore[attr-defined]
    errors.ConfigurationError = FakeConfigurationError  # type: ignore[attr-defined]
    for module in (package, errors, load):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return settings


def test_the_address_from_a_configuration(configured_admin: types.SimpleNamespace) -> None:
    configured_admin.admin = "127.0.0.1:7"
    assert find_address(parse("-c", "lb.ini")) == "127.0.0.1:7"


def test_a_configuration_with_mistakes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "lb.ini"
    file.write_text("[lbproxy]\nworker = 1\nadmn = off\n")
    assert run_cli(status_command, "-c", str(file)) == 1
    assert [line.partition(" = ")[0] for line in capsys.readouterr().err.splitlines()] == [
        f"lbproxy: {file}: no listener; add a section such as [listener:web]",
        f"lbproxy: {file}:2: [lbproxy] worker",
        f"lbproxy: {file}:3: [lbproxy] admn",
    ]


def test_a_configuration_without_admin_api(configured_admin: types.SimpleNamespace) -> None:
    with pytest.raises(AdminError, match=r"switched off in lb\.ini"):
        find_address(parse("-c", "lb.ini"))


def test_a_command_says_it_in_one_line_and_fails(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(status_command, "--admin", "nowhere") == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "lbproxy: 'nowhere' is no address: give HOST:PORT or unix:PATH\n"
