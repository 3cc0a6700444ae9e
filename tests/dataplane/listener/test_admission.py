"""Who is let in: limits on connections, of a listener and of each of its clients, in all workers together."""

from __future__ import annotations

from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address

from lbproxy.dataplane.listener.admission import Admission, Admissions
from lbproxy.dataplane.listener.census import Census
from lbproxy.ipc.tables import SharedTables
from lbproxy.model.listener import Bind, Listener, ListenerProtocol
from lbproxy.model.rule import Forward, WeightedGroup
from lbproxy.model.security_group import IngressRule, SecurityGroup
from lbproxy.model.snapshot import Configuration
from lbproxy.telemetry.counters import ListenerCounters
from tests.dataplane.doubles import CLIENT, FakeTransport, World

OTHER = IPv4Address("TCP", "192.0.2.8", 40000)


def listener(**options: Any) -> Listener:
    return Listener(
        name="web",
        protocol=ListenerProtocol.HTTP,
        binds=(Bind("198.51.100.1", 8080),),
        default_action=Forward((WeightedGroup("app"),)),
        **options,
    )


def censuses(slots: int, name: str = "web", tables: SharedTables | None = None) -> list[Census]:
    tables = tables or SharedTables.create()
    made = [Census(name, tables.census, slot) for slot in range(slots)]
    for census in made:
        census.slots = slots
    return made


def test_a_census_counts_by_client_and_altogether() -> None:
    [census] = censuses(1)
    for host in ("192.0.2.7", "192.0.2.7", "192.0.2.8", "2001:db8::1", "2001:db8::2"):
        census.entered(host)
    assert census.connections() == 5
    assert census.connections_of("192.0.2.7") == 2
    assert census.connections_of("2001:db8::3") == 2, "a /64 is one client"
    assert census.connections_of("192.0.2.9") == 0
    census.left("192.0.2.7")
    census.left("192.0.2.7")
    assert (census.connections(), census.connections_of("192.0.2.7")) == (3, 0)
    census.left("192.0.2.7")
    assert census.connections() == 3


def test_workers_know_of_each_other_s_connections() -> None:
    one, other, third = censuses(3)
    one.entered("192.0.2.7")
    other.entered("192.0.2.7")
    other.entered("192.0.2.8")
    assert [census.connections_of("192.0.2.7") for census in (one, other, third)] == [2, 2, 2]
    assert third.connections() == 3
    other.left("192.0.2.7")
    assert one.connections_of("192.0.2.7") == 1


def test_listeners_are_counted_apart() -> None:
    tables = SharedTables.create()
    [web], [api] = censuses(1, "web", tables), censuses(1, "api", tables)
    web.entered("192.0.2.7")
    assert (api.connections(), api.connections_of("192.0.2.7")) == (0, 0)


def test_a_listener_that_asks_nothing_has_no_admission() -> None:
    admissions = Admissions(SharedTables.create().census, 0)
    admissions.apply(Configuration(listeners=(listener(),)), 1)
    assert admissions.make(listener(), 8080, ListenerCounters("web")) is None


class Front:
    """An HTTP front with an admission that a snapshot made."""

    def __init__(self, **options: Any) -> None:
        self.world = World()
        self.admissions = Admissions(SharedTables.create().census, 0)
        self.apply(**options)

    def apply(self, **options: Any) -> Admission | None:
        groups = options.pop("groups", ())
        configured = listener(**options)
        self.admissions.apply(Configuration(listeners=(configured,), security_groups=groups), 1)
        made = self.admissions.make(configured, 8080, self.world.counters)
        self.world.front.admit(made)
        return made

    def connect(self, address: Any = CLIENT) -> FakeTransport | None:
        connection = self.world.front.buildProtocol(address)
        if connection is None:
            return None
        transport = FakeTransport(self.world.clock, connection)
        connection.makeConnection(transport)
        return transport


def test_beyond_the_listener_s_limit_nobody_is_let_in() -> None:
    front = Front(max_connections=2)
    first = front.connect()
    assert first
    assert front.connect(OTHER)
    assert front.connect() is None
    assert front.connect(OTHER) is None
    assert front.world.counters.faults == {"ConnectionLimit": 2}
    assert front.world.counters.connections == 2
    first.reset()
    assert front.connect(OTHER)


def test_beyond_a_client_s_limit_the_others_are_let_in() -> None:
    front = Front(max_connections_per_client=1)
    first = front.connect()
    assert first
    assert front.connect() is None
    assert front.connect(OTHER)
    assert front.connect(IPv6Address("TCP", "2001:db8::1", 1))
    assert front.connect(IPv6Address("TCP", "2001:db8::2", 1)) is None
    assert front.world.counters.faults == {"ClientConnectionLimit": 2}
    first.deliver_eof()
    front.world.turn()
    assert front.connect()


def test_a_limit_that_comes_later_counts_those_who_are_there() -> None:
    front = Front()
    there = [front.connect(), front.connect()]
    front.apply(max_connections=2)
    assert front.connect() is None
    assert there[0]
    there[0].reset()
    assert front.connect()


def test_a_limit_that_changes_keeps_its_count() -> None:
    front = Front(max_connections=1)
    first = front.connect()
    front.apply(max_connections=2)
    assert front.connect()
    assert front.connect() is None
    front.apply()
    assert front.connect()
    assert first
    first.reset()
    front.apply(max_connections=2)
    assert front.connect() is None


def test_two_binds_of_a_listener_share_its_limit() -> None:
    front = Front(max_connections=1)
    other = World()
    other.front.admit(front.world.front.admission)
    assert front.connect()
    assert other.front.buildProtocol(CLIENT) is None


# Security groups


def group(*networks: str, **options: Any) -> tuple[SecurityGroup, ...]:
    return (SecurityGroup(name="office", ingress=(IngressRule(networks=networks, **options),)),)


def test_who_is_in_no_attached_group_is_not_let_in() -> None:
    front = Front(security_groups=("office",), groups=group("192.0.2.8/32", protocol="tcp", ports=(8080, 8080)))
    assert front.connect() is None
    assert front.connect(OTHER)
    assert front.connect(IPv6Address("TCP", "::ffff:192.0.2.8", 1))
    assert front.connect(IPv6Address("TCP", "2001:db8::1", 1)) is None
    assert front.world.counters.faults == {"SecurityGroupDenied": 2}


def test_changed_groups_count_for_those_who_come_then() -> None:
    front = Front(security_groups=("office",), groups=group("192.0.2.7/32"))
    there = front.connect()
    assert there
    front.apply(security_groups=("office",), groups=group("192.0.2.8/32"))
    assert front.connect() is None
    assert front.connect(OTHER)
    there.deliver(b"GET /fixed HTTP/1.1\r\nHost: x\r\n\r\n")
    assert there.take().startswith(b"HTTP/1.1 200 "), "a connection that was let in goes on"
    front.apply()
    assert front.connect()


def test_denied_connections_do_not_count_as_connections() -> None:
    front = Front(security_groups=("office",), groups=group("192.0.2.8/32"), max_connections=1)
    assert front.connect() is None
    assert front.connect(OTHER)
    assert front.connect(OTHER) is None
    assert front.world.counters.faults == {"SecurityGroupDenied": 1, "ConnectionLimit": 1}
