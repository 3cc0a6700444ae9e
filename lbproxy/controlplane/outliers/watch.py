"""Who of a target group stands out, and what is done about it.  Pure: counts and times come in, shares go out."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from statistics import median

import attrs

from lbproxy.model.target_group import OutlierDetection

MIN_REQUESTS = 20
"""A target with fewer requests in an interval is not judged by their share of errors or their time."""

MIN_ERROR_SHARE = 0.2
"""A smaller share of errors is no reason to eject a target, however well its peers do."""

TIMES_PEERS = 3.0
"""A share of errors has to be so many times that of the peers together."""

MIN_LATENCY_SECONDS = 0.01
"""A target that answers within this is not slow, however fast its peers are."""

ANOMALY_MIN_REQUESTS = 5
"""A target whose traffic was cut is judged by what little it gets."""

ANOMALY_ERROR_SHARE = 0.05
ANOMALY_MAX_PART = 0.5
"""At most this part of the healthy targets is mitigated at a time (ELB)."""

ANOMALY_MIN_TARGETS = 3
"""Of fewer healthy targets none can be said to be the odd one (ELB)."""


@attrs.frozen(kw_only=True)
class Seen:
    """What was counted of one target in an interval."""

    requests: int = 0
    errors: int = 0
    """Answers of 500 and up, and requests that failed without an answer."""
    answers: int = 0
    seconds: float = 0.0
    """To the first byte of the answer, over all answers."""

    @property
    def error_share(self) -> float:
        return min(1.0, self.errors / self.requests) if self.requests else 0.0

    @property
    def mean_seconds(self) -> float:
        return self.seconds / self.answers if self.answers else 0.0


@attrs.define(eq=False)
class _Ejection:
    reason: str
    times: int
    """How often it was ejected, less what good behaviour has made up for."""
    until: float
    is_out: bool = True


class Ejections:
    """Outlier ejection for one target group.

    A target is taken out for a base time, longer each time that it happens again; each interval without an
    ejection takes one of the times back.
    """

    def __init__(self, settings: OutlierDetection) -> None:
        self.settings = settings
        self._known: dict[str, _Ejection] = {}

    @property
    def out(self) -> dict[str, str]:
        """Who is out now, and why."""
        return {key: ejection.reason for key, ejection in self._known.items() if ejection.is_out}

    def next_return(self) -> float | None:
        """When the next target comes back."""
        return min((each.until for each in self._known.values() if each.is_out), default=None)

    def suspect(self, key: str, failures: int, healthy: Collection[str], now: float) -> bool:
        """So many requests in a row have failed; tell whether that takes the target out."""
        return self._eject(key, f"{failures} failures in a row", healthy, now)

    def judge(self, seen: Mapping[str, Seen], healthy: Collection[str], now: float) -> None:
        """Look at what an interval has brought."""
        for key in list(self._known):
            ejection = self._known[key]
            if key not in healthy and not ejection.is_out:
                del self._known[key]
            elif not ejection.is_out:
                ejection.times -= 1
                if ejection.times <= 0:
                    del self._known[key]
        peers = {key: each for key, each in seen.items() if key in healthy and key not in self.out}
        for key, each in sorted(peers.items(), key=lambda item: (-item[1].error_share, -item[1].mean_seconds)):
            if each.requests < MIN_REQUESTS:
                continue
            reason = _too_many_errors(each, _together(peers, key)) or self._too_slow(key, peers)
            if reason and self._eject(key, reason, healthy, now):
                del peers[key]  # the next one is compared with those that are left

    def let_back(self, now: float) -> bool:
        """Let those back whose time is over; tell whether there were any."""
        due = [each for each in self._known.values() if each.is_out and each.until <= now]
        for ejection in due:
            ejection.is_out = False
        return bool(due)

    def forget(self, present: Collection[str]) -> None:
        """Only these targets are left."""
        for key in [key for key in self._known if key not in present]:
            del self._known[key]

    def _too_slow(self, key: str, peers: Mapping[str, Seen]) -> str:
        factor = self.settings.latency_factor
        others = [each.mean_seconds for other, each in peers.items() if other != key and each.requests >= MIN_REQUESTS]
        mean = peers[key].mean_seconds
        if not factor or not others or mean < MIN_LATENCY_SECONDS:
            return ""
        middle = median(others)
        return f"{mean * 1000:.0f} ms where others take {middle * 1000:.0f} ms" if mean > factor * middle else ""

    def _eject(self, key: str, reason: str, healthy: Collection[str], now: float) -> bool:
        out = self.out
        if key in out or key not in healthy:
            return False
        # one may always go, but never the last
        most = max(1, int(len(healthy) * self.settings.max_ejected_percentage / 100))
        still_in = [other for other in healthy if other not in out]
        if len(set(out) & set(healthy)) >= most or len(still_in) <= 1:
            return False
        known = self._known.get(key)
        times = known.times + 1 if known is not None else 1
        seconds = min(
            self.settings.base_ejection_seconds * 2.0 ** min(times - 1, 20), self.settings.max_ejection_seconds
        )
        self._known[key] = _Ejection(reason, times, now + seconds)
        return True


class Anomalies:
    """Anomaly mitigation for one target group (ELB's automatic target weights).

    The share of a target that errs more than its peers is halved each interval, down to 1 %, and doubled
    again while it does not.
    """

    def __init__(self) -> None:
        self.shares: dict[str, int] = {}
        """Per cent, of those that have less than 100."""

    def judge(self, seen: Mapping[str, Seen], healthy: Collection[str]) -> None:
        """Look at what an interval has brought."""
        for key in [key for key in self.shares if key not in healthy]:
            del self.shares[key]
        known = {key: each for key, each in seen.items() if key in healthy}
        anomalous = set()
        if len(healthy) >= ANOMALY_MIN_TARGETS:
            anomalous = {
                key
                for key, each in known.items()
                if each.requests >= ANOMALY_MIN_REQUESTS
                and each.error_share > ANOMALY_ERROR_SHARE + TIMES_PEERS * _together(known, key).error_share
            }
        most = int(len(healthy) * ANOMALY_MAX_PART)
        for key in sorted(anomalous, key=lambda key: -known[key].error_share):
            if key in self.shares or len(self.shares) < most:
                self.shares[key] = max(1, self.shares.get(key, 100) // 2)
        for key in [key for key in self.shares if key not in anomalous]:
            self.shares[key] *= 2
            if self.shares[key] >= 100:
                del self.shares[key]


def _together(seen: Mapping[str, Seen], without: str) -> Seen:
    """All but one in one."""
    others = [each for key, each in seen.items() if key != without]
    return Seen(requests=sum(each.requests for each in others), errors=sum(each.errors for each in others))


def _too_many_errors(one: Seen, peers: Seen) -> str:
    share = one.error_share
    if share < MIN_ERROR_SHARE or not peers.requests or share <= TIMES_PEERS * peers.error_share:
        return ""
    return f"{share:.0%} errors where others have {peers.error_share:.0%}"
