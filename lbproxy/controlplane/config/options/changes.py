"""The options for changes of fields, which listeners and rules have alike."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from lbproxy.controlplane.config.options.option import Option, free_part
from lbproxy.controlplane.config.transforms import FIELD_VALUE, changed_field, changed_fields
from lbproxy.controlplane.config.values import list_of


def _check_name(option: str, *, request: bool) -> None:
    changed_field(free_part(option), request=request)


def change_rows(protocols: tuple[str, ...] = ()) -> Iterable[Option]:
    """The rows for a kind of section; ``protocols`` are those that know them."""
    for message, whose, example in (
        ("request", "requests that are forwarded", "#{client-ip}"),
        ("response", "answers", "public, max-age=60"),
    ):
        check_name = partial(_check_name, request=message == "request")
        name = "X-Real-IP" if message == "request" else "Cache-Control"
        yield Option(
            name=f"set-{message}-header.NAME",
            check_name=check_name,
            form=FIELD_VALUE,
            protocols=protocols,
            default_text="none",
            effect=f"Give {whose} the field `NAME` with this value, in place of any that they have."
            " `#{...}` stands for `protocol`, `host`, `port`, `path`, `query`, `client-ip`, `client-port` or"
            f" `trace-id`; for example `set-{message}-header.{name}`.",
            example=example,
        )
        yield Option(
            name=f"add-{message}-header.NAME",
            check_name=check_name,
            form=FIELD_VALUE,
            protocols=protocols,
            default_text="none",
            effect=f"Add the field `NAME` to {whose}, whether or not they have one.",
            example=example,
        )
        yield Option(
            name=f"remove-{message}-headers",
            form=list_of(changed_fields(request=message == "request"), "list of header names"),
            protocols=protocols,
            default_text="none",
            effect=f"Remove these fields from {whose}.",
            example="X-Debug, X-Internal" if message == "request" else "X-Powered-By",
        )
