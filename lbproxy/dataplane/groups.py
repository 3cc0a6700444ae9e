"""The target groups that a worker serves: their pools and balancers, made to follow each snapshot.

Pools keep their connections and observations what they have learnt, whatever changes around them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from random import Random
from typing import TYPE_CHECKING

from lbproxy.dataplane.balancer import OBSERVING, Circumstances, Observation, make_balancer
from lbproxy.dataplane.balancer.seal import Seal
from lbproxy.dataplane.balancer.stickiness import target_stickiness
from lbproxy.dataplane.proxy.gate import Gate
from lbproxy.dataplane.proxy.retry import RetryBudget, Retrying
from lbproxy.dataplane.proxy.runtime import GroupRuntime
from lbproxy.dataplane.proxy.tally import Tally
from lbproxy.dataplane.upstream.multiplex import MultiplexPool
from lbproxy.dataplane.upstream.pool import TargetPool
from lbproxy.model.availability import serving_group
from lbproxy.model.snapshot import GroupState, Snapshot
from lbproxy.model.target import Target, TargetState
from lbproxy.model.target_group import ProtocolVersion, TargetGroup

if TYPE_CHECKING:
    from lbproxy.dataplane.balancer import Cells
    from lbproxy.dataplane.deadlines import Deadlines
    from lbproxy.dataplane.upstream.connector import Connector
    from lbproxy.telemetry.counters import WorkerCounters

PoolKey = tuple[str, str]
"""Target group name and the target's ``host:port``."""


