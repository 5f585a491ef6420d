"""K-means over seeds, by scikit-learn."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning


def kmeans(
    vectors: np.ndarray, k: int, seeds: Sequence[int], *, n_init: int = 10, fit_rows: int | None = None
) -> np.ndarray:
    """Cluster numbers of all rows for each seed: int32 ``[S, n]``.

    Args:
        vectors: ``[n, d]``.
        k: clusters; fewer where there are fewer distinct rows.
        n_init: k-means++ initialisations a seed, the best inertia kept (pinned: its default changed over versions).
        fit_rows: fit on the first so many rows, and only assign the others.
    """
    fitted = vectors[:fit_rows]
    assigned = np.empty((len(seeds), len(vectors)), dtype=np.int32)
    for row, seed in enumerate(seeds):
        model = KMeans(n_clusters=k, n_init=n_init, random_state=seed, algorithm="lloyd")
        with warnings.catch_warnings():
            # Fewer distinct rows than clusters: scikit-learn warns and leaves clusters empty, which is what we want.
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(fitted)
        assigned[row] = model.predict(vectors)
    return assigned
