"""Where the targets of a target group come from, besides those that the configuration names by address."""

from __future__ import annotations

import attrs

from lbproxy.model.target import Target


@attrs.frozen(kw_only=True)
class NamesSource:
    """Targets with host names: each address of a name is a target."""

    targets: tuple[Target, ...]
    text: str = "targets"
    """As written in the configuration; so everywhere below."""


@attrs.frozen(kw_only=True)
class SrvSource:
    """The SRV records of a name (RFC 2782)."""

    name: str
    text: str


@attrs.frozen(kw_only=True)
class FileSource:
    """A list in a file."""

    path: str
    """Absolute."""
    text: str


@attrs.frozen(kw_only=True)
class EtcdSource:
    """The keys in etcd that begin with a prefix."""

    url: str
    """``http://host:port`` or ``https://host:port``, without a path."""
    prefix: str
    text: str
    user: str = ""
    """Whom to log in as; empty for an etcd without users."""
    password: str = attrs.field(default="", repr=False)
    authorities_pem: bytes | None = None
    """Who may have signed its certificate; None for those that the system trusts."""


@attrs.frozen(kw_only=True)
class DockerSource:
    """The containers of a Docker engine that are labelled for the group."""

    path: str
    """Absolute path of the engine's socket."""
    text: str


@attrs.frozen(kw_only=True)
class RegistrationSource:
    """Targets that register themselves with the admin API."""

    tokens: tuple[str, ...] = attrs.field(repr=False)
    """Each of them lets register and deregister targets of the group."""
    keeps: bool = True
    """Whether targets stay that stop renewing when most others do, too."""
    text: str = "registration"


Source = NamesSource | SrvSource | FileSource | EtcdSource | DockerSource | RegistrationSource


@attrs.frozen(kw_only=True)
class Protect:
    """How few targets discovery may leave in a group: ``count``, or this part of those that are in it."""

    count: int = 1
    """0 for no protection."""
    share: float = 0.0
    """0 to 1."""

    def allows(self, present: int, wanted: int) -> bool:
        """Tell whether a group of ``present`` targets may become one of ``wanted``."""
        return wanted >= present or wanted >= max(self.count, present * self.share)


@attrs.frozen(kw_only=True)
class Discovery:
    """What a target group discovers."""

    sources: tuple[Source, ...]
    protect: Protect = Protect()
