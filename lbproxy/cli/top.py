"""``lbproxy top``: what a running lbproxy does now, as rates between two looks at its counters."""

from __future__ import annotations

import argparse
import json
import os
import select
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import attrs
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from lbproxy.cli.client import AdminClient, AdminError, add_admin_arguments, make_client, run_command
from lbproxy.cli.display import make_console, make_table, show_count, show_latency, show_rate, show_state
from lbproxy.cli.status import count_server_errors, headline

NAME = "top"
HELP = "show rates and targets of a running lbproxy, again and again"

_HTTP_PROTOCOLS = ("HTTP", "HTTPS")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add_admin_arguments(parser)
    parser.add_argument("--once", action="store_true", help="print once and end, as without a terminal")
    parser.add_argument(
        "--interval",
        metavar="SECONDS",
        type=_interval,
        default=1.0,
        help="time between two looks (default: %(default)g)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Show rates until q or Ctrl-C; 1 when lbproxy cannot be reached at the start."""
    return run_command(lambda: _run(arguments))


@attrs.frozen
class Sample:
    """The status document and when it was taken."""

    seconds: float
    status: Mapping[str, Any]


def rates(before: Sample, after: Sample) -> dict[str, Any]:
    """What happened between two samples, per second, with what is the case now.

    Counters that went back (lbproxy was restarted) give 0.
    """
    seconds = max(after.seconds - before.seconds, 1e-3)
    old_listeners = {listener["name"]: listener for listener in before.status["listeners"]}
    old_targets = dict(_targets(before.status))

    def per_second(new: float, old: float) -> float:
        return max(0.0, (new - old) / seconds)

    return {
        "seconds": round(seconds, 3),
        "listeners": [
            _listener_rates(listener, old_listeners.get(listener["name"], listener), per_second)
            for listener in after.status["listeners"]
        ],
        "targets": [
            _target_rates(group, target, old_targets.get((group, key), target), per_second)
            for (group, key), target in _targets(after.status)
        ],
    }


def _targets(status: Mapping[str, Any]) -> Iterator[tuple[tuple[str, str], Mapping[str, Any]]]:
    for group in status["target_groups"]:
        for target in group["targets"]:
            yield (group["name"], target["target"]), target


def _listener_rates(new: Mapping[str, Any], old: Mapping[str, Any], per_second: Any) -> dict[str, Any]:
    latency = new.get("duration", {})
    return {
        "name": new["name"],
        "protocol": new["protocol"],
        "active": new["active"],
        "connections_per_second": per_second(new["connections"], old["connections"]),
        "requests_per_second": per_second(new["requests"], old["requests"]),
        "errors_per_second": per_second(_listener_errors(new), _listener_errors(old)),
        "received_bytes_per_second": per_second(new["received_bytes"], old["received_bytes"]),
        "sent_bytes_per_second": per_second(new["sent_bytes"], old["sent_bytes"]),
        "p50_seconds": latency.get("p50"),
        "p99_seconds": latency.get("p99"),
    }


def _target_rates(group: str, new: Mapping[str, Any], old: Mapping[str, Any], per_second: Any) -> dict[str, Any]:
    latency = new.get("response_time", {})
    return {
        "group": group,
        "target": new["target"],
        "state": new["state"],
        "in_flight": new["in_flight"],
        "requests_per_second": per_second(new["requests"], old["requests"]),
        "errors_per_second": per_second(_target_errors(new), _target_errors(old)),
        "p50_seconds": latency.get("p50"),
        "p99_seconds": latency.get("p99"),
    }


def _listener_errors(listener: Mapping[str, Any]) -> int:
    """Answers of 500 and more, or, where there are no answers, connections that failed."""
    if listener["protocol"] in _HTTP_PROTOCOLS:
        return count_server_errors(listener)
    faults: Mapping[str, int] = listener["faults"]
    return sum(faults.values())


def _target_errors(target: Mapping[str, Any]) -> int:
    """Attempts that failed and answers of 500 to 599."""
    faults: Mapping[str, int] = target["faults"]
    responses: Sequence[int] = target.get("responses", ())
    return sum(faults.values()) + sum(responses[5:6])


def _run(arguments: argparse.Namespace) -> int:
    client = make_client(arguments)
    console = make_console()
    before = _look(client)
    try:
        if arguments.once or arguments.json or not console.is_terminal:
            _print_rates(client, before, arguments, console)
        else:
            with _keys() as wait_for_q, Live(console=console, screen=True, auto_refresh=False) as live:
                _show_until_q(client, before, arguments.interval, wait_for_q, live)
    except KeyboardInterrupt:
        pass
    return 0


def _look(client: AdminClient) -> Sample:
    status = client.get("/status")
    return Sample(time.monotonic(), status)


def _print_rates(client: AdminClient, before: Sample, arguments: argparse.Namespace, console: Console) -> None:
    """Print once, or with ``--json`` and without ``--once`` a line of JSON for each interval."""
    while True:
        time.sleep(arguments.interval)
        after = _look(client)
        if arguments.json:
            print(json.dumps(rates(before, after)), flush=True)
        else:
            console.print(render(after, rates(before, after)))
        if arguments.once or not arguments.json:
            return
        before = after


def _show_until_q(client: AdminClient, before: Sample, interval_seconds: float, wait_for_q: Any, live: Live) -> None:
    shown: RenderableType = Text("one moment")
    live.update(shown, refresh=True)
    while not wait_for_q(interval_seconds):
        try:
            after = _look(client)
        except AdminError as error:
            # It may be restarting: keep what is known and go on asking.
            live.update(Group(Text(str(error), style="bold red"), shown), refresh=True)
            continue
        shown = render(after, rates(before, after))
        live.update(shown, refresh=True)
        before = after


def render(sample: Sample, now: Mapping[str, Any]) -> RenderableType:
    """The screen: headline, listeners, targets."""
    listeners = make_table(
        "Listeners",
        ["listener", "protocol", ">active", ">conn/s", ">req/s", ">errors/s", ">in B/s", ">out B/s", ">p50", ">p99"],
        [
            (
                row["name"],
                row["protocol"],
                show_count(row["active"]),
                show_rate(row["connections_per_second"]),
                show_rate(row["requests_per_second"]),
                _show_errors(row["errors_per_second"]),
                show_rate(row["received_bytes_per_second"]),
                show_rate(row["sent_bytes_per_second"]),
                show_latency(row["p50_seconds"]),
                show_latency(row["p99_seconds"]),
            )
            for row in now["listeners"]
        ],
    )
    targets = make_table(
        "Targets",
        ["group", "target", "state", ">in flight", ">req/s", ">errors/s", ">p50", ">p99"],
        [
            (
                row["group"],
                row["target"],
                show_state(row["state"]),
                show_count(row["in_flight"]),
                show_rate(row["requests_per_second"]),
                _show_errors(row["errors_per_second"]),
                show_latency(row["p50_seconds"]),
                show_latency(row["p99_seconds"]),
            )
            for row in now["targets"]
        ],
    )
    return Group(headline(sample.status), "", listeners, "", targets, Text("p50 and p99 since the start", style="dim"))


def _show_errors(per_second: float) -> Text:
    return Text(show_rate(per_second), style="bold red" if per_second > 0 else "")


@contextmanager
def _keys() -> Iterator[Any]:
    """Give a function that waits so many seconds and tells whether q was pressed meanwhile."""
    if not sys.stdin.isatty():
        yield time.sleep
        return
    # Only where there is a terminal: the modules do not exist everywhere.
    import termios
    import tty

    def wait_for_q(seconds: float) -> bool:
        ready, _, _ = select.select([sys.stdin], [], [], seconds)
        if not ready:
            return False
        pressed = os.read(sys.stdin.fileno(), 64)
        return not pressed or b"q" in pressed.lower()

    former = termios.tcgetattr(sys.stdin)
    try:
        tty.setcbreak(sys.stdin.fileno())
        yield wait_for_q
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, former)


def _interval(text: str) -> float:
    seconds = float(text)
    if not 0.1 <= seconds <= 3600:
        raise argparse.ArgumentTypeError("between 0.1 and 3600 seconds")
    return seconds
