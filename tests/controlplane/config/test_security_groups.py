"""Security groups from a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from lbproxy.controlplane.config.errors import ConfigurationError
from lbproxy.controlplane.config.load import Loaded, load
from lbproxy.controlplane.config.values import ingress_rule
from lbproxy.model.security_group import ANY_PORT, IngressRule, SecurityGroup

BASE = """
[listener:web]
protocol = HTTP
bind = 127.0.0.1:80, 127.0.0.1:8080
default-action = fixed-response 200
security-groups = office, partners
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "lb.ini"


def read(path: Path, text: str) -> Loaded:
    path.write_text(text)
    return load(path)


def mistakes(path: Path, text: str) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        read(path, text)
    return [problem.message for problem in caught.value.problems]


def test_groups_and_what_they_are_attached_to(path: Path) -> None:
    loaded = read(
        path,
        BASE
        + """
[security-group:office]
ingress =
    tcp 80 10.0.0.0/8 2001:db8::/32
    all all group:admins
[security-group:partners]
ingress = tcp 8000-8999 192.0.2.1
[security-group:admins]
members = 198.51.100.0/28, 198.51.100.77
""",
    )
    configuration = loaded.configuration
    assert configuration.listeners[0].security_groups == ("office", "partners")
    assert configuration.security_groups == (
        SecurityGroup(
            name="office",
            ingress=(
                IngressRule(protocol="tcp", ports=(80, 80), networks=("10.0.0.0/8", "2001:db8::/32")),
                IngressRule(groups=("admins",)),
            ),
        ),
        SecurityGroup(
            name="partners", ingress=(IngressRule(protocol="tcp", ports=(8000, 8999), networks=("192.0.2.1/32",)),)
        ),
        SecurityGroup(name="admins", members=("198.51.100.0/28", "198.51.100.77/32")),
    )
    assert not loaded.warnings


def test_groups_that_are_not_there_are_reported(path: Path) -> None:
    text = BASE + "[security-group:office]\ningress = all all group:admin group:other\n[security-group:admins]\n"
    assert mistakes(path, text) == [
        "no such security group as partners",
        "no such security group as admin; did you mean admins?",
        "no such security group as other",
    ]


def test_a_group_without_members_stands_for_nobody_and_is_a_mistake(path: Path) -> None:
    text = BASE.replace(", partners", "") + "[security-group:office]\ningress = all all group:office\n"
    assert mistakes(path, text) == ["[security-group:office] has no members; add members = CIDR blocks to it"]


def test_a_port_that_no_rule_is_for_is_warned_of(path: Path) -> None:
    text = (
        BASE.replace(", partners", "") + "[security-group:office]\ningress = tcp 80 10.0.0.0/8, udp 8080 10.0.0.0/8\n"
    )
    [warning] = read(path, text).warnings
    assert warning.message == "no rule of these groups is for tcp port 8080: nobody is let in"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("icmp all 10.0.0.0/8", "starts with no protocol"),
        ("tcp 10.0.0.0/8", "needs a protocol, ports and a source"),
        ("tcp 80", "needs a protocol, ports and a source"),
        ("tcp http 10.0.0.0/8", "http is no port"),
        ("tcp 90-80 10.0.0.0/8", "90-80 is no range"),
        ("tcp 80-70000 10.0.0.0/8", "80-70000 is no range"),
        ("tcp 80 10.0.0.1/8", "write 10.0.0.0/8"),
        ("tcp 80 office", "not a CIDR block"),
    ],
)
def test_a_rule_that_is_wrong_says_how(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ingress_rule(text)


def test_a_rule_for_all() -> None:
    assert ingress_rule("all all 0.0.0.0/0 ::/0") == IngressRule(ports=ANY_PORT, networks=("0.0.0.0/0", "::/0"))
