"""Which sockets are opened, shared, kept and closed."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator

import pytest

from lbproxy.controlplane.supervisor.sockets import BindError, ListeningSockets
from lbproxy.controlplane.supervisor.systemd import InheritedSocket, Notifier
from lbproxy.model.listener import Bind

ANY = Bind("127.0.0.1", 0)


class RecordingNotifier(Notifier):
    """Remembers what is in the store."""

    def __init__(self) -> None:
        super().__init__()
        self.stored: set[str] = set()

    def store_descriptor(self, name: str, fd: int) -> None:
        self.stored.add(name)

    def remove_descriptor(self, name: str) -> None:
        self.stored.remove(name)


@pytest.fixture
def sockets() -> Iterator[ListeningSockets]:
    held = ListeningSockets()
    yield held
    held.close()


def reuse_port_server() -> socket.socket:
    server = socket.socket()
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    server.bind(("127.0.0.1", 0))
    server.listen()
    return server


def test_every_slot_has_its_own_socket_at_one_port(sockets: ListeningSockets) -> None:
    sockets.open({ANY: "web"}, range(3))
    by_slot = [sockets.for_slot(slot)[ANY] for slot in range(3)]

    assert len({held.getsockname() for held in by_slot}) == 1
    assert len({os.fstat(held.fileno()).st_ino for held in by_slot}) == 3
    assert sockets.address(ANY) == Bind("127.0.0.1", by_slot[0].getsockname()[1])
    assert sockets.addresses == {sockets.address(ANY)}


def test_options_that_accepted_sockets_inherit(sockets: ListeningSockets) -> None:
    sockets.open({ANY: "web"}, [0])
    held = sockets.for_slot(0)[ANY]

    assert held.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT)
    assert held.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    assert held.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    assert not held.getblocking()
    assert not held.get_inheritable()


def test_opening_again_keeps_what_is_open_and_adds_slots_at_the_same_port(sockets: ListeningSockets) -> None:
    sockets.open({ANY: "web"}, [0])
    first = sockets.for_slot(0)[ANY]
    sockets.open({ANY: "web"}, [0, 1])

    assert sockets.for_slot(0)[ANY] is first
    assert sockets.for_slot(1)[ANY].getsockname() == first.getsockname()


def test_a_port_in_use_is_one_line_that_says_where_and_what_helps(sockets: ListeningSockets) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(BindError) as caught:
            sockets.open({Bind("127.0.0.1", port): "web"}, [0])

    (problem,) = caught.value.problems
    assert str(problem) == (
        f"listener web: cannot listen on 127.0.0.1:{port}: Address already in use; "
        f"another process has the port (find it with: ss -ltnp 'sport = :{port}')"
    )


def test_a_port_that_another_process_shares_is_in_use_too(sockets: ListeningSockets) -> None:
    """SO_REUSEPORT alone would join it silently and take half of its connections."""
    with reuse_port_server() as server, pytest.raises(BindError, match="Address already in use"):
        sockets.open({Bind(*server.getsockname()): "web"}, [0])


def test_a_port_that_orphaned_workers_hold_is_joined() -> None:
    with reuse_port_server() as server:
        bind = Bind(*server.getsockname())
        sockets = ListeningSockets(held_by_orphans=[bind])
        sockets.open({bind: "web"}, [0])

        assert sockets.for_slot(0)[bind].getsockname() == server.getsockname()
        sockets.close()


def test_one_failure_opens_nothing_and_all_failures_are_told(sockets: ListeningSockets) -> None:
    good = Bind("127.0.0.1", 0)
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken = Bind(*server.getsockname())
        with pytest.raises(BindError) as caught:
            sockets.open({good: "a", taken: "b", Bind("192.0.2.1", 80): "c"}, [0])

    assert [problem.listener for problem in caught.value.problems] == ["b", "c"]
    assert "no network interface has the address 192.0.2.1" in str(caught.value.problems[1])
    assert sockets.for_slot(0) == {}


def test_a_privileged_port_says_which_capability_it_needs(
    sockets: ListeningSockets, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_self: socket.socket, _address: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(socket.socket, "bind", refuse)
    with pytest.raises(BindError, match="CAP_NET_BIND_SERVICE"):
        sockets.open({Bind("127.0.0.1", 80): "web"}, [0])


def test_a_wildcard_may_become_one_address_at_the_same_port(sockets: ListeningSockets) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    sockets.open({Bind("0.0.0.0", port): "web"}, [0])
    sockets.open({Bind("127.0.0.1", port): "web"}, [0])
    sockets.keep_only([Bind("127.0.0.1", port)], [0])

    assert sockets.addresses == {Bind("127.0.0.1", port)}


def test_binds_and_slots_that_left_are_closed_and_leave_the_store() -> None:
    notifier = RecordingNotifier()
    sockets = ListeningSockets(notifier)
    other = Bind("127.0.0.2", 0)
    sockets.open({ANY: "a", other: "b"}, [0, 1])
    assert notifier.stored == {f"lbproxy/127.0.0.{host}/0/{slot}" for host in (1, 2) for slot in (0, 1)}
    left = [sockets.for_slot(0)[other], sockets.for_slot(1)[ANY]]

    sockets.keep_only([ANY], [0])

    assert [held.fileno() for held in left] == [-1, -1]
    assert set(sockets.for_slot(0)) == {ANY}
    assert sockets.for_slot(1) == {}
    assert notifier.stored == {"lbproxy/127.0.0.1/0/0"}
    sockets.close()
    assert notifier.stored == {"lbproxy/127.0.0.1/0/0"}, "the next run shall find it"


def test_an_activated_socket_is_shared_by_all_slots() -> None:
    server = socket.create_server(("127.0.0.1", 0))
    bind = Bind(*server.getsockname())
    sockets = ListeningSockets(inherited=[InheritedSocket("lbproxy.socket", server)])
    sockets.open({bind: "web"}, [0, 1])

    assert sockets.for_slot(0)[bind] is sockets.for_slot(1)[bind] is server
    assert sockets.address(bind) == bind
    sockets.keep_only([], [0, 1])
    assert server.fileno() == -1


def test_stored_sockets_come_back_to_their_slots() -> None:
    before = ListeningSockets()
    before.open({ANY: "web"}, [0, 1])
    port = before.address(ANY).port
    inherited = [InheritedSocket(f"lbproxy/127.0.0.1/0/{slot}", before.for_slot(slot)[ANY].dup()) for slot in (1, 0)]
    before.close()

    after = ListeningSockets(inherited=inherited)
    after.open({ANY: "web"}, [0, 1, 2])

    assert [after.for_slot(slot)[ANY] for slot in (1, 0)] == [item.socket for item in inherited]
    assert after.for_slot(2)[ANY].getsockname()[1] == port
    after.close()


def test_the_store_gives_a_socket_back_only_once() -> None:
    first, second = reuse_port_server(), reuse_port_server()
    name = "lbproxy/127.0.0.1/0/0"
    sockets = ListeningSockets(inherited=[InheritedSocket(name, first), InheritedSocket(name, second)])

    assert sockets.for_slot(0)[ANY] is first
    assert second.fileno() == -1
    sockets.close()


def test_what_is_no_listening_socket_is_not_adopted() -> None:
    one, other = socket.socketpair()
    sockets = ListeningSockets(inherited=[InheritedSocket("web", one), InheritedSocket("udp", socket.socket())])

    assert sockets.addresses == frozenset()
    assert one.fileno() == -1
    other.close()


def test_ipv6_does_not_take_the_ipv4_port(sockets: ListeningSockets) -> None:
    if not socket.has_ipv6:
        pytest.skip("this Python was built without IPv6")
    try:
        sockets.open({Bind("::1", 0): "web"}, [0])
    except BindError:
        pytest.skip("this machine has no IPv6 loopback address")

    assert sockets.for_slot(0)[Bind("::1", 0)].getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
