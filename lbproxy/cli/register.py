"""``lbproxy register``: a target registers itself, and is drained before it ends.

With a command, that is the target's server: it is started, registered once its port answers, and on SIGTERM
deregistered, drained and only then ended.  Without one, whoever runs is registered until SIGTERM.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from types import FrameType

from lbproxy.cli.client import (
    ADDRESS_VARIABLE,
    DEFAULT_ADDRESS,
    AdminClient,
    AdminError,
    add_token_argument,
    read_token,
    run_command,
)
from lbproxy.cli.drain import wait_for_drain
from lbproxy.cli.target import path_of

NAME = "register"
HELP = "register a target, renew that, and drain it before it ends; with a command, around that server's whole life"

RENEWALS_A_TTL = 3
"""So that one that is lost costs nothing."""

RETRY_SECONDS = 1.0
LOOK_SECONDS = 0.1
CONNECT_SECONDS = 1.0
ASK_SECONDS = 5.0
ENDING = (signal.SIGTERM, signal.SIGINT)
PASSED_ON = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
"""To the command.  Without one SIGHUP ends us, too: the terminal has gone."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--target-group", metavar="NAME", required=True, help="the target group to join")
    parser.add_argument(
        "--target",
        metavar="HOST:PORT",
        required=True,
        help="where lbproxy reaches the server; a name is looked up here",
    )
    parser.add_argument(
        "--admin",
        metavar="ADDRESS",
        action="append",
        help="an admin API, HOST:PORT or unix:PATH; may be repeated for several balancers"
        f" (default: ${ADDRESS_VARIABLE} or {DEFAULT_ADDRESS})",
    )
    add_token_argument(parser, "the registration-token of the target group")
    parser.add_argument("--ttl", type=float, default=30.0, metavar="SECONDS", help="(default: %(default)g)")
    parser.add_argument("--weight", type=int, default=1, help="0 to 999 (default: %(default)s)")
    parser.add_argument(
        "--port-check",
        action=argparse.BooleanOptionalAction,
        help="register only once the target's port answers (default: with a command)",
    )
    parser.add_argument(
        "--drain-timeout",
        type=float,
        default=300.0,
        metavar="SECONDS",
        help="wait for at most so long for what is in flight (default: %(default)g)",
    )
    parser.add_argument(
        "--stop-timeout",
        type=float,
        default=30.0,
        metavar="SECONDS",
        help="kill the command so long after it was asked to end (default: %(default)g)",
    )
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="-- COMMAND", help="the server to run")


def run(arguments: argparse.Namespace) -> int:
    """Register until the end; the exit status is the command's, 128 and the signal's number if one ended it."""
    return run_command(lambda: _run(arguments))


def _run(arguments: argparse.Namespace) -> int:
    command = arguments.command[1:] if arguments.command[:1] == ["--"] else arguments.command
    host, port = _address(arguments.target)
    target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    token = read_token(arguments)
    if not token:
        raise AdminError("give the registration-token of the target group with --token-file")
    addresses = arguments.admin or [os.environ.get(ADDRESS_VARIABLE) or DEFAULT_ADDRESS]
    memberships = [
        Membership(
            AdminClient(address, ASK_SECONDS, token), arguments.target_group, target, arguments.ttl, arguments.weight
        )
        for address in addresses
    ]
    checks_port = bool(command) if arguments.port_check is None else arguments.port_check
    life = Life(memberships, (host, port) if checks_port else None, arguments.drain_timeout, arguments.stop_timeout)
    return life.run(command)


