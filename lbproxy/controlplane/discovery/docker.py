"""Targets from a Docker engine: its running containers with the label ``lbproxy.target-group``.

Other labels: ``lbproxy.port`` (else the one port that the image exposes), ``lbproxy.network`` (else the first one with
an address), ``lbproxy.weight``, ``lbproxy.zone`` and ``lbproxy.priority``.  A container that is being stopped leaves
with the signal that tells it to end, not when it has ended.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from lbproxy.controlplane.discovery.base import Context, Sink
from lbproxy.controlplane.discovery.jsonapi import ApiError, JsonApi
from lbproxy.controlplane.discovery.watching import ListAndWatch
from lbproxy.model.discovery import DockerSource
from lbproxy.model.target import Target

_log = Logger()

LABEL = "lbproxy.target-group"

ENDING_SIGNALS = frozenset(("2", "3", "9", "15"))
ENDING_SECONDS = 300.0
"""A container that lives on so long after a signal to end did not mean it."""

_EVENTS = ("start", "unpause", "pause", "kill", "die", "stop", "destroy", "rename", "connect", "disconnect")


class DockerTargets:
    """Follows the containers of one engine that are for one target group."""

    def __init__(self, settings: DockerSource, context: Context, sink: Sink, group: str) -> None:
        self._clock: IReactorTime = context.reactor
        self._api = JsonApi(context.reactor, f"unix:{settings.path}")
        self._parse_target = context.parse_target
        self._sink = sink
        self._group = group
        self._ending: dict[str, float] = {}
        """Id of a container that was told to end -> when."""
        self._told: dict[str, str] = {}
        """Id of a container that cannot be a target -> why."""
        self._since = 0
        """Unix time of the latest list, a little earlier."""
        self._listing: Deferred[None] | None = None
        self._again = False
        self._following = ListAndWatch(context.reactor, self._list, self._watch, sink.failed)

    def start(self) -> None:
        self._following.start()

    def stop(self) -> None:
        self._following.stop()
        if self._listing is not None:
            self._listing.cancel()

    async def _list(self) -> None:
        self._since = int(time.time()) - 1
        filters = {"label": [LABEL], "status": ["running"]}
        containers = await self._api.ask("GET", f"/containers/json?filters={quote(json.dumps(filters))}")
        if not isinstance(containers, list):
            raise ApiError(f"{self._api.address} answers with something else than containers")
        now = self._clock.seconds()
        self._ending = {id_: since for id_, since in self._ending.items() if now - since < ENDING_SECONDS}
        targets = []
        told = {}
        for container in containers:
            try:
                if container["Labels"][LABEL] != self._group or container["Id"] in self._ending:
                    continue
                targets.append(target_of(container, self._parse_target))
            except ValueError as error:
                told[container["Id"]] = str(error)
                if self._told.get(container["Id"]) != str(error):
                    _log.warn("container {name} is no target: {error}", name=_name(container), error=error)
            except (KeyError, TypeError, AttributeError) as error:
                raise ApiError(f"{self._api.address} describes a container strangely: {error!r}") from error
        self._told = told
        self._sink.found(sorted(targets, key=lambda target: target.key))

    async def _watch(self) -> None:
        """Take events from the time of the list on, so that none between both is lost."""
        filters = {"type": ["container", "network"], "event": list(_EVENTS)}
        path = f"/events?since={self._since}&filters={quote(json.dumps(filters))}"
        await self._api.stream("GET", path, None, self._receive)

    def _receive(self, event: Any) -> None:
        """Something happened to some container: look again."""
        try:
            actor, action = event["Actor"], event["Action"]
            if action == "kill" and actor["Attributes"].get("signal", "15") in ENDING_SIGNALS:
                self._ending[actor["ID"]] = self._clock.seconds()
            elif action in ("start", "die"):
                self._ending.pop(actor["ID"], None)
        except (KeyError, TypeError, AttributeError) as error:
            raise ApiError(f"{self._api.address} sends something else than events: {error!r}") from error
        self._look()

    def _look(self) -> None:
        if self._listing is not None:
            self._again = True
            return
        self._listing = Deferred.fromCoroutine(self._list())
        self._listing.addErrback(lambda failure: self._sink.failed(failure.getErrorMessage()))
        self._listing.addBoth(self._looked)

    def _looked(self, _: object) -> None:
        self._listing = None
        if self._again:
            self._again = False
            self._look()


def target_of(container: Mapping[str, Any], parse_target: Callable[[str], Target]) -> Target:
    """Give the target that a container is (as ``GET /containers/json`` describes it).

    Raises ValueError that says what would be right.
    """
    labels = container["Labels"]
    address = _address(container, labels.get("lbproxy.network"))
    port = labels.get("lbproxy.port") or _port(container)
    more = [
        f"{key}={labels[f'lbproxy.{key}']}" for key in ("weight", "zone", "priority") if labels.get(f"lbproxy.{key}")
    ]
    return parse_target(" ".join([f"[{address}]:{port}" if ":" in address else f"{address}:{port}", *more]))


def _address(container: Mapping[str, Any], wanted: str | None) -> str:
    networks: Mapping[str, Mapping[str, Any]] = container["NetworkSettings"]["Networks"] or {}
    if wanted is not None and wanted not in networks:
        raise ValueError(f"it is not in the network {wanted}; it is in {', '.join(sorted(networks)) or 'none'}")
    if "host" in networks:
        return "127.0.0.1"
    for name in [wanted] if wanted is not None else sorted(networks):
        address = networks[name].get("IPAddress") or networks[name].get("GlobalIPv6Address")
        if address:
            return str(address)
    raise ValueError("it has no address in its networks")


def _port(container: Mapping[str, Any]) -> int:
    ports = {port["PrivatePort"] for port in container.get("Ports") or () if port.get("Type", "tcp") == "tcp"}
    if len(ports) != 1:
        exposed = ", ".join(map(str, sorted(ports))) or "none"
        raise ValueError(f"its port is not known, for it exposes {exposed}; label it lbproxy.port=PORT")
    return int(ports.pop())


def _name(container: Mapping[str, Any]) -> str:
    names = container.get("Names") or [container["Id"][:12]]
    return str(names[0]).lstrip("/")
