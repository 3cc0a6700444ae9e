"""Where a group's targets come from, as it is written: ``dns:app.internal:8080, file:targets.yaml``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

import attrs

from lbproxy.controlplane.config.targets import parse_target
from lbproxy.controlplane.config.values import PERCENTAGE, Form, either, host_name, integer_from, list_of
from lbproxy.model.discovery import (
    DockerSource,
    EtcdSource,
    FileSource,
    NamesSource,
    Protect,
    Source,
    SrvSource,
)


@attrs.frozen
class Kind:
    """A kind of source."""

    form: str
    """As one writes it."""
    parse: Callable[[str, str], Source]
    """(what is after the colon, the whole text) -> source; raises ValueError with what would be right."""


def _parse(text: str) -> Source:
    name, _, argument = text.partition(":")
    kind = _KINDS.get(name)
    if kind is None:
        raise ValueError(f"no such source; write {_FORMS}")
    return kind.parse(argument.strip(), text)


def _dns(argument: str, text: str) -> Source:
    target = parse_target(argument)
    if target.address:
        raise ValueError(f"{target.host} is an address; write it in targets")
    return NamesSource(targets=(target,), text=text)


def _srv(argument: str, text: str) -> Source:
    try:
        return SrvSource(name=host_name(argument), text=text)
    except ValueError as error:
        raise ValueError(f"{error}; write for example srv:_http._tcp.app.internal") from None


def _file(argument: str, text: str) -> Source:
    if not argument:
        raise ValueError("needs a path, for example file:targets.yaml")
    return FileSource(path=argument, text=text)


def _etcd(argument: str, text: str) -> Source:
    example = "write for example etcd:http://127.0.0.1:2379/services/app/"
    parts = urlsplit(argument)
    try:
        is_url = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        is_url = False
    if not is_url or parts.username is not None or parts.query or parts.fragment:
        raise ValueError(f"not a URL of etcd with a prefix of keys; {example}")
    if len(parts.path) < 2:
        raise ValueError(f"has no prefix of keys; {example}")
    return EtcdSource(url=f"{parts.scheme}://{parts.netloc}", prefix=parts.path, text=text)


def _docker(argument: str, text: str) -> Source:
    return DockerSource(path=argument.removeprefix("unix:") or DOCKER_SOCKET, text=text)


DOCKER_SOCKET = "/var/run/docker.sock"

_KINDS: Mapping[str, Kind] = {
    "dns": Kind("dns:NAME:PORT", _dns),
    "srv": Kind("srv:NAME", _srv),
    "file": Kind("file:PATH", _file),
    "etcd": Kind("etcd:URL/PREFIX", _etcd),
    "docker": Kind("docker", _docker),
}
_FORMS = either(kind.form for kind in _KINDS.values())

SOURCES = list_of(Form("", _parse), f"list of {_FORMS}")

_COUNT = integer_from(0, 10000)


def _protect(text: str) -> Protect:
    if text == "off":
        return Protect(count=0)
    try:
        if text.endswith("%"):
            return Protect(count=1, share=PERCENTAGE.parse(text[:-1].rstrip()) / 100)
        return Protect(count=_COUNT.parse(text))
    except ValueError as error:
        raise ValueError(f"{error}; write for example 1, 50% or off") from None


PROTECT: Form[Protect] = Form("number, percentage or off", _protect)
