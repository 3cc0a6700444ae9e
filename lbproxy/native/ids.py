"""Identifiers for every request; the compiled build makes them without Python's big integers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lbproxy.native.choice import available

if TYPE_CHECKING or not available:
    from lbproxy.native.pure.ids import Identifiers
else:
    from lbproxy.native._ids import Identifiers

__all__ = ["Identifiers"]
