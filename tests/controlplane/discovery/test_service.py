"""Sources of a group combine, are kept over failures and reloads, and cannot empty it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from lbproxy.controlplane.discovery import registry
from lbproxy.controlplane.discovery.base import Context, Sink
from lbproxy.controlplane.discovery.names import NamedTargets
from lbproxy.controlplane.discovery.registry import Registry
from lbproxy.controlplane.discovery.service import FIRST_ANSWERS_SECONDS, SOURCES, DiscoveryService
from lbproxy.controlplane.state import Journal
from lbproxy.model.discovery import Discovery, FileSource, NamesSource, Protect, RegistrationSource
from lbproxy.model.snapshot import Configuration
from tests.controlplane.discovery.fakes import FakeLookup, FakeState, context, target
from tests.controlplane.fakes import make_configuration, make_group, make_target

FILE_A = FileSource(path="/a", text="file:a")
FILE_B = FileSource(path="/b", text="file:b")
TOKEN = "a-token-of-some-length"
REGISTRATION = RegistrationSource(tokens=("first-token-of-this", TOKEN))
PROTECT = Protect()
NAMED = NamesSource(targets=(target("app.internal:80"),))


class FakeFile:
    """A source that the test speaks for."""

    def __init__(self, settings: FileSource, context: Context, sink: Sink, group: str) -> None:
        self.path = settings.path
        self.sink = sink
        self.state = "new"

    def start(self) -> None:
        self.state = "started"

    def stop(self) -> None:
        self.state = "stopped"

    def found(self, *texts: str) -> None:
        self.sink.found([target(text) for text in texts])


class DiscoveryTests(SynchronousTestCase):
    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self.folder = tmp_path

    def setUp(self) -> None:
        self.clock = Clock()
        self.lookup = FakeLookup()
        self.begin()

    def begin(self) -> None:
        """Start the service, as after a restart."""
        self.state = FakeState()
        self.files: list[FakeFile] = []
        self.registry = Registry(self.clock, Journal(self.folder, "registrations.json"), self.state.fails_alone)
        self.service = DiscoveryService(
            self.state,
            context(self.clock, self.lookup),
            Journal(self.folder, "discovered.json"),
            self.registry,
            {NamesSource: NamedTargets, FileSource: self.make},
        )
        self.service.startService()

    def tearDown(self) -> None:
        self.service.stopService()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def make(self, *arguments: Any) -> FakeFile:
        self.files.append(FakeFile(*arguments))
        return self.files[-1]

    def prepare(self, wanted: Mapping[str, Discovery]) -> Deferred[Mapping[str, Sequence[Any]]]:
        prepared = Deferred.fromCoroutine(self.service.prepare(wanted, ()))
        self.clock.advance(0)
        return prepared

    def use(self, *sources: Any, protect: Protect = PROTECT, configuration: Configuration | None = None) -> None:
        """Put these sources in force without waiting for their answers."""
        wanted = {"app": Discovery(sources=sources, protect=protect)}
        prepared = self.prepare(wanted)
        if not prepared.called:
            self.clock.advance(FIRST_ANSWERS_SECONDS)
        self.successResultOf(prepared)
        self.service.use(wanted, configuration or make_configuration(make_group()))

    def status(self) -> list[tuple[str, str, int]]:
        return [(each.source, each.state, each.targets) for each in self.state.sources["app"]]

    # Sources together

    def test_sources_of_a_group_combine_in_their_order(self) -> None:
        self.use(FILE_A, FILE_B)
        self.files[1].found("10.0.0.2:80", "10.0.0.1:80 weight=9")
        self.files[0].found("10.0.0.1:80")
        self.assertEqual(self.state.keys(), ["10.0.0.1:80", "10.0.0.2:80"])
        self.assertEqual([each.weight for each in self.state.targets["app"]], [1, 1])
        self.files[0].found()
        self.assertEqual([each.weight for each in self.state.targets["app"]], [1, 9])

    def test_each_address_of_a_name_is_a_target(self) -> None:
        self.lookup.names["app.internal"] = ["10.0.0.1", "10.0.0.2"]
        self.use(NamesSource(targets=(target("app.internal:80 weight=3"),)))
        self.assertEqual(self.state.keys(), ["10.0.0.1:80", "10.0.0.2:80"])
        first = self.state.targets["app"][0]
        self.assertEqual((first.address, first.weight, first.server_name), ("10.0.0.1", 3, "app.internal"))

    def test_names_in_any_source_are_followed(self) -> None:
        self.lookup.names.update({"a.internal": ["10.0.0.1"], "b.internal": ["10.0.0.2"]})
        self.use(FILE_A)
        self.files[0].found("a.internal:80", "10.0.0.9:80")
        self.clock.advance(0)
        self.assertEqual(self.state.keys(), ["10.0.0.1:80", "10.0.0.9:80"])
        self.files[0].found("b.internal:80", "10.0.0.9:80")
        self.clock.advance(0)
        self.assertEqual(self.state.keys(), ["10.0.0.2:80", "10.0.0.9:80"])
        self.lookup.asked.clear()
        self.clock.advance(30)
        self.assertEqual(self.lookup.asked, ["b.internal"])

    def test_every_source_of_the_model_has_a_maker(self) -> None:
        from typing import get_args

        from lbproxy.model.discovery import Source

        self.assertEqual({*SOURCES, RegistrationSource}, set(get_args(Source)))

    # Failures and protection

    def test_a_source_that_fails_keeps_its_targets_and_says_so(self) -> None:
        self.use(FILE_A)
        self.files[0].found("10.0.0.1:80")
        self.files[0].sink.failed("a: no such file")
        self.assertEqual((self.state.keys(), self.status()), (["10.0.0.1:80"], [("file:a", "failing", 1)]))
        self.assertEqual(list(self.service.problems()), ["file:a of target group app: a: no such file"])
        self.files[0].found("10.0.0.2:80")
        self.assertEqual((self.state.keys(), self.status()), (["10.0.0.2:80"], [("file:a", "ok", 1)]))

    def test_an_empty_answer_does_not_empty_the_group(self) -> None:
        self.use(FILE_A)
        self.files[0].found("10.0.0.1:80", "10.0.0.2:80")
        self.files[0].found()
        self.assertEqual(self.state.keys(), ["10.0.0.1:80", "10.0.0.2:80"])
        self.assertEqual(self.status(), [("file:a", "held", 2)])
        (problem,) = self.service.problems()
        self.assertIn("names 0 targets now, which would leave 0 of 2 in the group", problem)
        self.files[0].found("10.0.0.3:80")
        self.assertEqual((self.state.keys(), self.status()), (["10.0.0.3:80"], [("file:a", "ok", 1)]))

    def test_targets_elsewhere_count_against_emptiness(self) -> None:
        self.use(FILE_A, configuration=make_configuration(make_group(make_target(1))))
        self.files[0].found("10.0.0.2:80")
        self.files[0].found()
        self.assertEqual((self.state.keys(), self.status()), ([], [("file:a", "ok", 0)]))

    def test_what_is_held_comes_in_force_when_others_make_up_for_it(self) -> None:
        self.use(FILE_A, FILE_B)
        self.files[0].found("10.0.0.1:80")
        self.files[0].found()
        self.files[1].found("10.0.0.2:80")
        self.assertEqual(self.state.keys(), ["10.0.0.2:80"])
        self.assertEqual(self.status(), [("file:a", "ok", 0), ("file:b", "ok", 1)])

    def test_a_share_of_the_targets_may_be_protected(self) -> None:
        self.use(FILE_A, protect=Protect(count=1, share=0.5))
        self.files[0].found(*(f"10.0.0.{number}:80" for number in range(1, 9)))
        self.files[0].found("10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80")
        self.assertEqual(len(self.state.keys()), 8)
        self.files[0].found(*(f"10.0.0.{number}:80" for number in range(1, 5)))
        self.assertEqual(len(self.state.keys()), 4)

    def test_a_reload_with_less_protection_lets_go(self) -> None:
        self.use(FILE_A)
        self.files[0].found("10.0.0.1:80")
        self.files[0].found()
        self.use(FILE_A, protect=Protect(count=0))
        self.assertEqual((self.state.keys(), self.status()), ([], [("file:a", "ok", 0)]))
        self.assertEqual(len(self.files), 1, "the source goes on")

    def test_too_many_targets_are_told_and_change_nothing(self) -> None:
        self.use(FILE_A)
        self.state.error = RuntimeError("no more shared cells")
        self.files[0].found("10.0.0.1:80")
        self.assertEqual(self.state.keys(), [])

    # Reloads

    def test_a_configuration_waits_for_the_first_answers(self) -> None:
        wanted = {"app": Discovery(sources=(FILE_A, NAMED))}
        self.lookup.names["app.internal"] = None
        prepared = self.prepare(wanted)
        self.files[0].found("10.0.0.1:80")
        self.assertNoResult(prepared)
        self.clock.advance(FIRST_ANSWERS_SECONDS)
        self.assertEqual([each.key for each in self.successResultOf(prepared)["app"]], ["10.0.0.1:80"])

    def test_a_failure_is_a_first_answer_too(self) -> None:
        prepared = self.prepare({"app": Discovery(sources=(FILE_A, NAMED))})
        self.files[0].sink.failed("no such file")
        self.assertEqual(self.successResultOf(prepared), {"app": ()})

    def test_a_source_that_stays_is_left_alone_and_one_that_goes_ends(self) -> None:
        self.use(FILE_A, FILE_B)
        self.files[0].found("10.0.0.1:80")
        self.files[1].found("10.0.0.2:80")
        self.use(FILE_A)
        self.assertEqual([each.state for each in self.files], ["started", "stopped"])
        self.assertEqual((self.state.keys(), self.status()), (["10.0.0.1:80"], [("file:a", "ok", 1)]))

    def test_a_reload_that_is_refused_ends_what_it_had_begun(self) -> None:
        self.use(FILE_A)
        self.files[0].found("10.0.0.1:80")
        self.prepare({"app": Discovery(sources=(FILE_B,)), "other": Discovery(sources=(FILE_B,))})
        for each in self.files[1:]:
            each.found("10.0.0.2:80")
        self.assertEqual(self.state.keys(), ["10.0.0.1:80"])
        self.service.use({"app": Discovery(sources=(FILE_A,))}, make_configuration(make_group()))
        self.assertEqual([each.state for each in self.files], ["started", "stopped", "stopped"])
        self.assertEqual(self.state.keys(), ["10.0.0.1:80"])

    def test_a_changed_list_of_names_keeps_the_names_that_are_known(self) -> None:
        self.lookup.names.update({"app.internal": ["10.0.0.1"], "new.internal": ["10.0.0.2"]})
        self.use(NAMED)
        self.lookup.asked.clear()
        self.use(NamesSource(targets=(target("app.internal:80"), target("new.internal:80"))))
        self.assertEqual(self.state.keys(), ["10.0.0.1:80", "10.0.0.2:80"])
        self.assertEqual(self.lookup.asked, ["new.internal"])

    # Registration

    def test_registered_targets_come_and_go(self) -> None:
        self.use(REGISTRATION)
        self.assertTrue(self.registry.register("app", target("10.0.0.1:80"), 30))
        self.assertFalse(self.registry.register("app", target("10.0.0.1:80"), 30))
        self.registry.register("app", target("10.0.0.2:80"), 30)
        self.assertEqual(self.state.keys(), ["10.0.0.1:80", "10.0.0.2:80"])
        self.assertTrue(self.registry.deregister("app", "10.0.0.1:80"))
        self.assertFalse(self.registry.deregister("app", "10.0.0.1:80"))
        self.assertEqual(self.state.keys(), ["10.0.0.2:80"])

    def test_who_does_not_renew_in_time_is_gone(self) -> None:
        self.use(REGISTRATION)
        self.registry.register("app", target("10.0.0.1:80"), 10)
        self.registry.register("app", target("10.0.0.2:80"), 10)
        self.clock.advance(9)
        self.registry.register("app", target("10.0.0.2:80"), 10)
        self.clock.advance(2)
        self.assertEqual(self.state.keys(), ["10.0.0.2:80"])

    def fleet(self, count: int, *, ttl: float = 30.0, protect: Protect = PROTECT) -> list[str]:
        """Register targets, each a second after the one before, so that their times run out one after the other."""
        self.use(attrs.evolve(REGISTRATION, keeps=protect.count > 0), protect=protect)
        keys = [f"10.0.0.{number}:80" for number in range(1, count + 1)]
        for key in keys:
            self.registry.register("app", target(key), ttl)
            self.clock.advance(1)
        return keys

    def pass_renewing(self, seconds: float, *keys: str, ttl: float = 30.0) -> None:
        """Let time pass while these renew three times in their time."""
        for _ in range(round(seconds / (ttl / 3))):
            for key in keys:
                self.registry.register("app", target(key), ttl)
            self.clock.advance(ttl / 3)

    def test_when_nobody_renews_any_more_all_stay(self) -> None:
        """It is more likely that we cannot be reached than that all are gone."""
        keys = self.fleet(10)
        self.clock.pump([1] * 200)
        self.assertEqual((self.state.keys(), self.status()), (keys, [("registration", "failing", 10)]))
        (problem,) = self.service.problems()
        self.assertIn("less than half of the others; their targets stay while health checks succeed", problem)
        self.pass_renewing(30, *keys)
        self.assertEqual((self.state.keys(), self.status()), (keys, [("registration", "ok", 10)]))

    def test_those_that_do_not_come_back_with_the_others_are_gone(self) -> None:
        keys = self.fleet(10)
        self.clock.pump([1] * 100)
        self.pass_renewing(60, *keys[:5])
        self.assertEqual((self.state.keys(), self.status()), (keys[:5], [("registration", "ok", 5)]))

    def test_one_that_stops_renewing_while_others_go_on_is_gone_on_time(self) -> None:
        keys = self.fleet(3)
        self.pass_renewing(30, *keys[1:])
        self.assertEqual(self.state.keys(), keys[1:])

    def test_while_less_than_half_renew_the_others_stay(self) -> None:
        keys = self.fleet(10)
        self.pass_renewing(300, *keys[:4])
        self.assertEqual((self.state.keys(), self.status()), (keys, [("registration", "failing", 10)]))

    def test_one_that_also_fails_health_checks_is_gone(self) -> None:
        keys = self.fleet(4)
        self.state.failing = set(keys[:2])
        self.clock.pump([1] * 60)
        self.assertEqual((self.state.keys(), self.status()), (keys[2:], [("registration", "failing", 2)]))

    def test_a_stay_is_told_once_for_each(self) -> None:
        keys = self.fleet(3)
        told: list[str] = []
        globalLogPublisher.addObserver(observer := lambda event: told.append(formatEvent(event)))
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        self.clock.pump([1] * 200)
        stays = "target {} has not renewed its registration in app for 30 s, nor have most others theirs: it stays"
        self.assertEqual(sorted(line for line in told if "renewed its" in line), [stays.format(key) for key in keys])
        self.assertEqual(len([line for line in told if "health checks succeed" in line]), 1)

    def test_without_protection_every_registration_runs_out(self) -> None:
        self.fleet(3, protect=Protect(count=0))
        self.clock.advance(30)
        self.assertEqual((self.state.keys(), self.status()), ([], [("registration", "ok", 0)]))

    def test_the_last_of_a_group_stays_even_when_health_checks_fail(self) -> None:
        keys = self.fleet(1)
        self.state.failing = set(keys)
        self.clock.advance(30)
        self.assertEqual((self.state.keys(), self.status()), (keys, [("registration", "held", 1)]))
        self.registry.register("app", target("10.0.0.9:80"), 10)
        self.assertEqual((self.state.keys(), self.status()), (["10.0.0.9:80"], [("registration", "ok", 1)]))

    def test_the_last_may_leave_by_itself(self) -> None:
        self.use(REGISTRATION)
        self.registry.register("app", target("10.0.0.1:80"), 10)
        self.registry.deregister("app", "10.0.0.1:80")
        self.assertEqual(self.state.keys(), [])

    def test_another_weight_is_another_registration(self) -> None:
        self.use(REGISTRATION)
        self.registry.register("app", target("10.0.0.1:80"), 10)
        self.registry.register("app", target("10.0.0.1:80 weight=5"), 10)
        self.assertEqual([each.weight for each in self.state.targets["app"]], [5])

    def test_tokens(self) -> None:
        self.assertFalse(self.registry.accepts("app"))
        self.use(REGISTRATION)
        self.assertTrue(self.registry.accepts("app"))
        for token, good in ((TOKEN, True), ("", False), (TOKEN[:-1], False), (TOKEN + "x", False), ("\udc80é", False)):
            self.assertEqual(self.registry.permits("app", token), good, token)
            self.assertFalse(self.registry.permits("other", token))

    def test_other_tokens_after_a_reload(self) -> None:
        self.use(REGISTRATION)
        self.registry.register("app", target("10.0.0.1:80"), 10)
        self.use(RegistrationSource(tokens=("another-token-of-32",)))
        self.assertFalse(self.registry.permits("app", TOKEN))
        self.assertTrue(self.registry.permits("app", "another-token-of-32"))
        self.registry.register("app", target("10.0.0.2:80"), 10)
        self.assertEqual(self.state.keys(), ["10.0.0.1:80", "10.0.0.2:80"])

    def test_a_refused_reload_leaves_the_tokens_as_they_were(self) -> None:
        self.use(REGISTRATION)
        self.prepare({"app": Discovery(sources=(RegistrationSource(tokens=("another-token-of-32",)),))})
        self.service.use({"app": Discovery(sources=(REGISTRATION,))}, make_configuration(make_group()))
        self.assertTrue(self.registry.permits("app", TOKEN))
        self.assertFalse(self.registry.permits("app", "another-token-of-32"))

    def test_registrations_are_bounded(self) -> None:
        self.use(FILE_A)
        self.patch(registry, "MAX_REGISTRATIONS", 3)
        for number in range(3):
            self.registry.register("app", target(f"10.0.0.{number}:80"), 10)
        with self.assertRaises(registry.RegistryFull):
            self.registry.register("app", target("10.0.0.9:80"), 10)
        self.assertFalse(self.registry.register("app", target("10.0.0.1:80"), 10))

    def test_registrations_outlive_a_restart_and_have_their_whole_time_again(self) -> None:
        self.use(REGISTRATION)
        self.registry.register("app", target("10.0.0.1:80 weight=3"), 10)
        self.registry.register("app", target("10.0.0.2:80"), 100)
        self.clock.advance(8)
        self.service.stopService()
        self.clock.advance(1000)
        self.begin()
        self.use(REGISTRATION)
        self.assertEqual([each.weight for each in self.state.targets["app"]], [3, 1])
        self.clock.advance(9)
        self.assertEqual(len(self.state.keys()), 2)
        self.clock.advance(2)
        self.assertEqual(self.state.keys(), ["10.0.0.2:80"])

    # Restarts

    def test_a_restart_goes_on_with_what_was_in_force(self) -> None:
        self.lookup.names["app.internal"] = ["10.0.0.7"]
        self.use(NAMED, FILE_A)
        self.files[0].found("10.0.0.1:80 weight=4")
        self.service.stopService()

        self.lookup.names["app.internal"] = "SERVFAIL"
        self.begin()
        self.use(NAMED, FILE_A)
        self.assertEqual(
            [(each.key, each.weight, each.name) for each in self.state.targets["app"]],
            [("10.0.0.7:80", 1, "app.internal"), ("10.0.0.1:80", 4, "")],
        )
        self.assertEqual(self.status(), [("targets", "failing", 1), ("file:a", "starting", 1)])
        self.files[0].found()
        self.assertEqual(self.state.keys(), ["10.0.0.7:80"])

    def test_what_is_in_force_is_written_soon(self) -> None:
        self.use(FILE_A)
        self.files[0].found("10.0.0.1:80")
        self.clock.advance(1)
        self.assertIn("10.0.0.1", (self.folder / "discovered.json").read_text())

    def test_a_spoilt_record_of_the_last_run_is_no_obstacle(self) -> None:
        for text in ("{", "[]", '{"app": {"file:a": [{"host": 1}]}}'):
            (self.folder / "discovered.json").write_text(text)
            self.begin()
            self.use(FILE_A)
            self.assertEqual(self.state.keys(), [])
            self.service.stopService()
