"""Random failures, seed after seed: whatever servers do, clients see what they may and nothing is lost count of.

``LBPROXY_SEEDS=5000 python -m pytest tests/simulation`` tries more seeds, ``LBPROXY_SEED=17`` replays one.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import attrs
import pytest
from twisted.logger import Logger, formatEvent, globalLogPublisher

from lbproxy.model.health import HealthCheck
from lbproxy.model.retry import RetryPolicy
from lbproxy.model.target_group import OutlierDetection, TargetGroup, TargetProtocol
from lbproxy.testing.simulation import Mood, Simulation

SEEDS = int(os.environ.get("LBPROXY_SEEDS", "300"))
FIRST = int(os.environ.get("LBPROXY_SEED", "1"))
LAST = FIRST if "LBPROXY_SEED" in os.environ else SEEDS
STEP = 50
RANGES = [range(first, min(first + STEP, LAST + 1)) for first in range(FIRST, LAST + 1, STEP)]
"""Seeds that are one test together."""

REQUESTS = 100
"""About how many requests of clients a run has: enough for a few servers' failures, and few for the next seed."""

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


class Run:
    """One seed's simulation: few clients or many, that ask seldom for seconds or all the time for a moment."""

    def __init__(self, seed: int, random: Random, retry: RetryPolicy, **settings: Any) -> None:
        clients = random.randrange(2, 9)
        think = math.exp(random.uniform(math.log(0.01), math.log(0.6)))
        self.simulation = Simulation(
            seed, attrs.evolve(group(random, retry), **settings), clients=clients, think_seconds=think
        )
        self.seconds = min(6.0, max(0.3, REQUESTS * (think / 2 + 0.012) / clients))

    def check(self) -> None:
        """What must hold after every run."""
        simulation = self.simulation
        simulation.settle()
        assert not simulation.wrong, simulation.wrong[:3]
        assert simulation.in_flight() == 0, f"{simulation.in_flight()} still in flight"
        assert sum(simulation.answers.values()) >= len(simulation.clients), simulation.answers
        assert simulation.slowest < 15.0, f"an answer took {simulation.slowest} s"
        leftover = simulation.clock.getDelayedCalls()
        assert len(leftover) < 20, leftover


def one_bad_server(seed: int) -> None:
    random = Random(seed)
    run = Run(seed, random, RETRY)
    server = run.simulation.servers[random.choice(list(run.simulation.servers))]
    moods = [mood for mood in Mood if mood is not Mood.CUTTING]
    events = []
    at = 0.0
    while at < run.seconds:
        at += random.uniform(0.03, 0.25) * run.seconds
        mood = random.choice(moods)
        events.append((at, lambda mood=mood: server.become(mood)))
    run.simulation.run(run.seconds, *events)
    run.check()
    assert set(run.simulation.answers) == {200}, run.simulation.answers


def all_servers_bad(seed: int) -> None:
    random = Random(seed)
    retry = random.choice((RETRY, RetryPolicy(), RetryPolicy(hedge_delay_seconds=0.05, budget_percent=100)))
    retry = attrs.evolve(retry, most_at_once=random.choice((0, 0, 2)))
    run = Run(seed, random, retry, circuit_breaker_max_requests=random.choice((0, 0, 4)))
    simulation = run.simulation
    servers = list(simulation.servers.values())
    events = []
    for _ in range(random.randrange(3, 20)):
        server, mood = random.choice(servers), random.choice(list(Mood))
        events.append((random.uniform(0.0, run.seconds), lambda server=server, mood=mood: server.become(mood)))
    for _ in range(random.randrange(4)):
        keys = random.sample(list(simulation.servers), random.randrange(1, 5))
        events.append((random.uniform(0.0, run.seconds), lambda keys=keys: simulation.configure(*keys)))
    simulation.run(run.seconds, *events)
    run.check()
    assert set(simulation.answers) <= {0, 200, 500, 502, 503, 504}, simulation.answers
    broken = sum(server.cut for server in servers)
    assert simulation.answers.get(0, 0) <= broken + len(servers) * 10, simulation.answers


@pytest.fixture(autouse=True)
def errors() -> Iterator[list[str]]:
    """What is logged as a failure: a mistake of ours, even where clients see nothing of it."""
    found: list[str] = []

    def observe(event: dict[str, Any]) -> None:
        if "log_failure" in event:
            found.append(f"{formatEvent(event)}\n{event['log_failure'].getTraceback()}")

    globalLogPublisher.addObserver(observe)
    yield found
    globalLogPublisher.removeObserver(observe)


def play(scenario: Callable[[int], None], seeds: range, errors: list[str]) -> None:
    for seed in seeds:
        try:
            scenario(seed)
            assert not errors, errors[0]
        except Exception as error:
            raise AssertionError(f"seed {seed} fails, LBPROXY_SEED={seed} replays it: {error}") from error


@pytest.mark.parametrize("seeds", RANGES, ids=lambda seeds: f"{seeds[0]}-{seeds[-1]}")
def test_one_bad_server_is_never_seen_by_clients(seeds: range, errors: list[str]) -> None:
    """With retries, whatever one server does before it has begun an answer."""
    play(one_bad_server, seeds, errors)


@pytest.mark.parametrize("seeds", RANGES, ids=lambda seeds: f"{seeds[0]}-{seeds[-1]}")
def test_whatever_all_servers_do_every_request_has_one_end(seeds: range, errors: list[str]) -> None:
    play(all_servers_bad, seeds, errors)


def test_a_seed_that_fails_is_named() -> None:
    def scenario(seed: int) -> None:
        assert seed < 3, "three is too many"

    with pytest.raises(AssertionError, match="seed 3 fails, LBPROXY_SEED=3 replays it: three is too many"):
        play(scenario, range(1, 9), [])


def test_a_seed_that_logs_a_failure_of_ours_fails(errors: list[str]) -> None:
    def scenario(seed: int) -> None:
        try:
            seed // 0
        except ZeroDivisionError:
            Logger().failure("not seen by anybody")

    with pytest.raises(AssertionError, match=r"not seen by anybody(?s:.)*ZeroDivisionError"):
        play(scenario, range(1, 9), errors)


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
