"""Security groups: which addresses they let in."""

from __future__ import annotations

import ipaddress
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbproxy.dataplane.router.ingress import Networks, admitted, admitting_rule
from lbproxy.model.security_group import IngressRule, SecurityGroup


def groups(*made: SecurityGroup) -> dict[str, SecurityGroup]:
    return {group.name: group for group in made}


WEB = SecurityGroup(
    name="web",
    ingress=(
        IngressRule(protocol="tcp", ports=(443, 443), networks=("10.0.0.0/8", "2001:db8::/32")),
        IngressRule(protocol="udp", networks=("192.0.2.1/32",)),
        IngressRule(protocol="tcp", ports=(8000, 8999), groups=("admins",)),
    ),
)
ADMINS = SecurityGroup(
    name="admins", members=("198.51.100.0/28",), ingress=(IngressRule(networks=("203.0.113.9/32",)),)
)


@pytest.mark.parametrize(
    ("port", "host", "rule"),
    [
        (443, "10.255.0.1", "tcp 443 10.0.0.0/8 2001:db8::/32"),
        (443, "11.0.0.0", None),
        (443, "9.255.255.255", None),
        (443, "::ffff:10.0.0.1", "tcp 443 10.0.0.0/8 2001:db8::/32"),
        (443, "2001:db8:ffff::1", "tcp 443 10.0.0.0/8 2001:db8::/32"),
        (443, "2001:db9::", None),
        (80, "10.0.0.1", None),
        (443, "192.0.2.1", None),
        (8000, "198.51.100.15", "tcp 8000-8999 group:admins"),
        (8999, "198.51.100.0", "tcp 8000-8999 group:admins"),
        (9000, "198.51.100.0", None),
        (8000, "198.51.100.16", None),
        (8000, "203.0.113.9", None),
        (443, "/run/some.sock", None),
    ],
)
def test_a_rule_is_for_its_protocol_ports_and_sources(port: int, host: str, rule: str | None) -> None:
    known = groups(WEB, ADMINS)
    found = admitting_rule(known, ("web",), "tcp", port, host)
    assert (str(found[1]) if found else None) == rule
    assert (host in admitted(known, ("web",), "tcp", port)) == (rule is not None)


def test_any_attached_group_may_let_in() -> None:
    known = groups(WEB, ADMINS)
    assert "203.0.113.9" in admitted(known, ("web", "admins"), "tcp", 443)
    found = admitting_rule(known, ("web", "admins"), "tcp", 443, "203.0.113.9")
    assert found is not None
    assert (found[0], str(found[1])) == ("admins", "all all 203.0.113.9/32")


def test_a_block_of_mapped_addresses_is_one_of_ipv4() -> None:
    networks = Networks(("::ffff:10.0.0.0/104",))
    assert "10.1.2.3" in networks
    assert "::ffff:10.1.2.3" in networks
    assert "11.0.0.0" not in networks


def test_a_group_without_rules_lets_nobody_in() -> None:
    assert "127.0.0.1" not in admitted(groups(SecurityGroup(name="none")), ("none",), "tcp", 443)


def test_everybody_is_in_the_network_of_all() -> None:
    everybody = Networks(("0.0.0.0/0", "::/0"))
    for host in ("0.0.0.0", "255.255.255.255", "::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"):
        assert host in everybody
    assert "::1" not in Networks(("0.0.0.0/0",))


@given(
    st.lists(st.ip_addresses().flatmap(lambda a: st.tuples(st.just(a), st.integers(0, a.max_prefixlen))), max_size=30),
    st.lists(st.ip_addresses(), max_size=10),
)
def test_ranges_say_what_the_blocks_say(
    blocks: list[tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, int]],
    hosts: list[ipaddress.IPv4Address | ipaddress.IPv6Address],
) -> None:
    made = [ipaddress.ip_network((address, length), strict=False) for address, length in blocks]
    made = [block for block in made if block.version == 4 or not block[0].ipv4_mapped]
    networks = Networks(str(block) for block in made)
    edges = [address for block in made for address in (block[0], block[-1])]
    for address in [*hosts, *edges, *(edge + 1 for edge in edges if int(edge) + 1 < 2**edge.max_prefixlen)]:
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
            continue
        expected = any(address.version == block.version and address in block for block in made)
        assert (str(address) in networks) == expected, address


def test_thousands_of_blocks_cost_microseconds() -> None:
    networks = Networks(f"{number >> 8}.{number & 255}.{number % 251}.0/25" for number in range(10_000))
    began = time.perf_counter()
    for _ in range(1000):
        assert "200.1.2.3" not in networks
    assert time.perf_counter() - began < 0.05, "50 microseconds each, tens of times what it takes"
