"""The Location of a redirect action (ELBv2 ``RedirectActionConfig``)."""

from __future__ import annotations

import re

from lbproxy.dataplane.router.request import RoutableRequest
from lbproxy.model.rule import Redirect

_PLACEHOLDER = re.compile(rb"#\{(protocol|host|port|path|query)\}")
_IP_LITERAL = re.compile(rb"\[[0-9A-Fa-f:.]+\]")
_UNSAFE_IN_HOST = re.compile(rb"[^A-Za-z0-9._~!$&'()*+,;=%-]")
_UNSAFE_IN_PATH_OR_QUERY = re.compile(rb"[\x00-\x20\x7f-\xff\"#<>\\^`{|}]")
_DEFAULT_PORTS = {b"http": b"80", b"https": b"443"}


def expand(redirect: Redirect, request: RoutableRequest, protocol: str, port: int, host: bytes) -> bytes:
    """The absolute URL that the client is sent to.

    ``protocol`` (``http`` or ``https``), ``port`` and ``host`` are what the client reached us by: the
    listener's protocol and port, and the request's host without its port, never empty.

    What a client sent is put in once and not looked at again, so a placeholder in it stays as it
    is.  Path and query are kept as received, but for characters that RFC 3986 does not allow
    there: they are percent-encoded, so that a line break cannot end the field and a ``#`` cannot
    cut the URL short.  The same goes for the host, which cannot grow a user, a port or a path.
    """
    values = {
        b"protocol": protocol.lower().encode(),
        b"host": _safe_host(host),
        b"port": b"%d" % port,
        b"path": _UNSAFE_IN_PATH_OR_QUERY.sub(_percent, request.path.removeprefix(b"/")),
        b"query": _UNSAFE_IN_PATH_OR_QUERY.sub(_percent, request.query),
    }

    def fill(template: str) -> bytes:
        return _PLACEHOLDER.sub(lambda placeholder: values[placeholder[1]], template.encode())

    scheme = fill(redirect.protocol).lower()
    authority = fill(redirect.host)
    target_port = fill(redirect.port)
    if target_port != _DEFAULT_PORTS.get(scheme):
        authority += b":" + target_port
    path = fill(redirect.path)
    if not path.startswith(b"/"):
        path = b"/" + path  # else the client's path would go on where the host ends
    query = fill(redirect.query)
    return scheme + b"://" + authority + path + (b"?" + query if query else b"")


def _safe_host(host: bytes) -> bytes:
    if _IP_LITERAL.fullmatch(host):
        return host
    return _UNSAFE_IN_HOST.sub(_percent, host)


def _percent(character: re.Match[bytes]) -> bytes:
    return b"%%%02X" % character[0][0]
