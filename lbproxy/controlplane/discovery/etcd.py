"""Targets from etcd: the keys with a prefix, through the JSON gateway of its version 3 API.

A key's value is a target (``10.0.0.1:8080 weight=2``, or a JSON object with ``host`` and ``port``); where it is empty
the rest of the key after the prefix is.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Callable
from typing import Any

from twisted.logger import Logger

from lbproxy.controlplane.discovery.base import Context, Sink
from lbproxy.controlplane.discovery.file import as_text
from lbproxy.controlplane.discovery.jsonapi import ApiError, JsonApi
from lbproxy.controlplane.discovery.watching import ListAndWatch
from lbproxy.model.discovery import EtcdSource
from lbproxy.model.target import Target

_log = Logger()


class EtcdTargets:
    """Follows the keys with a prefix."""

    def __init__(self, settings: EtcdSource, context: Context, sink: Sink, group: str) -> None:
        self._prefix = settings.prefix.encode()
        self._api = JsonApi(context.reactor, settings.url)
        self._parse_target = context.parse_target
        self._sink = sink
        self._targets: dict[bytes, Target] = {}
        """By key.  A value that is wrong leaves the target of before."""
        self._revision = 0
        """What we know is the store as of this revision."""
        self._following = ListAndWatch(context.reactor, self._list, self._watch, sink.failed)

    def start(self) -> None:
        self._following.start()

    def stop(self) -> None:
        self._following.stop()

    @property
    def _range(self) -> dict[str, str]:
        return {"key": _encode(self._prefix), "range_end": _encode(end_of(self._prefix))}

    async def _list(self) -> None:
        """Read all keys at once, as of one revision."""
        answer = await self._api.ask("POST", "/v3/kv/range", self._range)
        try:
            self._revision = int(answer["header"]["revision"])
            pairs = {_decode(pair["key"]): _decode(pair.get("value", "")) for pair in answer.get("kvs", ())}
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ApiError(f"{self._api.address} answers a range with something else: {error!r}") from error
        for key in self._targets.keys() - pairs.keys():
            del self._targets[key]
        for key, value in pairs.items():
            self._put(key, value)
        self._tell()

    async def _watch(self) -> None:
        """Take changes from the revision after the one that is known; return when etcd has forgotten that one."""
        request = {"create_request": {**self._range, "start_revision": str(self._revision + 1)}}
        try:
            await self._api.stream("POST", "/v3/watch", request, self._receive)
        except _Ended:
            return

    def _receive(self, message: Any) -> None:
        try:
            if "error" in message:
                raise ApiError(
                    f"{self._api.address} ends the watch: {message['error'].get('message', message['error'])}"
                )
            result = message["result"]
            if result.get("canceled"):
                reason = result.get("cancel_reason") or f"compacted at {result.get('compact_revision')}"
                _log.debug("{url} ends the watch: {reason}", url=self._api.address, reason=reason)
                raise _Ended
            events = result.get("events", ())
            for event in events:
                key = _decode(event["kv"]["key"])
                if event.get("type") == "DELETE":
                    self._targets.pop(key, None)
                else:
                    self._put(key, _decode(event["kv"].get("value", "")))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ApiError(f"{self._api.address} sends something else than events: {error!r}") from error
        if events:
            self._tell()

    def _put(self, key: bytes, value: bytes) -> None:
        try:
            self._targets[key] = parse(key[len(self._prefix) :], value, self._parse_target)
        except ValueError as error:
            _log.warn(
                "the value of {key} in etcd is no target: {error}", key=key.decode("utf-8", "replace"), error=error
            )

    def _tell(self) -> None:
        self._sink.found([self._targets[key] for key in sorted(self._targets)])


class _Ended(Exception):
    """The watch has to begin anew, from a list."""


def parse(name: bytes, value: bytes, parse_target: Callable[[str], Target]) -> Target:
    """Read the target of a key.  Raises ValueError that says what would be right."""
    text = value.decode("utf-8").strip()
    if text.startswith("{"):
        text = as_text(json.loads(text))
    return parse_target(text or name.decode("utf-8"))


def end_of(prefix: bytes) -> bytes:
    """The end of the range of keys with this prefix, as etcd wants it: the least key greater than all of them."""
    stripped = prefix.rstrip(b"\xff")
    return stripped[:-1] + bytes([stripped[-1] + 1]) if stripped else b"\0"


def _encode(data: bytes) -> str:
    return b64encode(data).decode()


def _decode(text: str) -> bytes:
    return b64decode(text)
