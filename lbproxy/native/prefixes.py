"""The texts of a set that are prefixes of another: looked for in C, or by the standard library's bisection."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lbproxy.native.choice import available

if TYPE_CHECKING or not available:
    from lbproxy.native.pure.prefixes import Prefixes
else:
    from lbproxy.native._prefixes import Prefixes

__all__ = ["Prefixes"]
