"""Two thousand rules cost about what ten do.

Counted in bytecode instructions, which is the same on every machine and at every load; one
generous check of time stands beside it, since a count does not see into C.
"""

from __future__ import annotations

import sys
import timeit
from types import FrameType
from typing import Any

import pytest

from lbproxy.dataplane.router import table
from lbproxy.dataplane.router.request import PlainRequest
from lbproxy.dataplane.router.table import Table
from lbproxy.model.listener import Listener, ListenerProtocol
from lbproxy.model.rule import Forward, HostCondition, PathCondition, Pattern, Rule, WeightedGroup

ACTION = Forward((WeightedGroup("app"),))


def table_of(pairs: int) -> Table:
    """This many host rules and as many path rules."""
    conditions: list[HostCondition | PathCondition] = []
    for number in range(pairs):
        conditions.append(HostCondition((Pattern(f"host{number}.example.com"),)))
        conditions.append(PathCondition((Pattern(f"/service{number}/*"),)))
    rules = tuple(
        Rule(name=f"rule{priority}", priority=priority, conditions=(condition,), action=ACTION)
        for priority, condition in enumerate(conditions, 1)
    )
    return Table.compile(
        Listener(name="web", protocol=ListenerProtocol.HTTP, binds=(), default_action=ACTION, rules=rules)
    )


def instructions(table: Table, request: PlainRequest) -> int:
    """Bytecode instructions that one match takes."""
    count = 0

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal count
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        count += event == "opcode"
        return trace

    previous = sys.gettrace()
    sys.settrace(trace)
    try:
        table.match(request, "127.0.0.1")
    finally:
        sys.settrace(previous)
    return count


counted = pytest.mark.skipif(not table.__file__.endswith(".py"), reason="compiled code has no instructions to count")

REQUESTS = {
    "exact host": PlainRequest(host=b"host4.example.com", path=b"/other"),
    "path prefix": PlainRequest(host=b"other.example.com", path=b"/service4/x"),
    "both": PlainRequest(host=b"host4.example.com", path=b"/service4/x"),
    "neither": PlainRequest(host=b"other.example.com", path=b"/other"),
}


@counted
@pytest.mark.parametrize("name", REQUESTS)
def test_2000_rules_take_as_many_instructions_as_10(name: str) -> None:
    few, many = instructions(table_of(5), REQUESTS[name]), instructions(table_of(1000), REQUESTS[name])
    assert 0 < few < 250
    # a neighbour in the sorted prefixes may be looked at and dropped
    assert many <= few + 40, f"{name}: {few} with 10 rules, {many} with 2,000"


@counted
def test_no_rules_cost_next_to_nothing() -> None:
    assert instructions(table_of(0), REQUESTS["both"]) < 20


def test_2000_rules_take_about_as_long_as_10() -> None:
    request = REQUESTS["both"]

    def seconds(table: Table) -> float:
        return min(timeit.repeat(lambda: table.match(request, "127.0.0.1"), number=2000, repeat=15))

    few, many = table_of(5), table_of(1000)
    assert seconds(many) < 5 * seconds(few)
