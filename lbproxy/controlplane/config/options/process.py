"""The options of ``[lbproxy]``."""

from __future__ import annotations

from lbproxy.controlplane.config.options.option import Option
from lbproxy.controlplane.config.targets import ZONE
from lbproxy.controlplane.config.tokens import TOKENS
from lbproxy.controlplane.config.values import (
    Form,
    as_written,
    bind,
    duration_from,
    integer_from,
    is_address,
    list_of,
    one_of,
    split_address,
)
from lbproxy.ipc.cells import SLOT_LIMIT
from lbproxy.model.listener import Bind


def _workers(text: str) -> int | None:
    if text == "auto":
        return None
    try:
        return integer_from(0, SLOT_LIMIT).parse(text)
    except ValueError:
        raise ValueError(f"write auto or a number from 0 to {SLOT_LIMIT}") from None


def _admin(text: str) -> Bind | str | None:
    """An address, the path of a UNIX socket, or None for none."""
    if text == "off":
        return None
    if text.startswith("unix:"):
        if path := text[len("unix:") :].strip():
            return path
        raise ValueError("unix: needs a path, for example unix:/run/lbproxy/admin.sock")
    try:
        return bind(text)
    except ValueError as error:
        raise ValueError(f"{error}; or unix:PATH, or off") from None


def _name_server(text: str) -> tuple[str, int]:
    host, port = split_address(text) if ":" in text.removeprefix("[") and not is_address(text) else (text, 53)
    if not is_address(host):
        raise ValueError("not the address of a name server; write for example 10.0.0.53 or 127.0.0.1:5353")
    return host, port


OPTIONS: tuple[Option, ...] = (
    Option(
        name="workers",
        form=Form(f"auto or number, 0 to {SLOT_LIMIT}", _workers),
        default="auto",
        effect="Worker processes: `auto` is one for each CPU; 0 runs everything in one process, for development.",
        example="4",
    ),
    Option(
        name="admin",
        form=Form("address with port, unix:PATH or off", _admin),
        default="off",
        effect="Where the admin API, `/metrics`, `/status` and `/ready` are served. Anybody who reaches it may read;"
        " see `admin-token` for changes.",
        example="127.0.0.1:9901",
    ),
    Option(
        name="admin-token",
        form=TOKENS,
        is_secret=True,
        default_text="none",
        effect="Files with tokens, one a line. Who changes something by the admin API has to send one of them"
        " (`lbproxy` commands take it from `-c FILE` or `--token-file`). Without, changes are allowed at a loopback"
        " address or a UNIX socket only.",
        example="file:admin.token",
    ),
    Option(
        name="access-log",
        form=as_written("path, stdout or off"),
        default="off",
        effect="Where each request leaves its line. The file is reopened on SIGUSR1.",
        example="logs/access.log",
    ),
    Option(
        name="access-log-format",
        form=one_of("json", "combined", "alb"),
        default="json",
        effect="How a line looks: JSON, Apache's combined format, or that of an Application Load Balancer.",
        example="alb",
    ),
    Option(
        name="drain-timeout",
        form=duration_from("0s", "1d"),
        default="30s",
        effect="How long requests and connections in flight may finish when a worker stops.",
        example="5m",
    ),
    Option(
        name="state-directory",
        form=as_written("path"),
        default="state",
        effect="What lbproxy keeps from one start to the next: the self-signed certificate, which workers run, which"
        " targets were discovered. Under systemd the service's own (`$STATE_DIRECTORY`) unless given here.",
        example="/var/lib/lbproxy",
    ),
    Option(
        name="zone",
        form=ZONE,
        default_text="none",
        effect="Where this lbproxy stands, for target groups with `cross-zone = spill` or `off`.",
        example="eu-central-1a",
    ),
    Option(
        name="resolver",
        form=list_of(Form("", _name_server), "list of addresses, perhaps with port"),
        default_text="as the system: `/etc/hosts`, `/etc/resolv.conf`",
        effect="The name servers to ask for the names of targets.",
        example="10.0.0.53, 127.0.0.1:5353",
    ),
)
