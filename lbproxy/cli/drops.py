"""``lbproxy drops``: every connection and request that a running lbproxy itself ended or refused, by cause."""

from __future__ import annotations

import argparse
import json

from lbproxy.cli.client import add_admin_arguments, make_client, run_command
from lbproxy.cli.display import make_console, make_table, show_count, show_duration

NAME = "drops"
HELP = "show what a running lbproxy itself ended or refused, by cause"

_TITLES = {
    "failed": "Failed: did not get what they asked for",
    "closed": "Closed: connections that had all they asked for",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add_admin_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the ledger once; 1 when lbproxy cannot be reached."""
    return run_command(lambda: _run(arguments))


def _run(arguments: argparse.Namespace) -> int:
    ledger = make_client(arguments).get("/drops")
    if arguments.json:
        print(json.dumps(ledger, indent=2))
        return 0
    console = make_console()
    console.print(f"in {show_duration(ledger['uptime_seconds'])}, all workers")
    for kind, title in _TITLES.items():
        entries = [entry for entry in ledger["drops"] if entry["kind"] == kind]
        console.print()
        if not entries:
            console.print(f"{title}: none")
            continue
        rows = [
            (entry["listener"], entry["cause"], show_count(entry["count"]), entry["side"], entry["meaning"])
            for entry in entries
        ]
        console.print(make_table(title, ["listener", "cause", ">count", "side", "meaning"], rows))
    if ledger["requests_lost_with_workers"]:
        lost = ledger["requests_lost_with_workers"]
        console.print(f"\n{lost} requests or TCP connections were in flight at workers that ended without draining")
    return 0
