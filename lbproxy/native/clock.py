"""A clock that the compiled build reads without a detour through Python floats: several times for each request."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lbproxy.native.choice import available

if TYPE_CHECKING or not available:
    from lbproxy.native.pure.clock import Clock
else:
    from lbproxy.native._clock import Clock

__all__ = ["Clock"]
