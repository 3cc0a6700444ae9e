"""Random failures, seed after seed: whatever servers do, clients see what they may and nothing is lost count of.

``LBPROXY_SEEDS=5000 python -m pytest tests/simulation`` tries more seeds, ``LBPROXY_SEED=17`` replays one.
"""

from __future__ import annotations

import os
from random import Random

import pytest

from lbproxy.model.health import HealthCheck
from lbproxy.model.retry import RetryPolicy
from lbproxy.model.target_group import OutlierDetection, TargetGroup, TargetProtocol
from lbproxy.testing.simulation import Mood, Simulation

SEEDS = int(os.environ.get("LBPROXY_SEEDS", "20"))
FIRST = int(os.environ.get("LBPROXY_SEED", "1"))
RANGE = range(FIRST, FIRST + (1 if "LBPROXY_SEED" in os.environ else SEEDS))

ALGORITHMS = (
    "round_robin",
    "least_outstanding_requests",
    "weighted_random",
    "least_time",
    "random_two",
    "maglev",
    "first",
)
RETRY = RetryPolicy(on_reset=True, statuses=((500, 599),), attempts=4, budget_percent=100, try_timeout_seconds=0.5)


def group(random: Random, retry: RetryPolicy) -> TargetGroup:
    """A target group with some of what can be switched on."""
    return TargetGroup(
        name="app",
        protocol=TargetProtocol.HTTP,
        algorithm=random.choice(ALGORITHMS),
        health_check=HealthCheck(interval_seconds=1.0, timeout_seconds=0.5, healthy_threshold=2, unhealthy_threshold=2),
        outlier_detection=random.choice((None, OutlierDetection(base_ejection_seconds=1.0, interval_seconds=2.0))),
        max_concurrent_requests=random.choice((0, 0, 3)),
        response_timeout_seconds=3.0,
        deregistration_delay_seconds=5.0,
        retry=retry,
    )


def check(simulation: Simulation, seed: int) -> None:
    """What must hold after every run."""
    simulation.settle()
    replay = f"LBPROXY_SEED={seed} replays it"
    assert not simulation.wrong, f"{simulation.wrong[:3]}; {replay}"
    assert simulation.in_flight() == 0, f"{simulation.in_flight()} still in flight; {replay}"
    assert sum(simulation.answers.values()) > 50, f"{simulation.answers}; {replay}"
    assert simulation.slowest < 15.0, f"an answer took {simulation.slowest} s; {replay}"
    leftover = simulation.clock.getDelayedCalls()
    assert len(leftover) < 20, f"{leftover}; {replay}"


@pytest.mark.parametrize("seed", RANGE)
def test_one_bad_server_is_never_seen_by_clients(seed: int) -> None:
    """With retries, whatever one server does before it has begun an answer."""
    random = Random(seed)
    simulation = Simulation(seed, group(random, RETRY))
    server = simulation.servers[random.choice(list(simulation.servers))]
    moods = [mood for mood in Mood if mood is not Mood.CUTTING]
    events = []
    at = 0.0
    while at < 5.0:
        at += random.uniform(0.2, 1.5)
        mood = random.choice(moods)
        events.append((at, lambda mood=mood: server.become(mood)))
    simulation.run(6.0, *events)
    check(simulation, seed)
    assert set(simulation.answers) == {200}, f"{simulation.answers}; LBPROXY_SEED={seed} replays it"


@pytest.mark.parametrize("seed", RANGE)
def test_whatever_all_servers_do_every_request_has_one_end(seed: int) -> None:
    random = Random(seed)
    retry = random.choice((RETRY, RetryPolicy(), RetryPolicy(hedge_delay_seconds=0.05, budget_percent=100)))
    simulation = Simulation(seed, group(random, retry))
    servers = list(simulation.servers.values())
    events = []
    for _ in range(random.randrange(3, 20)):
        server, mood = random.choice(servers), random.choice(list(Mood))
        events.append((random.uniform(0.0, 5.0), lambda server=server, mood=mood: server.become(mood)))
    for _ in range(random.randrange(4)):
        keys = random.sample(list(simulation.servers), random.randrange(1, 5))
        events.append((random.uniform(0.0, 5.0), lambda keys=keys: simulation.configure(*keys)))
    simulation.run(6.0, *events)
    check(simulation, seed)
    assert set(simulation.answers) <= {0, 200, 500, 502, 503, 504}, simulation.answers
    broken = sum(server.cut for server in servers)
    assert simulation.answers.get(0, 0) <= broken + len(servers) * 10, f"{simulation.answers}; LBPROXY_SEED={seed}"


def test_a_seed_replays_to_the_letter() -> None:
    def play() -> tuple[dict[int, int], list[int], float]:
        simulation = Simulation(7, group(Random(7), RETRY))
        first = next(iter(simulation.servers.values()))
        simulation.run(2.0, (0.5, lambda: first.become(Mood.DEAD)), (1.2, lambda: first.become(Mood.WELL)))
        simulation.settle()
        return simulation.answers, [server.asked for server in simulation.servers.values()], simulation.slowest

    assert play() == play()


def test_an_unhealthy_server_is_left_alone_until_it_is_well() -> None:
    simulation = Simulation(3, group(Random(3), RETRY))
    first = next(iter(simulation.servers.values()))
    asked = []
    simulation.run(
        9.0,
        (0.5, lambda: first.become(Mood.FAILING)),
        (4.0, lambda: asked.append(first.asked)),
        (6.0, lambda: asked.append(first.asked)),
        (6.1, lambda: first.become(Mood.WELL)),
    )
    assert asked[0] == asked[1]
    assert first.asked > asked[1] + 20
    check(simulation, 3)
