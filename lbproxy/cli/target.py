"""``lbproxy target``: hold a target up, take it out, drain or weigh it, and take that back."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote

from rich.text import Text

from lbproxy.cli.client import AdminClient, AdminError, add_admin_arguments, make_client, run_command
from lbproxy.cli.display import make_console, make_table, show_state

NAME = "target"
HELP = "decide for single targets, whatever their health checks say: up, down, drain, weight; reset takes it back"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    actions = parser.add_subparsers(title="what to do", metavar="ACTION", required=True)
    for name, (text, call) in _ACTIONS.items():
        action = actions.add_parser(name, help=text, description=text)
        if name != "list":
            add_target_arguments(action)
        if name == "weight":
            action.add_argument("weight", type=int, help="0 to 999; 0 takes no new traffic")
        add_admin_arguments(action)
        action.set_defaults(call=call)


def add_target_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare which target is meant."""
    parser.add_argument("target", metavar="TARGET", help="HOST:PORT, as lbproxy status shows it")
    parser.add_argument(
        "--target-group", metavar="NAME", help="only in this target group (default: in all that have the target)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Do it; 1 with the reason when it is refused."""
    call: Callable[[argparse.Namespace], int] = arguments.call
    return run_command(lambda: call(arguments))


def path_of(group: str, target: str) -> str:
    """The path of a target in the admin API."""
    return f"/target-groups/{quote(group, safe='')}/targets/{quote(target, safe='')}"


def groups_with(client: AdminClient, arguments: argparse.Namespace) -> list[str]:
    """Name the target groups that are meant.  Raises `AdminError` when there is no such target."""
    if arguments.target_group:
        return [arguments.target_group]
    groups = [
        group["name"]
        for group in client.get("/status")["target_groups"]
        if any(target["target"] == arguments.target for target in group["targets"]) and not group["removed"]
    ]
    if not groups:
        raise AdminError(f"no target group has a target {arguments.target}")
    return groups


def _decide(arguments: argparse.Namespace, override: Mapping[str, Any]) -> int:
    client = make_client(arguments)
    answers = [
        client.change("PUT", f"{path_of(group, arguments.target)}/override", override)
        for group in groups_with(client, arguments)
    ]
    if arguments.json:
        print(json.dumps(answers, indent=2))
    else:
        for answer in answers:
            print(f"{answer['target']} in {answer['target_group']}: {say(answer['override'])}")
    return 0


def _reset(arguments: argparse.Namespace) -> int:
    client = make_client(arguments)
    answers = []
    for group in groups_with(client, arguments):
        path = f"{path_of(group, arguments.target)}/override"
        status, value = client.ask("DELETE", path)
        if status == 200:
            answers.append(value)
        elif status != 404 or arguments.target_group:
            raise AdminError(client.reason(path, status, value))
    if not answers:
        raise AdminError(f"nothing was decided for {arguments.target}")
    if arguments.json:
        print(json.dumps(answers, indent=2))
    else:
        for answer in answers:
            print(f"{answer['target']} in {answer['target_group']}: as its health checks and the configuration say")
    return 0


def _list(arguments: argparse.Namespace) -> int:
    decided = [
        (group["name"], target)
        for group in make_client(arguments).get("/status")["target_groups"]
        for target in group["targets"]
        if target["override"] is not None
    ]
    if arguments.json:
        print(json.dumps([{"target_group": group, **target} for group, target in decided], indent=2))
        return 0
    rows = [
        (group, target["target"], say(target["override"]), show_state(target["state"]), target["checked"] or "-")
        for group, target in decided
    ]
    table = make_table("Decided by operators", ["target group", "target", "decision", "state", "checks say"], rows)
    make_console().print(table if rows else Text("nothing was decided for any target"))
    return 0


def say(override: Mapping[str, Any] | None) -> str:
    """An override in words."""
    if override is None:
        return ""
    words = {"up": "held up", "down": "taken out", "drain": "to drain"}
    parts = [words[override["state"]]] if override["state"] else []
    parts += [f"weight {override['weight']}"] if override["weight"] is not None else []
    return ", ".join(parts)


_ACTIONS: Mapping[str, tuple[str, Callable[[argparse.Namespace], int]]] = {
    "up": ("count it as healthy", lambda arguments: _decide(arguments, {"state": "up"})),
    "down": (
        "give it no new traffic, even if no other is healthy",
        lambda arguments: _decide(arguments, {"state": "down"}),
    ),
    "drain": ("deregister it: it finishes what it has", lambda arguments: _decide(arguments, {"state": "drain"})),
    "weight": ("give it another weight", lambda arguments: _decide(arguments, {"weight": arguments.weight})),
    "reset": ("take back what was decided for it", _reset),
    "list": ("show what was decided for which targets", _list),
}
