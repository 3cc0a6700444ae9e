"""When another target is tried: a group's policy at work, its budget, and the clockwork of one exchange.

An exchange has a `Tries` only where its group or its rule has a policy that asks for one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from lbproxy.dataplane.proxy.faults import Fault
from lbproxy.dataplane.proxy.hedge import Hedge

if TYPE_CHECKING:
    from lbproxy.dataplane.proxy.exchange import Exchange
    from lbproxy.dataplane.proxy.tally import Tally
    from lbproxy.model.retry import RetryChange, RetryPolicy

_MEMORY_SECONDS = 10.0
"""What is recent: requests and retries are forgotten at this pace."""

_LEAST_PER_SECOND = 3.0
"""Retries that a group may always make, however little traffic it has; all workers together."""

_MAX_CHANGES = 1000


class RetryBudget:
    """Bounds retries to a part of the recent requests, so that they cannot double the load on targets in trouble.

    Both counts fade exponentially; a small allowance beside them serves groups with little traffic.
    """

    def __init__(
        self, percent: int, workers: int, seconds: Callable[[], float], active: Tally, most_at_once: int = 0
    ) -> None:
        """``workers`` share the allowance; ``seconds`` is a clock; ``active`` counts who is in a retry."""
        self.active = active
        self._most_at_once = most_at_once
        self._part = percent / 100
        self._rate = _LEAST_PER_SECOND / workers if percent else 0.0
        self._most = max(1.0, self._rate) if percent else 0.0
        self._allowance = self._most
        self._requests = 0.0
        self._retries = 0.0
        self._seconds = seconds
        self._at = seconds()

    def _fade(self) -> None:
        now = self._seconds()
        passed = now - self._at
        if passed > 0.0:
            self._at = now
            kept = math.exp(-passed / _MEMORY_SECONDS)
            self._requests *= kept
            self._retries *= kept
            self._allowance = min(self._most, self._allowance + passed * self._rate)

    def request(self) -> None:
        """Count a request of the group."""
        self._fade()
        self._requests += 1.0

    def has_place(self) -> bool:
        """Tell whether one request more may be in a retry."""
        return not self._most_at_once or self.active.total() < self._most_at_once

    def take(self) -> bool:
        """Ask for one retry; tell whether it may be."""
        self._fade()
        if self._retries + 1.0 <= self._part * self._requests:
            self._retries += 1.0
            return True
        if self._allowance >= 1.0:
            self._allowance -= 1.0
            return True
        return False


class Retrying:
    """A group's policy, as one worker follows it; it outlives snapshots that leave the policy as it is."""

    def __init__(
        self,
        policy: RetryPolicy,
        workers: int,
        call_later: Callable[..., Any],
        seconds: Callable[[], float],
        budget: RetryBudget,
        is_grpc: bool = False,
    ) -> None:
        """``call_later`` is a reactor's, ``seconds`` a clock; with ``is_grpc`` requests may bring their deadlines."""
        self.is_grpc = is_grpc
        self.policy = policy
        self._is_default = policy.is_default
        self._workers = workers
        self._seconds = seconds
        self._changed: dict[RetryChange, Retrying] = {}
        self.budget = budget
        self.methods = frozenset(method.encode("ascii") for method in policy.methods)
        self.call_later = call_later

    def follows(self, policy: RetryPolicy, workers: int, is_grpc: bool) -> bool:
        """Tell whether this was made of the same."""
        return self.policy == policy and self._workers == workers and self.is_grpc == is_grpc

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to keep account of; a request by gRPC may bring its own deadline."""
        return self._is_default and not self.is_grpc

    def changed(self, change: RetryChange) -> Retrying:
        """The same with what a rule has otherwise, and with the same budget."""
        found = self._changed.get(change)
        if found is None:
            if len(self._changed) >= _MAX_CHANGES:
                self._changed.clear()  # of rules of long ago
            policy = change.applied_to(self.policy)
            found = Retrying(policy, self._workers, self.call_later, self._seconds, self.budget, self.is_grpc)
            self._changed[change] = found
        return found

    def begin(self, exchange: Exchange) -> Tries | None:
        """Keep account of this request from now on; None where there is nothing to keep account of."""
        if self._is_default and b"grpc-timeout" not in exchange.head.forwarded:  # HTTP/2's names are in lower case
            return None
        self.budget.request()
        return Tries(self, exchange)


_GRPC_UNITS = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}


def _grpc_timeout(values: Sequence[bytes]) -> float | None:
    """Seconds of a ``grpc-timeout`` field ("gRPC over HTTP2": up to eight digits and a unit); None if there is none."""
    if len(values) != 1:
        return None
    digits, unit = values[0][:-1], _GRPC_UNITS.get(values[0][-1:])
    if unit is None or not digits.isdigit() or len(digits) > 8:
        return None
    return int(digits) * unit


class Tries:
    """What one exchange has left to try, and when."""

    __slots__ = (
        "_calls",
        "_exchange",
        "_hedge",
        "_is_active",
        "_left",
        "_retrying",
        "_total",
        "connects_elsewhere",
        "methods",
    )

    def __init__(self, retrying: Retrying, exchange: Exchange) -> None:
        policy = retrying.policy
        self.connects_elsewhere = policy.on_connect_failure
        """Whether another target is tried when one cannot be connected to."""
        self.methods = retrying.methods
        self._retrying = retrying
        self._exchange = exchange
        self._hedge: Hedge | None = None
        self._is_active = False
        """Whether it counts as being in a retry."""
        self._left = policy.attempts
        self._calls: list[Any] = []
        self._total: Any = None
        seconds = policy.request_timeout_seconds
        asked = _grpc_timeout(exchange.head.field_values(b"grpc-timeout")) if retrying.is_grpc else None
        if asked is not None and (seconds is None or asked < seconds):
            seconds = asked
        if seconds is not None:
            self._total = retrying.call_later(seconds, self._too_late)

    # The exchange calls

    def began(self) -> None:
        """A target was chosen, or the request has become whole: the time of this try runs when both hold."""
        self._stop_calls()
        policy = self._retrying.policy
        if self._left <= 0 or not self._exchange.request_ended:
            return
        if policy.try_timeout_seconds is not None:
            self._calls.append(self._retrying.call_later(policy.try_timeout_seconds, self._try_expired))
        if policy.hedge_delay_seconds is not None and self._hedge is None:
            self._calls.append(self._retrying.call_later(policy.hedge_delay_seconds, self._start_hedge))

    def retries_status(self, status: int) -> bool:
        """Tell whether an answer with this status is reason to ask another target."""
        return any(low <= status <= high for low, high in self._retrying.policy.statuses)

    def may_follow(self) -> bool:
        """Take a retry after a connection that was closed or reset; there is a target for it."""
        return self._retrying.policy.on_reset and self.take()

    def take(self) -> bool:
        """Take one of the retries that are left, if the group's budget has one."""
        if self._left <= 0:
            return False
        budget = self._retrying.budget
        if not ((self._is_active or budget.has_place()) and budget.take()):
            self._exchange.pool.counters.retries_over_budget += 1
            return False
        self._left -= 1
        if not self._is_active:
            self._is_active = True
            budget.active.add(1)
        return True

    def leave_to_hedge(self) -> bool:
        """Tell, when the first try has ended without an answer, whether a second one is under way."""
        if self._hedge is None:
            return False
        self._stop_calls()
        return True

    def hedge_over(self) -> None:
        """The second try failed, or has become the only one."""
        self._hedge = None

    def settle(self) -> None:
        """Something goes to the client: this target it is."""
        self._left = 0
        if self._is_active:
            self._is_active = False
            self._retrying.budget.active.add(-1)
        self._stop_calls()
        if self._hedge is not None:
            hedge, self._hedge = self._hedge, None
            hedge.give_up()

    def end(self) -> None:
        """The exchange is over, or a tunnel now."""
        self.settle()
        if self._total is not None and self._total.active():
            self._total.cancel()

    # The clock calls

    def _too_late(self) -> None:
        self._exchange.fail(Fault.REQUEST_TIMEOUT)

    def _try_expired(self) -> None:
        exchange = self._exchange
        if not exchange.may_try_again():
            return
        if self._hedge is not None:
            exchange.give_up_try(Fault.RESPONSE_TIMEOUT)
        elif exchange.has_another() and self.take():
            exchange.try_elsewhere(Fault.RESPONSE_TIMEOUT)

    def _start_hedge(self) -> None:
        exchange = self._exchange
        if not exchange.may_hedge() or exchange.head.upgrade or not exchange.has_another() or not self.take():
            return
        self._hedge = Hedge(exchange, exchange.take_another())
        self._hedge.begin()

    def _stop_calls(self) -> None:
        for call in self._calls:
            if call.active():
                call.cancel()
        self._calls.clear()
