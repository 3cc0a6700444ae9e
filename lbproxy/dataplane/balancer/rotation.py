"""The order in which weighted targets take turns."""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heappop, heappush
from math import gcd

MAX_ORDER_LENGTH = 10_000
"""Longest rotation kept for a weighted group (one pointer each); larger weights are scaled down to it."""


def smooth_order(weights: Sequence[int]) -> list[int]:
    """A rotation in which index ``i`` appears ``weights[i]`` times (over their common divisor), well spread.

    After any number of steps each index has appeared as often as its share says, to within one
    (R. Tijdeman, "The chairman assignment problem", 1980).  nginx's smooth round robin does the
    same without that bound, and in time proportional to length times targets, which is
    seconds where this takes milliseconds.  Equal weights give a plain rotation.
    """
    divisor = gcd(*weights) or 1
    counts = [weight // divisor for weight in weights]
    length = sum(counts)
    if length > MAX_ORDER_LENGTH:
        counts = [max(1, count * MAX_ORDER_LENGTH // length) for count in counts]
        length = sum(counts)
    # The n-th turn of an index may come no sooner than n shares of the way, and must by n + 1.
    # Of those that may, the one that must first goes first.
    waiting: list[list[int]] = [[] for _ in range(length + 1)]
    waiting[0] = list(range(len(counts)))
    turns = [0] * len(counts)
    due: list[tuple[int, int]] = []
    order: list[int] = []
    for step in range(length):
        for index in waiting[step]:
            heappush(due, (-(-(turns[index] + 1) * length // counts[index]), index))
        _, index = heappop(due)
        order.append(index)
        turns[index] += 1
        waiting[turns[index] * length // counts[index]].append(index)
    return order
