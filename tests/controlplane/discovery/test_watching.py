"""When a source is listed, and when its watch goes on."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from lbproxy.controlplane.discovery.jsonapi import ApiError
from lbproxy.controlplane.discovery.watching import (
    FIRST_RETRY_SECONDS,
    JITTER,
    LIST_INTERVAL_SECONDS,
    LONGEST_RETRY_SECONDS,
    ListAgain,
    ListAndWatch,
)

PAUSE = FIRST_RETRY_SECONDS * (1 + JITTER)


class WatchingTests(SynchronousTestCase):
    def begin(self, *, resumes: bool) -> None:
        self.clock = Clock()
        self.did: list[str] = []
        self.problems: list[str] = []
        self.list_fails: Exception | None = None
        self.watching: Deferred[None] = Deferred()
        self.following = ListAndWatch(self.clock, self.list, self.watch, self.problems.append, resumes=resumes)
        self.following.start()
        self.addCleanup(self.following.stop)

    async def list(self) -> None:
        self.did.append("list")
        if self.list_fails is not None:
            raise self.list_fails

    async def watch(self) -> None:
        self.did.append("watch")
        self.watching = Deferred()
        await self.watching

    def did_since(self) -> list[str]:
        done, self.did = self.did, []
        return done

    def end(self, error: Exception | None = None) -> None:
        """The watch ends or breaks."""
        self.watching.callback(None) if error is None else self.watching.errback(Failure(error))

    def test_a_broken_watch_goes_on_without_a_list(self) -> None:
        self.begin(resumes=True)
        self.assertEqual(self.did_since(), ["list", "watch"])
        self.following.established()
        self.end(ApiError("broken"))
        self.assertEqual(self.problems, ["broken"])
        self.assertEqual(self.did_since(), [])
        self.clock.advance(PAUSE)
        self.assertEqual(self.did_since(), ["watch"])

    def test_an_established_watch_that_ends_well_goes_on_at_once(self) -> None:
        self.begin(resumes=True)
        self.following.established()
        self.end()
        self.assertEqual(self.did_since(), ["list", "watch", "watch"])
        self.assertEqual(self.problems, [])

    def test_a_watch_that_ends_before_it_stands_is_not_begun_in_a_hurry(self) -> None:
        self.begin(resumes=True)
        self.end()
        self.assertEqual(self.did_since(), ["list", "watch"])
        self.clock.advance(PAUSE)
        self.assertEqual(self.did_since(), ["watch"])

    def test_a_watch_that_cannot_go_on_is_followed_by_a_list(self) -> None:
        self.begin(resumes=True)
        for reason in (ListAgain(), ListAgain("strange")):
            self.end(reason)
            self.did_since()
            self.clock.advance(PAUSE)
            self.assertEqual(self.did_since(), ["list", "watch"])
        self.assertEqual(self.problems, ["strange"])

    def test_a_list_each_minute_though_the_watch_stands_or_breaks(self) -> None:
        self.begin(resumes=True)
        self.did_since()
        self.clock.advance(LIST_INTERVAL_SECONDS)
        self.assertEqual(self.did_since(), ["list", "watch"])
        self.clock.advance(LIST_INTERVAL_SECONDS - PAUSE)
        self.end(ApiError("broken"))
        self.clock.advance(PAUSE)
        self.assertEqual(self.did_since(), ["list", "watch"])
        self.assertEqual(self.problems, ["broken"])

    def test_a_watch_that_cannot_be_resumed_is_followed_by_a_list(self) -> None:
        self.begin(resumes=False)
        self.following.established()
        self.end()
        self.assertEqual(self.did_since(), ["list", "watch", "list", "watch"])
        self.clock.advance(LIST_INTERVAL_SECONDS)
        self.assertEqual(self.did_since(), ["list", "watch"])

    def test_pauses_grow_until_it_works(self) -> None:
        self.begin(resumes=False)
        self.list_fails = ApiError("away")
        self.end(self.list_fails)
        pauses: list[float] = []
        for _ in range(9):
            began = self.clock.seconds()
            self.did_since()
            while not self.did:
                self.clock.advance(0.05)
            pauses.append(self.clock.seconds() - began)
        self.assertLess(pauses[0], 1.0)
        self.assertGreaterEqual(pauses[-1], LONGEST_RETRY_SECONDS - 0.1)
        self.list_fails = None
        self.clock.advance(LONGEST_RETRY_SECONDS * (1 + JITTER))
        self.end(ApiError("again"))
        self.did_since()
        self.clock.advance(PAUSE)
        self.assertEqual(self.did_since(), ["list", "watch"])

    def test_a_mistake_of_ours_is_logged_and_tried_again(self) -> None:
        self.begin(resumes=True)
        self.end(ZeroDivisionError())
        self.assertEqual(self.problems, ["ZeroDivisionError"])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.clock.advance(PAUSE)
        self.assertEqual(self.did_since(), ["list", "watch", "watch"])

    def test_nothing_is_left_when_it_is_stopped(self) -> None:
        for error in (None, ApiError("broken")):
            self.begin(resumes=True)
            if error is not None:
                self.end(error)
            self.following.stop()
            leftover: list[Any] = self.clock.getDelayedCalls()
            self.assertEqual(leftover, [])
