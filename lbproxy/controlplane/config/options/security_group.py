"""The options of ``[security-group:NAME]``."""

from __future__ import annotations

from lbproxy.controlplane.config.options.option import Option
from lbproxy.controlplane.config.values import NETWORKS, Form, ingress_rule, list_of

OPTIONS: tuple[Option, ...] = (
    Option(
        name="ingress",
        form=list_of(Form("", ingress_rule), "list of rules: PROTOCOL PORTS SOURCE ..."),
        default_text="none: nobody is let in",
        effect="Who is let in where: `tcp` or `all`; a port of the listener, a range or `all`; and, separated by"
        " spaces, CIDR blocks and `group:NAME` for the members of a group. The client's address counts, or the one in"
        " a trusted PROXY header.",
        example="tcp 443 10.0.0.0/8 2001:db8::/32, tcp 8000-8999 group:admins",
    ),
    Option(
        name="members",
        form=NETWORKS,
        default_text="nobody",
        effect="Addresses that belong to the group: what `group:NAME` in a rule stands for.",
        example="198.51.100.0/28",
    ),
)
