"""Writes ``docs/configuration.md`` from the table of options.

``python -m lbproxy.controlplane.config.manual > docs/configuration.md``
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

from lbproxy.controlplane.config.options.option import Option
from lbproxy.controlplane.config.options.table import KINDS
from lbproxy.controlplane.config.values import either

_INTRODUCTION = """\
# Configuration

<!-- Made by `python -m lbproxy.controlplane.config.manual > docs/configuration.md`; change `options/`, not this. -->

`lbproxy check FILE` reads a file and says everything that is wrong with it, with line numbers; nothing is started.
A running lbproxy takes a changed file on SIGHUP (or `lbproxy reload`): what did not change is not touched, and a file
with a mistake changes nothing. Changed certificates are picked up without either. Whole files are `conf/lb.ini` and
those in `conf/examples`.

## Syntax

```ini
; a comment; a line that starts with # is one too
[listener:web]                    ; [kind:name]; names have letters, digits, hyphens, dots and underscores
protocol = HTTP
bind = 0.0.0.0:8080,              ; lists are separated by commas or new lines,
    127.0.0.2:8081                ; and a deeper indented line goes on with the value
default-action = forward ${GROUP:-app}
```

* A file is UTF-8. A `;` after white space starts a comment, unless it is inside `"double quotes"`.
* `${NAME}` is replaced from the environment; `${NAME:-default}` has a default for a missing or empty one; `$$` is `$`.
* Durations take `ms`, `s`, `m`, `h` or `d`; a bare number is seconds. Sizes take `k`, `m` or `g` (1024 and so on).
* On and off may be written `on`, `off`, `yes`, `no`, `true` or `false`.
* Relative paths start at the folder of the file.
* A wildcard `*` in `certificates` is that of a shell.
"""

_ACTIONS = """\
## Actions

| action | effect |
| --- | --- |
| `forward GROUP` | Send the request or connection to a target of this group. |
| `forward A weight=90, B weight=10` | Choose the group by weight, 0 to 999 (1 if not given). |
| `forward stickiness=1h A weight=90, B weight=10` | The same; a client stays with the group that it got, \
by the cookie `AWSALBTG`, 1s to 7d. |
| `redirect URL STATUS` | Answer with a redirect: 301, 302 (the default), 303, 307 or 308. |
| `fixed-response STATUS TYPE "BODY"` | Answer with this; 200-299, 400-499 or 500-599. \
The type is `text/plain` unless given, the body may be left out. In the body there are `\\"`, `\\\\`, `\\n` and `\\t`. |
| `fixed-response STATUS TYPE file:PATH` | The same with a body from a file, up to 64 KiB. |

A redirect's URL may hold `#{protocol}`, `#{host}`, `#{port}`, `#{path}` (without its leading `/`) and `#{query}` of
the request. A URL without a port means the protocol's own, or the request's where the protocol is `#{protocol}`; one
without `?` has no query; one that starts with `/` keeps protocol, host and port. It must change something, and does not
lead from HTTPS to HTTP.

```ini
action = redirect https://#{host}:8443/#{path}?#{query} 301
```
"""


def manual() -> str:
    """The whole document."""
    parts = [_INTRODUCTION]
    for name, kind in KINDS.items():
        parts.append(f"## [{name}{':NAME' if kind.named else ''}]\n\n{kind.effect}\n")
        parts.append("\n".join(_table(kind.options)) + "\n")
        if name == "rule":
            parts.append(_ACTIONS)
    return "\n".join(parts)


def _table(options: Sequence[Option]) -> Iterable[str]:
    yield "| option | value | default | effect | example |"
    yield "| --- | --- | --- | --- | --- |"
    for option in options:
        only = f" ({either(option.protocols)} only)" if option.protocols else ""
        cells = (f"`{option.name}`{only}", option.form.text, _default(option), option.effect, f"`{option.example}`")
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _default(option: Option) -> str:
    if option.required:
        return "required"
    if option.default is not None:
        return f"`{option.default}`"
    return option.default_text or "any"


if __name__ == "__main__":
    sys.stdout.write(manual())