class Groups:
    """All target groups of a worker.

    ``cells`` is the memory that all workers share, ``slot`` this worker's number.
    """

    def __init__(
        self,
        deadlines: Deadlines,
        connector: Connector,
        counters: WorkerCounters,
        cells: Cells,
        slot: int,
        random: Random,
        seal: Seal,
        on_gone: Callable[[str, str], None],
        on_suspect: Callable[[str, str, int], None],
    ) -> None:
        """``on_gone`` is told the group and key of each target whose time to finish is over, ``on_suspect`` of each
        that has failed so many requests in a row."""
        self.runtimes: dict[str, GroupRuntime] = {}
        """What serves each group, which may be its backup; a new mapping for each snapshot, since exchanges keep the
        one that they began with."""
        self._own: dict[str, GroupRuntime] = {}
        self.pools: dict[PoolKey, TargetPool | MultiplexPool] = {}
        self._deadlines = deadlines
        self._connector = connector
        self._counters = counters
        self._cells = cells
        self._slot = slot
        self._random = random
        self._seal = seal
        self._on_gone = on_gone
        self._on_suspect = on_suspect
        self._gates: dict[str, Gate] = {}
        self._policies: dict[str, Retrying] = {}
        self._snapshot: Snapshot | None = None

    def apply(self, snapshot: Snapshot) -> None:
        """Follow this snapshot."""
        before = self._snapshot
        runtimes: dict[str, GroupRuntime] = {}
        present: set[PoolKey] = set()
        configured = {group.name: group for group in snapshot.configuration.target_groups}
        for name, state in snapshot.groups.items():
            present.update((name, registered.target.key) for registered in state.targets)
            group = configured.get(name)
            if group is None:
                continue  # its last targets are draining
            known = self._own.get(name)
            if (
                known is not None
                and before is not None
                and known.group == group
                and before.groups.get(name) == state
                and before.worker_slots == snapshot.worker_slots
                and before.configuration.zone == snapshot.configuration.zone
            ):
                runtimes[name] = known
            else:
                runtimes[name] = self._make_group(group, state, snapshot)
        self._let_go(snapshot, present)
        for name in [name for name in self._gates if name not in runtimes]:
            del self._gates[name]
        for name in [name for name in self._policies if name not in runtimes]:
            del self._policies[name]
        self._own = runtimes
        self.runtimes = {
            name: runtimes[serving_group(name, configured, snapshot.groups, snapshot.configuration.zone)]
            for name in runtimes
        }
        self._snapshot = snapshot

    def close(self) -> None:
        """Keep no connection any more."""
        for pool in self.pools.values():
            pool.retire()

    def connections_in_use(self) -> int:
        """How many connections of HTTP/1.1 to targets are in use, or being closed."""
        return sum(pool.in_use for pool in self.pools.values() if isinstance(pool, TargetPool))

    def _let_go(self, snapshot: Snapshot, present: set[PoolKey]) -> None:
        for key in [k for k in self.pools if k not in present]:
            self.pools.pop(key).end_all()
            self._on_gone(*key)
        for name, state in snapshot.groups.items():
            for registered in state.targets:
                pool = self.pools.get((name, registered.target.key))
                if pool is not None and registered.health.state is TargetState.DRAINING:
                    pool.retire()

    def _make_group(self, group: TargetGroup, state: GroupState, snapshot: Snapshot) -> GroupRuntime:
        pools = {
            registered.cell: self._pool(group, registered.target, registered.cell + self._slot)
            for registered in state.targets
            if registered.health.state is not TargetState.DRAINING
        }
        observations = {cell: pool.observation for cell, pool in pools.items() if pool.observation is not None}
        balancer = make_balancer(
            Circumstances(
                group=group,
                state=state,
                cells=self._cells,
                slots=snapshot.worker_slots,
                zone=snapshot.configuration.zone,
                random=self._random,
                observations=observations,
                now=self._deadlines.now,
            )
        )
        stickiness = target_stickiness(group, balancer.targets, self._seal)
        slots = snapshot.worker_slots
        gate = self._gate(group, state, slots)
        runtime = GroupRuntime(group, balancer, pools, self._retrying(group, state, slots), stickiness, gate)
        if gate is not None:
            gate.use(runtime)
        for pool in pools.values():
            pool.gate = gate
        return runtime

    def _gate(self, group: TargetGroup, state: GroupState, slots: int) -> Gate | None:
        if not group.max_concurrent_requests and not group.circuit_breaker_max_requests:
            self._gates.pop(group.name, None)
            return None
        gate = self._gates.get(group.name)
        if gate is None:
            waiting = Tally(self._cells, state.waiting, self._slot, slots)
            gate = self._gates[group.name] = Gate(self._deadlines.call_later, self._deadlines.now, waiting)
        gate.waiting.follow(state.waiting, slots)
        return gate

    def _retrying(self, group: TargetGroup, state: GroupState, slots: int) -> Retrying:
        """The group's policy at work; what it remembers of the traffic outlives changes of the targets."""
        is_grpc = group.protocol_version is ProtocolVersion.GRPC
        known = self._policies.get(group.name)
        if known is None or not known.follows(group.retry, slots, is_grpc):
            now = self._deadlines.now
            active = Tally(self._cells, state.retrying, self._slot, slots) if known is None else known.budget.active
            budget = RetryBudget(group.retry.budget_percent, slots, now, active, group.retry.most_at_once)
            known = Retrying(group.retry, slots, self._deadlines.call_later, now, budget, is_grpc)
            self._policies[group.name] = known
        known.budget.active.follow(state.retrying, slots)
        return known

    def _pool(self, group: TargetGroup, target: Target, cell: int) -> TargetPool | MultiplexPool:
        key = (group.name, target.key)
        pool = self.pools.get(key)
        if pool is not None and not pool.retired and pool.reaches(group, target, cell):
            pool.use(group)
        else:
            if pool is not None:
                pool.retire()
            counters = self._counters.target(*key)
            kind = TargetPool if group.protocol_version is ProtocolVersion.HTTP1 else MultiplexPool
            pool = kind(group, target, self._connector, self._deadlines, counters, self._cells, cell)
            self.pools[key] = pool
        self._observe(pool, group)
        return pool

    def _observe(self, pool: TargetPool | MultiplexPool, group: TargetGroup) -> None:
        detection = group.outlier_detection
        if group.algorithm not in OBSERVING and detection is None:
            pool.observation = None
            return
        if pool.observation is None:
            pool.observation = Observation()
            pool.observation.alarm = partial(self._on_suspect, group.name, pool.key)
        pool.observation.limit = 0 if detection is None else detection.consecutive_failures
