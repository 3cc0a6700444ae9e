"""``lbproxy check``: is this configuration right?"""

from __future__ import annotations

import argparse
import json
import sys
from typing import TextIO

import attrs

from lbproxy.controlplane.config.errors import ConfigurationError, Problem
from lbproxy.controlplane.config.load import Loaded, load

NAME = "check"
HELP = "say whether a configuration file is right, or everything that is wrong with it"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", nargs="?", metavar="FILE", help="configuration file (default: conf/lb.ini)")
    parser.add_argument("-c", "--config", metavar="FILE", help="the same, as for the other commands")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(args: argparse.Namespace) -> int:
    if args.file and args.config:
        print("lbproxy: name one configuration file", file=sys.stderr)
        return 2
    return check(args.file or args.config or "conf/lb.ini", args.json, sys.stdout)


def check(path: str, as_json: bool, out: TextIO) -> int:
    """Print what `load` says; returns the exit status, 0 if the file can be used and 1 if not.

    Nothing is written or started.  The JSON form has ``ok``, ``problems`` and ``warnings``.
    """
    problems: tuple[Problem, ...] = ()
    warnings: tuple[Problem, ...] = ()
    summary = ""
    try:
        loaded = load(path)
    except ConfigurationError as error:
        problems = error.problems
    else:
        warnings = loaded.warnings
        summary = _summary(loaded)
    if as_json:
        result = {
            "ok": not problems,
            "problems": [attrs.asdict(problem) for problem in problems],
            "warnings": [attrs.asdict(warning) for warning in warnings],
        }
        print(json.dumps(result, indent=2), file=out)
    else:
        for warning in warnings:
            print(f"warning: {warning}", file=out)
        for problem in problems:
            print(problem, file=out)
        if not problems:
            print(f"OK: {summary}", file=out)
    return 1 if problems else 0


def _summary(loaded: Loaded) -> str:
    configuration = loaded.configuration
    counts = {
        "listener": len(configuration.listeners),
        "rule": sum(len(listener.rules) for listener in configuration.listeners),
        "target group": len(configuration.target_groups),
        "target": sum(len(group.targets) for group in configuration.target_groups) + sum(loaded.demo.values()),
    }
    return ", ".join(f"{number} {what}{'' if number == 1 else 's'}" for what, number in counts.items())
