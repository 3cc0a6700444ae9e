"""Whether security groups let an address in, in microseconds however many CIDR blocks they list."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence

from lbproxy.dataplane.router.addresses import packed_address
from lbproxy.model.security_group import IngressRule, SecurityGroup

TCP = "tcp"
"""What all listeners of today accept connections by."""


class Networks:
    """A set of addresses: sorted ranges that do not touch, for each version of IP."""

    def __init__(self, blocks: Iterable[str]) -> None:
        """``blocks`` are CIDR blocks in canonical form."""
        ranges: dict[int, list[tuple[int, int]]] = {4: [], 16: []}
        for block in blocks:
            host, _, prefix = block.partition("/")
            packed = packed_address(host)
            first = int.from_bytes(packed, "big")
            bits = len(packed) * 8
            # a block of IPv4-mapped addresses counts its prefix from the beginning of the IPv6 address
            length = int(prefix) - (96 if ":" in host and bits == 32 else 0) if prefix else bits
            ranges[len(packed)].append((first, first | (1 << bits - length) - 1))
        self._v4 = _merged(ranges[4])
        self._v6 = _merged(ranges[16])

    def __contains__(self, host: str) -> bool:
        """Tell whether this IP literal is in one of the blocks; an IPv4-mapped IPv6 address counts as IPv4."""
        packed = packed_address(host)
        if not packed:
            return False
        starts, ends = self._v4 if len(packed) == 4 else self._v6
        address = int.from_bytes(packed, "big")
        index = bisect_right(starts, address) - 1
        return index >= 0 and address <= ends[index]


def _merged(ranges: list[tuple[int, int]]) -> tuple[list[int], list[int]]:
    starts: list[int] = []
    ends: list[int] = []
    for first, last in sorted(ranges):
        if ends and first <= ends[-1] + 1:
            ends[-1] = max(ends[-1], last)
        else:
            starts.append(first)
            ends.append(last)
    return starts, ends


def admitted(groups: Mapping[str, SecurityGroup], attached: Sequence[str], protocol: str, port: int) -> Networks:
    """All addresses that the attached groups let in at this port."""
    return Networks(
        block
        for name in attached
        for rule in groups[name].ingress
        if rule.covers(protocol, port)
        for block in _blocks(rule, groups)
    )


def admitting_rule(
    groups: Mapping[str, SecurityGroup], attached: Sequence[str], protocol: str, port: int, host: str
) -> tuple[str, IngressRule] | None:
    """The first group and rule that let this address in, for explanations; None if it is refused."""
    for name in attached:
        for rule in groups[name].ingress:
            if rule.covers(protocol, port) and host in Networks(_blocks(rule, groups)):
                return name, rule
    return None


def _blocks(rule: IngressRule, groups: Mapping[str, SecurityGroup]) -> Iterable[str]:
    yield from rule.networks
    for name in rule.groups:
        yield from groups[name].members
