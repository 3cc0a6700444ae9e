"""Every message survives the codec, in any split of the stream."""

from __future__ import annotations

import time

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbproxy.ipc import codec
from lbproxy.ipc.codec import CodecError, FrameReader, encode
from lbproxy.ipc.messages import (
    AddSockets,
    Applied,
    ApplySnapshot,
    Drain,
    Drained,
    Hello,
    Message,
    ReopenLogs,
    Report,
    TicketKeys,
    Welcome,
)
from lbproxy.model.health import HealthCheck, HealthCheckProtocol
from lbproxy.model.listener import Bind, Certificate, Listener, ListenerProtocol, XffMode
from lbproxy.model.rule import (
    Action,
    Condition,
    FixedResponse,
    Forward,
    HeaderCondition,
    HostCondition,
    MethodCondition,
    PathCondition,
    Pattern,
    QueryCondition,
    Redirect,
    Rule,
    SourceIpCondition,
    WeightedGroup,
)
from lbproxy.model.snapshot import AccessLogSettings, Configuration, GroupState
from lbproxy.model.target import RegisteredTarget, Target, TargetHealth, TargetReason, TargetState
from lbproxy.model.target_group import ProxyProtocolVersion, TargetGroup, TargetProtocol, TargetTls

words = st.text(max_size=12)
numbers = st.integers(0, 1 << 40)
seconds = st.floats(0, 1e6)
patterns = st.lists(st.builds(Pattern, words, st.booleans()), max_size=3).map(tuple)
binds = st.builds(Bind, st.sampled_from(["0.0.0.0", "::", "127.0.0.1"]), st.integers(0, 65535))

conditions: st.SearchStrategy[Condition] = st.one_of(
    st.builds(HostCondition, patterns),
    st.builds(PathCondition, patterns),
    st.builds(MethodCondition, st.lists(words, max_size=2).map(tuple)),
    st.builds(HeaderCondition, words, patterns),
    st.builds(QueryCondition, st.none() | st.builds(Pattern, words), patterns),
    st.builds(SourceIpCondition, st.just(("10.0.0.0/8", "::1/128"))),
)
actions: st.SearchStrategy[Action] = st.one_of(
    st.builds(Forward, st.lists(st.builds(WeightedGroup, words, st.integers(0, 999)), max_size=2).map(tuple)),
    st.builds(Redirect, status=st.sampled_from([301, 302]), host=words),
    st.builds(FixedResponse, status=st.integers(200, 599), body=words),
)
rules = st.builds(
    Rule,
    name=words,
    priority=st.integers(1, 50000),
    conditions=st.lists(conditions, max_size=3).map(tuple),
    action=actions,
)
listeners = st.builds(
    Listener,
    name=words,
    protocol=st.sampled_from(ListenerProtocol),
    binds=st.lists(binds, max_size=2).map(tuple),
    default_action=actions,
    rules=st.lists(rules, max_size=3).map(tuple),
    certificates=st.lists(st.builds(Certificate, source=words, pem=st.binary(max_size=40)), max_size=2).map(tuple),
    xff_mode=st.sampled_from(XffMode),
    idle_timeout_seconds=seconds,
)
targets = st.builds(Target, host=words, port=st.integers(1, 65535), address=words, weight=st.integers(0, 999))
groups = st.builds(
    TargetGroup,
    name=words,
    protocol=st.sampled_from(TargetProtocol),
    targets=st.lists(targets, max_size=2).map(tuple),
    health_check=st.builds(
        HealthCheck,
        protocol=st.sampled_from(HealthCheckProtocol),
        port=st.none() | st.integers(1, 65535),
        host=st.none() | words,
        matcher=st.just(((200, 299), (301, 301))),
    ),
    proxy_protocol=st.sampled_from(ProxyProtocolVersion),
    tls=st.builds(TargetTls, server_name=st.none() | words, ca_pem=st.none() | st.binary(max_size=20)),
)
configurations = st.builds(
    Configuration,
    listeners=st.lists(listeners, max_size=2).map(tuple),
    target_groups=st.lists(groups, max_size=2).map(tuple),
    access_log=st.builds(AccessLogSettings, destination=words),
    drain_timeout_seconds=seconds,
)
registered = st.builds(
    RegisteredTarget,
    target=targets,
    health=st.builds(
        TargetHealth, state=st.sampled_from(TargetState), reason=st.sampled_from(TargetReason), description=words
    ),
    cell=numbers,
)
group_states = st.builds(GroupState, targets=st.lists(registered, max_size=2).map(tuple), cell=numbers)
plain_values = st.recursive(
    st.none() | st.booleans() | numbers | words,
    lambda inner: st.lists(inner) | st.dictionaries(words, inner),
    max_leaves=5,
)
messages: st.SearchStrategy[Message] = st.one_of(
    st.builds(Welcome, slot=st.integers(0, 63)),
    st.builds(AddSockets, binds=st.lists(binds, max_size=3).map(tuple)),
    st.builds(
        ApplySnapshot,
        version=numbers,
        configuration_version=numbers,
        configuration=st.none() | configurations,
        groups=st.dictionaries(words, group_states, max_size=2),
        worker_slots=st.integers(1, 64),
    ),
    st.builds(Drain, timeout_seconds=seconds, close_sockets=st.booleans()),
    st.just(ReopenLogs()),
    st.builds(TicketKeys, keys=st.lists(st.binary(max_size=80), max_size=2).map(tuple)),
    st.builds(Hello, pid=numbers),
    st.builds(Applied, version=numbers, problems=st.lists(words, max_size=2).map(tuple)),
    st.builds(Report, counters=st.dictionaries(words, plain_values, max_size=3)),
    st.builds(Drained, aborted=numbers),
)


