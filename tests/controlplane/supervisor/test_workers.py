"""A slot's life and the pool's size, with scripted workers."""

from __future__ import annotations

import os
import random
import signal

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from lbproxy.controlplane.supervisor.sockets import ListeningSockets
from lbproxy.controlplane.supervisor.workers import SlotState, WorkerPool
from lbproxy.ipc.messages import AddSockets, Applied, ApplySnapshot, Drain, Hello, ReopenLogs, TicketKeys, Welcome
from lbproxy.model.listener import Bind

from .fakes import FakeLauncher, FakeMetrics, FakeWorker, configuration, snapshot

ONE = Bind("127.0.0.1", 0)
TWO = Bind("127.0.0.2", 0)


class PoolTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.launcher = FakeLauncher(self.clock)
        self.metrics = FakeMetrics()
        self.sockets = ListeningSockets()
        self.addCleanup(self.sockets.close)
        self.cleared: list[int] = []
        cells = os.open(os.devnull, os.O_RDONLY)
        self.addCleanup(os.close, cells)
        self.pool = WorkerPool(
            self.clock, self.launcher, self.sockets, cells, self.metrics, self.clear, random.Random(1)
        )
        self.pool.startService()
        self.addCleanup(self.pool.stopService)

    def clear(self, slot: int) -> int:
        self.cleared.append(slot)
        return 7

    def start(self, number: int = 1, *binds: Bind) -> list[FakeWorker]:
        self.sockets.open(dict.fromkeys(binds, "web"), range(number))
        self.pool.offer(snapshot(1, configuration(*binds), worker_slots=number))
        self.pool.set_active(self.pool.plan(number), 30)
        self.turn()
        return self.launcher.workers[-number:]

    def turn(self, turns: int = 8) -> None:
        for _ in range(turns):
            self.clock.advance(0)

    def live(self, seconds: float, *workers: FakeWorker) -> None:
        """Let time pass in which these workers report."""
        for _ in range(int(seconds)):
            for worker in workers:
                worker.report()
            self.clock.advance(1)

    def state(self, slot: int = 0) -> SlotState:
        (status,) = [status for status in self.pool.statuses() if status.slot == slot]
        return status.state


class StartTests(PoolTestCase):
    def test_a_worker_is_welcomed_given_its_sockets_and_then_the_snapshot(self) -> None:
        (worker,) = self.start(1, ONE)

        self.assertEqual(worker.messages[0], Welcome(slot=0))
        self.assertEqual(worker.of_type(AddSockets), [AddSockets(binds=(ONE,))])
        self.assertEqual([message.version for message in worker.of_type(ApplySnapshot)], [1])
        self.assertEqual(self.state(), SlotState.RUNNING)
        self.assertTrue(self.pool.is_ready)

    def test_nothing_is_sent_before_its_hello(self) -> None:
        self.launcher.hello = False
        (worker,) = self.start(1, ONE)
        self.assertEqual((worker.messages, self.state()), ([], SlotState.STARTING))
        worker.hello()
        self.turn()

        self.assertEqual(self.state(), SlotState.RUNNING)

    def test_ready_fires_when_every_worker_has_its_first_snapshot_in_force(self) -> None:
        self.launcher.answers = False
        first, second = self.start(2)
        ready = self.pool.ready()
        first.say(Applied(version=1))
        self.turn()
        self.assertNoResult(ready)
        self.assertEqual([status.slot for status in self.pool.unready()], [1])
        second.say(Applied(version=1))
        self.turn()

        self.successResultOf(ready)

    def test_more_sockets_than_one_message_can_carry_go_in_several(self) -> None:
        binds = [Bind(f"127.0.1.{number}", 0) for number in range(1, 255)]
        (worker,) = self.start(1, *binds)

        self.assertEqual([len(message.binds) for message in worker.of_type(AddSockets)], [253, 1])

    def test_reports_reach_the_metrics_with_the_incarnation(self) -> None:
        (worker,) = self.start()
        worker.report({"requests": 3})
        self.turn()

        self.assertEqual(self.metrics.updates, [(0, 1, {"requests": 3})])

    def test_reopening_logs_is_passed_on(self) -> None:
        (worker,) = self.start()
        self.pool.reopen_logs()
        self.turn()

        self.assertEqual(worker.of_type(ReopenLogs), [ReopenLogs()])

    def test_all_workers_have_the_same_ticket_keys_which_are_renewed(self) -> None:
        workers = self.start(2)
        (given,), (same,) = (worker.of_type(TicketKeys) for worker in workers)
        self.assertEqual(given, same)
        self.pool.rotate_ticket_keys()
        self.turn()

        for worker in workers:
            renewed = worker.of_type(TicketKeys)[-1]
            self.assertEqual([len(key) for key in renewed.keys], [80, 80])
            self.assertNotEqual(renewed.keys[0], given.keys[0])
            self.assertEqual(renewed.keys[1], given.keys[0])


