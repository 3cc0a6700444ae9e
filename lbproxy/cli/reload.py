"""``lbproxy reload``: have a running lbproxy read its configuration again."""

from __future__ import annotations

import argparse
import json
import sys

from lbproxy.cli.client import AdminError, add_admin_arguments, make_client, run_command

NAME = "reload"
HELP = "have a running lbproxy apply its changed configuration file"

_TIMEOUT_SECONDS = 120.0
"""A reload is over when every worker has applied it."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add_admin_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Reload; 0 when the new configuration is in force, 1 when nothing changed, with the problems."""
    return run_command(lambda: _run(arguments))


def _run(arguments: argparse.Namespace) -> int:
    client = make_client(arguments, _TIMEOUT_SECONDS)
    status, result = client.post("/reload")
    if not isinstance(result, dict) or "ok" not in result:
        reason = result.get("error") if isinstance(result, dict) else None
        raise AdminError(f"{client.address} answers the reload with status {status}: {reason or 'no reason given'}")
    if arguments.json:
        print(json.dumps(result, indent=2))
    else:
        for problem in result["problems"]:
            print(problem, file=sys.stderr)
        for warning in result.get("warnings", ()):
            print(f"warning: {warning}", file=sys.stderr)
        if result["ok"]:
            for change in result.get("changes") or ("nothing has changed",):
                print(change)
            print(f"reloaded: snapshot {result['version']} is in force")
        else:
            print(f"not reloaded: snapshot {result['version']} stays in force", file=sys.stderr)
    return 0 if result["ok"] else 1
