"""A clock that the compiled build reads without a detour through Python floats: several times for each request."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lbproxy.native.choice import available

if TYPE_CHECKING or not available:
    from lbproxy.native.pure.clock import Clock, Turns, turns
else:
    from lbproxy.native._clock import Clock, Turns, turns

__all__ = ["Clock", "Turns", "turns"]