class SnapshotTests(PoolTestCase):
    def test_a_change_of_health_does_not_carry_the_configuration(self) -> None:
        (worker,) = self.start(1, ONE)
        self.pool.offer(snapshot(2, configuration(ONE)))
        self.turn()

        first, second = worker.of_type(ApplySnapshot)
        self.assertIsNotNone(first.configuration)
        self.assertIsNone(second.configuration)

    def test_a_slow_worker_gets_the_latest_and_not_a_queue(self) -> None:
        self.launcher.answers = False
        (worker,) = self.start(1, ONE)
        for version in (2, 3, 4):
            self.pool.offer(snapshot(version, configuration(ONE)))
        worker.say(Applied(version=1))
        self.turn()

        self.assertEqual([message.version for message in worker.of_type(ApplySnapshot)], [1, 4])

    def test_the_version_in_force_is_that_of_the_slowest_worker(self) -> None:
        _, second = self.start(2)
        second.answers = False
        self.pool.offer(snapshot(2, configuration()))
        self.turn()
        self.assertEqual(self.pool.version_in_force, 1)
        second.say(Applied(version=2))
        self.turn()
        self.assertEqual(self.pool.version_in_force, 2)

    def test_a_worker_that_starts_counts_with_what_it_was_sent(self) -> None:
        self.launcher.answers = False
        self.start(1)
        self.pool.offer(snapshot(2, configuration()))
        self.turn()
        self.assertEqual(self.pool.version_in_force, 1)

    def test_only_new_sockets_are_sent_and_a_bind_that_comes_back_is_new(self) -> None:
        (worker,) = self.start(1, ONE)
        self.sockets.open({TWO: "b"}, [0])
        for version, binds in ((2, (ONE, TWO)), (3, (ONE,)), (4, (ONE, TWO))):
            self.pool.offer(snapshot(version, configuration(*binds), version))
            self.turn()

        self.assertEqual([message.binds for message in worker.of_type(AddSockets)], [(ONE,), (TWO,), (TWO,)])

    def test_applied_waits_for_every_worker(self) -> None:
        _, second = self.start(2)
        second.answers = False
        self.pool.offer(snapshot(2, configuration()))
        applied = self.pool.applied(2)
        self.turn()
        self.assertNoResult(applied)
        second.say(Applied(version=2))
        self.turn()

        self.successResultOf(applied)

    def test_applied_does_not_wait_for_a_worker_that_ended(self) -> None:
        _, second = self.start(2)
        second.answers = False
        self.pool.offer(snapshot(2, configuration()))
        applied = self.pool.applied(2)
        second.die()
        self.turn(1)

        self.successResultOf(applied)

    def test_giving_up_the_wait_leaves_nothing(self) -> None:
        (worker,) = self.start()
        worker.answers = False
        self.pool.offer(snapshot(2, configuration()))
        applied = self.pool.applied(2).addTimeout(5, self.clock)
        self.live(6, worker)
        self.failureResultOf(applied)
        worker.say(Applied(version=2))
        self.turn()

    def test_a_snapshot_that_is_never_answered_does_not_hold_up_the_next(self) -> None:
        (worker,) = self.start()
        worker.answers = False
        self.pool.offer(snapshot(2, configuration()))
        self.pool.offer(snapshot(3, configuration()))
        self.live(32, worker)

        self.assertEqual([message.version for message in worker.of_type(ApplySnapshot)], [1, 2, 3])


