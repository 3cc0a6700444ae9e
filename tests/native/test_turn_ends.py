"""What is put off to the end of the reactor's turn."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from lbproxy.native.clock import Turns
from lbproxy.native.pure.clock import Turns as PureTurns


class Item:
    def __init__(self, log: list[str], name: str, fails: bool = False) -> None:
        self._log = log
        self._name = name
        self._fails = fails

    def turn_ended(self) -> None:
        self._log.append(self._name)
        if self._fails:
            raise RuntimeError(self._name)


class TurnEnds(SynchronousTestCase):
    def test_what_is_asked_for_in_a_turn_comes_at_its_end_in_order(self) -> None:
        for kind in (Turns, PureTurns):
            log: list[str] = []
            turns = kind()
            turns.begin()
            turns.at_end(Item(log, "a"))
            turns.at_end(Item(log, "b"))
            self.assertEqual((log, turns.current), ([], 1))
            turns.finish()
            turns.finish()
            self.assertEqual(log, ["a", "b"])

    def test_outside_of_a_turn_it_comes_at_once(self) -> None:
        for kind in (Turns, PureTurns):
            log: list[str] = []
            kind().at_end(Item(log, "a"))
            self.assertEqual(log, ["a"])

    def test_one_that_fails_does_not_take_the_others_along(self) -> None:
        for kind in (Turns, PureTurns):
            log: list[str] = []
            turns = kind()
            turns.begin()
            turns.at_end(Item(log, "a", fails=True))
            turns.at_end(Item(log, "b"))
            turns.finish()
            self.assertEqual(log, ["a", "b"])
            self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
