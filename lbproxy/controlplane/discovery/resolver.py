"""Asks the DNS: the addresses of a name, and its SRV records.

As the system's resolver does: /etc/hosts first, then the servers, search list and ``ndots`` of /etc/resolv.conf; or
the servers of the configuration alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address
from typing import Any

import attrs
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.names import dns
from twisted.names.hosts import searchFileForAll
from twisted.python.filepath import FilePath

from lbproxy.controlplane.discovery import dnsclient
from lbproxy.controlplane.discovery.base import LookupFailed
from lbproxy.model.target import Target

HOSTS_TTL_SECONDS = 5.0
"""How long an address from /etc/hosts is good."""

_MAX_WEIGHT = 999
_PORT = 53


@attrs.frozen(kw_only=True)
class ResolverSettings:
    """What resolv.conf(5) says, or the configuration."""

    servers: tuple[tuple[str, int], ...]
    search: tuple[str, ...] = ()
    ndots: int = 1


class Resolver:
    """Looks names up; ``servers`` stand for what the system is configured with, /etc/hosts included."""

    def __init__(
        self,
        reactor: Any,
        servers: Sequence[tuple[str, int]] = (),
        *,
        resolv_conf: str = "/etc/resolv.conf",
        hosts: str = "/etc/hosts",
    ) -> None:
        self._reactor = reactor
        self._own = tuple(servers)
        self._resolv_conf = resolv_conf
        self._hosts = FilePath(hosts)
        self._system = ResolverSettings(servers=())

    def use(self, servers: Sequence[tuple[str, int]]) -> None:
        """Ask these servers from now on; none: those of the system."""
        self._own = tuple(servers)

    async def addresses(self, name: str) -> tuple[tuple[str, ...], float]:
        """Give a name's IPv4 addresses, or its IPv6 addresses where it has no others, and for how long they are good.

        Not both: a server with both is one target, not two.
        """
        if not self._own and (known := searchFileForAll(self._hosts, name.encode("ascii"))):
            return _one_family(known), HOSTS_TTL_SECONDS
        for candidate in self._candidates(name):
            for kind, address_of in ((dns.A, _ipv4), (dns.AAAA, _ipv6)):
                answers, ttl = await self._ask(candidate, kind)
                if answers:
                    return tuple(sorted({address_of(answer) for answer in answers})), ttl
        raise LookupFailed(f"{name} has no address")

    async def services(self, name: str) -> tuple[tuple[Target, ...], float]:
        """Give the targets of a name's SRV records, their hosts still names, and for how long they are good.

        Those of a higher priority number wait until none of a lower one is healthy (RFC 2782).
        """
        for candidate in self._candidates(name):
            records, ttl = await self._ask(candidate, dns.SRV)
            if records:
                return _targets_of(records), ttl
        raise LookupFailed(f"{name} has no SRV record")

    async def _ask(self, name: str, kind: int) -> tuple[list[Any], float]:
        """Give the records of this kind, none for a name that has none or does not exist, and their least TTL.

        Raises `LookupFailed` when nobody knows.
        """
        answers = await dnsclient.ask(self._reactor, self._own or self._system.servers, name, kind)
        records = [answer.payload for answer in answers if answer.type == kind]
        return records, float(min((answer.ttl for answer in answers), default=0))

    def _candidates(self, name: str) -> list[str]:
        """The names to ask for, as resolv.conf(5) has it: ``search`` is for names with fewer dots than ``ndots``."""
        if self._own:
            return [name]
        self._system = read_resolv_conf(self._resolv_conf)
        searched = [f"{name}.{domain}" for domain in self._system.search]
        return [name, *searched] if name.count(".") >= self._system.ndots else [*searched, name]


def read_resolv_conf(path: str) -> ResolverSettings:
    """Read resolv.conf(5); without one the name server is this machine."""
    servers: list[tuple[str, int]] = []
    search: tuple[str, ...] = ()
    ndots = 1
    try:
        with open(path, encoding="ascii", errors="replace") as stream:
            lines = [words for line in stream if (words := line.partition("#")[0].partition(";")[0].split())]
    except OSError:
        lines = []
    for keyword, *rest in lines:
        if keyword == "nameserver" and rest and (isIPAddress(rest[0]) or isIPv6Address(rest[0])):
            servers.append((rest[0], _PORT))
        elif keyword in ("search", "domain"):
            search = tuple(domain.strip(".") for domain in rest if domain.strip("."))
        elif keyword == "options":
            ndots = next((int(word[6:]) for word in rest if word.startswith("ndots:") and word[6:].isdecimal()), ndots)
    return ResolverSettings(servers=tuple(servers) or (("127.0.0.1", _PORT),), search=search, ndots=ndots)


def _targets_of(records: Sequence[dns.Record_SRV]) -> tuple[Target, ...]:
    """SRV records as targets.  Raises `LookupFailed` where they say that there is no such service (RFC 2782)."""
    hosts = [record.target.name.decode("ascii", "replace").lower().rstrip(".") for record in records]
    if not any(hosts):
        raise LookupFailed("the SRV record says that the service is not available")
    heaviest = max(record.weight for record in records)
    targets = [
        Target(
            host=host,
            port=record.port,
            address="",
            weight=_weight(record.weight, heaviest),
            priority=record.priority,
        )
        for host, record in zip(hosts, records, strict=True)
        if host and record.port
    ]
    return tuple(sorted(targets, key=lambda target: target.key))


def _weight(weight: int, heaviest: int) -> int:
    """Bring an SRV record's weight (0 to 65535) to ours; 0 gets little, but not nothing (RFC 2782)."""
    return max(1, weight if heaviest <= _MAX_WEIGHT else round(weight * _MAX_WEIGHT / heaviest))


def _ipv4(record: dns.Record_A) -> str:
    return str(record.dottedQuad())


def _ipv6(record: dns.Record_AAAA) -> str:
    return str(ip_address(record.address))


def _one_family(addresses: Sequence[str]) -> tuple[str, ...]:
    ipv4 = [address for address in addresses if ":" not in address]
    return tuple(dict.fromkeys(ipv4 or addresses))
