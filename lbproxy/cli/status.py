"""``lbproxy status``: workers, listeners and targets of a running lbproxy."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from rich.table import Table
from rich.text import Text

from lbproxy.cli.client import add_admin_arguments, make_client, run_command
from lbproxy.cli.display import make_console, make_table, show_count, show_duration, show_state

NAME = "status"
HELP = "show workers, listeners and targets of a running lbproxy"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add_admin_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the status once; 1 when lbproxy cannot be reached."""
    return run_command(lambda: _run(arguments))


def _run(arguments: argparse.Namespace) -> int:
    status = make_client(arguments).get("/status")
    if arguments.json:
        print(json.dumps(status, indent=2))
        return 0
    console = make_console()
    console.print(headline(status))
    for table in tables(status):
        console.print()
        console.print(table)
    return 0


def headline(status: Mapping[str, Any]) -> Text:
    """Two lines on the whole: version and age, and which configuration since when."""
    configuration = status["configuration"]
    loaded = datetime.fromtimestamp(configuration["loaded_at"]).astimezone().isoformat(" ", "seconds")
    return Text.assemble(
        (f"lbproxy {status['version']}", "bold"),
        f"  up {show_duration(status['uptime_seconds'])}  snapshot {status['snapshot_version']}  ",
        ("ready", "green") if status.get("ready", True) else ("not ready", "bold red"),
        f"\n{configuration['file']}, loaded {loaded}",
    )


def tables(status: Mapping[str, Any]) -> Iterator[Table]:
    """Yield the tables of workers, listeners and targets."""
    yield make_table(
        "Workers",
        ["slot", ">pid", "state", ">restarts", ">last report"],
        [
            (
                str(worker["slot"]),
                str(worker["pid"] or "-"),
                show_state(worker["state"]),
                str(worker["restarts"]),
                _seconds_ago(worker.get("last_report_seconds")),
            )
            for worker in status["workers"]
        ],
    )
    yield make_table(
        "Listeners",
        ["listener", "protocol", "address", ">active", ">connections", ">requests", ">5xx"],
        [
            (
                listener["name"],
                listener["protocol"],
                ", ".join(listener["binds"]),
                show_count(listener["active"]),
                show_count(listener["connections"]),
                show_count(listener["requests"]),
                show_count(count_server_errors(listener)),
            )
            for listener in status["listeners"]
        ],
    )
    for group in status["target_groups"]:
        yield _group_table(group)
        if group.get("sources"):
            yield _sources_table(group)


def count_server_errors(listener: Mapping[str, Any]) -> int:
    """Answers with a status of 500 or more that clients of this listener got."""
    return sum(count for status, count in listener["requests_by_status"].items() if int(status) >= 500)


def _group_table(group: Mapping[str, Any]) -> Table:
    title = f"Target group {group['name']}"
    if group["protocol"]:
        title += f"  {group['protocol']}, {group['algorithm']}"
    if group["fail_open"]:
        title += "  fails open: too few targets are healthy"
    for what, circuit in group.get("circuits", {}).items():
        if circuit["open"]:
            title += f"  circuit open: {circuit['now']} of {circuit['limit']} ({what})"
    if group.get("serving", group["name"]) != group["name"]:
        title += f"  served by its backup {group['serving']}"
    return make_table(
        title,
        ["target", "state", ">weight", ">in flight", ">requests", "reason"],
        [
            (
                " ".join(filter(None, (target["target"], target.get("name")))),
                show_state(target["state"]),
                _weight(target),
                show_count(target["in_flight"]),
                show_count(target["requests"]),
                Text(_why(target)),
            )
            for target in group["targets"]
        ],
    )


def _why(target: Mapping[str, Any]) -> str:
    """Reason and description; what the checks say where an operator has decided otherwise."""
    parts = [target["reason"], target["description"], target.get("share_reason")]
    if target.get("checked"):
        parts.append(f"(its checks say {target['checked']})")
    elif target.get("override") and target["override"]["weight"] is not None:
        parts.append("(an operator has set its weight)")
    return " ".join(filter(None, parts))


def _weight(target: Mapping[str, Any]) -> str:
    share = target.get("share", 100)
    return str(target["weight"]) if share == 100 else f"{target['weight']} x {share} %"


def _sources_table(group: Mapping[str, Any]) -> Table:
    return make_table(
        f"Discovery of {group['name']}",
        ["source", "state", ">targets", ">updates", ">failures", "problem"],
        [
            (
                source["source"],
                show_state(source["state"]),
                str(source["targets"]),
                show_count(source["updates"]),
                show_count(source["failures"]),
                Text(source["problem"]),
            )
            for source in group["sources"]
        ],
    )


def _seconds_ago(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds:.1f}s ago"
