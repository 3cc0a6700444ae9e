"""Values and doubles that the control plane's tests share."""

from __future__ import annotations

import array

from twisted.internet.task import Clock

from lbproxy.controlplane.state import ControlState
from lbproxy.model.health import HealthCheck
from lbproxy.model.listener import Bind, Listener, ListenerProtocol
from lbproxy.model.rule import Forward, WeightedGroup
from lbproxy.model.snapshot import Configuration, Snapshot
from lbproxy.model.target import RegisteredTarget, Target, TargetHealth, TargetReason, TargetState
from lbproxy.model.target_group import TargetGroup, TargetProtocol

HEALTHY = TargetHealth(state=TargetState.HEALTHY)
UNHEALTHY = TargetHealth(state=TargetState.UNHEALTHY, reason=TargetReason.TIMEOUT, description="Request timed out")


class FakeCells:
    """The shared cells and their allocator in ordinary memory; never reuses a freed run, so that misuse shows."""

    def __init__(self, size: int = 64 * 200) -> None:
        self.view = memoryview(array.array("q", bytes(8 * size)))
        self.runs: dict[str, int] = {}
        self._next = 0

    def run(self, key: str, length: int) -> int:
        assert key not in self.runs, f"{key} is reserved already"
        if self._next + length > len(self.view):
            raise RuntimeError("no room")
        self.runs[key] = self._next
        self._next += length
        return self.runs[key]

    def free(self, key: str) -> None:
        del self.runs[key]


class StateBench:
    """A state with its clock, its cells and the snapshots that it published."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.cells = FakeCells()
        self.state = ControlState(self.clock, self.cells, self.cells)
        self.published: list[Snapshot] = []
        self.state.subscribe(self.published.append)

    def tell(self, health: TargetHealth, *numbers: int) -> None:
        """So are these targets of the group ``app``."""
        for number in numbers:
            self.state.set_health("app", f"10.0.0.{number}:80", health)
        self.clock.advance(0.1)


def make_target(number: int = 1, *, weight: int = 1, address: str | None = None) -> Target:
    return Target(host=f"10.0.0.{number}", port=80, address=address or f"10.0.0.{number}", weight=weight)


def make_group(
    *targets: Target,
    name: str = "app",
    health_check: HealthCheck | None = None,
    delay: float = 300.0,
) -> TargetGroup:
    return TargetGroup(
        name=name,
        protocol=TargetProtocol.HTTP,
        targets=targets,
        health_check=health_check or HealthCheck(),
        deregistration_delay_seconds=delay,
    )


def make_configuration(*groups: TargetGroup, used: tuple[str, ...] | None = None) -> Configuration:
    """A configuration whose one listener forwards to the groups named by ``used`` (all, unless given)."""
    names = used if used is not None else tuple(group.name for group in groups)
    listener = Listener(
        name="web",
        protocol=ListenerProtocol.HTTP,
        binds=(Bind("127.0.0.1", 8080),),
        default_action=Forward(tuple(WeightedGroup(name) for name in names)),
    )
    return Configuration(listeners=(listener,), target_groups=groups)


def registered(snapshot: Snapshot, key: str = "10.0.0.1:80", group: str = "app") -> RegisteredTarget:
    """The target of this key in a snapshot."""
    return next(one for one in snapshot.groups[group].targets if one.target.key == key)


def states(snapshot: Snapshot, group: str = "app") -> dict[str, str]:
    """Key -> state of a group's targets, in the snapshot's order."""
    return {one.target.key: one.health.state.value for one in snapshot.groups[group].targets}


def state_of(state: ControlState, key: str = "10.0.0.1:80", group: str = "app") -> str:
    return registered(state.snapshot, key, group).health.state.value
