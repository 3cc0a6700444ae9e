"""``maglev`` and ``rendezvous``: the same key goes to the same target, whichever worker takes the request.

Both know only the targets' names and weights, so all workers, and those of other machines, agree without a word.  When
a target leaves, its keys are spread over the others and (nearly) no other key moves.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from functools import lru_cache
from math import ceil, log

from lbproxy.dataplane.balancer.base import Balancer, Circumstances
from lbproxy.dataplane.balancer.hashkey import hash_of, key_function
from lbproxy.dataplane.router.request import RoutableRequest
from lbproxy.model.target import RegisteredTarget

TABLE_SIZE = 16381
"""Places in a Maglev table, a prime.  For 100 targets the shares are even to a few per cent, and a table is filled in
some milliseconds (D. Eisenbud et al., "Maglev", NSDI 2016, section 3.4, has 65537 for a fleet of hundreds)."""

_MASK = (1 << 64) - 1


class Hashing(Balancer):
    """Walks the targets in an order that the key decides; with a balance factor, over those that are too busy.

    A request without the key takes its turn as in round robin.
    """

    __slots__ = ("_factor", "_total_weight", "key", "key_of")

    def __init__(self, circumstances: Circumstances) -> None:
        super().__init__(circumstances)
        self.key = circumstances.group.hash_key
        self.key_of = key_function(self.key)
        self._factor = circumstances.group.hash_balance_factor / 100.0
        self._total_weight = sum(self.weights)

    @abstractmethod
    def preferred(self, key: int) -> int:
        """The index of the target that this key (64 bits) leads to."""

    @abstractmethod
    def order(self, key: int) -> Iterator[int]:
        """All indexes, the preferred one first; some may come more than once."""

    def pick(self, request: RoutableRequest | None, source: str) -> RegisteredTarget | None:
        if not self.targets:
            return None
        key = self._hash(request, source)
        if self._factor:
            return self.targets[self._with_room(key)]
        return self.targets[self.preferred(key)]

    def others(
        self, first: RegisteredTarget, request: RoutableRequest | None, source: str
    ) -> Iterator[RegisteredTarget]:
        """On in the key's order, so that a key has the same second target each time."""
        tried = {first.cell}
        left = sum(target.cell != first.cell for target in self.targets)
        order = self.order(self._hash(request, source)) if left else iter(())
        while left:  # a table has many places of each, so its end is not what to wait for
            target = self.targets[next(order)]
            if target.cell not in tried:
                tried.add(target.cell)
                left -= 1
                yield target

    def _hash(self, request: RoutableRequest | None, source: str) -> int:
        key = self.key_of(request, source)
        return hash_of(b"%d" % self._next_position() if key is None else key)

    def _with_room(self, key: int) -> int:
        """The first target in the key's order that stays within its share of what is in flight, times the factor.

        There always is one (V. Mirrokni et al., "Consistent hashing with bounded loads", 2016).
        """
        loads = [self.in_flight(target.cell) for target in self.targets]
        allowed = self._factor * (sum(loads) + 1) / self._total_weight
        for index in self.order(key):
            if loads[index] < ceil(allowed * self.weights[index]):
                return index
        return self.preferred(key)


class Maglev(Hashing, algorithm="maglev"):
    """Looks the key up in a table: the cost does not depend on how many targets there are."""

    __slots__ = ("_table",)

    def __init__(self, circumstances: Circumstances) -> None:
        super().__init__(circumstances)
        self._table = maglev_table(tuple(target.target.key for target in self.targets), self.weights)

    def preferred(self, key: int) -> int:
        return self._table[key % TABLE_SIZE]

    def order(self, key: int) -> Iterator[int]:
        table = self._table
        start = key % TABLE_SIZE
        yield from table[start:]
        yield from table[:start]


class Rendezvous(Hashing, algorithm="rendezvous"):
    """Each target draws a number for the key and the highest wins: exactly the keys of a target that left move.

    The cost grows with the number of targets (D. Thaler and C. Ravishankar, 1998; weights as in Schindelhauer and
    Schomaker, "Weighted distributed hash tables", 2005).
    """

    __slots__ = ("_seeds", "_unweighted")

    def __init__(self, circumstances: Circumstances) -> None:
        super().__init__(circumstances)
        self._seeds = [hash_of(target.target.key.encode()) for target in self.targets]
        self._unweighted = len(set(self.weights)) <= 1

    def preferred(self, key: int) -> int:
        if self._unweighted:
            numbers = [_mix(key ^ seed) for seed in self._seeds]
            return numbers.index(max(numbers))
        scores = self._scores(key)
        return scores.index(max(scores))

    def order(self, key: int) -> Iterator[int]:
        scores = self._scores(key)
        return iter(sorted(range(len(scores)), key=lambda index: -scores[index]))

    def _scores(self, key: int) -> list[float]:
        return [
            -weight / log((_mix(key ^ seed) + 1) / (_MASK + 2))
            for seed, weight in zip(self._seeds, self.weights, strict=True)
        ]


def _mix(value: int) -> int:
    """Spread each bit over all 64 (the finisher of MurmurHash3, a public-domain design by A. Appleby)."""
    value ^= value >> 33
    value = value * 0xFF51AFD7ED558CCD & _MASK
    value ^= value >> 33
    value = value * 0xC4CEB9FE1A85EC53 & _MASK
    return value ^ value >> 33


@lru_cache(maxsize=64)
def maglev_table(names: tuple[str, ...], weights: tuple[int, ...]) -> Sequence[int]:
    """The table: indexes of ``names``, each about as often as its weight says.

    Each name has its own order of the places and takes the first free one whenever its turn comes.
    The same table serves again when a target comes back.
    """
    if not names:
        return ()
    table = [-1] * TABLE_SIZE
    places = []
    skips = []
    for name in names:
        number = hash_of(name.encode())
        places.append(number % TABLE_SIZE)
        skips.append((number >> 32) % (TABLE_SIZE - 1) + 1)
    heaviest = max(weights)
    credits = [0] * len(names)
    left = TABLE_SIZE
    while True:
        for index, weight in enumerate(weights):
            credits[index] += weight
            if credits[index] < heaviest:
                continue
            credits[index] -= heaviest
            place, skip = places[index], skips[index]
            while table[place] >= 0:
                place = (place + skip) % TABLE_SIZE
            table[place] = index
            places[index] = place
            left -= 1
            if not left:
                return table
