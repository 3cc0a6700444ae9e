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
from lbproxy.cli.client import AdminClient, AdminError, add_admin_arguments, make_client
from tests.cli.stub import AdminStub, make_status, run_cli, serve


@pytest.fixture
def stub() -> Iterator[AdminStub]:
    with serve() as served:
        yield served


@pytest.fixture(autouse=True)
def no_address_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LBPROXY_ADMIN", "LBPROXY_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)


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
    assert make_client(parse()).address == "127.0.0.1:9901"
    monkeypatch.setenv("LBPROXY_ADMIN", "unix:/run/admin.sock")
    assert make_client(parse()).address == "unix:/run/admin.sock"
    assert make_client(parse("--admin", "10.0.0.1:1")).address == "10.0.0.1:1"


class FakeConfigurationError(Exception):
    pass


@pytest.fixture
def configured_admin(monkeypatch: pytest.MonkeyPatch) -> types.SimpleNamespace:
    """Stands in for the configuration loader; its ``admin`` is what every file says."""
    settings = types.SimpleNamespace(admin=None, admin_tokens=())
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
    assert make_client(parse("-c", "lb.ini")).address == "127.0.0.1:7"


def test_the_token_from_a_configuration_a_file_or_the_environment(
    configured_admin: types.SimpleNamespace, tmp_path: Path, stub: AdminStub, monkeypatch: pytest.MonkeyPatch
) -> None:
    configured_admin.admin, configured_admin.admin_tokens = stub.address, ("of-the-file", "old")
    (tmp_path / "one").write_text("# comment\n\n one-token \nanother\n")
    (tmp_path / "two").write_text("two-token")
    make_client(parse("-c", "lb.ini")).get("/status")
    make_client(parse("-c", "lb.ini", "--token-file", str(tmp_path / "one"))).get("/status")
    monkeypatch.setenv("LBPROXY_TOKEN_FILE", str(tmp_path / "two"))
    make_client(parse("--admin", stub.address)).get("/status")
    assert stub.authorizations == ["Bearer of-the-file", "Bearer one-token", "Bearer two-token"]


def test_files_without_a_token(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("# none\n")
    with pytest.raises(AdminError, match="there is no token in"):
        make_client(parse("--token-file", str(tmp_path / "empty")))
    with pytest.raises(AdminError, match=r"no token can be read from .*: No such file or directory"):
        make_client(parse("--token-file", str(tmp_path / "none")))


def test_a_refusal_is_told_with_its_reason(stub: AdminStub) -> None:
    stub.answers["/x"] = lambda: (401, {"error": "refused: send an admin-token"})
    stub.answers["/y"] = lambda: (500, {})
    with pytest.raises(AdminError, match="refused: send an admin-token"):
        AdminClient(stub.address).change("PUT", "/x", {"a": 1})
    with pytest.raises(AdminError, match="status 500"):
        AdminClient(stub.address).change("DELETE", "/y")
    assert stub.bodies == [b'{"a": 1}', b""]


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
        make_client(parse("-c", "lb.ini"))


def test_a_command_says_it_in_one_line_and_fails(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(status_command, "--admin", "nowhere") == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "lbproxy: 'nowhere' is no address: give HOST:PORT or unix:PATH\n"