class RestartTests(PoolTestCase):
    def test_a_dead_worker_is_replaced_at_once_with_all_it_needs(self) -> None:
        (worker,) = self.start(1, ONE)
        worker.die()
        self.turn()

        successor = self.launcher.latest(0)
        self.assertIsNot(successor, worker)
        self.assertEqual(successor.of_type(AddSockets), [AddSockets(binds=(ONE,))])
        self.assertIsNotNone(successor.of_type(ApplySnapshot)[0].configuration)
        self.assertEqual((self.state(), self.metrics.restarts), (SlotState.RUNNING, [0]))

    def test_its_cells_are_zeroed_and_its_counters_kept_before_the_next_starts(self) -> None:
        (worker,) = self.start()
        worker.die()
        self.turn(1)

        self.assertEqual((self.cleared, self.metrics.retired), ([0], [(0, 1)]))
        self.assertEqual(self.metrics.requests_lost, 7)

    def test_what_it_said_last_is_heard(self) -> None:
        """The process may be reaped before its channel is read to the end."""
        (worker,) = self.start()
        worker.report({"requests": 9})
        worker.on_exit("it exited with status 1")
        worker.hang_up()
        self.turn()

        self.assertEqual(self.metrics.updates[0], (0, 1, {"requests": 9}))
        self.assertEqual(len(self.launcher.workers), 2)

    def test_repeated_ends_back_off_with_jitter_up_to_the_limit(self) -> None:
        self.start()
        waits = []
        for _ in range(14):
            before = self.clock.seconds()
            self.launcher.workers[-1].die()
            known = len(self.launcher.workers)
            while len(self.launcher.workers) == known:
                self.clock.advance(0.005)
            waits.append(self.clock.seconds() - before)

        self.assertLess(waits[0], 0.011)
        for number, waited in enumerate(waits[1:]):
            longest = min(30.0, 0.05 * 2**number)
            self.assertGreaterEqual(waited, longest / 2)
            self.assertLess(waited, longest + 0.02)

    def test_a_steady_worker_is_replaced_at_once_again(self) -> None:
        (worker,) = self.start()
        worker.die()
        self.turn()
        self.live(11, self.launcher.latest(0))
        self.launcher.latest(0).die()
        self.turn()

        self.assertEqual((len(self.launcher.workers), self.state()), (3, SlotState.RUNNING))

    def test_a_failed_start_counts_as_an_end(self) -> None:
        self.launcher.error = OSError(11, "Resource temporarily unavailable")
        self.pool.offer(snapshot(1, configuration()))
        self.pool.set_active([0], 30)
        self.assertEqual(self.state(), SlotState.BACKING_OFF)
        self.launcher.error = None
        self.turn()

        self.assertEqual(self.state(), SlotState.RUNNING)

    def test_a_worker_whose_channel_broke_is_killed(self) -> None:
        (worker,) = self.start()
        worker.hang_up()
        self.clock.pump([0, 1, 1])

        self.assertEqual(worker.signals, [signal.SIGKILL])
        self.assertEqual(len(self.launcher.workers), 2)


class HangTests(PoolTestCase):
    def test_a_silent_worker_is_aborted_then_killed_and_replaced(self) -> None:
        (worker,) = self.start()
        self.live(5, worker)
        for _ in range(11):
            self.clock.advance(1)
        self.assertEqual(worker.signals, [signal.SIGABRT])
        self.clock.pump([1, 1, 1])

        self.assertEqual(worker.signals, [signal.SIGABRT, signal.SIGKILL])
        self.assertEqual(len(self.launcher.workers), 2)

    def test_a_reporting_worker_is_left_alone(self) -> None:
        (worker,) = self.start()
        self.live(60, worker)

        self.assertEqual(worker.signals, [])

    def test_a_worker_may_take_its_time_over_a_new_configuration(self) -> None:
        (worker,) = self.start()
        worker.answers = False
        self.pool.offer(snapshot(2, configuration(), 2))
        for _ in range(29):
            self.clock.advance(1)
        self.assertEqual(worker.signals, [])
        self.clock.pump([1, 1])

        self.assertEqual(worker.signals, [signal.SIGABRT])

    def test_a_worker_may_take_its_time_to_start(self) -> None:
        self.launcher.hello = False
        (worker,) = self.start()
        for _ in range(59):
            self.clock.advance(1)
        self.assertEqual(worker.signals, [])
        self.clock.pump([1, 1])

        self.assertEqual(worker.signals, [signal.SIGABRT])

    def test_nobody_is_blamed_when_it_was_us_who_slept(self) -> None:
        """A suspended machine, a stopped supervisor: its first check comes before it has read any report."""
        (worker,) = self.start()
        self.clock.advance(3600)
        self.live(3, worker)

        self.assertEqual(worker.signals, [])


