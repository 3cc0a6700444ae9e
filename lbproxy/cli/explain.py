"""``lbproxy explain``: which listener, rule and targets a request gets, and why not the others."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import attrs

from lbproxy.cli.client import AdminClient, AdminError, run_command
from lbproxy.explain import Health, explain
from lbproxy.model.snapshot import Configuration
from lbproxy.model.target import Target, TargetHealth, TargetReason, TargetState

NAME = "explain"
HELP = "show which listener, rule and targets a request would get, and why"

DEFAULT_FILE = "conf/lb.ini"


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
        "-c",
        "--config",
        metavar="FILE",
        help=f"configuration file (default: {DEFAULT_FILE}, with --admin the one in force)",
    )
    parser.add_argument(
        "--admin",
        metavar="ADDRESS",
        help="take the targets' states from the lbproxy that runs: HOST:PORT or unix:PATH of its admin API",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Print the explanation; 0 when a listener takes the URL, else 1."""
    return run_command(lambda: _run(args))


def _run(args: argparse.Namespace) -> int:
    from lbproxy.controlplane.config.errors import ConfigurationError
    from lbproxy.controlplane.config.load import load

    status = None if args.admin is None else AdminClient(args.admin).get("/status")
    try:
        health = None if status is None else health_from_status(status)
        file = args.config or (DEFAULT_FILE if status is None else status["configuration"]["file"])
        loaded = load(file)
        explanation = explain(
            loaded.configuration,
            args.url,
            method=args.method,
            headers=args.headers,
            source=args.source,
            health=health,
            listener=args.listener,
            demo=loaded.demo,
            discovery=loaded.discovery,
            targets=None if status is None else targets_from_status(status, loaded.configuration),
        )
        if status is not None:
            notes = (*explanation.notes, *_doubts(file, status["configuration"]))
            explanation = attrs.evolve(explanation, notes=notes)
    except ConfigurationError as error:
        for problem in error.problems:
            print(problem, file=sys.stderr)
        return 1
    except (KeyError, TypeError) as error:
        raise AdminError(f"{args.admin} answers /status with another document than lbproxy's") from error
    except ValueError as error:
        raise AdminError(str(error)) from error
    print(json.dumps(explanation.to_json(), indent=2) if args.json else explanation.to_text())
    return 1 if explanation.listener is None else 0


def _doubts(file: str, running: Mapping[str, Any]) -> Iterator[str]:
    """Say why the file read here may not be what the running lbproxy works from."""
    if os.path.realpath(file) != os.path.realpath(running["file"]):
        yield f"the lbproxy that runs works from {running['file']}"
    elif os.stat(file).st_mtime > running["loaded_at"]:
        yield f"{file} was changed after the running lbproxy read it; this is what a reload would bring"


def health_from_status(status: Mapping[str, Any]) -> Health:
    """The targets' states in the admin API's status document.

    Raises `KeyError`, `TypeError` or `ValueError` for another shape.
    """
    return {
        group["name"]: {target["target"]: _health(target) for target in group["targets"]}
        for group in status["target_groups"]
    }


def targets_from_status(status: Mapping[str, Any], configuration: Configuration) -> Mapping[str, Mapping[str, Target]]:
    """The targets that the running lbproxy has found, and those that an operator has given another weight."""
    configured = {group.name: {target.key for target in group.targets} for group in configuration.target_groups}
    found: dict[str, dict[str, Target]] = {}
    for group in status["target_groups"]:
        for target in group["targets"]:
            override = target.get("override") or {}
            if target["target"] not in configured.get(group["name"], ()) or override.get("weight") is not None:
                host, _, port = target["target"].rpartition(":")
                found.setdefault(group["name"], {})[target["target"]] = Target(
                    host=host.strip("[]"),
                    port=int(port),
                    address=target["address"],
                    weight=target["weight"],
                    zone=target.get("zone", ""),
                    priority=target.get("priority", 0),
                    name=target.get("name", ""),
                )
    return found


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
