"""What the fields of a request or a response say to a proxy (RFC 9110, RFC 9112).

Each class reads a list of `Field` once. Its table of meanings, from name to method, holds the fields that mean
something to us; a method returns whether the field is also forwarded. All other fields are forwarded as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from lbproxy.wire.errors import RemoteProtocolError
from lbproxy.wire.http.desync import (
    BOTH_TE_CL_PRESENT,
    COMPLIANT,
    DUPLICATE_CONTENT_LENGTH,
    NON_COMPLIANT_HEADER,
    SUSPICIOUS_HEADER,
)
from lbproxy.wire.http.fields import (
    HOP_BY_HOP,
    NOT_OPTIONS,
    PLAIN_NAME_OCTETS,
    Field,
    connection_options,
    host_of,
    list_elements,
    looks_like_framing,
    underscored,
)
from lbproxy.wire.http.framing import check_transfer_encoding, parse_content_length

_NOTHING_TO_REMOVE = frozenset([b"close", *HOP_BY_HOP, *NOT_OPTIONS])
"""Connection options that name no field, one that is never forwarded, or one they cannot take away."""


class MessageFields:
    """The part that requests and responses share: framing, the connection's options and what is forwarded.

    Raises `RemoteProtocolError` for what no version of HTTP allows. May be shared between messages with the same
    fields: nothing changes after it is built but the index behind `values`.
    """

    __slots__ = ("_index", "chunked", "confidential", "content_length", "forwarded", "options", "received")

    meanings: ClassVar[Mapping[bytes, Callable[[Any, bytes], bool]]] = {}

    def __init__(self, received: list[Field]) -> None:
        self.received = received
        self._index: dict[bytes, list[bytes]] | None = None
        self.content_length = -1
        self.chunked = False
        self.options: frozenset[bytes] = frozenset()
        """What Connection lists, in lower case."""
        self.confidential = False
        """Holds cookies or credentials, so it must not outlive its message."""

        kept: list[Field] = []
        meanings = self.meanings
        for field in received:
            meaning = meanings.get(field[0])
            if meaning is None or meaning(self, field[1]):
                kept.append(field)
        if self.chunked and self.content_length >= 0:
            self._two_framings()
        if not self.options <= _NOTHING_TO_REMOVE:
            named = self.options - _NOTHING_TO_REMOVE
            kept = [field for field in kept if field[0] not in named]
        self.forwarded = b"\r\n".join([field[2] for field in kept]) + b"\r\n" if kept else b""
        """Field lines to send on, each with its CRLF."""

    def values(self, name: bytes) -> list[bytes]:
        """The values of all received fields of this name (lower case), in order."""
        if self._index is None:
            self._index = {}
            for received_name, value, _ in self.received:
                self._index.setdefault(received_name, []).append(value)
        return list(self._index.get(name, ()))

    def _drop(self, value: bytes) -> bool:
        return False

    def _connection(self, value: bytes) -> bool:
        self.options |= connection_options(value)
        return False

    def _two_framings(self) -> None:
        # RFC 9112 section 6.3: this may be an attempt at response splitting
        raise RemoteProtocolError("transfer-encoding and content-length", reason="BothTeClPresent")

    def _content_length(self, value: bytes) -> bool:
        if self.content_length >= 0:
            raise RemoteProtocolError("content-length twice", reason="MultipleContentLength")
        self.content_length = parse_content_length(value)
        return False

    def _transfer_encoding(self, value: bytes) -> bool:
        if self.chunked:
            raise RemoteProtocolError("transfer-encoding twice", reason="MultipleTransferEncodingChunked")
        check_transfer_encoding(value)
        self.chunked = True
        return False

    def _secret(self, value: bytes) -> bool:
        self.confidential = True
        return True


class RequestFields(MessageFields):
    """A request's fields, apart from what depends on its method, target and version."""

    __slots__ = (
        "authority",
        "desync",
        "expect_continue",
        "host",
        "host_seen",
        "odd_names",
        "referer",
        "te_trailers",
        "trace_id",
        "upgrade_websocket",
        "user_agent",
        "x_forwarded_for",
    )

    def __init__(self, received: list[Field]) -> None:
        self.host_seen = False
        self.authority = b""
        self.host = b""
        self.expect_continue = False
        self.upgrade_websocket = False
        self.te_trailers = False
        self.x_forwarded_for: bytes | None = None
        self.trace_id: bytes | None = None
        self.user_agent = b""
        self.referer = b""
        self.desync = COMPLIANT
        """A number of `wire.http.desync`, as far as the fields go."""
        self.odd_names = bool(b"".join([field[0] for field in received]).translate(None, PLAIN_NAME_OCTETS))
        """A name has something else than letters, digits and hyphens."""
        if not b"".join([field[2] for field in received]).isascii():
            self.desync = NON_COMPLIANT_HEADER
        if self.odd_names and any(looks_like_framing(field[0]) for field in received):
            # Not sent on: a target may read more into it than we do.
            self.desync = SUSPICIOUS_HEADER
            super().__init__([field for field in received if not looks_like_framing(field[0])])
            self.received = received
        else:
            super().__init__(received)
        # RFC 9110 section 7.8: an Upgrade that Connection does not name was not meant for us
        self.upgrade_websocket = self.upgrade_websocket and b"upgrade" in self.options

    def _content_length(self, value: bytes) -> bool:
        if self.content_length >= 0 and parse_content_length(value) == self.content_length:
            self.desync = max(self.desync, DUPLICATE_CONTENT_LENGTH)
            return False
        return super()._content_length(value)

    def _two_framings(self) -> None:
        # RFC 9112 section 6.3: the one that is safe to choose, if the connection ends with this request
        self.content_length = -1
        self.desync = BOTH_TE_CL_PRESENT

    def forwarded_without_expect(self) -> bytes:
        """For HTTP/1.0, where the expectation must be ignored (RFC 9110 section 10.1.1): nobody would wait for it."""
        lines = self.forwarded.splitlines(keepends=True)
        return b"".join([line for line in lines if not line.lower().startswith(b"expect:")])

    def _host(self, value: bytes) -> bool:
        if self.host_seen:
            raise RemoteProtocolError("more than one host field", reason="BadHost")
        self.host_seen = True
        if value:  # an empty one says that the target has no authority (RFC 9112 section 3.2)
            self.host = host_of(value)
            self.authority = value
        return False

    def _expect(self, value: bytes) -> bool:
        # whatever it says: some read more into it than it does ("y 100-continue")
        self.expect_continue = True
        return True

    def _upgrade(self, value: bytes) -> bool:
        self.upgrade_websocket = self.upgrade_websocket or b"websocket" in list_elements(value.lower())
        return False

    def _te(self, value: bytes) -> bool:
        self.te_trailers = self.te_trailers or b"trailers" in list_elements(value.lower())
        return False

    def _x_forwarded_for(self, value: bytes) -> bool:
        self.x_forwarded_for = value if self.x_forwarded_for is None else self.x_forwarded_for + b", " + value
        return False

    def _trace_id(self, value: bytes) -> bool:
        if self.trace_id is None:
            self.trace_id = value
        return False

    def _user_agent(self, value: bytes) -> bool:
        self.user_agent = self.user_agent or value
        return True

    def _referer(self, value: bytes) -> bool:
        self.referer = self.referer or value
        return True

    def _proxy_authorization(self, value: bytes) -> bool:
        self.confidential = True
        return False

    meanings = {
        **dict.fromkeys(HOP_BY_HOP, MessageFields._drop),
        b"authorization": MessageFields._secret,
        b"connection": MessageFields._connection,
        b"content-length": _content_length,
        b"cookie": MessageFields._secret,
        b"expect": _expect,
        b"host": _host,
        b"proxy-authorization": _proxy_authorization,
        b"referer": _referer,
        b"te": _te,
        b"transfer-encoding": MessageFields._transfer_encoding,
        b"upgrade": _upgrade,
        b"user-agent": _user_agent,
        b"x-amzn-trace-id": _trace_id,
        b"x-forwarded-for": _x_forwarded_for,
        b"x-forwarded-port": MessageFields._drop,
        b"x-forwarded-proto": MessageFields._drop,
        **{
            alias: MessageFields._drop
            for name in (*NOT_OPTIONS, *HOP_BY_HOP, b"proxy-authorization")
            for alias in underscored(name)
        },
    }


class ResponseFields(MessageFields):
    """A response's fields, apart from what depends on its status and version."""

    __slots__ = ("has_date", "upgrade")

    def __init__(self, received: list[Field]) -> None:
        self.upgrade = b""
        self.has_date = False
        super().__init__(received)

    def _upgrade(self, value: bytes) -> bool:
        self.upgrade = self.upgrade or value.lower()
        return False

    def _date(self, value: bytes) -> bool:
        self.has_date = True
        return True

    meanings = {
        **dict.fromkeys(HOP_BY_HOP, MessageFields._drop),
        b"connection": MessageFields._connection,
        b"content-length": MessageFields._content_length,
        b"date": _date,
        b"set-cookie": MessageFields._secret,
        b"transfer-encoding": MessageFields._transfer_encoding,
        b"upgrade": _upgrade,
    }
