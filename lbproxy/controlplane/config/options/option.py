"""What a row of the table of options says."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import Enum
from typing import Any

import attrs

from lbproxy.controlplane.config.values import Form, either

HTTP = ("HTTP", "HTTPS")
TCP = ("TCP", "TLS")
ENCRYPTED = ("HTTPS", "TLS")


@attrs.frozen(kw_only=True)
class Option:
    """One row."""

    name: str
    """For ``header.NAME`` and ``query.KEY`` the part after the dot is free."""
    form: Form[Any]
    effect: str
    """A sentence or two for the manual."""
    example: str
    default: str | None = None
    """As one would write it; None where there is none (``default_text`` says what that means)."""
    default_text: str = ""
    """What the manual says where there is no ``default``."""
    required: bool = False
    protocols: tuple[str, ...] = ()
    """Protocols (of the listener or target group) that know it; empty for all."""
    check_name: Callable[[str], object] | None = None
    """For a name with a free part: given the option as written, raises ValueError where that part is not right."""
    is_secret: bool = False
    """Whether its value is a file with a secret; what else stands there is not shown."""

    @property
    def prefix(self) -> str | None:
        """``header.`` of ``header.NAME``; None for an ordinary option."""
        start, dot, _ = self.name.partition(".")
        return start + dot if dot else None

    def applies_to(self, protocol: str | None) -> bool:
        """Tell whether the protocol knows this option; an unknown protocol (None) gets the benefit of the doubt."""
        return not self.protocols or protocol is None or protocol in self.protocols


def free_part(option: str) -> str:
    """``X-Tenant`` of ``header.X-Tenant``."""
    return option.partition(".")[2]


_NOT_YET = frozenset(("UDP", "TCP_UDP", "GENEVE", "QUIC", "TCP_QUIC"))


def protocol_of(supported: Iterable[Enum]) -> Form[str]:
    """One of these protocols; those of ELBv2 that are missing are told from mistakes."""
    words = tuple(protocol.value for protocol in supported)

    def parse(text: str) -> str:
        if text in words:
            return text
        if text in _NOT_YET:
            raise ValueError(f"{text} is not supported by this version; write {either(words)}")
        if text.upper() in words:
            raise ValueError(f"write {text.upper()}, in capitals")
        raise ValueError(f"no such protocol; write {either(words)}")

    return Form(either(words), parse)
