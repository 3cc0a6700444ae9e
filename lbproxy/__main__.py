"""The ``lbproxy`` command, also ``python -m lbproxy``.

``worker`` and ``demo-target`` are for the supervisor, which starts them; people use the rest.
"""

from __future__ import annotations

import argparse
import faulthandler
import gc
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, cast

from lbproxy import __version__

COMMANDS = ("check", "explain", "status", "top", "drops", "reload", "drain", "target", "register")
"""Modules of `lbproxy.cli`."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a subcommand; give the exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    internal = _INTERNAL.get(arguments[0]) if arguments else None
    if internal is not None:
        return internal(arguments[1:])  # without the others' imports: a worker starts in a hurry
    parser = _parser()
    if not arguments:
        parser.print_help(sys.stderr)
        return 2
    parsed = parser.parse_args(arguments)
    run: Callable[[argparse.Namespace], int] = parsed.run
    try:
        return run(parsed)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # our reader, such as head, has had enough
        sys.stderr.close()
        return 141


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="lbproxy", description="An elastic load balancer for HTTP, TLS and TCP.")
    parser.add_argument("--version", action="version", version=f"lbproxy {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    run = commands.add_parser("run", help="serve in the foreground (twistd -n lbproxy -c FILE)")
    run.add_argument("-c", "--config", metavar="FILE", required=True, help="the configuration file")
    run.set_defaults(run=_run)
    for name in COMMANDS:
        module = import_module(f"lbproxy.cli.{name}")
        command = commands.add_parser(module.NAME, help=module.HELP, description=module.HELP)
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    return parser


def _run(parsed: argparse.Namespace) -> int:
    from twisted.scripts.twistd import run

    sys.argv = ["twistd", "--nodaemon", "--pidfile=", "lbproxy", "--config", parsed.config]
    run()
    return 0


def _worker(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="lbproxy worker")
    parser.add_argument("--channel-fd", type=int, required=True)
    parser.add_argument("--rendezvous")
    parsed = parser.parse_args(arguments)
    _serve_as_worker(parsed.channel_fd, parsed.rendezvous)
    return 0


_YOUNG_OBJECTS = 20_000
"""More objects made than freed before a worker's collector looks at the new ones."""


def _serve_as_worker(channel_fd: int, rendezvous: str | None) -> None:
    """Be a worker until it has drained.

    Signals are the supervisor's business: Ctrl-C in a terminal reaches us too, and must not end what is in flight.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    faulthandler.enable()  # the supervisor sends SIGABRT to a worker that hangs, and logs where it does
    from lbproxy import native
    from lbproxy.native.reactor import install

    install()
    from twisted.internet import reactor
    from twisted.logger import Logger, globalLogBeginner

    from lbproxy.dataplane.worker import Worker
    from lbproxy.ipc.channel import Channel, UnixChannel
    from lbproxy.ipc.log import LineObserver
    from lbproxy.ipc.orphan import RejoiningChannel

    globalLogBeginner.beginLoggingTo([LineObserver(sys.stderr)], redirectStandardIO=False)
    Logger("lbproxy.native").info("{build}", build=native.describe())
    own = cast(Any, reactor)
    channel: Channel = UnixChannel(own, socket.socket(fileno=channel_fd))
    if rendezvous is not None:
        channel = RejoiningChannel(own, channel, rendezvous)
    worker = Worker(own, channel)
    channel.on_lost = own.stop  # nobody would ever relieve us

    def finished() -> None:
        channel.close()  # or the reactor's end would look like the supervisor's
        own.stop()

    worker.on_finished = finished
    _collect_less()
    own.callWhenRunning(worker.startService)
    own.run(installSignalHandlers=False)


def _collect_less() -> None:
    """Have the collector leave alone what is there at the start, and look less often at what comes and goes.

    Connections and exchanges take their references apart when they end, so there is little to collect; by default the
    collector took a twentieth of the processor time, and more the more connections are open.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS)


def _demo_target(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="lbproxy demo-target")
    parser.add_argument("--name", required=True)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--tcp", action="store_true")
    parsed = parser.parse_args(arguments)
    from twisted.internet import reactor

    from lbproxy.testing.demo_target import run

    run(reactor, parsed.name, parsed.port, parsed.tcp)
    return 0


_INTERNAL: dict[str, Callable[[Sequence[str]], int]] = {"worker": _worker, "demo-target": _demo_target}


if __name__ == "__main__":
    sys.exit(main())
