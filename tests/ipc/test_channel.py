"""Channels: order, descriptors with their message, back-pressure and loss."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.interfaces import IReadDescriptor, IReadWriteDescriptor
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from lbproxy.ipc.channel import Channel, ChannelListener, MemoryChannel, UnixChannel
from lbproxy.ipc.codec import encode
from lbproxy.ipc.messages import AddSockets, Applied, Drained, Hello, Message, Report, Welcome
from lbproxy.ipc.orphan import RejoiningChannel, reconnect
from lbproxy.model.listener import Bind


class PumpReactor(Clock):
    """A reactor whose descriptors a test moves by hand with `pump`."""

    def __init__(self) -> None:
        super().__init__()
        self.readers: set[Any] = set()
        self.writers: set[Any] = set()

    def addReader(self, reader: Any) -> None:
        self.readers.add(reader)

    def addWriter(self, writer: Any) -> None:
        self.writers.add(writer)

    def removeReader(self, reader: Any) -> None:
        self.readers.discard(reader)

    def removeWriter(self, writer: Any) -> None:
        self.writers.discard(writer)

    def pump(self, rounds: int = 200) -> None:
        """Let every descriptor write and read until nothing is left to do, or for so many rounds."""
        for _ in range(rounds):
            for kind, descriptors in (("doWrite", self.writers), ("doRead", self.readers)):
                for descriptor in list(descriptors):
                    if descriptor in descriptors:
                        why = getattr(descriptor, kind)()
                        if why is not None:
                            descriptor.connectionLost(why)


class Recorder:
    """Keeps what a channel delivered."""

    def __init__(self, channel: Channel) -> None:
        self.received: list[tuple[Message, list[int]]] = []
        self.lost = 0
        channel.on_message = lambda message, fds: self.received.append((message, fds))
        channel.on_lost = self._lose

    def _lose(self) -> None:
        self.lost += 1

    @property
    def messages(self) -> list[Message]:
        return [message for message, _ in self.received]

    def close_descriptors(self) -> None:
        for _, fds in self.received:
            for fd in fds:
                os.close(fd)


def temporary_descriptor(content: bytes) -> int:
    read, write = os.pipe()
    os.write(write, content)
    os.close(write)
    return read


def open_descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


class ChannelContract:
    """What holds for any pair of channels; mixed into a test case that has ``one``, ``other`` and ``turn``."""

    def test_messages_arrive_in_order_both_ways(self) -> None:
        here, there = Recorder(self.one), Recorder(self.other)
        self.one.send(Welcome(slot=1))
        self.one.send(Welcome(slot=2))
        self.other.send(Hello(pid=3))
        self.assertEqual(there.messages, [], "not before the next turn")
        self.turn()

        self.assertEqual(there.messages, [Welcome(slot=1), Welcome(slot=2)])
        self.assertEqual(here.messages, [Hello(pid=3)])

    def test_what_comes_before_anybody_listens_is_held_back(self) -> None:
        self.one.send(Welcome(slot=1))
        self.turn()
        there = Recorder(self.other)
        self.turn()

        self.assertEqual(there.messages, [Welcome(slot=1)])

    def test_messages_go_through_the_codec(self) -> None:
        there = Recorder(self.other)
        self.one.send(Report(counters={"tuple": (1, 2)}))
        self.turn()

        self.assertEqual(there.messages, [Report(counters={"tuple": [1, 2]})])

    def test_descriptors_come_with_exactly_their_message(self) -> None:
        there = Recorder(self.other)
        self.addCleanup(there.close_descriptors)
        sent = [temporary_descriptor(content) for content in (b"a", b"b", b"c")]
        self.one.send(Welcome(slot=1))
        self.one.send(AddSockets(binds=(Bind("::", 1), Bind("::", 2))), sent[:2])
        self.one.send(Applied(version=1))
        self.one.send(Welcome(slot=2), sent[2:])
        for fd in sent:
            os.close(fd)
        self.turn()

        contents = [[os.read(fd, 9) for fd in fds] for _, fds in there.received]
        self.assertEqual(contents, [[], [b"a", b"b"], [], [b"c"]])
        self.assertFalse(any(os.get_inheritable(fd) for _, fds in there.received for fd in fds))

    def test_the_peers_end_is_told_once_after_its_last_message(self) -> None:
        here, there = Recorder(self.one), Recorder(self.other)
        self.one.send(Drained(aborted=0))
        self.one.close()
        self.turn()

        self.assertEqual((there.messages, there.lost), ([Drained(aborted=0)], 1))
        self.assertEqual((here.messages, here.lost), ([], 0), "closing is not told to the closer")

    def test_the_peers_last_message_comes_although_we_have_written_to_it_since(self) -> None:
        there = Recorder(self.other)
        self.one.send(Drained(aborted=0))
        self.one.close()
        self.other.send(Welcome(slot=1))
        self.other.send(Welcome(slot=2))
        self.turn()

        self.assertEqual((there.messages, there.lost), ([Drained(aborted=0)], 1))


class UnixChannelTests(ChannelContract, SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor = PumpReactor()
        self.sockets = socket.socketpair()
        self.one = UnixChannel(self.reactor, self.sockets[0])
        self.other = UnixChannel(self.reactor, self.sockets[1])
        self.addCleanup(self.one.close)
        self.addCleanup(self.other.close)

    def turn(self) -> None:
        self.reactor.pump(4)

    def test_offers_the_interface(self) -> None:
        verifyObject(IReadWriteDescriptor, self.one)

    def test_descriptors_survive_every_split(self) -> None:
        """The frames go out in two writes, cut at each byte, with the descriptors on the first."""
        frame = encode(Welcome(slot=1), 1)
        for cut in range(1, len(frame)):
            with self.subTest(cut=cut):
                raw, end = socket.socketpair()
                channel = UnixChannel(self.reactor, end)
                there = Recorder(channel)
                fd = temporary_descriptor(b"x")
                socket.send_fds(raw, [frame[:cut]], [fd])
                os.close(fd)
                self.reactor.pump(1)
                raw.sendall(frame[cut:] + encode(Applied(version=1)))
                self.reactor.pump(1)
                self.assertEqual([len(fds) for _, fds in there.received], [1, 0])
                there.close_descriptors()
                channel.close()
                raw.close()

    def test_a_large_message_waits_for_a_slow_reader_and_descriptors_behind_it_too(self) -> None:
        big = Report(counters={"text": "x" * (5 << 20)})
        fd = temporary_descriptor(b"late")
        self.one.send(big)
        self.one.send(Welcome(slot=1), [fd])
        os.close(fd)
        self.assertGreater(self.one.queued_bytes, 1 << 20)
        self.assertIn(self.one, self.reactor.writers)

        there = Recorder(self.other)
        self.addCleanup(there.close_descriptors)
        self.reactor.pump()

        self.assertEqual(there.messages, [big, Welcome(slot=1)])
        self.assertEqual(os.read(there.received[1][1][0], 9), b"late")
        self.assertEqual(self.one.queued_bytes, 0)
        self.assertNotIn(self.one, self.reactor.writers)

    def test_sending_to_a_dead_peer_loses_the_channel_later(self) -> None:
        here = Recorder(self.one)
        self.other.close()
        self.one.send(Welcome(slot=1))
        self.assertEqual(here.lost, 0)
        self.reactor.pump(2)
        self.one.send(Welcome(slot=1))

        self.assertEqual(here.lost, 1)

    def test_nothing_stays_open_after_a_channel_with_unsent_and_unread_descriptors(self) -> None:
        before = open_descriptors()
        one_socket, other_socket = socket.socketpair()
        one, other = UnixChannel(self.reactor, one_socket), UnixChannel(self.reactor, other_socket)
        Recorder(other)
        socket.send_fds(one_socket, [encode(Welcome(slot=1), 1)[:3]], [0])
        self.reactor.pump(1)
        one.send(Report(counters={"text": "x" * (5 << 20)}))
        one.send(Welcome(slot=1), [0])
        one.close()
        other.close()

        self.assertEqual(open_descriptors(), before)

    def test_bytes_that_are_no_message_end_the_channel(self) -> None:
        there = Recorder(self.other)
        self.sockets[0].sendall(b"\0\0\0\2\0\0{}")
        self.reactor.pump(1)

        self.assertEqual(there.lost, 1)

    def test_missing_descriptors_end_the_channel(self) -> None:
        there = Recorder(self.other)
        self.sockets[0].sendall(encode(Welcome(slot=1), 1))
        self.reactor.pump(1)

        self.assertEqual((there.messages, there.lost), ([], 1))

    def test_a_mistake_of_the_receiver_does_not_end_the_channel(self) -> None:
        there: list[Message] = []

        def fail_first(message: Message, fds: list[int]) -> None:
            there.append(message)
            if len(there) == 1:
                raise RuntimeError("a bug")

        self.other.on_message = fail_first
        self.one.send(Welcome(slot=1))
        self.one.send(Welcome(slot=2))
        self.reactor.pump(2)

        self.assertEqual(len(there), 2)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_a_receiver_may_close_in_the_middle(self) -> None:
        there: list[Message] = []

        def close_at_once(message: Message, fds: list[int]) -> None:
            there.append(message)
            self.other.close()

        self.other.on_message = close_at_once
        self.one.send(Welcome(slot=1))
        self.one.send(Welcome(slot=2))
        self.reactor.pump(2)

        self.assertEqual(there, [Welcome(slot=1)])

    def test_too_many_descriptors_are_refused_by_the_sender(self) -> None:
        with self.assertRaisesRegex(ValueError, "the limit is 253"):
            self.one.send(Welcome(slot=1), [0] * 254)


class MemoryChannelTests(ChannelContract, SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.one, self.other = MemoryChannel.pair(self.clock)

    def turn(self) -> None:
        self.clock.advance(0)

    def test_what_is_sent_to_a_closed_end_goes_nowhere(self) -> None:
        here, there = Recorder(self.one), Recorder(self.other)
        self.one.close()
        self.other.send(Welcome(slot=1))
        self.turn()

        self.assertEqual((here.messages, here.lost, there.lost), ([], 0, 1))

    def test_unread_descriptors_are_closed(self) -> None:
        before = open_descriptors()
        self.one.send(Welcome(slot=1), [0])
        self.other.close()

        self.assertEqual(open_descriptors(), before)


class RendezvousTests(SynchronousTestCase):
    @pytest.fixture(autouse=True)
    def _path(self, tmp_path: Path) -> None:
        self.path = str(tmp_path / "s.sock")

    def setUp(self) -> None:
        self.reactor = PumpReactor()
        self.accepted: list[UnixChannel] = []

    def listen(self) -> ChannelListener:
        listener = ChannelListener(self.reactor, self.path, self.accepted.append)
        self.addCleanup(listener.close)
        return listener

    def joined(self) -> tuple[UnixChannel, RejoiningChannel, Recorder]:
        """Both ends of a supervisor's channel to a worker that has been welcomed, and what the worker was told."""
        supervisor_end, worker_end = socket.socketpair()
        supervisor = UnixChannel(self.reactor, supervisor_end)
        channel = RejoiningChannel(self.reactor, UnixChannel(self.reactor, worker_end), self.path)
        worker = Recorder(channel)
        supervisor.send(Welcome(slot=1))
        self.reactor.pump(1)
        return supervisor, channel, worker

    def test_only_this_user_may_connect(self) -> None:
        verifyObject(IReadDescriptor, self.listen())

        self.assertEqual(stat.S_IMODE(os.stat(self.path).st_mode), 0o600)

    def test_takes_the_place_of_a_dead_listener_and_cleans_up(self) -> None:
        Path(self.path).touch()
        listener = self.listen()
        listener.close()
        listener.close()

        self.assertFalse(os.path.exists(self.path))

    def test_an_orphan_knocks_every_second(self) -> None:
        found: list[UnixChannel] = []
        search = reconnect(self.reactor, self.path, found.append)
        self.reactor.advance(1)
        self.assertEqual(found, [])
        self.listen()
        self.reactor.advance(1)
        self.reactor.pump(1)

        self.assertEqual((len(found), len(self.accepted), search.running), (1, 1, False))
        found[0].close()
        self.accepted[0].close()

    def test_a_rejoining_channel_says_hello_to_the_next_supervisor_and_goes_on(self) -> None:
        supervisor, channel, worker = self.joined()
        channel.send(Applied(version=1))
        supervisor.close()
        self.reactor.pump(1)
        channel.send(Report(counters={}))  # to nobody
        self.listen()
        self.reactor.advance(1)
        self.reactor.pump(1)
        successor = Recorder(self.accepted[0])
        self.accepted[0].send(Welcome(slot=2))
        self.reactor.pump(2)

        self.assertEqual(worker.messages, [Welcome(slot=1), Welcome(slot=2)])
        self.assertEqual((worker.lost, successor.messages), (0, [Hello(pid=os.getpid())]))
        channel.close()
        self.accepted[0].close()

    def test_a_worker_that_serves_nobody_yet_is_told_that_its_supervisor_died(self) -> None:
        supervisor, channel, worker = self.joined()
        supervisor.close()
        self.reactor.pump(1)

        self.assertEqual(worker.lost, 1)
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        channel.close()
