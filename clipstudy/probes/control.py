"""Control tasks: labels that hold no linguistics, so that what a probe scores on them is memory alone.

Hewitt & Liang (EMNLP 2019): each word *type* gets one label at random, drawn from the task's own label
distribution. Selectivity is the task's accuracy minus the control's. For a task on sentences the type is the first
word's: a label a sentence would never come again in test, and selectivity would only restate accuracy.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np


def control_labels(types: Sequence[str], labels: np.ndarray, n_classes: int, *, seed: int = 0) -> np.ndarray:
    """A control label for every row: int64 ``[n]``. All rows of one type have the same, in every split, so only a probe
    that learns types by heart can know it.

    A type's label is a function of (seed, type, distribution) alone: neither the order of the rows nor which other
    types there are changes it.

    Args:
        types: the type of every row, ``[n]``.
        labels: the task's own *training* labels, whose distribution the control's are drawn from.
    """
    counts = np.bincount(labels, minlength=n_classes)
    edges = np.cumsum(counts) / counts.sum()
    drawn = {word: np.searchsorted(edges, _point(seed, word), side="right") for word in set(types)}
    return np.array([drawn[word] for word in types], dtype=np.int64)


def share_seen(train: Sequence[str], test: Sequence[str]) -> float:
    """Share of the test rows whose type occurs in train: as much as memory can serve."""
    known = set(train)
    return sum(word in known for word in test) / max(len(test), 1)


def _point(seed: int, word: str) -> float:
    """A number in [0, 1), uniform over words."""
    digest = hashlib.blake2b(f"{seed}\0{word}".encode(), digest_size=6).digest()
    return int.from_bytes(digest) / 2**48
