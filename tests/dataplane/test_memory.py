"""Memory is given back when most of a crowd has gone."""

from __future__ import annotations

import pytest

from lbproxy.dataplane.memory import CROWD, Crowd, find_trim


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ([CROWD - 1, 0], 0),
        ([CROWD, 0], 1),
        ([CROWD, 0, 0, CROWD, 0], 2),
        ([4 * CROWD, 3 * CROWD, 2 * CROWD], 0),
        ([4 * CROWD, 3 * CROWD, 2 * CROWD - 1], 1),
        ([100 * CROWD, 40 * CROWD, 30 * CROWD, 19 * CROWD, 0], 3),
        ([0, 10, 2, 500, 0], 0),
    ],
)
def test_memory_is_given_back_once_for_each_crowd(counts: list[int], expected: int) -> None:
    given: list[None] = []
    crowd = Crowd(lambda: given.append(None))
    for count in counts:
        crowd.look(count)
    assert len(given) == expected


def test_the_systems_function_can_be_called() -> None:
    find_trim()()
