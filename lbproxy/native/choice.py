"""Whether the compiled modules are used.

They are where they were built, unless the environment says ``LBPROXY_NATIVE=off``; with
``LBPROXY_NATIVE=require`` it is an error if they were not.
"""

from __future__ import annotations

import os
from importlib import import_module

_MODULES = tuple(
    f"lbproxy.native.{name}"
    for name in (
        "_relay",
        "_loop",
        "_address",
        "_stream",
        "_accept",
        "_contexts",
        "_tls",
        "_http1",
        "_clock",
        "_ids",
        "_prefixes",
    )
)


def choose(setting: str) -> tuple[bool, str]:
    """Tell whether to use the compiled modules, and why.

    Raises `ImportError` where they are required and cannot be had, `ValueError` for an unknown setting.
    """
    if setting not in ("", "off", "require"):
        raise ValueError(f"LBPROXY_NATIVE is {setting!r}; it may be off, require or unset")
    if setting == "off":
        return False, "LBPROXY_NATIVE=off"
    try:
        for name in _MODULES:
            import_module(name)
    except ImportError as error:
        if setting == "require":
            raise
        return False, f"the compiled modules were not built ({error})"
    return True, "built"


available, reason = choose(os.environ.get("LBPROXY_NATIVE", ""))


def describe() -> str:
    """Say in one line, for the log at start, which build is in use."""
    return "native transports" if available else f"pure Python transports, which cost more: {reason}"
