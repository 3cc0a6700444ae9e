"""Who may do what by the admin API.

A web page that runs in an operator's browser must not be able to use it.  A browser says with every request that may
change something which site it comes from (Origin); that has to be the one it is sent to, and that one must be an
address or ``localhost``, for any name can be made to lead here (DNS rebinding).  No answer permits reading by others.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Sequence
from hashlib import sha256
from ipaddress import ip_address
from urllib.parse import urlsplit

import attrs
from twisted.web.server import Request

from lbproxy.controlplane.api.answers import Answer, Right, Route


@attrs.frozen
class Gate:
    """Refuses what a request may not do."""

    is_local: bool
    """Only this machine reaches the API: then its users need no token unless there are some."""
    tokens: Callable[[], Sequence[str]]
    """The operators' tokens now."""

    def refusal(self, request: Request, route: Route) -> Answer | None:
        """Give the answer that refuses this request; None when it may pass."""
        if route.right is Right.READ:
            return None
        if not _is_same_origin(request):
            return Answer.of_json(403, {"error": "refused: the request comes from another site's page"})
        if route.right is not Right.CHANGE:
            return None
        tokens = self.tokens()
        if tokens:
            return None if _is_one_of(bearer(request), tokens) else unauthorized(request, "an admin-token")
        if self.is_local:
            return None
        error = "refused: changes from other machines need an admin-token in [lbproxy]"
        return Answer.of_json(403, {"error": error})


def bearer(request: Request) -> str:
    """Give the token of a request (RFC 6750, section 2.1), empty if there is none."""
    scheme, _, token = (request.getHeader("Authorization") or "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def unauthorized(request: Request, what: str) -> Answer:
    """Refuse for want of the right token."""
    request.setHeader("WWW-Authenticate", 'Bearer realm="lbproxy"')
    return Answer.of_json(401, {"error": f"refused: send {what} as Authorization: Bearer TOKEN"})


def is_loopback(host: str) -> bool:
    """Tell whether only this machine reaches an address."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _is_one_of(token: str, tokens: Sequence[str]) -> bool:
    """Compare in a time that says nothing of the tokens."""
    given = sha256(token.encode("utf-8", "surrogateescape")).digest()
    return sum(hmac.compare_digest(given, sha256(each.encode()).digest()) for each in tokens) > 0


def _is_same_origin(request: Request) -> bool:
    """Tell whether no browser sent this, or one that shows a page of ours (RFC 6454, section 7)."""
    origin = request.getHeader("Origin")
    if origin is None:
        return True
    try:
        parts = urlsplit(origin)
        return parts.netloc.lower() == (request.getHeader("Host") or "").lower() != "" and _is_address(parts.hostname)
    except ValueError:
        return False


def _is_address(host: str | None) -> bool:
    try:
        ip_address(host or "")
    except ValueError:
        return host == "localhost"
    return True
