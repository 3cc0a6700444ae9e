"""Asking a running lbproxy: a small client of the admin API, and what its commands have in common."""

from __future__ import annotations

import argparse
import http.client
import json
import os
import socket
import sys
from collections.abc import Callable
from typing import Any

DEFAULT_ADDRESS = "127.0.0.1:9901"
ADDRESS_VARIABLE = "LBPROXY_ADMIN"
TOKEN_FILE_VARIABLE = "LBPROXY_TOKEN_FILE"
TIMEOUT_SECONDS = 10.0
_IS_IT_OURS = "is that lbproxy's admin API?"


class AdminError(Exception):
    """The admin API gave no good answer; the message is one line for the operator."""


def add_admin_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare how to find the admin API, and ``--json``."""
    parser.add_argument(
        "--admin",
        metavar="ADDRESS",
        help=f"the admin API: HOST:PORT or unix:PATH (default: ${ADDRESS_VARIABLE} or {DEFAULT_ADDRESS})",
    )
    parser.add_argument(
        "-c", "--config", metavar="FILE", help="take the admin API's address and token from this configuration"
    )
    add_token_argument(parser, "the admin-token")
    parser.add_argument("--json", action="store_true", help="print JSON")


def add_token_argument(parser: argparse.ArgumentParser, what: str) -> None:
    """Declare where a token comes from; never the token itself, which everybody would see in the list of processes."""
    parser.add_argument(
        "--token-file", metavar="FILE", help=f"a file with {what} (default: ${TOKEN_FILE_VARIABLE}, or none)"
    )


def make_client(arguments: argparse.Namespace, timeout_seconds: float = TIMEOUT_SECONDS) -> AdminClient:
    """Make a client from what `add_admin_arguments` declared.

    The address is from ``--admin``, the configuration file, the environment, or the default.
    """
    address, token = arguments.admin, ""
    if arguments.config:
        configured, token = _configured(arguments.config)
        if address is None and configured is None:
            raise AdminError(f"the admin API is switched off in {arguments.config} (admin = off)")
        address = address or configured
    address = address or os.environ.get(ADDRESS_VARIABLE) or DEFAULT_ADDRESS
    return AdminClient(address, timeout_seconds, read_token(arguments) or token)


def _configured(path: str) -> tuple[str | None, str]:
    """Give the address in a configuration, None if it has none, and its first token."""
    # Imported here, since a command that needs no configuration should start at once.
    from lbproxy.controlplane.config.errors import ConfigurationError
    from lbproxy.controlplane.config.load import load

    try:
        settings = load(path).settings
    except ConfigurationError as error:
        raise AdminError(str(error)) from error
    return None if settings.admin is None else str(settings.admin), next(iter(settings.admin_tokens), "")


def read_token(arguments: argparse.Namespace) -> str:
    """Give the first token in the file that is named, empty if none is."""
    path = arguments.token_file or os.environ.get(TOKEN_FILE_VARIABLE)
    if not path:
        return ""
    try:
        with open(path, encoding="ascii") as stream:
            lines = [line.strip() for line in stream]
    except (OSError, UnicodeDecodeError) as error:
        raise AdminError(f"no token can be read from {path}: {getattr(error, 'strerror', None) or error}") from error
    token = next((line for line in lines if line and not line.startswith("#")), "")
    if not token:
        raise AdminError(f"there is no token in {path}")
    return token


def run_command(command: Callable[[], int]) -> int:
    """Run a command's body; tell an `AdminError` on standard error, one line for each problem, with exit status 1."""
    try:
        return command()
    except AdminError as error:
        for line in str(error).split("\n"):
            print(f"lbproxy: {line}", file=sys.stderr)
        return 1


class AdminClient:
    """Asks the admin API at ``HOST:PORT``, ``[IPV6]:PORT`` or ``unix:PATH``; one connection for each request."""

    def __init__(self, address: str, timeout_seconds: float = TIMEOUT_SECONDS, token: str = "") -> None:
        self.address = address
        self._timeout_seconds = timeout_seconds
        self._token = token

    def get(self, path: str) -> Any:
        """Give the JSON at this path.  Raises `AdminError` for anything but a 200."""
        status, value = self.ask("GET", path)
        if status != 200:
            raise self._unexpected(path, status)
        return value

    def post(self, path: str) -> tuple[int, Any]:
        """Post nothing to this path; give the status and the JSON of the answer."""
        return self.ask("POST", path)

    def change(self, method: str, path: str, body: Any = None) -> Any:
        """Ask for a change; give the JSON of the answer.  Raises `AdminError` with the reason when it is refused."""
        status, value = self.ask(method, path, body)
        if status >= 300:
            raise AdminError(self.reason(path, status, value))
        return value

    def reason(self, path: str, status: int, value: Any) -> str:
        """Why an answer is not a good one, in one line."""
        if isinstance(value, dict) and isinstance(value.get("error"), str):
            return str(value["error"])
        return str(self._unexpected(path, status))

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Send a request, with a JSON body if one is given; give the status and the JSON of the answer."""
        connection = self._connection()
        headers = {"Connection": "close", "Accept": "application/json"}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        try:
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            response = connection.getresponse()
            answer = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise AdminError(
                f"cannot reach the admin API at {self.address}: {_in_words(error)}; "
                "is lbproxy running? give its address with --admin"
            ) from error
        finally:
            connection.close()
        try:
            return response.status, json.loads(answer)
        except ValueError as error:
            if response.status != 200:
                raise self._unexpected(path, response.status) from error
            raise AdminError(f"{self.address} answers {path} with something else than JSON; {_IS_IT_OURS}") from error

    def _connection(self) -> http.client.HTTPConnection:
        if self.address.startswith("unix:"):
            return _UnixConnection(self.address.removeprefix("unix:"), self._timeout_seconds)
        host, colon, port = self.address.rpartition(":")
        if not (host and colon and port.isdecimal() and int(port) < 65536):
            raise AdminError(f"{self.address!r} is no address: give HOST:PORT or unix:PATH")
        return http.client.HTTPConnection(host.strip("[]"), int(port), timeout=self._timeout_seconds)

    def _unexpected(self, path: str, status: int) -> AdminError:
        return AdminError(f"{self.address} answers {path} with status {status}; {_IS_IT_OURS}")


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a UNIX socket."""

    def __init__(self, path: str, timeout_seconds: float) -> None:
        super().__init__("localhost", timeout=timeout_seconds)
        self._path = path
        self._timeout_seconds = timeout_seconds

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self._timeout_seconds)
        self.sock.connect(self._path)


def _in_words(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error) or type(error).__name__