def _address(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not (host and colon and port.isdecimal() and 0 < int(port) < 65536):
        raise AdminError(f"{text!r} is no target: give HOST:PORT")
    try:
        return str(socket.getaddrinfo(host.strip("[]"), None, type=socket.SOCK_STREAM)[0][4][0]), int(port)
    except OSError as error:
        raise AdminError(f"{host} cannot be resolved: {error.strerror}") from error


class Membership:
    """A target's registration with one balancer."""

    def __init__(self, client: AdminClient, group: str, target: str, ttl_seconds: float, weight: int) -> None:
        self.due = 0.0
        """When to register or renew next, in monotonic seconds."""
        self._client = client
        self._group = group
        self._target = target
        self._ttl_seconds = ttl_seconds
        self._weight = weight
        self._said: str | None = None

    @property
    def _where(self) -> str:
        return f"{self._group} at {self._client.address}"

    def renew(self) -> None:
        """Register, or renew; says when something about that is new."""
        body = {"ttl": self._ttl_seconds, "weight": self._weight}
        try:
            self._client.change("PUT", path_of(self._group, self._target), body)
        except AdminError as error:
            self._say(f"{self._target} is not registered in {self._where}: {error}")
            self.due = time.monotonic() + min(RETRY_SECONDS, self._ttl_seconds / RENEWALS_A_TTL)
        else:
            self._say(f"{self._target} is registered in {self._where}")
            self.due = time.monotonic() + self._ttl_seconds / RENEWALS_A_TTL

    def leave(self) -> bool:
        """Deregister; tell whether it is drained now.

        It is not when we are not registered, when another source still names the target, or when the balancer cannot
        be reached: that will notice by itself.
        """
        path = path_of(self._group, self._target)
        try:
            status, value = self._client.ask("DELETE", path)
            if status >= 300:
                raise AdminError(self._client.reason(path, status, value))
        except AdminError as error:
            self._say(f"{self._target} does not leave {self._where}: {error}")
            return False
        if value["still_named"]:
            self._say(f"{self._target} has left {self._where}, but stays: something else names it, too")
            return False
        self._say(f"{self._target} has left {self._where}")
        return True

    def drained(self) -> bool:
        """Tell whether the balancer has nothing in flight to us any more, or cannot be asked."""
        try:
            return wait_for_drain(self._client, self._group, self._target, 0.0, self._say)
        except AdminError as error:
            self._say(f"{self._target} cannot wait for {self._where}: {error}")
            return True

    def _say(self, text: str) -> None:
        if text != self._said:
            self._said = text
            print(f"lbproxy: {text}", file=sys.stderr, flush=True)


class Life:
    """From the start of the server to its end."""

    def __init__(
        self,
        memberships: Sequence[Membership],
        port: tuple[str, int] | None,
        drain_timeout_seconds: float,
        stop_timeout_seconds: float,
    ) -> None:
        """``port`` must answer before the target is registered."""
        self._memberships = memberships
        self._port = port
        self._drain_timeout_seconds = drain_timeout_seconds
        self._stop_timeout_seconds = stop_timeout_seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._news = threading.Event()
        self._ends = 0
        """How often we were asked to end."""

    def run(self, command: Sequence[str]) -> int:
        """Live; gives the exit status."""
        for number in (*ENDING, signal.SIGHUP):
            signal.signal(number, self._end)
        if command:
            for number in PASSED_ON:
                signal.signal(number, self._pass_on)
            self._start(command)
        while not self._is_over() and not self._port_answers():
            self._news.wait(LOOK_SECONDS)
        while not self._is_over():
            now = time.monotonic()
            for membership in self._memberships:
                if membership.due <= now:
                    membership.renew()
            self._news.wait(max(0.0, min(membership.due for membership in self._memberships) - time.monotonic()))
        self._leave()
        return self._stop()

    def _start(self, command: Sequence[str]) -> None:
        try:
            # in a group of its own, or Ctrl-C would end it before it has drained
            self._process = subprocess.Popen(command, preexec_fn=os.setpgrp)
        except OSError as error:
            raise AdminError(f"{command[0]} cannot be started: {error.strerror}") from error
        threading.Thread(target=self._watch, args=(self._process,), daemon=True).start()

    def _watch(self, process: subprocess.Popen[bytes]) -> None:
        process.wait()
        self._news.set()

    def _has_ended(self) -> bool:
        return self._process is not None and self._process.poll() is not None

    def _is_over(self) -> bool:
        return self._ends > 0 or self._has_ended()

    def _port_answers(self) -> bool:
        if self._port is None:
            return True
        try:
            socket.create_connection(self._port, CONNECT_SECONDS).close()
        except OSError:
            return False
        return True

    def _leave(self) -> None:
        """Deregister, and wait for what is in flight unless the server has gone or somebody is in a hurry."""
        draining = [membership for membership in self._memberships if membership.leave()]
        deadline = time.monotonic() + self._drain_timeout_seconds
        while draining and not self._has_ended() and self._ends < 2:
            draining = [membership for membership in draining if not membership.drained()]
            if time.monotonic() >= deadline:
                print("lbproxy: still in flight after --drain-timeout", file=sys.stderr, flush=True)
                return
            self._news.clear()
            if draining:
                self._news.wait(LOOK_SECONDS)

    def _stop(self) -> int:
        process = self._process
        if process is None:
            return 0
        if process.poll() is None:
            self._signal(signal.SIGTERM)
            try:
                process.wait(self._stop_timeout_seconds)
            except subprocess.TimeoutExpired:
                self._signal(signal.SIGKILL)
                process.wait()
        status = process.returncode
        return 128 - status if status < 0 else status

    def _signal(self, number: int) -> None:
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, number)

    def _end(self, number: int, frame: FrameType | None) -> None:
        self._ends += 1
        self._news.set()

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        self._signal(number)
