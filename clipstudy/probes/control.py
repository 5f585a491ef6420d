"""Control tasks: what a probe can learn by heart (Hewitt & Liang 2019, EMNLP)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np


def control_labels(types: Sequence[str], labels: np.ndarray, n_classes: int, seed: int = 0) -> np.ndarray:
    """A label for each type, drawn from the empirical distribution of ``labels``: int64 ``[n]``.

    The draw is a hash of (seed, type), so a type has one label in every split, in any order. A probe can only learn
    such labels by heart; the task's accuracy minus this one's is its selectivity.
    """
    shares = np.bincount(labels, minlength=n_classes) / len(labels)
    edges = np.cumsum(shares)
    drawn = {kind: int(np.searchsorted(edges, _uniform(seed, kind), side="right")) for kind in set(types)}
    return np.array([min(drawn[kind], n_classes - 1) for kind in types], dtype=np.int64)


def _uniform(seed: int, kind: str) -> float:
    """A number in [0, 1) that depends on (seed, kind) alone, on every machine."""
    digest = hashlib.sha256(f"{seed}\0{kind}".encode()).digest()
    return int.from_bytes(digest[:7]) / 2**56