@given(messages, st.integers(0, 253))
def test_what_is_written_is_read(message: Message, fd_count: int) -> None:
    assert list(FrameReader().receive_data(encode(message, fd_count))) == [(message, fd_count)]


@given(st.lists(messages, min_size=1, max_size=3), st.lists(st.integers(1, 40), min_size=1, max_size=8))
def test_any_split_gives_the_same_messages(sent: list[Message], sizes: list[int]) -> None:
    stream = b"".join(encode(message, number) for number, message in enumerate(sent))
    reader = FrameReader()
    received = []
    while stream:
        size = sizes[len(received) % len(sizes)]
        received += list(reader.receive_data(stream[:size]))
        stream = stream[size:]

    assert received == [(message, number) for number, message in enumerate(sent)]


def test_every_single_byte_split() -> None:
    frame = encode(Applied(version=3, problems=("certificate tls/a.pem: no key",)), 2)
    reader = FrameReader()

    received = [item for byte in frame for item in reader.receive_data(bytes([byte]))]

    assert received == [(Applied(version=3, problems=("certificate tls/a.pem: no key",)), 2)]


@given(st.binary(max_size=60))
def test_random_bytes_raise_only_codec_errors(data: bytes) -> None:
    try:
        list(FrameReader().receive_data(len(data).to_bytes(4, "big") + b"\0\0" + data))
    except CodecError:
        pass
    else:
        raise AssertionError(f"{data!r} was taken for a message")


def test_a_frame_over_the_limit_is_refused_by_its_header() -> None:
    header = (codec.MAX_FRAME_BYTES + 1).to_bytes(4, "big") + b"\0\0"

    with pytest.raises(CodecError, match="the limit is"):
        list(FrameReader().receive_data(header))


def test_a_configuration_of_two_thousand_rules_is_quick() -> None:
    """Well under 200 ms in each direction on an idle machine; the limit here allows for a busy one."""
    rule = Rule(
        name="r",
        priority=1,
        conditions=(HostCondition((Pattern("a.example.com"),)), PathCondition((Pattern("/v1/*"), Pattern("/v2/*")))),
        action=Forward((WeightedGroup("app", 90), WeightedGroup("canary", 10))),
    )
    listener = Listener(
        name="web",
        protocol=ListenerProtocol.HTTP,
        binds=(Bind("::", 80),),
        default_action=FixedResponse(status=404),
        rules=tuple(attrs.evolve(rule, name=f"r{number}", priority=number + 1) for number in range(2000)),
    )
    message = ApplySnapshot(
        version=1,
        configuration_version=1,
        configuration=Configuration(listeners=(listener,)),
        groups={},
        worker_slots=1,
    )
    started = time.process_time()

    received = list(FrameReader().receive_data(encode(message)))

    assert time.process_time() - started < 1.0
    assert received == [(message, 0)]
