"""Slow start: how a target that comes among others grows into its share (ELB ``slow_start.duration_seconds``).

* A target enters when it becomes healthy while another healthy target of its group is not in slow start; so the
  first one back after all had failed gets its full share at once.
* So do those that were registered while none was healthy, as all are when lbproxy starts, if they become healthy
  within the duration after the first of them.
* Its share of its weight grows linearly with time, in steps of 5 %.
* It leaves when the time is over, or when it is not healthy any more.
"""

from __future__ import annotations

STEP_PERCENT = 5
"""Each step is a snapshot for all workers, so there are twenty and not a hundred."""


class SlowStart:
    """Who of one target group is in slow start."""

    def __init__(self) -> None:
        self.duration_seconds = 0.0
        self._since: dict[str, float] = {}

    @property
    def is_active(self) -> bool:
        """Whether shares change with time."""
        return bool(self._since)

    def configure(self, duration_seconds: float) -> None:
        """Use this duration, also for those that are under way; 0 ends it for all."""
        self.duration_seconds = duration_seconds
        if not duration_seconds:
            self._since.clear()

    def __contains__(self, key: str) -> bool:
        return key in self._since

    def enter(self, key: str, now: float) -> None:
        """The target became healthy."""
        if self.duration_seconds:
            self._since[key] = now

    def leave(self, key: str) -> None:
        """The target is not healthy any more, or gone."""
        self._since.pop(key, None)

    def share(self, key: str, now: float) -> int:
        """Per cent of its weight that a target gets at this time; a target whose time is over leaves."""
        since = self._since.get(key)
        if since is None:
            return 100
        steps = int((now - since) / self.duration_seconds * (100 / STEP_PERCENT))
        if steps * STEP_PERCENT >= 100:
            del self._since[key]
            return 100
        return max(1, steps) * STEP_PERCENT
