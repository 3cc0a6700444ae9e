"""``first``: one target takes all as long as it can, the next ones stand by."""

from __future__ import annotations

from collections.abc import Iterator

from lbproxy.dataplane.balancer.base import Balancer
from lbproxy.dataplane.router.request import RoutableRequest
from lbproxy.model.target import RegisteredTarget


class First(Balancer, algorithm="first"):
    """The first target in the order configured; weights above 0 do not matter."""

    __slots__ = ()

    def pick(self, request: RoutableRequest | None, source: str) -> RegisteredTarget | None:
        return self.targets[0] if self.targets else None

    def others(
        self, first: RegisteredTarget, request: RoutableRequest | None, source: str
    ) -> Iterator[RegisteredTarget]:
        return (target for target in self.targets if target.cell != first.cell)
