"""Seeded draws that keep count of how surprising they were, so that a grammar knows its own entropy."""

from __future__ import annotations

import math
import random
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from typing import Generic, TypeVar

T = TypeVar("T")


class Table(Generic[T]):
    """Things to draw from, with their weights."""

    def __init__(self, weights: Mapping[T, float] | Iterable[tuple[T, float]]) -> None:
        pairs = list(weights.items()) if isinstance(weights, Mapping) else list(weights)
        total = math.fsum(weight for _, weight in pairs)
        self.items: tuple[T, ...] = tuple(item for item, _ in pairs)
        self.shares: tuple[float, ...] = tuple(weight / total for _, weight in pairs)
        # The last bound is left out: whatever lies beyond the one before it is the last item, rounding or not.
        self.bounds: tuple[float, ...] = tuple(accumulate(self.shares))[:-1]
        self.nats: tuple[float, ...] = tuple(-math.log(share) for share in self.shares)


def zipf(items: Sequence[T], shift: float = 2.0) -> Table[T]:
    """Weights 1 / (rank + shift), rank from 0 (Mandelbrot's form of Zipf's law)."""
    return Table([(item, 1 / (rank + shift)) for rank, item in enumerate(items)])


class Dice:
    """Draws from one seed. Only ``random.Random.random`` is used: Python promises that it never changes."""

    def __init__(self, seed: int | str) -> None:
        self._random = random.Random(seed).random
        self.nats = 0.0  #: minus the log-probability of all draws so far

    def pick(self, table: Table[T]) -> T:
        at = bisect_right(table.bounds, self._random())
        self.nats += table.nats[at]
        return table.items[at]

    def chance(self, probability: float) -> bool:
        if probability <= 0.0:
            return False
        hit = self._random() < probability
        if probability < 1.0:
            self.nats -= math.log(probability if hit else 1.0 - probability)
        return hit

    def below(self, count: int) -> int:
        """An integer from 0 to ``count`` − 1, all equally likely."""
        self.nats += math.log(count)
        return int(self._random() * count)
