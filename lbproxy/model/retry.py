"""When a request is sent to another target, and how long it may take altogether."""

from __future__ import annotations

import attrs

IDEMPOTENT_METHODS = ("GET", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE")
"""RFC 9110 section 9.2.2."""


@attrs.frozen(kw_only=True)
class RetryPolicy:
    """How a target group tries again.

    Never once a byte of an answer has gone to the client, and never when the request's body is no longer at hand.
    A kept connection that the target closed under the request is replaced in any case: that is HTTP (RFC 9112
    section 9.3.1), not policy.
    """

    on_connect_failure: bool = True
    """Try every other target while none can be connected to; nothing was sent, so any request may."""
    on_reset: bool = False
    """The target closed or reset the connection before its answer."""
    statuses: tuple[tuple[int, int], ...] = ()
    """Inclusive ranges of status codes of an answer that is thrown away for another target's."""
    attempts: int = 2
    """How often a request that was sent may be sent again, hedges included."""
    methods: tuple[str, ...] = IDEMPOTENT_METHODS
    """Requests with other methods are not sent a second time once a byte of them was sent."""
    budget_percent: int = 20
    """Retries of requests that were sent, as a part of the group's recent requests; 0 for none at all."""
    most_at_once: int = 0
    """How many requests may be in a retry at a time, over all workers; 0 for any number."""
    try_timeout_seconds: float | None = None
    """Without the start of an answer for so long, another target is tried; the last one has the response timeout."""
    request_timeout_seconds: float | None = None
    """For everything, from the choice of the first target to the end of the answer."""
    hedge_delay_seconds: float | None = None
    """After so long without the start of an answer a second target is asked as well; the first answer counts."""

    @property
    def is_default(self) -> bool:
        """Whether there is nothing to keep account of."""
        return self == _DEFAULT

    @property
    def sends_again(self) -> bool:
        """Whether a request that was sent may be sent to another target."""
        return bool(
            self.attempts
            and self.budget_percent
            and (
                self.on_reset
                or self.statuses
                or self.try_timeout_seconds is not None
                or self.hedge_delay_seconds is not None
            )
        )


_DEFAULT = RetryPolicy()


@attrs.frozen(kw_only=True, cache_hash=True)
class RetryChange:
    """What a rule has otherwise than the target groups that it forwards to; None is as the group has it.

    The budget protects the group's targets and stays the group's.
    """

    on_connect_failure: bool | None = None
    on_reset: bool | None = None
    statuses: tuple[tuple[int, int], ...] | None = None
    attempts: int | None = None
    methods: tuple[str, ...] | None = None
    try_timeout_seconds: float | None = None
    request_timeout_seconds: float | None = None
    hedge_delay_seconds: float | None = None

    def applied_to(self, policy: RetryPolicy) -> RetryPolicy:
        """The policy for requests of the rule."""
        changed = attrs.asdict(self, recurse=False, filter=lambda _, value: value is not None)
        return attrs.evolve(policy, **changed)
