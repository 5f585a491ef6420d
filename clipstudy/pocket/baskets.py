"""Rows of one data set, collected until every class of every split is full, no text twice."""

from __future__ import annotations

import random
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

#: SentEval's names of the splits.
SPLITS = ("tr", "va", "te")


@dataclass(frozen=True)
class Sizes:
    """Rows of each data set. A test split of 2,000 has a standard error of 1.1 points at most."""

    train: int = 4000
    dev: int = 1000
    test: int = 2000

    @property
    def all(self) -> tuple[int, int, int]:
        return self.train, self.dev, self.test


class Row(NamedTuple):
    text: tuple[str, ...]
    label: str
    cell: Hashable = None  #: what is balanced, where it is finer than the label
    split: str = ""  #: where the row has to go; anywhere, where empty


class Basket:
    """Quotas of (cell, split), and the rows that filled them.

    Args:
        shares: how much of a split each cell gets, relative to the others.
    """

    def __init__(self, shares: Mapping[Hashable, float], sizes: Sequence[int], seed: str) -> None:
        self.rows: dict[str, list[Row]] = {split: [] for split in SPLITS}
        self._random = random.Random(f"basket/{seed}")
        self._left = {
            (cell, split): n
            for split, size in zip(SPLITS, sizes, strict=True)
            for cell, n in zip(shares, _shared_out(size, list(shares.values())), strict=True)
        }
        self._seen: set[tuple[str, ...]] = set()
        self.missing = sum(self._left.values())

    def offer(self, row: Row) -> bool:
        """Keep the row where there is room for it, and say whether it was kept."""
        cell = row.label if row.cell is None else row.cell
        room = {split: self._left.get((cell, split), 0) for split in ([row.split] if row.split else SPLITS)}
        total = sum(room.values())
        if total == 0 or row.text in self._seen:
            return False
        at = self._random.random() * total
        split = next(iter(room))
        for split, n in room.items():  # noqa: B007 - the last one where rounding leaves a rest
            at -= n
            if n and at < 0:
                break
        self._seen.add(row.text)
        self._left[cell, split] -= 1
        self.missing -= 1
        self.rows[split].append(row)
        return True

    def lines(self) -> list[str]:
        """``split<TAB>label<TAB>text``, each split in random order."""
        found = []
        for split, rows in self.rows.items():
            self._random.shuffle(rows)
            found += [f"{split}\t{row.label}\t{' '.join(row.text)}" for row in rows]
        return found


def _shared_out(size: int, shares: Sequence[float]) -> list[int]:
    """``size`` as whole numbers in proportion to ``shares``, by largest remainder."""
    total = sum(shares)
    exact = [size * share / total for share in shares]
    whole = [int(x) for x in exact]
    for at in sorted(range(len(shares)), key=lambda i: (whole[i] - exact[i], i))[: size - sum(whole)]:
        whole[at] += 1
    return whole
