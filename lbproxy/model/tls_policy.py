"""Named TLS policies: protocol versions and cipher suites of HTTPS and TLS listeners.

Names and suites are those of AWS (Elastic Load Balancing, "Security policies"), so that a
policy means the same here and there.  TLS 1.3 suites are OpenSSL's own default order.
"""

from __future__ import annotations

import attrs

_GCM_ECDHE = (
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
)
_CBC_SHA2_ECDHE = (
    "ECDHE-ECDSA-AES128-SHA256",
    "ECDHE-RSA-AES128-SHA256",
    "ECDHE-ECDSA-AES256-SHA384",
    "ECDHE-RSA-AES256-SHA384",
)


@attrs.frozen(kw_only=True)
class TlsPolicy:
    """Protocol versions and the TLS 1.2 suites, best first."""

    name: str
    minimum_version: str
    """``TLSv1.2`` or ``TLSv1.3``."""
    maximum_version: str
    ciphers: tuple[str, ...]
    """OpenSSL names of the TLS 1.2 suites."""


DEFAULT_TLS_POLICY = "ELBSecurityPolicy-TLS13-1-2-2021-06"

TLS_POLICIES: dict[str, TlsPolicy] = {
    policy.name: policy
    for policy in (
        TlsPolicy(
            name="ELBSecurityPolicy-TLS13-1-2-2021-06",
            minimum_version="TLSv1.2",
            maximum_version="TLSv1.3",
            ciphers=_GCM_ECDHE + _CBC_SHA2_ECDHE,
        ),
        TlsPolicy(
            name="ELBSecurityPolicy-TLS13-1-2-Res-2021-06",
            minimum_version="TLSv1.2",
            maximum_version="TLSv1.3",
            ciphers=_GCM_ECDHE,
        ),
        TlsPolicy(
            name="ELBSecurityPolicy-TLS13-1-3-2021-06",
            minimum_version="TLSv1.3",
            maximum_version="TLSv1.3",
            ciphers=(),
        ),
        TlsPolicy(
            name="ELBSecurityPolicy-TLS-1-2-2017-01",
            minimum_version="TLSv1.2",
            maximum_version="TLSv1.2",
            ciphers=_GCM_ECDHE
            + _CBC_SHA2_ECDHE
            + ("AES128-GCM-SHA256", "AES128-SHA256", "AES256-GCM-SHA384", "AES256-SHA256"),
        ),
    )
}
