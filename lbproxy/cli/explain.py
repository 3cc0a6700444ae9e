"""``lbproxy explain``: which listener, rule and targets a request gets, and why not the others."""

from __future__ import annotations

import argparse
import http.client
import json
import socket
import sys
from collections.abc import Mapping
from typing import Any

from lbproxy.explain import Health, explain
from lbproxy.model.target import TargetHealth, TargetReason, TargetState

NAME = "explain"
HELP = "show which listener, rule and targets a request would get, and why"

_ADMIN_TIMEOUT_SECONDS = 5.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("url", metavar="URL", help="what is asked for; without a scheme it is http")
    parser.add_argument(
        "-H",
        "--header",
        dest="headers",
        metavar="'Name: value'",
        type=_header,
        action="append",
        default=[],
        help="a header field of the request; may be repeated",
    )
    parser.add_argument("-X", "--method", default="GET", help="request method (default: %(default)s)")
    parser.add_argument(
        "--from", dest="source", metavar="IP", default="127.0.0.1", help="the client's address (default: %(default)s)"
    )
    parser.add_argument("--listener", metavar="NAME", help="the listener, where the URL does not lead to it")
    parser.add_argument(
        "-c", "--config", metavar="FILE", default="conf/lb.ini", help="configuration file (default: %(default)s)"
    )
    parser.add_argument(
        "--admin",
        metavar="ADDRESS",
        help="take the targets' states from the lbproxy that runs: HOST:PORT or unix:PATH of its admin listener",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Print the explanation; 0 when a listener takes the URL, else 1."""
    from lbproxy.controlplane.config.errors import ConfigurationError
    from lbproxy.controlplane.config.load import load

    try:
        loaded = load(args.config)
        health = None if args.admin is None else health_from_status(fetch_status(args.admin))
        explanation = explain(
            loaded.configuration,
            args.url,
            method=args.method,
            headers=args.headers,
            source=args.source,
            health=health,
            listener=args.listener,
            demo=loaded.demo,
        )
    except ConfigurationError as error:
        for problem in error.problems:
            print(problem, file=sys.stderr)
        return 1
    except (ValueError, OSError, http.client.HTTPException) as error:
        print(f"lbproxy explain: {error}", file=sys.stderr)
        return 1
    print(json.dumps(explanation.to_json(), indent=2) if args.json else explanation.to_text())
    return 1 if explanation.listener is None else 0


def fetch_status(address: str) -> Mapping[str, Any]:
    """``GET /status`` of the admin listener at ``HOST:PORT`` or ``unix:PATH``.

    Raises `OSError`, `http.client.HTTPException` or `ValueError` when there is no good answer.
    """
    connection = (
        _UnixConnection(address.removeprefix("unix:"))
        if address.startswith("unix:")
        else http.client.HTTPConnection(address, timeout=_ADMIN_TIMEOUT_SECONDS)
    )
    try:
        connection.request("GET", "/status")
        response = connection.getresponse()
        body = response.read()
    except OSError as error:
        raise OSError(f"no answer from the admin listener at {address}: {error}") from error
    finally:
        connection.close()
    if response.status != 200:
        raise ValueError(f"the admin listener at {address} answers GET /status with {response.status}")
    status = json.loads(body)
    if not isinstance(status, dict):
        raise ValueError(f"the admin listener at {address} answers GET /status with something else than an object")
    return status


def health_from_status(status: Mapping[str, Any]) -> Health:
    """The targets' states in the admin API's status document.  Raises `ValueError` for another shape."""
    try:
        return {
            group["name"]: {target["target"]: _health(target) for target in group["targets"]}
            for group in status["target_groups"]
        }
    except (KeyError, TypeError) as error:
        raise ValueError(f"the status document has no good list of target groups: {error!r}") from error


def _health(target: Mapping[str, str]) -> TargetHealth:
    return TargetHealth(
        state=TargetState(target["state"]),
        reason=TargetReason(target["reason"]),
        description=target["description"],
    )


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise argparse.ArgumentTypeError(f"{text!r} should be 'Name: value'")
    return name.strip(), value.strip()


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a UNIX socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=_ADMIN_TIMEOUT_SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)
