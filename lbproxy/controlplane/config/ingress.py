"""Rules of security groups as they are written, and what must hold of them."""

from __future__ import annotations

from collections.abc import Mapping

from lbproxy.controlplane.config.sections import ReadSection
from lbproxy.controlplane.config.values import suggest
from lbproxy.model.security_group import SecurityGroup


def check_security_groups(groups: Mapping[str, ReadSection], listeners: Mapping[str, ReadSection]) -> None:
    """Report groups that are named but not there, and listeners that nobody could reach."""
    for section in groups.values():
        for rule in section["ingress"] or ():
            for name in rule.groups:
                if name not in groups:
                    section.fail(f"no such security group as {name}{suggest(name, groups)}", "ingress")
                elif "members" not in groups[name]:
                    section.fail(f"[security-group:{name}] has no members; add members = CIDR blocks to it", "ingress")
    for listener in listeners.values():
        _check_listener(listener, groups)


def _check_listener(listener: ReadSection, groups: Mapping[str, ReadSection]) -> None:
    attached = listener["security-groups"] or ()
    for name in attached:
        if name not in groups:
            listener.fail(f"no such security group as {name}{suggest(name, groups)}", "security-groups")
    known = [groups[name] for name in attached if name in groups]
    if not known or len(known) < len(attached) or any("ingress" in g and g["ingress"] is None for g in known):
        return
    for bind in listener["bind"] or ():
        if not any(rule.covers("tcp", bind.port) for group in known for rule in group["ingress"] or ()):
            listener.warn(f"no rule of these groups is for tcp port {bind.port}: nobody is let in", "security-groups")


def security_group(section: ReadSection) -> SecurityGroup:
    """Make the model of a section that is known to be right."""
    return SecurityGroup(name=section.name, ingress=section["ingress"] or (), members=section["members"] or ())