class DrainTests(PoolTestCase):
    def test_every_worker_is_asked_and_waited_for(self) -> None:
        first, second = self.start(2)
        second.drains = False
        drained = self.pool.drain(30, close_sockets=False)
        self.turn()
        self.assertNoResult(drained)
        self.assertEqual(first.of_type(Drain), [Drain(timeout_seconds=30, close_sockets=False)])
        second.die("it exited with status 0")
        self.turn()

        self.successResultOf(drained)
        self.assertEqual((self.pool.statuses(), len(self.launcher.workers)), ([], 2))

    def test_who_does_not_finish_in_time_is_killed(self) -> None:
        self.launcher.drains = False
        (worker,) = self.start()
        drained = self.pool.drain(5, close_sockets=True)
        self.clock.advance(6.9)
        self.assertEqual(worker.signals, [])
        self.clock.advance(0.2)
        self.turn()

        self.successResultOf(drained)
        self.assertEqual(worker.signals, [signal.SIGKILL])

    def test_a_worker_that_has_not_said_hello_is_killed_and_one_that_backs_off_not_started(self) -> None:
        self.launcher.hello = False
        starting, backing_off = self.start(2)
        backing_off.die()
        self.turn(1)
        self.launcher.latest(1).die()
        drained = self.pool.drain(5, close_sockets=True)
        self.turn()
        self.clock.advance(60)

        self.successResultOf(drained)
        self.assertEqual(starting.signals, [signal.SIGKILL])
        self.assertEqual(len(self.launcher.workers), 3)

    def test_killing_ends_a_drain_at_once(self) -> None:
        self.launcher.drains = False
        self.start(2)
        drained = self.pool.drain(3600, close_sockets=True)
        self.turn()
        self.pool.kill()
        self.turn()

        self.successResultOf(drained)


class SizeTests(PoolTestCase):
    def test_a_growing_pool_keeps_its_workers(self) -> None:
        first = self.start(1)
        self.start(3)

        self.assertEqual(self.pool.active, (0, 1, 2))
        self.assertEqual(len(self.launcher.workers), 3)
        self.assertEqual(first[0].signals, [])

    def test_a_shrinking_pool_drains_the_highest_slots(self) -> None:
        workers = self.start(3)
        self.pool.set_active(self.pool.plan(1), 30)
        self.turn()

        self.assertEqual(self.pool.active, (0,))
        self.assertEqual([len(worker.of_type(Drain)) for worker in workers], [0, 1, 1])
        self.assertTrue(workers[2].of_type(Drain)[0].close_sockets)

    def test_a_draining_slot_is_not_used_again_and_its_cells_still_count(self) -> None:
        self.launcher.drains = False
        workers = self.start(2)
        self.pool.set_active(self.pool.plan(1), 30)
        self.turn()
        planned = self.pool.plan(2)

        self.assertEqual((planned, self.pool.span([0]), self.pool.span(planned)), ((0, 2), 2, 3))
        workers[1].die("it exited with status 0")
        self.turn()
        self.assertEqual((self.pool.plan(2), self.pool.span([0])), ((0, 1), 1))

    def test_there_are_only_so_many_slots(self) -> None:
        self.assertEqual(len(self.pool.plan(100)), 64)

    def test_an_unexpected_message_does_no_harm(self) -> None:
        (worker,) = self.start()
        worker.say(Welcome(slot=1))
        worker.say(Hello(pid=1))
        self.turn()

        self.assertEqual(self.state(), SlotState.RUNNING)
