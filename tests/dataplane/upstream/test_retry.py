"""Retries and hedges over real connections to targets."""

from __future__ import annotations

import pytest

from lbproxy.model.retry import RetryPolicy
from tests.dataplane.doubles import CHUNKED_ANSWER, World, answer, request


def world(targets: int = 2, **policy: object) -> World:
    return World(targets=targets, group={"retry": RetryPolicy(**policy)})  # type: ignore[arg-type]


def test_an_answer_that_is_thrown_away_leaves_its_connection_to_others() -> None:
    here = world(statuses=((503, 503),))
    client = here.client()
    client.deliver(request())
    here.target().deliver(answer(b"busy", status="503 Busy"))
    second = here.target()
    second.deliver(answer())
    assert client.take().endswith(b"\r\n\r\nhello")
    assert len(here.pools[1].idle) == len(here.pools[2].idle) == 1
    assert here.in_flight == 0


def test_one_that_is_not_whole_ends_it() -> None:
    here = world(statuses=((503, 503),))
    client = here.client()
    client.deliver(request())
    first = here.target()
    first.deliver(b"HTTP/1.1 503 Busy\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbusy\r\n")
    assert first.ended == "aborted"
    here.target().deliver(answer())
    assert client.take().startswith(b"HTTP/1.1 200 ")
    here.turn()
    assert here.in_flight == 0


ANSWERS = {
    "length": answer(),
    "chunks": CHUNKED_ANSWER,
    "trailers": CHUNKED_ANSWER.replace(b"0\r\n\r\n", b"0\r\nX: 1\r\n\r\n"),
}


@pytest.mark.parametrize("pieces", [1, 2, 50])
@pytest.mark.parametrize("data", ANSWERS.values(), ids=ANSWERS.keys())
@pytest.mark.parametrize("faster", [1, 2])
def test_the_faster_of_two(faster: int, data: bytes, pieces: int) -> None:
    here = world(hedge_delay_seconds=0.5)
    client = here.client()
    client.deliver(request())
    here.target()
    here.wait(0.6)
    here.target()
    first, second = (attempt.transport for attempt in here.connector.attempts)
    assert first is not None
    assert second is not None
    assert second.sent == first.sent
    quick, slow = (first, second) if faster == 1 else (second, first)
    size = -(-len(data) // pieces)
    for start in range(0, len(data), size):
        quick.deliver(data[start : start + size])
    here.turn()
    assert slow.ended == "aborted"
    got = client.take()
    assert got.count(b"HTTP/1.1 200") == 1
    assert got.endswith(data[-5:])
    assert [len(pool.idle) for pool in here.pools.values()] == [faster == 1, faster == 2]
    assert here.in_flight == 0
    client.deliver(request("/fixed"))
    assert client.take().endswith(b"fixed\n"), "the client's connection goes on"
