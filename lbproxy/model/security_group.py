"""Security groups: who may connect to a listener (EC2 ``SecurityGroup``, ingress only)."""

from __future__ import annotations

import attrs

ANY_PORT = (0, 65535)


@attrs.frozen(kw_only=True)
class IngressRule:
    """Lets some addresses in at some ports."""

    protocol: str = "all"
    """``tcp``, ``udp`` or ``all``: what is below TLS and HTTP."""
    ports: tuple[int, int] = ANY_PORT
    """First and last port of the listener's bind."""
    networks: tuple[str, ...] = ()
    """CIDR blocks in canonical form."""
    groups: tuple[str, ...] = ()
    """Security groups whose members are let in."""

    def __str__(self) -> str:
        first, last = self.ports
        ports = "all" if self.ports == ANY_PORT else str(first) if first == last else f"{first}-{last}"
        sources = " ".join((*self.networks, *(f"group:{name}" for name in self.groups)))
        return f"{self.protocol} {ports} {sources}"

    def covers(self, protocol: str, port: int) -> bool:
        """Tell whether the rule is about this protocol and port."""
        return self.protocol in ("all", protocol) and self.ports[0] <= port <= self.ports[1]


@attrs.frozen(kw_only=True)
class SecurityGroup:
    """A named list of rules; what none of them lets in is refused."""

    name: str
    ingress: tuple[IngressRule, ...] = ()
    members: tuple[str, ...] = ()
    """CIDR blocks that ``group:NAME`` in a rule stands for."""
