"""How much of what costs us more than the peer a connection may do.

Each such act counts some points; points fade with time, and with requests that end well.  Who has too many is told
ENHANCE_YOUR_CALM and the connection ends; the reason names the act that went too far.

What bounds memory is bounded apart from this: see `lbproxy.wire.http2.connection`.
"""

from __future__ import annotations

from lbproxy.wire.http2.errors import ENHANCE_YOUR_CALM, ConnectionFault

MAX_POINTS = 1000.0
FADING_PER_SECOND = 100.0
"""So that what a client does now and then never adds up: 25 cancelled requests a second, or 100 pings."""
GOOD_REQUEST = 4.0
"""What a request that was answered in full takes away."""

RAPID_RESET = "Http2RapidReset"
"""The client cancels requests that were not answered yet (CVE-2023-44487)."""
MADE_RESET = "Http2MadeReset"
"""The client makes us reset its streams (CVE-2025-8671): their requests cost as much as those it cancels."""
REFUSED_STREAMS = "Http2TooManyStreams"
CONTINUATION_FLOOD = "Http2ContinuationFlood"
"""A header block in more frames, or of more octets, than any client needs."""
HEADER_BOMB = "Http2HeaderBomb"
"""Few octets that stand for many fields, or large ones."""
PING_FLOOD = "Http2PingFlood"
SETTINGS_FLOOD = "Http2SettingsFlood"
PRIORITY_FLOOD = "Http2PriorityFlood"
EMPTY_FRAMES = "Http2EmptyFrames"
WINDOW_FLOOD = "Http2WindowUpdateFlood"
STRAY_FRAMES = "Http2StrayFrames"
"""Frames of streams that are over, and of types that nobody knows."""

POINTS = {
    RAPID_RESET: 4.0,
    MADE_RESET: 10.0,
    REFUSED_STREAMS: 2.0,
    CONTINUATION_FLOOD: 2.0,
    HEADER_BOMB: 20.0,
    PING_FLOOD: 1.0,
    SETTINGS_FLOOD: 10.0,
    PRIORITY_FLOOD: 1.0,
    EMPTY_FRAMES: 4.0,
    WINDOW_FLOOD: 1.0,
    STRAY_FRAMES: 1.0,
}


class Score:
    """The points of one connection."""

    __slots__ = ("_at", "points")

    def __init__(self) -> None:
        self.points = 0.0
        self._at = 0.0

    def charge(self, cause: str, now: float) -> None:
        """Count an act; raises `ConnectionFault` when it is one too many."""
        points = self.points - (now - self._at) * FADING_PER_SECOND
        self._at = now
        self.points = points = max(points, 0.0) + POINTS[cause]
        if points > MAX_POINTS:
            raise ConnectionFault(f"too much of {cause}", ENHANCE_YOUR_CALM, cause)

    def redeem(self) -> None:
        """A request ended well."""
        self.points = max(self.points - GOOD_REQUEST, 0.0)
