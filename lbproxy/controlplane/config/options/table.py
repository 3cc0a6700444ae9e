"""The whole table of options, and looking things up in it.

The reader takes parsers and defaults from it, errors their suggestions, and `manual` the document.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import attrs

from lbproxy.controlplane.config.options import (
    listener,
    process,
    rate_limit,
    rule,
    security_group,
)
from lbproxy.controlplane.config.options.option import Option
from lbproxy.controlplane.config.options.target_group import (
    availability,
    balancing,
    connections,
    health,
    limits,
    outliers,
    sending,
    targets,
)


@attrs.frozen(kw_only=True)
class Kind:
    """A kind of section."""

    named: bool
    """Written ``[kind:NAME]``."""
    effect: str
    options: tuple[Option, ...]
    """In the order of the manual."""


KINDS: Mapping[str, Kind] = {
    "lbproxy": Kind(
        named=False,
        effect="The process itself. The section may be left out.",
        options=process.OPTIONS,
    ),
    "listener": Kind(named=True, effect="Where clients come in.", options=listener.OPTIONS),
    "rule": Kind(
        named=True,
        effect="Which requests of an HTTP or HTTPS listener go where. The rules of a listener are tried by priority,"
        " lowest first; the first one whose conditions all hold decides, else the listener's `default-action`."
        " A condition holds when one of its values matches. In a pattern `*` stands for any characters (also"
        " `/` and `.`), `?` for exactly one, and the whole text must match. `regex:` starts a regular"
        " expression in RE2's syntax, which matches anywhere unless anchored with `^` and `$`.",
        options=rule.OPTIONS,
    ),
    "target-group": Kind(
        named=True,
        effect="Targets that do the same work, how to choose among them, reach them and check their health.",
        options=(
            *targets.OPTIONS,
            *balancing.OPTIONS,
            *outliers.OPTIONS,
            *limits.OPTIONS,
            *availability.OPTIONS,
            *health.OPTIONS,
            *sending.OPTIONS,
            *connections.OPTIONS,
        ),
    ),
    "rate-limit": Kind(
        named=True,
        effect="How many requests an HTTP or HTTPS listener takes; what is beyond is answered with 429 and"
        " `Retry-After`. The limits of a listener are asked in the order of the file. All workers share them.",
        options=rate_limit.OPTIONS,
    ),
    "security-group": Kind(
        named=True,
        effect="Who may connect to the listeners that name it in `security-groups`. What no rule of an attached group"
        " lets in is closed before a byte of it is read.",
        options=security_group.OPTIONS,
    ),
}
"""By name, in the order of the manual."""


def _rows_by_name() -> Mapping[tuple[str, str], tuple[Option, ...]]:
    rows: dict[tuple[str, str], list[Option]] = {}
    for name, kind in KINDS.items():
        for option in kind.options:
            rows.setdefault((name, option.prefix or option.name), []).append(option)
    return {key: tuple(options) for key, options in rows.items()}


_ROWS = _rows_by_name()


def rows(kind: str, name: str) -> tuple[Option, ...]:
    """The rows of an option as it is written (``header.X-Tenant`` finds ``header.NAME``); empty if there is none."""
    prefix, dot, rest = name.partition(".")
    if dot:
        return _ROWS.get((kind, prefix.lower() + dot), ()) if rest else ()
    return _ROWS.get((kind, name), ())


def of_kind(kind: str, protocol: str | None) -> Iterable[Option]:
    """The rows that a section of this kind and protocol has."""
    return (option for option in KINDS[kind].options if option.applies_to(protocol))


def is_secret(kind: str, name: str) -> bool:
    """Tell whether an option's value is not to be shown."""
    return any(row.is_secret for row in rows(kind, name))


def default_of(kind: str, name: str, protocol: str | None) -> Any:
    """The default as a value; None where the table has none or the protocol does not know the option."""
    found = rows(kind, name)
    if not found:
        raise LookupError(f"[{kind}] {name} is not in the table")
    row = next((option for option in found if option.applies_to(protocol)), None)
    return None if row is None or row.default is None else row.form.parse(row.default)


def names_of(kind: str) -> tuple[str, ...]:
    """Names for suggestions and messages, each once."""
    return tuple(dict.fromkeys(option.name for option in KINDS[kind].options))
