"""Targets from etcd: the keys with a prefix, through the JSON gateway of its version 3 API.

A key's value is a target (``10.0.0.1:8080 weight=2``, or a JSON object with ``host`` and ``port``); where it is empty
the rest of the key after the prefix is.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Awaitable, Callable
from typing import Any

from twisted.logger import Logger

from lbproxy.controlplane.discovery.base import Context, Sink
from lbproxy.controlplane.discovery.file import as_text
from lbproxy.controlplane.discovery.jsonapi import ApiError, JsonApi
from lbproxy.controlplane.discovery.watching import ListAgain, ListAndWatch
from lbproxy.model.discovery import EtcdSource
from lbproxy.model.target import Target

_log = Logger()


class EtcdTargets:
    """Follows the keys with a prefix: one list, then a watch that goes on from the last revision it has seen."""

    def __init__(self, settings: EtcdSource, context: Context, sink: Sink, group: str) -> None:
        self._prefix = settings.prefix.encode()
        api = JsonApi(context.reactor, settings.url, settings.authorities_pem)
        self._gateway = Gateway(api, settings.user, settings.password)
        self._parse_target = context.parse_target
        self._sink = sink
        self._targets: dict[bytes, Target] = {}
        """By key.  A value that is wrong leaves the target of before."""
        self._revision = 0
        """What we know is the store as of this revision."""
        self._cluster = ""
        """Id of the cluster whose revision it is."""
        self._following = ListAndWatch(context.reactor, self._list, self._watch, sink.failed, resumes=True)

    def start(self) -> None:
        self._following.start()

    def stop(self) -> None:
        self._following.stop()

    @property
    def _range(self) -> dict[str, str]:
        return {"key": _encode(self._prefix), "range_end": _encode(end_of(self._prefix))}

    async def _list(self) -> None:
        """Read all keys at once, as of one revision."""
        answer = await self._gateway.ask("/v3/kv/range", self._range)
        try:
            self._revision = int(answer["header"]["revision"])
            self._cluster = answer["header"].get("cluster_id", "")
            pairs = {_decode(pair["key"]): _decode(pair.get("value", "")) for pair in answer.get("kvs", ())}
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ApiError(f"{self._gateway.address} answers a range with something else: {error!r}") from error
        for key in self._targets.keys() - pairs.keys():
            del self._targets[key]
        for key, value in pairs.items():
            self._put(key, value)
        self._tell()

    async def _watch(self) -> None:
        """Take changes from the revision after the one that is known.

        Raises `ListAgain` when etcd has forgotten that one, or never had it.
        """
        request = {**self._range, "start_revision": str(self._revision + 1), "progress_notify": True}
        await self._gateway.watch({"create_request": request}, self._receive)

    def _receive(self, message: Any) -> None:
        try:
            if "error" in message:
                error = message["error"]
                raise ApiError(f"{self._gateway.address} ends the watch: {error.get('message', error)}")
            result = message["result"]
            if result.get("canceled"):
                raise self._reason(result)
            if result.get("created"):
                self._created(result["header"])
                return
            events = result.get("events", ())
            for event in events:
                self._take(event)
            if not events:  # a sign of progress: everything up to here has been sent
                self._revision = max(self._revision, int(result["header"]["revision"]))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ListAgain(f"{self._gateway.address} sends something else than events: {error!r}") from error
        if events:
            self._tell()

    def _created(self, header: Any) -> None:
        """The watch stands; its revisions mean what we think only if the store is the one that was listed.

        It is not when it was restored from a copy, or for a moment where a member of the cluster lags behind.
        """
        if int(header["revision"]) < self._revision or header.get("cluster_id", "") != self._cluster:
            raise ListAgain
        self._following.established()
        self._tell()  # nothing new, but that it is well (again)

    def _take(self, event: Any) -> None:
        pair = event["kv"]
        key = _decode(pair["key"])
        if event.get("type") == "DELETE":
            self._targets.pop(key, None)
        else:
            self._put(key, _decode(pair.get("value", "")))
        self._revision = max(self._revision, int(pair["mod_revision"]))

    def _reason(self, result: Any) -> Exception:
        """Why etcd has ended the watch."""
        compacted = int(result.get("compact_revision", 0))
        if compacted:
            _log.debug("{url} has forgotten what was before {revision}", url=self._gateway.address, revision=compacted)
            return ListAgain()
        return ApiError(f"{self._gateway.address} ends the watch: {result.get('cancel_reason') or 'no reason given'}")

    def _put(self, key: bytes, value: bytes) -> None:
        try:
            self._targets[key] = parse(key[len(self._prefix) :], value, self._parse_target)
        except ValueError as error:
            _log.warn(
                "the value of {key} in etcd is no target: {error}", key=key.decode("utf-8", "replace"), error=error
            )

    def _tell(self) -> None:
        self._sink.found([self._targets[key] for key in sorted(self._targets)])


class Gateway:
    """The JSON gateway, used as one user, or as nobody.

    A token is got with the first request, and again when etcd does not take it any more: tokens expire, are forgotten
    when etcd starts anew, and some kinds are void after any change to users or roles.
    """

    def __init__(self, api: JsonApi, user: str, password: str) -> None:
        self.address = api.address
        self._api = api
        self._user = user
        self._password = password

    async def ask(self, path: str, body: Any) -> Any:
        """Give the answer.  Raises `ApiError`."""
        return await self._as_user(lambda: self._api.ask("POST", path, body))

    async def watch(self, body: Any, receive: Callable[[Any], None]) -> None:
        """Give each message; what ``receive`` raises ends the watch.  Raises `ApiError`."""
        await self._as_user(lambda: self._api.stream("POST", "/v3/watch", body, receive))

    async def _as_user(self, attempt: Callable[[], Awaitable[Any]]) -> Any:
        if self._user and not self._api.authorization:
            await self._log_in()
        try:
            return await attempt()
        except ApiError as error:
            if not any(sign in str(error) for sign in _SIGNS_OF_NO_TOKEN):
                raise
            if not self._user:
                raise ApiError(f"{self.address} wants a user; give etcd-user and etcd-password") from error
        await self._log_in()
        return await attempt()

    async def _log_in(self) -> None:
        self._api.authorization = ""
        try:
            answer = await self._api.ask(
                "POST", "/v3/auth/authenticate", {"name": self._user, "password": self._password}
            )
        except ApiError as error:
            if "authentication is not enabled" not in str(error):
                raise
            return  # it needs no user yet
        try:
            self._api.authorization = str(answer["token"])
        except (KeyError, TypeError) as error:
            raise ApiError(f"{self.address} answers a login with something else than a token") from error


_SIGNS_OF_NO_TOKEN = ("invalid auth token", "revision of auth store is old", "user name is empty")
"""What etcd says of a token that is unknown or expired, void after a change of its users, or missing."""


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
