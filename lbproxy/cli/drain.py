"""``lbproxy drain``: have a target finish what it has, and wait until it has."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from typing import Any

from lbproxy.cli.client import AdminClient, AdminError, add_admin_arguments, make_client, run_command
from lbproxy.cli.target import add_target_arguments, groups_with, path_of

NAME = "drain"
HELP = "deregister a target, so that it finishes what it has and gets nothing new; lbproxy target reset brings it back"

LOOK_SECONDS = 0.5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add_target_arguments(parser)
    parser.add_argument("--wait", action="store_true", help="wait until nothing is in flight to it any more")
    parser.add_argument(
        "--timeout", type=float, metavar="SECONDS", help="wait for at most so long, then exit with status 1"
    )
    add_admin_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Drain; 1 when it is refused, or has not ended in time."""
    return run_command(lambda: _run(arguments))


def _run(arguments: argparse.Namespace) -> int:
    client = make_client(arguments)
    groups = groups_with(client, arguments)
    answers = [
        client.change("PUT", f"{path_of(group, arguments.target)}/override", {"state": "drain"}) for group in groups
    ]
    is_over = True
    if arguments.wait or arguments.timeout is not None:
        deadline = None if arguments.timeout is None else time.monotonic() + arguments.timeout
        for group in groups:
            is_over &= wait_for_drain(client, group, arguments.target, deadline, _tell)
        answers = [client.get(path_of(group, arguments.target)) for group in groups]
    if arguments.json:
        print(json.dumps(answers, indent=2))
    else:
        for answer in answers:
            print(_result(answer))
    return 0 if is_over else 1


def _tell(text: str) -> None:
    print(text, file=sys.stderr)


def wait_for_drain(
    client: AdminClient, group: str, target: str, deadline: float | None, tell: Callable[[str], None]
) -> bool:
    """Wait until a target has drained, telling what is in flight whenever that changes; False after the deadline."""
    told: Any = None
    while True:
        status, value = client.ask("GET", path_of(group, target))
        if status == 404 or (status == 200 and value["state"] == "unused"):
            return True
        if status != 200:
            raise AdminError(client.reason(path_of(group, target), status, value))
        if value["state"] == "draining" and value["in_flight"] != told:
            told = value["in_flight"]
            tell(f"{target} in {group}: {told} in flight")
        left = LOOK_SECONDS if deadline is None else deadline - time.monotonic()
        if left <= 0:
            return False
        time.sleep(min(LOOK_SECONDS, left))


def _result(answer: Any) -> str:
    where = f"{answer['target']} in {answer['target_group']}"
    if answer["state"] == "unused":
        return f"{where}: drained"
    return f"{where}: draining, {answer['in_flight']} in flight"
